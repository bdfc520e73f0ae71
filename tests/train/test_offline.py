"""Training: the optimiser by hand, resuming exactly, checkpoints whole or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from foreworld.core import Space, Spec
from foreworld.core.errors import (
    CheckpointError,
    ConfigError,
    MissingCapability,
    OutputExists,
    SpecError,
    UnknownName,
)
from foreworld.data import Dataset
from foreworld.models.linear import Linear
from foreworld.models.rssm import RSSM
from foreworld.train import FitConfig, fit, load_run
from foreworld.train.checkpoint import list_checkpoints, tensors
from foreworld.train.log import read_metrics
from foreworld.train.offline import dreams, lower_rate, share_done, window_size
from foreworld.train.optim import AdamW, LaProp, clip_adaptive_, gradient_norms

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")},
    action=Space(kind="discrete", shape=(), dtype="int64", classes=(2,), start=(0,)),
)
SMALL: dict[str, Any] = {"deter": 32, "units": 16, "latents": 4, "classes": 4, "depth": 2, "layers": 1}


def small(seed: int = 0) -> RSSM:
    torch.manual_seed(seed)
    return RSSM(SPEC, **SMALL)


def state_of(model: RSSM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors(model).items()}


def test_laprop_by_hand() -> None:
    param = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = LaProp([param], lr=0.1, betas=(0.9, 0.99), agc=0.0, warmup=2)
    value, rms, mean = 2.0, 0.0, 0.0
    for step, grad in enumerate([0.5, -1.0, 0.25], start=1):
        param.grad = torch.tensor([grad])
        optimizer.step()
        rms = 0.99 * rms + 0.01 * grad**2
        mean = 0.9 * mean + 0.1 * grad / (rms / (1 - 0.99**step)) ** 0.5
        value -= 0.1 * min(1, step / 2) * mean / (1 - 0.9**step)
        assert float(param.detach()) == pytest.approx(value, rel=1e-5)


def test_adaptive_clipping_bounds_the_gradient_by_the_parameter() -> None:
    big, zero = torch.nn.Parameter(torch.full((4,), 2.0)), torch.nn.Parameter(torch.zeros(4))
    big.grad, zero.grad = torch.full((4,), 100.0), torch.full((4,), 0.5)
    with torch.no_grad():
        clip_adaptive_([big, zero], torch.tensor([200.0, 1.0]), 0.3)
    assert float(big.grad.norm()) == pytest.approx(0.3 * 4.0)
    assert float(zero.grad.norm()) == pytest.approx(0.3 * 1e-3)


def test_training_lowers_the_loss_and_writes_a_run(data: Dataset, tmp_path: Path) -> None:
    seen: list[int] = []
    result = fit(small(), data, steps=80, batch=8, length=10, lr=3e-3, warmup=10, log_every=10, save_every=40,
                 out=tmp_path / "run", report=lambda step, steps, metrics: seen.append(step))  # fmt: skip
    assert seen == list(range(1, 81))
    losses = [line["loss/obs"] for line in result.history]
    assert losses[-1] < 0.5 * losses[0]
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == list(range(10, 81, 10))
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["00000040", "00000080"]
    run = load_run(tmp_path / "run")
    assert (run.family, run.step) == ("rssm", 80)
    assert run.training_data().stretches == data.stretches


def test_resuming_equals_the_uninterrupted_run(data: Dataset, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch": 4, "length": 8, "lr": 1e-3, "warmup": 5, "log_every": 5, "save_every": 5}
    whole = small()
    fit(whole, data, steps=20, out=tmp_path / "whole", **settings)
    cut = small()
    fit(cut, data, steps=10, out=tmp_path / "cut", **settings)
    again = small(seed=7)
    torch.manual_seed(123)
    fit(again, data, steps=20, out=tmp_path / "cut", resume=True, **settings)
    for name, tensor in state_of(whole).items():
        assert torch.equal(tensor, state_of(again)[name]), name
    lines = [read_metrics(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut")]
    assert [line["loss/obs"] for line in lines[0]] == [line["loss/obs"] for line in lines[1]]


def test_adamw_trains_too(data: Dataset) -> None:
    result = fit(small(), data, steps=40, batch=8, length=10, lr=3e-3, optimizer="adamw", log_every=10)
    assert result.history[-1]["loss/obs"] < result.history[0]["loss/obs"]


def test_damage_to_a_checkpoint_is_refused_and_named(data: Dataset, tmp_path: Path) -> None:
    fit(small(), data, steps=2, batch=4, length=8, out=tmp_path / "run")
    weights = list_checkpoints(tmp_path / "run" / "checkpoints")[-1] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*damaged"):
        load_run(tmp_path / "run")


def test_bad_input_is_refused_with_a_reason(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lr must be positive"):
        FitConfig(lr=0)
    with pytest.raises(ConfigError, match="batch"):
        fit(small(), data, batch=0)
    other = Spec(obs={"image": Space(kind="image", shape=(1, 32, 32), dtype="uint8")}, action=None)
    with pytest.raises(SpecError, match="differ"):
        fit(RSSM(other, **SMALL, convolutions="strided"), data)
    with pytest.raises(CheckpointError, match="not a run folder"):
        load_run(tmp_path)
    fit(small(), data, steps=1, batch=2, length=4, out=tmp_path / "run")
    with pytest.raises(OutputExists, match="already holds a run"):
        fit(small(), data, steps=1, out=tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    stored = json.loads(config.read_text())
    del stored["sha256"]
    for change, error, match in (
        ({"family": "rsm"}, UnknownName, "did you mean 'rssm'"),
        ({"model": {**stored["model"], "deterr": 3}}, ConfigError, "deterr.*did you mean 'deter'"),
        ({"format": 99}, CheckpointError, "format 99"),
    ):
        config.write_text(json.dumps({**stored, **change}))
        with pytest.raises(error, match=match):
            load_run(tmp_path / "run")


def test_ridge_needs_no_updates(data: Dataset, tmp_path: Path) -> None:
    model = Linear(SPEC, window=1)
    fit(model, data, steps=0, batch=4, length=10, calibration=16, out=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert loaded.step == 0
    assert torch.equal(loaded.model.state_dict()["dynamics.weight"], model.dynamics.weight)
    explained = loaded.model.losses(data.sample(16, 10)).metrics["explained"]
    assert float(explained) > 0.99


def test_minutes_stop_a_run_early(data: Dataset) -> None:
    assert fit(small(), data, steps=10**6, batch=2, length=4, minutes=0.02).steps < 10**4


def test_schedules_follow_updates_or_time_whichever_is_further() -> None:
    config = FitConfig(steps=100, minutes=1.0, batch=8, length=4, long_share=0.5, dream_share=0.25, decay=0.5, lr=1.0)
    assert [share_done(config, 10, seconds) for seconds in (0, 6, 30, 60)] == [0.1, 0.1, 0.5, 1.0]
    assert [window_size(config, done) for done in (0.0, 0.49, 0.5)] == [(8, 4), (8, 4), (2, 16)]
    assert [dreams(config, done) for done in (0.5, 0.74, 0.75)] == [False, False, True]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for done in (0.0, 0.5, 0.75, 0.99):
        lower_rate(optimizer, config, done)
        rates.append(round(optimizer.param_groups[0]["lr"], 6))
    assert rates == [1.0, 1.0, 0.5, 0.05]
    assert not dreams(FitConfig(), 1.0)


@pytest.mark.slow
def test_training_on_dreams_lowers_their_error(data: Dataset) -> None:
    segment = data.sample(16, 12, seed=9, step=0)

    def dreamed(share: float) -> float:
        model = small()
        fit(model, data, steps=150, batch=8, length=12, lr=3e-3, warmup=10, dream_share=share, watch=2)
        torch.manual_seed(0)
        with torch.no_grad():
            return float(model.dream_losses(segment, 2).terms["obs"][:, 2:].mean())

    assert dreamed(0.8) < 0.9 * dreamed(0.0)


def test_dreams_need_a_family_that_can_learn_from_them(data: Dataset) -> None:
    with pytest.raises(MissingCapability, match=r"fit\.dream_share"):
        fit(Linear(SPEC), data, steps=1, dream_share=0.5)


def test_each_gradient_is_clipped_by_itself() -> None:
    """Against torch's own AdamW, fed with gradients that were shrunk by hand."""
    start, grads = [torch.tensor([3.0, 4.0]), torch.tensor([1.0])], [torch.tensor([30.0, 40.0]), torch.tensor([0.1])]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    clipped, plain = AdamW(ours, 0.1, 0.0, clip=5.0), torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.0)
    for size in (1.0, 0.2, 0.01):  # equal gradients would hide it: Adam divides by their size
        for mine, other, grad, factor in zip(ours, theirs, grads, (min(1, 0.1 / size), 1.0), strict=True):
            mine.grad, other.grad = size * grad, size * factor * grad
        clipped.step_where(torch.tensor(True), gradient_norms(clipped))
        plain.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    with pytest.raises(ConfigError, match=r"fit\.clip"):
        FitConfig(clip=-1.0)


