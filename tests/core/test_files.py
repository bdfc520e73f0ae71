"""Sealed folders are whole or absent, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreworld.core.errors import DataError, OutputExists
from foreworld.core.files import MANIFEST, read_json, sealed_folder, sweep_partial, verify_folder, write_json


def seal(path: Path) -> Path:
    with sealed_folder(path) as partial:
        (partial / "a.bin").write_bytes(b"hello")
        (partial / "deep").mkdir()
        (partial / "deep" / "b.bin").write_bytes(b"world")
    return path


def test_a_sealed_folder_verifies(tmp_path: Path) -> None:
    assert verify_folder(seal(tmp_path / "x")) == {"a.bin": 5, "deep/b.bin": 5}
    with pytest.raises(OutputExists), sealed_folder(tmp_path / "x"):
        pass


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sealed_folder(tmp_path / "x") as partial:
        (partial / "a").write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "a.bin").write_bytes(b"hellO"), r"a\.bin.*damaged"),
        (lambda f: (f / "a.bin").write_bytes(b"hell"), r"a\.bin.*4 bytes where 5"),
        (lambda f: (f / "a.bin").unlink(), r"a\.bin.*missing"),
        (lambda f: (f / "new").write_bytes(b""), "new.*not listed"),
        (lambda f: (f / MANIFEST).write_text("{"), "not readable as JSON"),
        (lambda f: (f / MANIFEST).write_text('{"files": {"../x": {"bytes": 1, "sha256": ""}}}'), "not valid"),
        (lambda f: (f / MANIFEST).write_text("[" * 100_000), "not readable as JSON"),
    ],
)
def test_damage_is_refused_and_named(harm, words: str, tmp_path: Path) -> None:  # noqa: ANN001
    folder = seal(tmp_path / "x")
    harm(folder)
    with pytest.raises(DataError, match=words):
        verify_folder(folder)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".partial-1-x").mkdir()
    (tmp_path / ".partial-1-y").write_text("")
    (tmp_path / "kept").write_text("")
    assert len(sweep_partial(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_json_has_no_names_for_what_is_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [1.0, float("inf")]})
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [1.0, None]}
