"""The losses of an agent against plain Python, their gradients against torch's own distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_dreamer import Numbers, Plain, entropy, log_prob, plainly
from tiny_worlds import Line, Place, Tiny, awake, random_table, wander
from torch import Tensor
from torch.distributions import Independent, Normal, OneHotCategorical

from foreworld.agents import Dreamer
from foreworld.core import Segment, deterministic
from foreworld.nn.actions import BoundedNormal, OneHots
from foreworld.ops import twohot


def mode(params: Numbers) -> Numbers:
    return [float(i == params.index(max(params))) for i in range(len(params))]


def contrary(params: Numbers) -> Numbers:
    """Choose the least likely action."""
    return [float(i == params.index(min(params))) for i in range(len(params))]


def mean(params: Numbers) -> Numbers:
    return [math.tanh(params[0])]


def far(params: Numbers) -> Numbers:
    """Choose an action far off the mean, often beyond the bounds."""
    return [math.tanh(params[0]) + 1.5 * (0.9 / (1 + math.exp(-params[1] - 2)) + 0.1)]


def sample_contrary(self: OneHots, params: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(params.argmin(-1), params.shape[-1]).to(params.dtype)


def sample_far(self: BoundedNormal, params: Tensor) -> Tensor:
    center, std = self.split(params)
    return (center + 1.5 * std).detach()


CASES: dict[str, Any] = {"mode": mode, "contrary": contrary, "mean": mean, "far": far}
AGENTS: dict[str, dict[str, Any]] = {
    "official": {},
    "other": {
        "horizon": 1, "discount": 0.5, "lam": 0.3, "entropy": 0.7, "unimix": 0.2, "slow_weight": 0.4,
        "range_rate": 0.6, "range_low": 0.2, "range_high": 0.7, "range_least": 0.01,
    },
}  # fmt: skip


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Tiny, Any]:
    """Return a world and how actions are chosen in it, by floats; `sample` is made to choose likewise."""
    if request.param == "contrary":
        monkeypatch.setattr(OneHots, "sample", sample_contrary)
    elif request.param == "far":
        monkeypatch.setattr(BoundedNormal, "sample", sample_far)
    discrete = request.param in ("mode", "contrary")
    model = random_table(7, 3, seed=3) if discrete else Line(0.8, 0.9, dtype=torch.float64)
    return model, CASES[request.param]


def lossy(model: Tiny, agent: Dreamer, segment: Segment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    with deterministic():
        return agent.losses(model, model.observe(model.initial(segment.batch), segment), segment)


@pytest.mark.parametrize("fields", AGENTS.values(), ids=AGENTS)
def test_losses_equal_those_of_plain_python(case: tuple[Tiny, Any], fields: dict[str, Any]) -> None:
    model, choose = case
    agent, segment = awake(model, **fields), wander(model, 3, 8, seed=1)
    agent.range.lower.fill_(-0.4)
    agent.range.upper.fill_(150.0)
    for _ in range(2):  # the second time, the range has moved on
        wanted = plainly(model, agent, segment, choose)
        assert wanted.scale > 2, "or a range that is never used would pass"
        terms, metrics = lossy(model, agent, segment)
        for name in ("actor", "critic", "replay_critic"):
            expected = torch.tensor(getattr(wanted, name), dtype=torch.float64)
            torch.testing.assert_close(terms[name].detach(), expected, rtol=1e-6, atol=1e-6, msg=f"{name} differs")
        assert (agent.range.lower.item(), agent.range.upper.item()) == pytest.approx(wanted.range, rel=1e-6)
        assert metrics["return_scale"].item() == pytest.approx(wanted.scale, rel=1e-6)
    every = [dream for line in wanted.dreams for dream in line]
    assert metrics["return"].item() == pytest.approx(
        sum(sum(d.returns) for d in every) / len(every) / len(every[0].returns)
    )
    assert set(terms) == set(agent.loss_weights)


def gradients(agent: Dreamer, loss: Tensor) -> dict[str, Tensor]:
    agent.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None and bool(p.grad.any())}


def surrogate(model: Tiny, agent: Dreamer, wanted: Plain) -> tuple[Tensor, Tensor]:
    """Return the losses of actor and critic in imagination, with all that is learned from held constant."""
    actor, critic = torch.zeros(2, dtype=torch.float64)
    dreams = [dream for line in wanted.dreams for dream in line]
    for dream in dreams:
        places, action, weight, returns, values = (
            torch.tensor(x, dtype=torch.float64)
            for x in (dream.places[:-1], dream.actions, dream.weights, dream.returns, dream.values[:-1])
        )
        feat = model.read(Place(at=places)).feat.detach()
        params = agent.policy(feat).params
        if isinstance(agent.actions, OneHots):
            probs = (1 - agent.actions.unimix) * params.softmax(-1) + agent.actions.unimix / params.shape[-1]
            said: Any = OneHotCategorical(probs=probs)
        else:
            said = Independent(Normal(params[:, :1].tanh(), 0.9 * (params[:, 1:] + 2).sigmoid() + 0.1), 1)
        advantage = (returns - values) / wanted.scale
        gain = said.log_prob(action) * advantage + agent.config.entropy * said.entropy()
        actor = actor - (weight * gain).mean()
        log_probs = agent.critic.log_probs(feat)
        slow = agent.slow(feat).detach()
        losses = [-(twohot(x, agent.critic.bins) * log_probs).sum(-1) for x in (returns, slow)]
        critic = critic + (weight * (losses[0] + agent.config.slow_weight * losses[1])).mean()
    return actor / len(dreams), critic / len(dreams)


def test_gradients_are_those_of_reinforce_and_cross_entropy(case: tuple[Tiny, Any]) -> None:
    model, choose = case
    agent, segment = awake(model, entropy=0.1), wander(model, 3, 8, seed=2)
    wanted = plainly(model, agent, segment, choose)
    terms = lossy(model, agent, segment)[0]
    for name, expected in zip(("actor", "critic"), surrogate(model, agent, wanted), strict=True):
        found, right = gradients(agent, terms[name].mean()), gradients(agent, expected)
        assert set(found) == set(right)
        assert all(key.startswith(name) for key in found), "each loss trains its own network alone"
        for key in right:
            torch.testing.assert_close(found[key], right[key], rtol=1e-9, atol=1e-12, msg=f"{name}: {key} differs")


def test_the_plain_formulas_are_those_of_torch() -> None:
    params = [0.3, -1.0, 2.0, 0.1, 0.7]
    ones = OneHots((3, 2), unimix=0.1)
    parts = torch.tensor(params).double().split([3, 2])
    said = [OneHotCategorical(probs=0.9 * p.softmax(-1) + 0.1 / len(p)) for p in parts]
    action = [0.0, 1.0, 0.0, 1.0, 0.0]
    chosen = torch.tensor(action).double().split([3, 2])
    assert log_prob(ones, params, action) == pytest.approx(
        sum(float(d.log_prob(a)) for d, a in zip(said, chosen, strict=True))
    )
    assert entropy(ones, params) == pytest.approx(sum(float(d.entropy()) for d in said))
    normal = Normal(
        torch.tensor(params[:2]).double().tanh(), 0.9 * (torch.tensor(params[2:4]).double() + 2).sigmoid() + 0.1
    )
    box, action = BoundedNormal(2), [0.4, -1.7]
    assert log_prob(box, params[:4], action) == pytest.approx(
        float(normal.log_prob(torch.tensor(action).double()).sum())
    )
    assert entropy(box, params[:4]) == pytest.approx(float(normal.entropy().sum()))
