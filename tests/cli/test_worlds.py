"""Every bundled world from the command line: collected, checked, trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreworld.cli.main import main
from foreworld.data import load
from foreworld.worlds import WORLDS

SMALL = ["--model.deter", "32", "--model.units", "16", "--model.latents", "4", "--fit.length", "8", "--fit.batch", "4"]
QUICK = ["foreworld/Fork-v0", "foreworld/Linear-v0"]
SELDOM = [f"foreworld/{name}-v0" for name in ("Catch", "PointMaze", "PointMazeLarge", "PointMazeMedium", "PushT")]
SELDOM += ["foreworld/Reach-v0", "foreworld/TwoRooms-v0"]
"""Where sixteen random episodes earn too seldom to tell to which row a reward belongs."""


@pytest.mark.parametrize(
    "env_id", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WORLDS]
)
def test_a_world_is_collected_checked_and_trained_on(
    env_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tmp_path / "data")
    amount = ["--episodes", "50"] if "PushBalls" in env_id else ["--episodes", "16"]
    assert main(["collect", "--env", env_id, *amount, "--image-size", "32", "--out", data]) == 0
    assert (load(data).spec.action is None) == ("no actions" in WORLDS[env_id].about)
    assert load(data).lengths.tolist() == [WORLDS[env_id].steps + 1] * int(amount[1])
    capsys.readouterr()
    assert main(["check", data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and not [one for one in found["findings"] if one["severity"] == "warning"]
    if load(data).spec.action is not None:
        acts, earns = (scan["verdict"] for scan in found["alignments"])
        assert acts == "aligned"
        assert earns in ({"unseen", "absent"} if env_id in SELDOM else {"aligned"})
    for preset, sizes in (("rssm", SMALL), ("linear", ["--fit.calibration", "4"])):
        run = ["train", "--preset", preset, "--data", data, "--steps", "2", "--out", str(tmp_path / preset), *sizes]
        assert main(run) == 0


def test_collecting_a_world_by_steps_and_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "d")
    args = ["collect", "--env", "foreworld/Fork-v0", "--steps", "50", "--keys", "obs", "--out", out, "--json"]
    assert main(args) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"], told["return"]) == (3, 50, 0)
    assert not any(told["faults"].values())
    assert list(load(out).spec.obs) == ["obs"]
    assert main(args) == 2, "it is there already"
    assert main(["collect", "--env", "foreworld/Forks-v0", "--steps", "5", "--out", str(tmp_path / "e")]) == 2
    assert "did you mean 'foreworld/Fork-v0'" in capsys.readouterr().err


def test_worlds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "envs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    others = ["any Gymnasium id", "module:Class", "ALE/...", "crafter/...", "dmc/..."]
    assert [row["id"] for row in rows[:5]] == others
    assert [row["example"] for row in rows[-3:]] == [
        "gym_pusht/PushT-v0", "ogbench/pointmaze-medium-v0", "PointMaze_UMaze-v3"
    ]  # fmt: skip
    assert {row["id"]: row["what it is"] for row in rows[5:-3]} == {name: world.about for name, world in WORLDS.items()}
