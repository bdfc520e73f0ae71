"""What an agent's losses and gradients must be in worlds without chance, however actions are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from plain_dreamer import Choose, Numbers, Plain, plainly
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


@dataclass(frozen=True)
class Case:
    """A way to choose actions: by floats, and what has to stand in the place of sampling (None: the mode)."""

    kind: type[OneHots] | type[BoundedNormal]
    choose: Choose
    sample: Callable[[Any, Tensor], Tensor] | None = None


CASES = {
    "mode": Case(OneHots, mode),
    "contrary": Case(OneHots, contrary, sample_contrary),
    "mean": Case(BoundedNormal, mean),
    "far": Case(BoundedNormal, far, sample_far),
}


@contextmanager
def world(case: Case) -> Iterator[Tiny]:
    """Make a world in which actions are chosen in a way."""
    with pytest.MonkeyPatch.context() as patch, deterministic():
        if case.sample is not None:
            patch.setattr(case.kind, "sample", case.sample)
        yield random_table(7, 3, seed=3) if case.kind is OneHots else Line(0.8, 0.9, dtype=torch.float64)


def losses(model: Tiny, agent: Dreamer, segment: Segment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return agent.losses(model, model.observe(model.initial(segment.batch), segment), segment)


def expect_losses(case: Case, **fields: Any) -> None:
    """Compare losses, the range of returns and metrics with those of plain Python."""
    with world(case) as model:
        agent, segment = awake(model, **fields), wander(model, 3, 8, seed=1)
        agent.range.lower.fill_(-0.4)
        agent.range.upper.fill_(150.0)
        for _ in range(2):  # the second time, the range has moved on
            wanted = plainly(model, agent, segment, case.choose)
            assert wanted.scale > 2, "or a range that is never used would pass"
            terms, metrics = losses(model, agent, segment)
            for name in ("actor", "critic", "replay_critic"):
                right = torch.tensor(getattr(wanted, name), dtype=torch.float64)
                torch.testing.assert_close(terms[name].detach(), right, rtol=1e-6, atol=1e-6, msg=f"{name} differs")
            assert (agent.range.lower.item(), agent.range.upper.item()) == pytest.approx(wanted.range, rel=1e-6)
            assert metrics["return_scale"].item() == pytest.approx(wanted.scale, rel=1e-6)
        returns = [one for line in wanted.dreams for dream in line for one in dream.returns]
        assert metrics["return"].item() == pytest.approx(sum(returns) / len(returns))
        assert set(terms) == set(agent.loss_weights)


def expect_gradients(case: Case, **fields: Any) -> None:
    """Compare the gradients of actor and critic with those of what they are meant to minimise."""
    with world(case) as model:
        agent, segment = awake(model, entropy=0.1, **fields), wander(model, 3, 8, seed=2)
        wanted = plainly(model, agent, segment, case.choose)
        terms = losses(model, agent, segment)[0]
        for name, right in zip(("actor", "critic"), surrogate(model, agent, wanted), strict=True):
            found, expected = gradients(agent, terms[name].mean()), gradients(agent, right)
            assert set(found) == set(expected)
            assert all(key.startswith(name) for key in found), "each loss trains its own network alone"
            for key in expected:
                message = f"{name}: {key} differs"
                torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-12, msg=message)


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
            unimix = agent.config.unimix
            probs = (1 - unimix) * params.softmax(-1) + unimix / params.shape[-1]
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
