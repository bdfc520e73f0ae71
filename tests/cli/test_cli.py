"""The command line as a user meets it: every verb, and what it says to bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from foreworld.cli.main import VERBS, main
from foreworld.data import load
from foreworld.rollout.policies import RandomPolicy
from foreworld.testing.watching import Trouble
from foreworld.train.log import Display

SMALL = ["--model.deter", "32", "--model.units", "16", "--model.latents", "4", "--fit.length", "8", "--fit.batch", "4"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a run."""
    folder = tmp_path_factory.mktemp("cli")
    assert main(["collect", "--env", "CartPole-v1", "--episodes", "60", "--out", str(folder / "data")]) == 0
    train = ["train", "--data", str(folder / "data"), "--out", str(folder / "run"), "--steps", "3", *SMALL]
    assert main(train) == 0
    return folder


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """Run a verb with --json and return what it printed."""
    capsys.readouterr()
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a verb that must refuse, and return its one line."""
    capsys.readouterr()
    assert main(list(args)) == 2
    caught = capsys.readouterr()
    lines = [line for line in caught.err.splitlines() if line.startswith("foreworld")]
    assert len(lines) == 1 and "Traceback" not in caught.err
    return lines[0]


def test_help_lists_every_verb_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert "foreworld demo" in shown


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_defaults_and_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"foreworld {verb}" in shown
    assert "example:" in shown
    assert "--json" in shown


def test_collect_is_seeded_and_counts_what_it_stored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = [
        answer(capsys, "collect", "--env", "CartPole-v1", "--steps", "80", "--seed", "3", "--out", str(tmp_path / name))
        for name in ("a", "b")
    ]
    assert found[0]["steps"] == 80
    assert found[0]["return"] == found[1]["return"]


def strike(monkeypatch: pytest.MonkeyPatch, signals: list[int]) -> None:
    """Send this process signals when a hundred steps are done."""

    def show(display: Display, done: int, total: int) -> None:
        while done >= 100 and signals:
            signal.raise_signal(signals.pop(0))

    monkeypatch.setattr(Display, "show", show)


@pytest.mark.usefixtures("plain_handlers")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_collection_keeps_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int, code: int
) -> None:
    strike(monkeypatch, [number])
    args = ["collect", "--env", "CartPole-v1", "--steps", "100000", "--out", str(tmp_path / "d")]
    assert main(args) == code
    data = load(tmp_path / "d")
    assert 90 < data.steps < 110
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == f"foreworld collect: stopped early; {data.episodes} episodes are kept in {tmp_path / 'd'}"


@pytest.mark.usefixtures("plain_handlers")
def test_a_second_interrupt_ends_a_collection_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strike(monkeypatch, [signal.SIGINT, signal.SIGINT])
    assert main(["collect", "--env", "CartPole-v1", "--steps", "100000", "--out", str(tmp_path / "d")]) == 130
    assert 0 < load(tmp_path / "d").steps < 95, "finished episodes only"


def test_faults_are_counted_in_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = EnvSpec("Troubled-v0", "foreworld.testing.watching:TroubledEnv")
    monkeypatch.setitem(gym.registry, "Troubled-v0", spec)
    args = ["collect", "--env", "Troubled-v0", "--steps", "60", "--fault-rate", "1"]
    monkeypatch.setattr(
        RandomPolicy, "_draw", lambda self, count: np.where(self._rng.random(count) < 0.1, int(Trouble.SHAPE), 3)
    )
    found = answer(capsys, *args, "--out", str(tmp_path / "d"))
    assert found["faults"]["refused"] > 0 and found["faults"]["hung"] == 0
    assert "'count' is float32 (2,), declared as float32 (3,)" in found["first_fault"]
    assert load(tmp_path / "d").source.options["faults"] == found["faults"]
    assert main([*args, "--out", str(tmp_path / "e")]) == 0
    said = f"cut off by faults: {found['faults']['refused']} refused; the first: {found['first_fault']}"
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("plain_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_a_sound_dataset_and_no_worker(tmp_path: Path, number: int) -> None:
    out = tmp_path / "d"
    command = [sys.executable, "-m", "foreworld.cli.main", "collect", "--env", "CartPole-v1", "--workers"]
    command += ["--steps", "10000000", "--num-envs", "2", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        until = time.monotonic() + 120
        while not (out / "shards" / "000004").exists() and time.monotonic() < until:
            time.sleep(0.05)
        # a kill hits the program alone, whose workers must then end by themselves
        (os.kill if number == signal.SIGKILL else os.killpg)(started.pid, number)
        assert started.stderr is not None
        said = started.stderr.read()  # ends when the last process of the group has closed it
    assert started.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    data = load(out)
    assert len(data.shards) >= 5
    assert number == signal.SIGKILL or f"{data.episodes} episodes are kept" in said


def test_eval_prints_numbers_and_writes_a_report(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eval", "--run", str(world / "run"), "--data", str(world / "data"), "--context", "3", "--horizon", "10"]
    found = answer(capsys, *args)
    assert found["env"] == "CartPole-v1"
    assert found["steps_trained"] == 3
    one = found["horizons"]["1"]
    assert one["skill_ci_low"] <= one["skill"] <= one["skill_ci_high"]
    # CartPole is nearly linear over one step, so the closed form must be close to perfect
    assert one["linear"] < 0.05
    assert found["horizons"]["50"]["model"] is None and "reason" in found["horizons"]["50"]
    page = Path(found["report"]).read_text()
    assert "<svg" in page and "CartPole-v1" in page


def test_imagine_writes_a_video_of_plots(world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import av

    target = tmp_path / "x.mp4"
    args = ["--run", str(world / "run"), "--data", str(world / "data"), "--context", "3", "--horizon", "6"]
    found = answer(capsys, "imagine", *args, "--out", str(target))
    with av.open(str(target)) as video:
        assert len(list(video.decode(video=0))) == 9
    assert found["context"] == 3
    assert "already exists" in complaint(capsys, "imagine", *args, "--out", str(target))


def test_inspect_and_list_tell_what_is_there(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "inspect", str(world / "data"))["episodes"] == 60
    run = answer(capsys, "inspect", str(world / "run"))
    assert (run["family"], run["updates"]) == ("rssm", 3)
    assert {row["family"] for row in answer(capsys, "list")} >= {"rssm", "linear"}
    assert [row["updates"] for row in answer(capsys, "list", "runs", "--folder", str(world))] == [3]


def test_horizon_answers_in_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["horizon", "--per-step-error", "0.01", "--max-error", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["safe_horizon"], found["unbounded"]) == (22, False)
    assert list(found["table"][0]["percent"].values()) == [1.0, 4.9, 9.56, 18.21, 39.5, 63.4]
    assert found["table"][3]["per_step_error"] == pytest.approx(0.00447, abs=1e-5)
    assert main(["horizon", "--per-step-error", "0"]) == 0
    assert "No horizon is too long" in capsys.readouterr().err


def test_train_resumes_and_says_what_changed(world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "--data", str(world / "data"), "--out", run, "--steps", "2", *SMALL]) == 0
    assert answer(capsys, "train", "--resume", run, "--steps", "4")["steps"] == 4
    assert main(["train", "--resume", run, "--steps", "5"]) == 0
    assert "steps 4 -> 5" in capsys.readouterr().err


def test_linear_trains_in_closed_form(world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ["train", "--preset", "linear", "--data", str(world / "data"), "--out", str(tmp_path / "linear")]
    assert answer(capsys, *args)["steps"] == 0
    found = answer(capsys, "eval", "--run", str(tmp_path / "linear"), "--data", str(world / "data"), "--context", "3")
    assert found["horizons"]["1"]["model"] < 0.05


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["colect"], "did you mean 'collect'"),
        (["train", "--preset", "rsm"], "did you mean 'rssm'"),
        (["train", "--preset", "rssm", "--size", "1mm"], "did you mean '1m'"),
        (["train"], "--data and --out are needed"),
        (["train", "--data", "nowhere", "--out", "r"], "nowhere"),
        (["train", "--resume", "nowhere"], "not a run folder"),
        (["collect", "--env", "CartPol-v1", "--episodes", "1", "--out", "d"], "CartPole-v1"),
        (["collect", "--env", "CartPole-v1", "--out", "d"], "either --episodes or --steps"),
        (["eval", "--run", "nowhere", "--data", "nowhere"], "nowhere: not a run folder"),
        (["inspect", "nowhere"], "no such folder"),
    ],
)
def test_bad_input_gets_one_clear_sentence(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in complaint(capsys, *args)
    assert not list(tmp_path.iterdir())


def test_wrong_flags_exit_with_2_and_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["collect", "--envv", "CartPole-v1"])
    assert stop.value.code == 2
    assert "--env" in capsys.readouterr().err


def test_outputs_are_not_overwritten_unless_asked_and_never_when_foreign(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    again = ["collect", "--env", "CartPole-v1", "--episodes", "2", "--out", str(tmp_path / "d")]
    assert main(again) == 0
    assert "already exists" in complaint(capsys, *again)
    assert main([*again, "--overwrite"]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    assert "not a folder that foreworld wrote" in complaint(capsys, *again[:-1], str(tmp_path / "mine"), "--overwrite")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_eval_refuses_data_that_the_run_was_trained_on(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = str(tmp_path / "all")
    args = ["train", "--data", str(world / "data"), "--heldout", "0", "--out", run, "--steps", "1", *SMALL]
    assert main(args) == 0
    assert "trained on all of it" in complaint(capsys, "eval", "--run", run, "--data", str(world / "data"))
