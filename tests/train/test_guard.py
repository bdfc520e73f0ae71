"""Numbers that go bad: the update is skipped, then undone, then the training stops; what is kept is finite."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from foreworld.core.errors import ConfigError, NonFinite
from foreworld.data import Dataset
from foreworld.train import FitConfig, fit, guard
from foreworld.train.checkpoint import list_checkpoints, save_checkpoint
from foreworld.train.log import read_metrics
from foreworld.train.offline import lower_rate, make_optimizer
from foreworld.train.update import update

Make = Callable[..., Any]
SETTINGS: dict[str, Any] = {"batch": 4, "length": 6, "lr": 1e-2, "warmup": 3, "log_every": 1}
FAULTS = {"nan": "loss/reward", "inf": "loss/reward", "gradient": "gradient/bias"}


def everything(model: Any, optimizer: Any) -> dict[str, torch.Tensor]:
    """Copy weights and optimiser state."""
    slots = {f"{i}.{k}": v for i, slot in optimizer.state_dict()["state"].items() for k, v in slot.items()}
    return {name: value.clone() for name, value in {**model.state_dict(), **slots}.items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def between(first: int, last: int, fault: str = "nan") -> Callable[[int], str | None]:
    """Fail in calls first..last."""
    return lambda call: fault if first <= call <= last else None


@pytest.mark.parametrize("optimizer_name", ["laprop", "adamw"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_bad_update_changes_nothing_and_is_named(toy: Make, data: Dataset, optimizer_name: Any, fault: str) -> None:
    config = FitConfig(optimizer=optimizer_name, lr=1e-2, warmup=3, weight_decay=0.1)
    model = toy(lambda call: fault if call in (0, 3) else None)
    optimizer, before = make_optimizer(model, config), {}
    for call in range(5):
        before = everything(model, optimizer)
        outcome = update(model, optimizer, data.sample(4, 6, seed=1, step=call))
        after = everything(model, optimizer)
        assert bool(outcome.sound) is (call not in (0, 3))
        if call == 3:
            assert outcome.culprit(model) == FAULTS[fault]
        if call == 0:
            assert same_bits(model.state_dict(), toy().state_dict())
        else:
            assert same_bits(before, after) is (call == 3)
        assert all(bool(value.isfinite().all()) for value in after.values())


@pytest.mark.parametrize("optimizer_name", ["laprop", "adamw"])
def test_a_bad_first_update_leaves_no_trace(toy: Make, data: Dataset, optimizer_name: Any) -> None:
    found = []
    for faults in (between(0, 0), lambda call: None):
        model = toy(faults)
        optimizer = make_optimizer(model, FitConfig(optimizer=optimizer_name, lr=1e-2, warmup=3))
        if model.faults(0):
            update(model, optimizer, data.sample(4, 6, seed=0, step=0))
        for step in range(1, 4):
            torch.manual_seed(step)
            update(model, optimizer, data.sample(4, 6, seed=0, step=step))
        found.append(everything(model, optimizer))
    assert same_bits(*found)


def test_skipped_updates_are_counted_by_name_in_the_metrics(toy: Make, data: Dataset, tmp_path: Path) -> None:
    model = toy(lambda call: {2: "nan", 4: "gradient", 5: "inf"}.get(call))
    result = fit(model, data, steps=8, out=tmp_path / "run", **SETTINGS)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 2, 3, 3, 3]
    assert lines[-1]["skipped/loss/reward"] == 2 and lines[-1]["skipped/gradient/bias"] == 1
    assert "rollbacks" not in lines[-1]
    assert lines[2]["loss/reward"] is None
    assert result.history[-1]["skipped"] == 3


@pytest.mark.parametrize("on_disk", [False, True])
def test_many_in_a_row_bring_back_the_last_checkpoint_and_later_batches(
    toy: Make, data: Dataset, tmp_path: Path, on_disk: bool
) -> None:
    model = toy(between(12, 14))
    states: dict[int, dict[str, torch.Tensor]] = {}

    def report(step: int, steps: int, line: dict[str, float]) -> None:
        states[step] = {name: value.clone() for name, value in model.state_dict().items()}

    out = tmp_path / "run" if on_disk else None
    result = fit(model, data, steps=15, max_skips=3, save_every=5, out=out, report=report, **SETTINGS)
    # update 12 is the last good one, and the checkpoint before it is that of update 10
    assert not same_bits(states[12], states[10])
    assert same_bits(states[15], states[12])
    assert same_bits(model.state_dict(), states[10])
    assert result.history[-1]["skipped"] == 3


def test_the_copy_in_memory_is_as_good_as_a_checkpoint(toy: Make, data: Dataset, tmp_path: Path) -> None:
    """Weights, optimiser and random numbers: what follows a return depends on all three."""
    ends = []
    for out in (None, tmp_path / "run"):
        model = toy(lambda call: "nan" if call in (12, 13, 14, 22, 23, 24) else None)
        result = fit(model, data, steps=30, max_skips=3, save_every=5, out=out, **SETTINGS)
        assert result.history[-1]["rollbacks"] == 2 and result.history[-1]["skipped"] == 6
        assert len(model.seen) == len(set(model.seen)) == 30
        ends.append(model.state_dict())
    assert same_bits(*ends)


def test_going_back_halves_the_learning_rate_and_a_resumed_run_knows(
    toy: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(
        "foreworld.train.offline.lower_rate",
        lambda optimizer, config, done, factor: (
            lower_rate(optimizer, config, done, factor),
            rates.append(optimizer.param_groups[0]["lr"]),
        ),
    )
    settings = SETTINGS | {"max_skips": 2, "save_every": 4}
    fit(toy(between(5, 6)), data, steps=8, out=tmp_path / "run", **settings)
    assert rates == [1e-2] * 7 + [5e-3]
    fit(toy(), data, steps=9, out=tmp_path / "run", resume=True)
    assert rates[8:] == [5e-3]
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["skipped/loss/reward"] == 2


def test_a_run_that_fails_again_and_again_stops_and_keeps_its_last_good_state(
    toy: Make, data: Dataset, tmp_path: Path
) -> None:
    model = toy(lambda call: "nan" if call >= 7 else None)
    with pytest.raises(NonFinite, match=r"loss/reward .* 3 updates in a row, again after 3 returns .*--fit\.lr"):
        fit(model, data, steps=100, max_skips=3, save_every=1, out=tmp_path / "run", **SETTINGS)
    assert len(model.seen) == 7 + 3 * (guard.ROLLBACKS + 1)
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "00000007"
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (last["step"], last["skipped"], last["rollbacks"]) == (19, 12, 3)


def test_a_run_without_one_good_update_is_an_error(toy: Make, data: Dataset) -> None:
    with pytest.raises(NonFinite, match=r"loss/reward was NaN or infinite in every update up to 4"):
        fit(toy(between(0, 9)), data, steps=4, **SETTINGS)


def test_a_model_that_is_not_finite_is_refused_and_the_weight_named(toy: Make, data: Dataset) -> None:
    model = toy()
    with torch.no_grad():
        model.bias[1] = float("inf")
    with pytest.raises(NonFinite, match="weight bias is NaN or infinite before"):
        fit(model, data, steps=4, **SETTINGS)
    with pytest.raises(ConfigError, match="max_skips must be at least 1"):
        FitConfig(max_skips=0)


def test_looking_late_finds_the_same(toy: Make, data: Dataset) -> None:
    """On a GPU the flags are read every so often; the counts must not depend on that."""
    bad = {2: "nan", 5: "gradient", 6: "inf"}
    found = []
    for every in (1, 4):
        model = toy(bad.get)
        optimizer = make_optimizer(model, FitConfig(lr=1e-2))
        watcher = guard.Guard(model, guard.Progress(0, 0.0), patience=2, every=every)
        for step in range(8):
            watcher.add(update(model, optimizer, data.sample(4, 6, step=step)))
        found.append((watcher.numbers(), watcher.lost, watcher.done))
    expected = {"skipped": 3, "skipped/loss/reward": 2, "skipped/gradient/bias": 1}
    assert found == [(expected, True, 5)] * 2


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(
    toy: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def save(folder: Path, model: Any, optimizer: Any, progress: Any, beside: Any) -> Path:
        calls.append(progress.step)
        if progress.step == 4:
            raise OSError(28, "No space left on device")
        return save_checkpoint(folder, model, optimizer, progress, beside)

    monkeypatch.setattr(guard, "save_checkpoint", save)
    assert fit(toy(), data, steps=6, save_every=2, out=tmp_path / "run", **SETTINGS).steps == 6
    assert calls == [0, 2, 4, 6, 6]
    assert "no checkpoint at update 4" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["00000002", "00000006"]


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer_name", ["laprop", "adamw"])
def test_an_update_never_waits_for_the_device(toy: Make, data: Dataset, optimizer_name: Any) -> None:
    model = toy(between(1, 1))
    optimizer = make_optimizer(model, FitConfig(optimizer=optimizer_name, weight_decay=0.1))
    segments = [data.sample(2, 4, step=step) for step in range(3)]
    with HostReads() as reads:
        for segment in segments:
            outcome = update(model, optimizer, segment)
    assert reads.count == 0
    with HostReads() as reads:
        assert set(outcome.numbers()) == {"loss/obs", "loss/reward", "size"}
    assert reads.count == 3


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_name", ["laprop", "adamw"])
def test_a_thousand_random_faults_reach_no_checkpoint(
    toy: Make, data: Dataset, tmp_path: Path, optimizer_name: str
) -> None:
    draw = random.Random(3)
    bad = {call: draw.choice(sorted(FAULTS)) for call in draw.sample(range(3000), 1000)}
    settings = SETTINGS | {"steps": 3000, "save_every": 50, "log_every": 100, "optimizer": optimizer_name}
    checked = []

    def report(step: int, steps: int, line: dict[str, float]) -> None:
        if step % 100 == 99:
            newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
            for file in ("model.safetensors", "training.safetensors"):
                stored = load_file(newest / file)
                checked.append(all(bool(value.isfinite().all()) for value in stored.values()))

    result = fit(toy(bad.get), data, out=tmp_path / "run", report=report, **settings)
    clean = fit(toy(), data, **settings)
    assert result.history[-1]["skipped"] == 1000
    assert len(checked) == 60 and all(checked)
    # two thirds of the updates, so a little behind at most
    ends = [
        sum(line["loss/obs"] for line in r.history[-10:] if line["loss/obs"] == line["loss/obs"])
        for r in (result, clean)
    ]
    assert ends[0] < 1.3 * ends[1]
