"""Worlds that are known exactly, written as world models with weights, so that gradients can be looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.agents import Dreamer
from foreworld.core import Losses, Segment, Space, Spec, Step, is_deterministic, state


@state
class Place:
    """Where one is: a one-hot [.., S] over the states of a table, or a number [.., 1]."""

    at: Tensor


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Nothing to choose."""


class Tiny(nn.Module):
    """What both worlds share: a state is seen exactly, and its features are a learned map of it."""

    family = "tiny"
    provides: frozenset[str] = frozenset({"reward", "cont"})

    def __init__(self, spec: Spec, inputs: int, feat: int) -> None:
        super().__init__()
        self.spec, self.config, self.loss_weights = spec, TinyConfig(), {"obs": 1.0}
        self.width = inputs
        self.embed = nn.Parameter(torch.randn(inputs, feat))

    def initial(self, batch: int) -> Place:
        return Place(at=self.embed.new_zeros(batch, self.width))

    def observe(self, state: Place, segment: Segment) -> Place:
        return Place(at=segment.obs["obs"])

    def losses(self, segment: Segment, state: Place | None = None) -> Losses[Place]:
        seen = self.observe(self.initial(segment.batch), segment)
        return Losses(terms={"obs": (seen.at @ self.embed).square().mean(-1)}, metrics={}, states=seen)


class Table(Tiny):
    """A finite Markov decision process: where each action leads, with which probability, and what arriving is worth.

    Args:
        moves: [S, A, S] probabilities.
        reward: [S], of arriving.
        cont: [S], probability that the episode goes on.
        feat: width of the features; None for one-hots, of which anything can be learned.
    """

    def __init__(self, moves: Tensor, reward: Tensor, cont: Tensor, feat: int | None = None) -> None:
        states, actions, _ = moves.shape
        spec = Spec(
            obs={"obs": Space(kind="vector", shape=(states,), dtype="float32")},
            action=Space(kind="discrete", shape=(), dtype="int64", classes=(actions,), start=(0,)),
        )
        super().__init__(spec, states, feat or states)
        if feat is None:
            self.embed = nn.Parameter(torch.eye(states))
        self.moves, self.reward, self.cont = (nn.Parameter(x.clone()) for x in (moves, reward, cont))

    def step(self, state: Place, action: Tensor | None) -> Place:
        probs = torch.einsum("...s,...a,sat->...t", state.at, action, self.moves)
        drawn = probs.argmax(-1) if is_deterministic() else torch.multinomial(probs.detach(), 1).squeeze(-1)
        hard = F.one_hot(drawn, probs.shape[-1]).to(probs.dtype)
        return Place(at=hard + probs - probs.detach())

    def read(self, state: Place) -> Step:
        return Step(feat=state.at @ self.embed, reward=state.at @ self.reward, cont=state.at @ self.cont)


class Line(Tiny):
    """A point on a line, pushed by a number: it is where it was, times `drag`, plus `push` times the action.

    Reward and continuation are functions of where it is.
    """

    def __init__(self, drag: float, push: float, feat: int = 6, dtype: torch.dtype = torch.float32) -> None:
        spec = Spec(
            obs={"obs": Space(kind="vector", shape=(1,), dtype="float32")},
            action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
        )
        super().__init__(spec, 1, feat)
        self.drag, self.push = nn.Parameter(torch.tensor(drag)), nn.Parameter(torch.tensor(push))
        self.shift = nn.Parameter(torch.linspace(-2, 2, feat))
        self.to(dtype)

    def step(self, state: Place, action: Tensor | None) -> Place:
        assert action is not None and bool((action.abs() <= 1).all()), "an action reaches a model clipped"
        return Place(at=self.drag * state.at + self.push * action)

    def read(self, state: Place) -> Step:
        feat = torch.tanh(state.at @ self.embed + self.shift)
        x = state.at.squeeze(-1)
        return Step(feat=feat, reward=self.worth(x), cont=torch.sigmoid(4 - x.square()))

    def worth(self, x: Tensor) -> Tensor:
        """Say what it is worth to be at x [..]."""
        return 3 * x + self.drag * x.square()


def rows(obs: Tensor, **columns: Tensor) -> Segment:
    """Make a segment [B, T] of observations [B, T, ...] and whatever columns matter; others are 0."""
    flags = torch.zeros(obs.shape[:2], dtype=torch.bool)
    found: dict[str, Any] = {
        "prev_action": None, "reward": obs.new_zeros(obs.shape[:2]), "is_first": flags, "is_terminal": flags,
        "is_last": flags,
    }  # fmt: skip
    return Segment(obs={"obs": obs}, **(found | columns))


def random_table(states: int, actions: int, seed: int, feat: int | None = 6) -> Table:
    """Draw a table in which every action leads somewhere with certainty; some states are likely the end."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(states, (states, actions), generator=generator)
    moves = F.one_hot(target, states).double()
    reward = 4 * torch.randn(states, generator=generator).double()
    cont = torch.rand(states, generator=generator).double()
    torch.manual_seed(seed)
    return Table(moves, reward, cont, feat).double()


def wander(model: Tiny, batch: int, length: int, seed: int) -> Segment:
    """Draw rows at random places, with ends of both kinds in the middle, and one of each at the last row.

    Sequence 0 holds a terminal end and a truncation; the last two end with the segment, one in each way.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = model.embed.dtype
    if isinstance(model, Table):
        at = F.one_hot(torch.randint(model.width, (batch, length), generator=generator), model.width).to(dtype)
    else:
        at = torch.randn(batch, length, 1, generator=generator).to(dtype)
    last = torch.zeros(batch, length, dtype=torch.bool)
    terminal = last.clone()
    last[0, 1] = terminal[0, 1] = True
    last[0, length - 3] = True
    last[-1, -1] = last[-2, -1] = terminal[-2, -1] = True
    first = torch.cat([torch.zeros(batch, 1, dtype=torch.bool), last[:, :-1]], 1)
    reward = 3 * torch.randn(batch, length, generator=generator).to(dtype) * ~first
    return rows(at, reward=reward, is_first=first, is_last=last, is_terminal=terminal)


def awake(model: Any, seed: int = 0, **fields: Any) -> Dreamer:
    """Make an agent as it might be after some learning: preferences that differ by place, and values of a few units."""
    torch.manual_seed(seed)
    agent = Dreamer(model, **({"units": 16, "layers": 1, "horizon": 4} | fields)).to(next(model.parameters()).dtype)
    with torch.no_grad():
        agent.actor_out.weight.normal_(0, 0.7)
        for head in (agent.critic, agent.slow):
            # values over all bins reach millions; these stay near zero
            head.out.weight.normal_(0, 0.3)
            head.out.bias.copy_(-0.02 * (torch.arange(255) - 127).square())
            for layer in head.body:
                layer.norm.scale.uniform_(0.5, 1.5)
    return agent
