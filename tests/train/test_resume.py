"""Killed, interrupted, resumed: the run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foreworld.core.errors import CheckpointError, ConfigError, InUse, OutputExists
from foreworld.core.files import lock_folder
from foreworld.core.registry import load as find
from foreworld.data import Dataset
from foreworld.train import fit
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.log import read_metrics
from foreworld.train.run import record_change

Make = Callable[..., Any]
TOY: dict[str, Any] = {"batch": 4, "length": 6, "lr": 1e-2, "warmup": 3, "decay": 0.5, "log_every": 2, "save_every": 3}
RSSM: dict[str, Any] = TOY | {"length": 4, "long_share": 0.6, "long_factor": 2, "dream_share": 0.4, "watch": 2}
SMALL = {"deter": 16, "units": 8, "latents": 2, "classes": 3, "layers": 1}
TIMES = ("seconds", "data_wait")


pytestmark = pytest.mark.usefixtures("plain_handlers")


def rssm(data: Dataset) -> Any:
    torch.manual_seed(5)
    family = find("models", "rssm")
    return family.build(data.spec, family.config_type(**SMALL))


def digest(run: Path) -> dict[str, Any]:
    """Hash what a resumed run must share with the uninterrupted one."""
    newest = list_checkpoints(run / "checkpoints")[-1]
    files = {
        name: hashlib.sha256((newest / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "training.safetensors")
    }
    state = json.loads((newest / "state.json").read_text())
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run / "metrics.jsonl")]
    return {**files, "state": {k: v for k, v in state.items() if k != "seconds"}, "rows": rows}


def in_child(work: Callable[[], object]) -> int:
    """Run something in a fork, which has everything imported; return how it ended, as `waitpid` says it."""
    with warnings.catch_warnings():
        # a fork may not be safe beside other threads; the child computes on its own one only
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def killer(after: int) -> Callable[[int, int, dict[str, float]], None]:
    """Return a report function that kills its process, as the kernel would, after an update."""

    def report(step: int, steps: int, line: dict[str, float]) -> None:
        if step == after:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def check_kills(
    make: Callable[[], Any], data: Dataset, folder: Path, kills: list[int], settings: dict[str, Any]
) -> None:
    """Kill a run of its own after each of these updates, resume it, and compare."""
    fit(make(), data, out=folder / "whole", **settings)
    wanted = digest(folder / "whole")
    assert len(wanted["rows"]) == settings["steps"] // settings["log_every"]
    for step in kills:
        out = folder / f"cut-{step}"
        assert (
            in_child(lambda out=out, step=step: fit(make(), data, out=out, report=killer(step), **settings))
            == signal.SIGKILL
        )
        assert in_child(lambda out=out: fit(make(), data, out=out, resume=True)) == 0
        assert digest(out) == wanted, f"killed after update {step}"


@pytest.mark.parametrize("optimizer", ["laprop", "adamw"])
def test_three_kills_leave_no_trace(data: Dataset, tmp_path: Path, optimizer: str) -> None:
    settings = RSSM | {"steps": 10, "save_every": 4, "optimizer": optimizer}
    check_kills(lambda: rssm(data), data, tmp_path, [1, 7, 9], settings)


def test_an_ensemble_goes_on_after_a_kill_as_if_there_had_been_none(data: Dataset, tmp_path: Path) -> None:
    family = find("models", "ensemble")
    config = family.config_type(member="rssm", members=2, each=SMALL, bootstrap=True)

    def ensemble() -> Any:
        torch.manual_seed(5)
        return family.build(data.spec, config)

    check_kills(ensemble, data, tmp_path, [1, 7], RSSM | {"steps": 8, "save_every": 4})


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["laprop", "adamw"])
def test_a_kill_after_each_of_50_updates_leaves_no_trace(data: Dataset, tmp_path: Path, optimizer: str) -> None:
    settings = RSSM | {"steps": 50, "save_every": 7, "optimizer": optimizer}
    check_kills(lambda: rssm(data), data, tmp_path, list(range(1, 51)), settings)


def test_one_run_killed_after_every_update_still_arrives(toy: Make, data: Dataset, tmp_path: Path) -> None:
    settings = TOY | {"steps": 8, "save_every": 1}
    fit(toy(), data, out=tmp_path / "whole", **settings)

    def session(step: int) -> object:
        return fit(toy(), data, out=tmp_path / "cut", resume=step > 2, report=killer(step), **settings)

    # killed before its checkpoint is written, each session does the update of the one before again, and one more
    for step in range(2, 9):
        assert in_child(lambda step=step: session(step)) == signal.SIGKILL
    fit(toy(), data, out=tmp_path / "cut", resume=True)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_skips_and_returns_are_the_same_after_a_kill(toy: Make, data: Dataset, tmp_path: Path) -> None:
    settings = TOY | {"steps": 18, "max_skips": 3, "save_every": 6}

    def faulty() -> Any:
        model = toy()
        # by the batch and not by the call, since the calls of a resumed run start from 0
        bad = {data.sample(4, 6, seed=0, step=step, across=True).obs["obs"].numpy().tobytes() for step in (7, 8, 9, 15)}
        model.faults = lambda call: None
        plain = model.losses
        model.losses = lambda segment, state: _poisoned(
            plain(segment, state), segment.obs["obs"].numpy().tobytes() in bad
        )
        return model

    check_kills(faulty, data, tmp_path, [8, 11, 17], settings)
    assert digest(tmp_path / "whole")["state"]["rollbacks"] == 1


def _poisoned(losses: Any, bad: bool) -> Any:
    if bad:
        losses.terms["reward"] = losses.terms["reward"] * float("nan")
    return losses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_and_resuming_is_exact(
    toy: Make, data: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    settings = TOY | {"steps": 12}
    fit(toy(), data, out=tmp_path / "whole", **settings)

    def until(last: int) -> Callable[[int, int, dict[str, float]], None]:
        return lambda step, steps, line: signal.raise_signal(number) if step == last else None

    for i, step in enumerate((1, 4, 5, 11)):
        result = fit(toy(), data, out=tmp_path / "cut", resume=i > 0, report=until(step), **settings)
        assert (result.steps, result.interrupted) == (step, number)
        assert list_checkpoints(tmp_path / "cut" / "checkpoints")[-1].name == f"{step:08d}"
    result = fit(toy(), data, out=tmp_path / "cut", resume=True)
    assert (result.steps, result.interrupted) == (12, None)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_run_interrupted_at_each_of_200_updates_equals_the_whole_one(
    toy: Make, data: Dataset, tmp_path: Path
) -> None:
    settings = TOY | {"steps": 201}
    fit(toy(), data, out=tmp_path / "whole", **settings)
    for step in range(1, 201):
        result = fit(
            toy(),
            data,
            out=tmp_path / "cut",
            resume=step > 1,
            report=lambda *_: signal.raise_signal(signal.SIGTERM),
            **settings,
        )
        assert (result.steps, result.interrupted) == (step, signal.SIGTERM)
    fit(toy(), data, out=tmp_path / "cut", resume=True)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_training_draws_from_torch_alone(toy: Make, data: Dataset, tmp_path: Path) -> None:
    """So that torch's random state is all that a checkpoint must hold."""
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    fit(toy(), data, steps=3, out=tmp_path / "run", **TOY | {"save_every": 1})
    assert before == (random.getstate(), np.random.get_state()[1].tobytes())  # noqa: NPY002


