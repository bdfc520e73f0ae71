"""`foreworld train`: signals, resuming with other settings, a folder in use, sinks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from foreworld.cli.main import main
from foreworld.cli.train import show
from foreworld.core.files import lock_folder
from foreworld.train import load_run
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.log import Display, read_metrics
from foreworld.train.videos import list_videos

SMALL = ["--model.deter", "16", "--model.units", "8", "--model.latents", "2", "--fit.length", "8", "--fit.batch", "4"]

ALONE = """
import signal, sys
from foreworld.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""
"""A process of its own, in which SIGINT is not ignored even if this one was started in the background."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a run of two updates."""
    folder = tmp_path_factory.mktemp("train")
    assert main(["collect", "--env", "CartPole-v1", "--episodes", "20", "--out", str(folder / "data")]) == 0
    assert main(start(folder, folder / "run", "--steps", "2")) == 0
    return folder


def start(world: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(world / "data"), "--out", str(out), "--no-clips", *SMALL, *more]


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a verb that must refuse, and return its one line."""
    capsys.readouterr()
    assert main(list(args)) == 2
    caught = capsys.readouterr()
    lines = [line for line in caught.err.splitlines() if line.startswith("foreworld")]
    assert len(lines) == 1 and "Traceback" not in caught.err
    return lines[0]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_training_with_a_checkpoint_and_says_how_to_go_on(
    world: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "a run"
    command = start(world, out, "--steps", "100000", "--fit.log-every", "1", "--json")
    child = subprocess.Popen(
        [sys.executable, "-c", ALONE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not read_metrics(out / "metrics.jsonl") and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(number)
    printed, said = child.communicate(timeout=60)
    assert child.returncode == code, said
    found = json.loads(printed)
    assert found["interrupted"] is True
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"foreworld train: stopped at step {found['steps']}, checkpoint saved; ")
    assert last.endswith(f"; go on with: foreworld train --resume '{out}'")
    assert list_checkpoints(out / "checkpoints")[-1].name == f"{found['steps']:08d}"
    assert "Traceback" not in said
    assert main(["train", "--resume", str(out), "--steps", str(found["steps"] + 1)]) == 0


def test_resuming_alone_restores_everything(world: Path, tmp_path: Path) -> None:
    flags = ["--fit.lr", "0.01", "--fit.save-every", "2", "--fit.optimizer", "adamw", "--fit.log-every", "1"]
    assert main(start(world, tmp_path / "whole", "--steps", "4", "--seed", "3", *flags)) == 0
    # what a crash leaves: metrics that are ahead of the newest checkpoint
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "00000004")
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    runs = [tmp_path / name for name in ("whole", "cut")]
    newest = [list_checkpoints(run / "checkpoints")[-1] for run in runs]
    for file in ("model.safetensors", "training.safetensors"):
        assert (newest[0] / file).read_bytes() == (newest[1] / file).read_bytes()
    losses = [[line["loss/obs"] for line in read_metrics(run / "metrics.jsonl")] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_dotted_settings_can_change_and_are_said_and_recorded(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main(start(world, run, "--steps", "2")) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--steps", "4", "--fit.lr", "0.002", "--fit.weight-decay", "0.1"]) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"settings differ from the run's: .*steps 2 -> 4.*lr 0\.0015 -> 0\.002.*weight_decay 0\.0 -> 0\.1", said
    )
    stored = json.loads((run / "config.json").read_text())
    assert stored["history"] == [
        {"step": 2, "fit": {"steps": [2, 4], "lr": [0.0015, 0.002], "weight_decay": [0.0, 0.1]}}
    ]
    assert main(["train", "--resume", str(run), "--model.deter", "16"]) == 0
    assert json.loads((run / "config.json").read_text())["history"] == stored["history"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.deter", "32"], r"architecture of a trained run cannot change \(deter 16 -> 32\); leave out --model"),
        (["--fit.optimizer", "adamw"], r"fit\.optimizer cannot change"),
        (["--out", "elsewhere"], "--out cannot be given with --resume"),
        (["--size", "1m"], "--size cannot be given with --resume"),
        (["--heldout-by", "time"], "--heldout-by cannot be given with --resume"),
        (["--overwrite"], "--overwrite cannot be given with --resume"),
        (["--fit.batch", "0"], r"fit\.batch must be at least 1"),
        (["--sink", "tensorbord"], "did you mean 'tensorboard'"),
    ],
)
def test_what_cannot_change_is_refused_in_one_sentence(
    world: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    before = (world / "run" / "config.json").read_bytes()
    assert re.search(words, complaint(capsys, "train", "--resume", str(world / "run"), *flags))
    assert (world / "run" / "config.json").read_bytes() == before


def test_data_that_moved_is_found_again_and_other_data_refused(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, here, there = tmp_path / "run", tmp_path / "here", tmp_path / "there"
    shutil.copytree(world / "data", here)
    assert main(["train", "--data", str(here), "--out", str(run), "--steps", "1", *SMALL]) == 0
    here.rename(there)
    assert str(here) in complaint(capsys, "train", "--resume", str(run), "--steps", "2")
    assert main(["train", "--resume", str(run), "--steps", "2", "--data", str(there)]) == 0
    assert main(["collect", "--env", "CartPole-v1", "--episodes", "3", "--out", str(tmp_path / "other")]) == 0
    other = ["train", "--resume", str(run), "--data", str(tmp_path / "other")]
    assert "other data than the run" in complaint(capsys, *other)


def test_a_run_in_use_is_neither_resumed_nor_replaced(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in (world / "run").iterdir())
    with lock_folder(world / "run"):
        assert f"process {os.getpid()}" in complaint(capsys, "train", "--resume", str(world / "run"), "--steps", "3")
        again = start(world, world / "run", "--steps", "1", "--overwrite")
        assert f"process {os.getpid()}" in complaint(capsys, *again)
    assert set(before) <= {path.name for path in (world / "run").iterdir()}


def test_a_missing_package_is_found_before_an_old_run_is_replaced(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = list_checkpoints(world / "run" / "checkpoints")
    again = start(world, world / "run", "--steps", "1", "--overwrite", "--sink", "wandb")
    assert "pip install 'foreworld[wandb]'" in complaint(capsys, *again)
    assert list_checkpoints(world / "run" / "checkpoints") == before


def test_dreams_are_filmed_unless_they_cannot_be_or_are_not_wanted(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")

    def filmed(out: str, *flags: str) -> list[str]:
        command = start(world, tmp_path / out, "--steps", "2", "--fit.save-every", "1", *flags)
        assert main([flag for flag in command if flag != "--no-clips"]) == 0
        return [path.name for path in list_videos(tmp_path / out)]

    assert filmed("run") == ["00000001.mp4", "00000002.mp4"]
    assert filmed("all", "--heldout", "0") == []
    for more, names in ((["--steps", "3", "--no-clips"], [1, 2]), (["--steps", "4"], [1, 2, 4])):
        assert main(["train", "--resume", str(tmp_path / "run"), *more]) == 0
        assert [int(path.stem) for path in list_videos(tmp_path / "run")] == names
    monkeypatch.setitem(sys.modules, "av", None)
    assert filmed("poor") == []


def test_the_display_says_what_holds_up_training(capsys: pytest.CaptureFixture[str]) -> None:
    report = show(Display("train", "updates", clock=iter(range(100)).__next__))
    rows: list[dict[str, float]] = [
        {"seconds": 10.0, "data_wait": 1.0, "skipped": 0, "loss/obs": 2.0},
        {"seconds": 20.0, "data_wait": 6.0, "skipped": 3, "rollbacks": 1, "loss/obs": 1.0},
    ]
    for step in range(1, 9):
        report(step, 8, rows[step > 5] if step in (2, 6) else {})
    first, last = capsys.readouterr().err.splitlines()
    assert first == "train: 5/8 updates, 1 updates/s, 3 s left, 10% waiting for data, obs 2"
    assert last == "train: 8/8 updates, 1 updates/s, 50% waiting for data, 3 skipped, 1 returns to a checkpoint, obs 1"


def test_a_run_that_cannot_go_on_exits_with_2_and_names_the_term(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # weights far beyond what float32 can square
    run = tmp_path / "run"
    args = start(
        world, run, "--steps", "300", "--fit.lr", "1e30", "--fit.warmup", "1", "--fit.agc", "0", "--fit.max-skips", "2"
    )
    said = complaint(capsys, *args)
    found = re.search(
        r"(loss|gradient|total)\S* was NaN or infinite in 2 updates in a row.*lower the .* \(--fit\.lr", said
    )
    assert found
    assert read_metrics(run / "metrics.jsonl")[-1]["rollbacks"] == 3
    assert torch.isfinite(torch.tensor(read_metrics(run / "metrics.jsonl")[-1]["skipped"]))


def test_an_ensemble_takes_sizes_and_settings_of_its_members(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, run = ["--data", str(world / "data")], tmp_path / "run"
    more = ["--model.member=linear", "--size", "wide", "--model.members", "2", "--model.each.window", "3"]
    assert main(["train", "--preset", "ensemble", *more, "--model.bootstrap", *data, "--out", str(run)]) == 0
    stored = json.loads((run / "config.json").read_text())
    each = {"window": 3, "components": 256, "fit": "ridge", "frames": 3000}
    assert stored["model"] == {"member": "linear", "members": 2, "each": each, "bootstrap": True}
    assert (stored["family"], stored["fit"]["steps"]) == ("ensemble", 0)
    assert main(["train", "--resume", str(run)]) == 0
    said = complaint(capsys, "train", "--resume", str(run), "--model.each.window", "4")
    assert "cannot change (each.window 3 -> 4)" in said
    assert "must be the RSSMConfig" in complaint(capsys, "train", "--resume", str(run), "--model.member", "rssm")
    other = ["--model.member", "linear", "--size", "12m", *data, "--out", str(tmp_path / "other")]
    assert "unknown size of ensemble '12m'" in complaint(capsys, "train", "--preset", "ensemble", *other)
    assert not (tmp_path / "other").exists()


def test_an_ensemble_begins_with_the_encoder_of_one_run_and_plans_by_its_spread(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, single, run = (str(tmp_path / name) for name in ("data", "single", "run"))
    maze = ["--env", "foreworld/PointMaze-v0", "--episodes", "6", "--max-steps", "12"]
    assert main(["collect", *maze, "--out", data]) == 0
    few = ["--data", data, "--steps", "3", "--fit.batch", "4", "--no-clips"]
    assert main(["train", "--preset", "jepa", "--model.latent", "4", *few, "--out", single]) == 0
    each = ["--preset", "ensemble", "--model.member", "jepa", "--model.members", "2", "--init", single, *few]
    said = complaint(capsys, "train", *each, "--model.each.latent", "4", "--out", run)
    assert "must begin apart" in said and "--model.each.encoder frozen" in said
    each += ["--model.each.encoder", "frozen"]
    assert "frozen and needs all of it" in complaint(capsys, "train", *each, "--model.each.latent", "5", "--out", run)
    assert not (tmp_path / "run").exists()
    assert main(["train", *each, "--model.each.latent", "4", "--out", run]) == 0
    assert f"tensors are those of {single}" in capsys.readouterr().err
    model, source = load_run(run).model, load_run(single).model
    for member in model.models:
        for name, value in source.encoder.state_dict().items():
            assert torch.equal(value, member.encoder.state_dict()[name])
    short = ["--episodes", "2", "--max-steps", "4", "--candidates", "8", "--iterations", "2", "--elites", "2"]
    scores = []
    for weight in ("0", "1"):
        aim = ["--goal", "own", "--objective.spread", weight, "--horizon", "3", "--json"]
        assert main(["plan", "--run", run, *short, *aim]) == 0
        scores.append(json.loads(capsys.readouterr().out)["measure"])
    assert scores == ["success", "success"]
