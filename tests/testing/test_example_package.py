"""The example package adds a family by entry point, and the kit passes on it."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from foreworld_gru.model import GRU, GRUConfig

from foreworld.core import from_json, registry, to_json
from foreworld.core.errors import ConfigError
from foreworld.testing import Check, parametrize_conformance, specs

PROJECT = Path(__file__).parents[2] / "examples" / "third_party_family" / "pyproject.toml"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce the package as an installer would, unless it is installed."""
    if any(point.name == "gru" for point in entry_points(group="foreworld.models")):
        return
    project = tomllib.loads(PROJECT.read_text())["project"]
    folder = tmp_path / f"foreworld_gru-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["foreworld.models"]
    lines = ["[foreworld.models]", *(f"{name} = {value}" for name, value in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_the_registry_finds_the_family_by_its_entry_point() -> None:
    assert "gru" in registry.names("models")
    family = registry.load("models", "gru")
    config = family.config("small")
    assert (family.name, family.config_type) == ("gru", GRUConfig)
    assert isinstance(family.build(specs()["vector_box"], config), GRU)
    assert set(family.fits) == set(family.sizes) == {"tiny", "small"}
    assert from_json(family.config_type, to_json(config)) == config


@parametrize_conformance(lambda spec: GRU(spec, GRUConfig(units=48)), updates=0)
def test_the_family_passes_the_kit(check: Check) -> None:
    check()


def test_a_size_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        GRUConfig(units=0)