def test_adamw_warms_up_and_skipped_updates_do_not_count() -> None:
    """Against torch's own AdamW with a rate that was raised by hand."""
    ours, theirs = torch.nn.Parameter(torch.tensor([3.0, 4.0])), torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    warm, plain = AdamW([ours], 0.1, 0.01, warmup=4), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    rates = [0.025, 0.05, 0.075, 0.1, 0.1]
    for step, sound in enumerate((True, True, False, True, True, True)):
        grad = torch.tensor([1.0, -2.0 - step])
        ours.grad = grad.clone()
        warm.step_where(torch.tensor(sound), gradient_norms(warm))
        assert warm.param_groups[0]["lr"] == 0.1  # as it was set
        if sound:
            theirs.grad = grad.clone()
            plain.param_groups[0]["lr"] = rates.pop(0)
            plain.step()
        assert torch.allclose(ours, theirs, atol=1e-6), step
    assert not rates


def test_both_optimizers_of_a_training_warm_up(data: Dataset) -> None:
    for name in ("laprop", "adamw"):
        moved = []
        for warmup in (1, 1000):
            model = small()
            before = [p.detach().clone() for p in model.parameters()]
            fit(model, data, steps=3, batch=4, length=6, lr=1e-3, optimizer=name, warmup=warmup)
            pairs = zip(before, model.parameters(), strict=True)
            moved.append(max(float((new.detach() - old).abs().max()) for old, new in pairs))
        assert 0 < moved[1] < 0.05 * moved[0], name
