"""The verbs `agent` and `act`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foreworld.cli.main import main
from foreworld.core import to_json
from foreworld.presets.agents import PRESETS
from foreworld.train.run import read_config

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN = ["agent", "--env", "CartPole-v1", "--quick", "--steps", "110", "--online.train-ratio", "16"]


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_agent_is_trained_resumed_judged_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    first = answer(capsys, *TRAIN, "--out", run)
    assert first["steps"] == 110 and not first["interrupted"]
    name = f"{int(str(first['updates'])):08d}"
    assert {f"{name}.mp4", f"{name}-episode.mp4"} <= {path.name for path in (tmp_path / "run" / "videos").iterdir()}
    more = answer(capsys, "agent", "--resume", run, "--steps", "120")
    assert more["steps"] == 120 and int(str(more["updates"])) > int(str(first["updates"]))
    assert answer(capsys, "inspect", run)["state hash"] == more["state_hash"] != first["state_hash"]
    whole = answer(capsys, *TRAIN, "--steps", "120", "--out", str(tmp_path / "whole"))
    assert whole["state_hash"] == more["state_hash"]
    played = answer(
        capsys, "act", "--run", run, "--episodes", "5", "--mode", "sample", "--out", str(tmp_path / "played")
    )
    assert played["episodes"] == 5 and played["mode"] == "sample"
    mean = float(str(played["mean_return"]))
    assert float(str(played["ci_low"])) <= mean <= float(str(played["ci_high"])) and 5 < mean <= 500
    assert main([*TRAIN, "--out", run]) == 2 and "overwrite" in capsys.readouterr().err
    again = answer(capsys, *TRAIN, "--out", run, "--overwrite")
    assert again["updates"] == first["updates"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["agent"], "--env and --out are needed"),
        (["agent", "--env", "CartPole-v1", "--out", "{}", "--preset", "clasic"], "did you mean 'classic'"),
        (["agent", "--env", "CartPole-v1", "--out", "{}", "--size", "huge"], "unknown size"),
        (["agent", "--env", "CartPole-v1", "--out", "{}", "--preset", "atari100k"], "a protocol for ALE/..."),
        (["agent", "--env", "CartPole-v9", "--out", "{}"], "CartPole-v9"),
        (["agent", "--env", "CartPole-v1", "--out", "{}", "--env-options", "[1]"], "names with values"),
        (["agent", "--env", "CartPole-v1", "--out", "{}", "--online.prefill", "9", "--online.length", "1"], "length"),
        (["agent", "--resume", "{}"], "not a run folder"),
        (["act", "--run", "{}"], "not a run folder"),
        (["act", "--run", "{}", "--episodes", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(tmp_path / "run") for part in argv]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("argv", "preset"),
    [
        (["--env", "foreworld/Catch-v0"], "pixels"),
        (["--env", "foreworld/Catch-v0", "--preset", "classic"], "classic"),
        (["--env", "CartPole-v1"], "classic"),
    ],
)
def test_the_preset_fits_what_the_environment_shows(
    argv: list[str], preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--steps", "12", "--online.prefill", "10", "--online.length", "4", "--no-clips"]
    answer(capsys, "agent", *argv, *few, "--out", str(tmp_path / "run"))
    assert read_config(tmp_path / "run")["model"] == to_json(PRESETS[preset].model)


def test_the_example_of_ones_own_environment_trains_and_acts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    run, few = str(tmp_path / "run"), ["--steps", "60", "--online.prefill", "55", "--online.length", "4"]
    found = answer(capsys, "agent", "--env", "centre:Centre", *few, "--out", run)
    assert found["episodes"] == 1 and int(str(found["updates"])) > 0
    kept = read_config(tmp_path / "run")["spec"]["obs"]
    assert {key: space["kind"] for key, space in kept.items()} == {"camera": "image", "place": "vector"}
    assert main(["act", "--run", run]) == 2 and "--env" in capsys.readouterr().err
    played = answer(capsys, "act", "--run", run, "--env", "centre:Centre", "--episodes", "2")
    assert 0 < float(str(played["mean_return"])) < 50


def test_what_a_run_was_begun_with_cannot_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    answer(capsys, *TRAIN, "--out", run)
    for flags, said in (
        (["--agent.horizon", "3"], "horizon 15 -> 3"),
        (["--model.deter", "64"], "deter 256 -> 64"),
        (["--size", "1m"], "--size cannot be given"),
    ):
        assert main(["agent", "--resume", run, *flags]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_prints_the_same_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    flags = [*TRAIN, "--online.log-every", "1"]
    whole = answer(capsys, *flags, "--out", str(tmp_path / "whole"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "foreworld.cli", *flags, "--out", run])
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert answer(capsys, "agent", "--resume", run)["state_hash"] == whole["state_hash"]
    assert answer(capsys, "inspect", run)["state hash"] == whole["state_hash"]