def test_a_torn_last_line_of_metrics_is_dropped(toy: Make, data: Dataset, tmp_path: Path) -> None:
    fit(toy(), data, steps=4, out=tmp_path / "run", **TOY)
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 5, "los')
    fit(toy(), data, steps=8, out=tmp_path / "run", resume=True)
    assert [line["step"] for line in read_metrics(metrics)] == [2, 4, 6, 8]


def test_changed_settings_hold_and_are_recorded(
    toy: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    fit(toy(), data, steps=4, out=run, weight_decay=0.0, agc=0.3, **TOY)
    built: list[Any] = []
    make = fit.__globals__["make_optimizer"]
    monkeypatch.setitem(fit.__globals__, "make_optimizer", lambda *args: built.append(make(*args)) or built[-1])
    result = fit(toy(), data, out=run, resume=True, steps=6, weight_decay=0.5, agc=0.1, warmup=9)
    assert result.steps == 6
    group = built[0].param_groups[0]
    assert (group["weight_decay"], group["agc"], group["warmup"]) == (0.5, 0.1, 9)
    fit(toy(), data, out=run, resume=True, steps=8)
    stored = json.loads((run / "config.json").read_text())
    assert stored["history"] == [
        {"step": 4, "fit": {"steps": [4, 6], "warmup": [3, 9], "agc": [0.3, 0.1], "weight_decay": [0.0, 0.5]}},
        {"step": 6, "fit": {"steps": [6, 8]}},
    ]
    assert (stored["fit"]["steps"], stored["fit"]["agc"]) == (8, 0.1)
    record_change(run, 8, stored["fit"], stored["fit"])
    assert json.loads((run / "config.json").read_text()) == stored


def test_what_cannot_be_resumed_is_refused(toy: Make, data: Dataset, tmp_path: Path) -> None:
    fit(toy(), data, steps=2, out=tmp_path / "run", **TOY)
    with pytest.raises(ConfigError, match=r"fit\.optimizer cannot change .* trained with laprop"):
        fit(toy(), data, out=tmp_path / "run", resume=True, optimizer="adamw")
    with pytest.raises(ConfigError, match="resume needs out"):
        fit(toy(), data, resume=True)
    with pytest.raises(CheckpointError, match="not a run folder"):
        fit(toy(), data, out=tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(OutputExists, match="already holds a run"):
        fit(toy(), data, steps=2, out=tmp_path / "run")


@pytest.mark.parametrize("change", [{"sinks": 5}, {"sinks": [{}]}, {"history": {}}, {"fit": {"steps": "many"}}])
def test_a_spoilt_config_is_refused(toy: Make, data: Dataset, tmp_path: Path, change: dict[str, Any]) -> None:
    fit(toy(), data, steps=2, out=tmp_path / "run", **TOY)
    config = tmp_path / "run" / "config.json"
    stored = json.loads(config.read_text()) | change
    stored.pop("sha256", None)
    config.write_text(json.dumps(stored))
    with pytest.raises((CheckpointError, ConfigError), match=r"config\.json"):
        fit(toy(), data, out=tmp_path / "run", resume=True)


def test_two_trainings_in_one_folder_the_second_refuses(toy: Make, data: Dataset, tmp_path: Path) -> None:
    run, refused = tmp_path / "run", []

    def report(step: int, steps: int, line: dict[str, float]) -> None:
        with pytest.raises(InUse, match=rf"{run}.*process {os.getpid()}"):
            fit(toy(), data, out=run, resume=True)
        refused.append(step)

    fit(toy(), data, steps=2, out=run, report=report, **TOY)
    assert refused == [1, 2]
    # released at the end, and by the kernel when the holder is killed
    assert in_child(lambda: fit(toy(), data, steps=3, out=run, resume=True, report=killer(3))) == signal.SIGKILL
    with lock_folder(run):
        pass
    assert fit(toy(), data, steps=3, out=run, resume=True).steps == 3
