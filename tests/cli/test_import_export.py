"""`foreworld import` and `foreworld export` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreworld.cli.main import main
from foreworld.data import load


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Return a recording of one's own: two episodes as .npz."""
    for number in range(2):
        arrays = {"obs/x": np.arange(10.0)[:, None] + number, "action": np.ones((9, 1)), "reward": np.ones(9)}
        np.savez(tmp_path / f"{number}.npz", **arrays)
    return tmp_path


def test_import_then_export_then_import_gives_the_same(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(recorded / f"{number}.npz") for number in range(2)]
    assert main(["import", *files, "--out", str(recorded / "d"), "--fps", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["episodes"], said["steps"], said["notes"]) == ("npz", 2, 18, [])
    out = ["--out", str(recorded / "x"), "--format", "npz"]
    assert main(["export", "--data", str(recorded / "d"), *out]) == 0
    assert "2 episodes, 18 steps as npz" in capsys.readouterr().err
    assert main(["import", str(recorded / "x"), "--out", str(recorded / "e")]) == 0
    first, second = load(recorded / "d"), load(recorded / "e")
    assert first.schema == second.schema and first.spec.fps == 20
    assert all(np.array_equal(first.column(name), second.column(name)) for name in first.schema.columns)


def test_a_robot_s_demonstrations_with_what_is_lost_as_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "lift.hdf5", "w") as file:
        file["data/demo_0/actions"], file["data/demo_0/obs/arm"] = np.zeros((4, 2)), np.zeros((4, 3))
    assert main(["import", str(tmp_path / "lift.hdf5"), "--out", str(tmp_path / "d")]) == 0
    said = capsys.readouterr().err
    assert "warning: no next_obs, so that the last action has no outcome; it was dropped" in said
    assert "1 episodes, 3 steps of robomimic" in said


def test_bad_input_exits_with_2_and_one_sentence(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "bad.npz").write_bytes(b"PK\x03\x04 not an archive")
    wrong = [
        (["import", str(recorded / "bad.npz"), "--out", str(recorded / "d")], "bad.npz: not readable as .npz"),
        (["import", str(recorded / "no.npz"), "--out", str(recorded / "d")], "no.npz: no such file"),
        (["import", str(recorded / "0.npz"), "--out", str(recorded / "d"), "--format", "np"], "did you mean 'npz'"),
        (["import", str(recorded / "0.npz"), "--out", str(recorded / "d"), "--fps", "-1"], "must be positive"),
        (["export", "--data", str(recorded / "no"), "--format", "npz", "--out", str(recorded / "x")], "no such folder"),
    ]
    for args, words in wrong:
        assert main(args) == 2
        said = capsys.readouterr().err.strip()
        assert words in said and said.count("\n") == 0 and "Traceback" not in said
    assert sorted(path.name for path in recorded.iterdir()) == ["0.npz", "1.npz", "bad.npz"]


def test_an_output_that_is_there_is_refused_unless_overwritten(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["import", str(recorded / "0.npz"), "--out", str(recorded / "d")]
    assert main(args) == 0
    assert main(args) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*args, "--overwrite"]) == 0
    export = ["export", "--data", str(recorded / "d"), "--format", "npz", "--out", str(recorded / "x")]
    (recorded / "x").mkdir()
    (recorded / "x" / "thesis.tex").write_text("mine")
    assert main([*export, "--overwrite"]) == 2
    assert "not a folder that foreworld wrote" in capsys.readouterr().err
    assert [path.name for path in (recorded / "x").iterdir()] == ["thesis.tex"]
