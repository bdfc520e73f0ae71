"""`Dreamer` with any family: what it needs, what it refuses, and that a whole training moves all of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from foreworld_gru import GRU, GRUConfig
from tiny_worlds import awake, random_table, wander

from foreworld.agents import Dreamer, DreamerConfig, DreamerLearner
from foreworld.core import Spec, tree
from foreworld.core.errors import ConfigError, MissingCapability, SpecError
from foreworld.envs import make
from foreworld.models.ensemble import Ensemble
from foreworld.models.rssm import RSSM
from foreworld.rollout import imagine
from foreworld.testing import random_segment, specs
from foreworld.train import train_agent

SIZES: dict[str, Any] = {
    "deter": 16,
    "units": 8,
    "latents": 2,
    "classes": 4,
    "blocks": 2,
    "layers": 1,
    "free_nats": 0.0,
}
SPEC = specs()["vector_box"]
FAMILIES: dict[str, Callable[[Spec], Any]] = {
    "rssm": lambda spec: RSSM(spec, **SIZES),
    "gaussian rssm": lambda spec: RSSM(spec, **(SIZES | {"latent": "gaussian"})),
    "ensemble of rssms": lambda spec: Ensemble(spec, member="rssm", members=2, each=SIZES),
    "outside family": lambda spec: GRU(spec, GRUConfig(units=8)),
}


@pytest.mark.parametrize("make_model", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("name", ["vector_box", "vector_multi_discrete"])
def test_losses_of_any_family_are_finite_and_fill_every_row(make_model: Callable[[Spec], Any], name: str) -> None:
    spec = specs()[name]
    model, segment = make_model(spec), random_segment(spec, 3, 6)
    learner = DreamerLearner(model, Dreamer(model, units=8, layers=1, horizon=3))
    losses = learner.losses(segment)
    assert set(losses.terms) == set(model.loss_weights) | {"actor", "critic", "replay_critic"}
    for term in losses.terms.values():
        assert term.shape == (3, 6) and bool(term.isfinite().all())
    assert not any(metric.requires_grad for metric in losses.metrics.values())
    losses.total(learner.loss_weights).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in learner.parameters())


@pytest.mark.parametrize("make_model", FAMILIES.values(), ids=FAMILIES)
def test_a_training_moves_model_and_agent(make_model: Callable[[Spec], Any]) -> None:
    model = make_model(make("CartPole-v1").spec)
    agent = Dreamer(model, units=8, layers=1, horizon=3)
    before = [p.detach().clone() for p in (*model.parameters(), *agent.parameters())]
    settings = {"steps": 50, "prefill": 20, "batch": 2, "length": 8, "train_ratio": 8, "lr": 1e-3, "warmup": 0}
    found = train_agent("CartPole-v1", model, agent, log_every=1, **settings)
    assert found.updates > 10 and found.history[-1]["skipped"] == 0
    after = [p.detach() for p in (*model.parameters(), *agent.parameters())]
    still = [a for a, b in zip(after, before, strict=True) if torch.equal(a, b)]
    assert not still, f"{len(still)} of {len(after)} parameters did not move"


def test_all_members_of_an_ensemble_dream_and_each_is_trained_alone() -> None:
    model = FAMILIES["ensemble of rssms"](SPEC)
    agent = Dreamer(model, units=8, layers=1, horizon=3)
    dream = imagine(model, model.initial(2), agent.policy, 3, keep=("states",))
    assert dream.feat.shape == (2, 3, 2 * (16 + 8))
    one, other = (tree.index(dream.states, (slice(None), slice(None), m)) for m in (0, 1))
    assert not torch.equal(one.deter, other.deter)


def test_one_state_alone_can_be_asked() -> None:
    model = RSSM(SPEC, **SIZES)
    agent = Dreamer(model, units=8)
    feat = torch.randn(24)
    assert agent.policy(feat).sample().shape == (2,)
    assert agent.value(feat).shape == ()
    many = agent.value(torch.stack([feat, -feat]))
    torch.testing.assert_close(many[0], agent.value(feat))


def test_what_it_needs_is_said() -> None:
    with pytest.raises(MissingCapability, match="'reward'"):
        Dreamer(RSSM(SPEC, **SIZES, reward=False))
    with pytest.raises(MissingCapability, match="'cont'"):
        Dreamer(RSSM(SPEC, **SIZES, cont=False))
    video = RSSM(replace(SPEC, action=None), **SIZES)
    with pytest.raises((MissingCapability, SpecError)):
        Dreamer(video)
    assert SPEC.action is not None
    free = replace(SPEC, action=replace(SPEC.action, low=(), high=()))
    with pytest.raises(SpecError, match="needs bounded actions"):
        Dreamer(RSSM(free, **SIZES))


@pytest.mark.parametrize(
    "fields",
    [
        {"units": 0}, {"horizon": 0}, {"layers": 0}, {"discount": 1.1}, {"lam": -0.1}, {"slow_rate": 2.0},
        {"range_rate": -1.0}, {"unimix": 1.0}, {"range_low": 0.9, "range_high": 0.1}, {"range_least": 0.0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_learned_with_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields)).split("_")[0]):
        DreamerConfig(**fields)


def test_a_fresh_agent_values_nothing_and_tries_everything() -> None:
    model = random_table(5, 4, seed=0, feat=None)
    agent = Dreamer(model, units=16).double()
    feat = torch.eye(5).double()
    assert torch.equal(agent.value(feat), torch.zeros(5).double())
    torch.testing.assert_close(
        agent.policy(feat).params.softmax(-1), torch.full((5, 4), 0.25).double(), atol=0.02, rtol=0
    )


def test_it_is_saved_whole() -> None:
    model = random_table(5, 3, seed=0)
    agent, other = awake(model, seed=0), awake(model, seed=1)
    segment = wander(model, 3, 8, seed=1)
    agent.losses(model, model.losses(segment).states, segment)
    other.load_state_dict(agent.state_dict())
    found = []
    for one in (agent, other):
        torch.manual_seed(5)
        found.append(one.losses(model, model.losses(segment).states, segment))
    for one, again in zip(*(tree.leaves(x) for x in found), strict=True):
        assert torch.equal(one, again)
