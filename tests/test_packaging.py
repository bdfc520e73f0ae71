"""What is shipped: the wheel, its dependencies and the files that state them."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import foreworld

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    """Give the normalised name of a requirement: `Box2D>=2; marker` is `box2d`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def pins() -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith("/METADATA"))))


def test_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {file.relative_to(ROOT / "src") for file in (ROOT / "src" / "foreworld").rglob("*") if file.is_file()}
    caches = {file for file in files if any(part == "__pycache__" or part.startswith(".") for part in file.parts)}
    assert names == {str(file) for file in files - caches}
    assert "foreworld/py.typed" in names


def test_wheel_has_licence_version_and_command(wheel: zipfile.ZipFile, metadata: Message) -> None:
    folder = f"foreworld-{foreworld.__version__}.dist-info"
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert b"foreworld = foreworld.cli.main:main" in wheel.read(f"{folder}/entry_points.txt")
    assert metadata["Version"] == foreworld.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_base_install_is_small_and_torch_has_no_cap() -> None:
    base = {name_of(r): r for r in PROJECT["dependencies"]}
    assert set(base) == {"torch", "numpy", "gymnasium", "safetensors", "einops", "tyro", "rich"}
    assert base["torch"] == "torch>=2.10"
    assert not any("<" in r or "==" in r for r in base.values())


def pieces(requirement: str) -> set[tuple[str, str, str]]:
    """Split a requirement into (name, extra, bounds), one for each extra, without its marker."""
    found = re.fullmatch(r"([\w-]+)(?:\[([^\]]+)\])?([^;]*)(?:;.*)?", requirement)
    assert found, requirement
    return {(name_of(found[1]), extra, found[3].strip()) for extra in (found[2] or "").split(",")}


def test_all_is_every_extra_for_users_but_pusht_and_the_trackers() -> None:
    left_out = {"all", "dev", "pusht", "tensorboard", "trackio", "wandb"}
    single = [requirement for name, group in EXTRAS.items() if name not in left_out for requirement in group]
    assert set().union(*map(pieces, EXTRAS["all"])) == set().union(*map(pieces, single))


def test_constraints_are_exact_portable_and_complete() -> None:
    versions = pins()
    for name, version in versions.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert re.fullmatch(r"\d+(\.\w+)*", version), f"{name}: {version} is not a plain version"
    direct = [r for group in (PROJECT["dependencies"], *EXTRAS.values()) for r in group]
    wanted = {name_of(r) for r in direct} - {"foreworld"}
    assert wanted <= {name_of(name) for name in versions}


def test_nothing_pulls_torchvision_or_a_second_opencv() -> None:
    names = {name_of(name) for name in pins()}
    assert "torchvision" not in names
    assert len([name for name in names if name.startswith("opencv")]) <= 1


def test_citation_and_changelog_know_the_version() -> None:
    assert f"\nversion: {foreworld.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{foreworld.__version__}]" in changelog
