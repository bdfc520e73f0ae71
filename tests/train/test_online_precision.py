"""What an online update does before and around the arithmetic."""

from __future__ import annotations

import pytest
import torch

import foreworld as fw
from foreworld.agents import DreamerLearner
from foreworld.core import Segment, Spec, tree
from foreworld.envs import make
from foreworld.testing import random_segment
from foreworld.train import OnlineResult

SMALL = {"deter": 32, "units": 16, "latents": 4, "classes": 4}
SHORT = {"steps": 60, "prefill": 40, "batch": 4, "length": 8, "train_ratio": 16, "lr": 1e-3, "warmup": 1}


def trained(**fields: object) -> tuple[fw.RSSM, OnlineResult]:
    torch.manual_seed(0)
    model = fw.RSSM(make("CartPole-v1").spec, **SMALL)
    return model, fw.train_agent("CartPole-v1", model, fw.Dreamer(model, units=16, horizon=4), **SHORT, **fields)


def test_half_precision_learns_and_keeps_its_weights_in_single() -> None:
    plain, whole = trained(log_every=1)
    model, half = trained(log_every=1, precision="bfloat16")
    assert half.updates == whole.updates > 5
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    first, other = half.history[0], whole.history[0]
    for name in first:
        if name.startswith("loss/") and name != "loss/actor":
            assert first[name] == pytest.approx(other[name], rel=0.1), name


def test_losses_under_autocast_are_single_and_near() -> None:
    torch.manual_seed(0)
    spec: Spec = make("Pendulum-v1").spec
    model = fw.RSSM(spec, **SMALL)
    learner = DreamerLearner(model, fw.Dreamer(model, units=16, horizon=4))
    segment: Segment = random_segment(spec, 4, 8)
    found = []
    for half in (False, True):
        with fw.seeded(1), fw.deterministic(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            found.append(learner.losses(segment).terms)
    for name, term in found[1].items():
        assert term.dtype == torch.float32, name
        assert float(term.detach().mean()) == pytest.approx(
            float(found[0][name].detach().mean()), rel=0.05, abs=0.05
        ), name


def test_dreams_under_autocast_multiply_in_half_and_remember_in_single() -> None:
    torch.manual_seed(0)
    model = fw.RSSM(make("Pendulum-v1").spec, deter=256, units=64)
    agent = fw.Dreamer(model, units=64)
    start = model.observe(model.initial(8), random_segment(model.spec, 8, 4))
    start = tree.index(tree.detach(start), (slice(None), -1))
    dreams = []
    for half in (False, True):
        with torch.no_grad(), fw.deterministic(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            dreams.append(fw.imagine(model, start, agent.policy, 3, keep=("states",)))
    plain, half_dream = dreams
    assert half_dream.feat.dtype is torch.bfloat16 and half_dream.states.deter.dtype is torch.float32
    rounded = half_dream.states.deter.bfloat16().float()
    assert not torch.equal(rounded, half_dream.states.deter), "the state itself was rounded"
    torch.testing.assert_close(half_dream.states.deter[:, 0], plain.states.deter[:, 0], atol=0.02, rtol=0)


def test_statistics_of_the_training_data_are_set_before_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def calibrate(self: fw.RSSM, segments: object) -> None:
        seen.append(next(iter(segments())).is_first.shape)  # type: ignore[operator]

    monkeypatch.setattr(fw.RSSM, "calibrate", calibrate)
    _, found = trained()
    assert seen == [(4, 8)] and found.updates > 5
