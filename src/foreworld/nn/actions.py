"""Distributions over actions: what an actor's raw output means, as sample, log-probability and entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core import Space, is_deterministic

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Actions(Protocol):
    """A kind of action; `params` [.., P] come from a network, actions are model-ready [.., A]."""

    @property
    def width(self) -> int:
        """Width A of an action."""
        ...

    @property
    def params(self) -> int:
        """Width P of the network output."""
        ...

    def sample(self, params: Tensor) -> Tensor:
        """Draw actions [.., A], without a gradient; the mode under `deterministic()`."""
        ...

    def mode(self, params: Tensor) -> Tensor:
        """Return the likeliest actions [.., A]."""
        ...

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Compute the log-probability (density) [..] of actions [.., A], in nats."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..], in nats."""
        ...


def actions_of(space: Space, unimix: float = 0.01) -> Actions:
    """Return the kind of action that fits a space.

    Args:
        space: of the action.
        unimix: share of the uniform distribution in discrete choices.

    Example:
        >>> from foreworld.core import Space
        >>> actions_of(Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,))).params
        3
    """
    return OneHots(space.classes, unimix) if space.kind == "discrete" else BoundedNormal(space.width)


@dataclass(frozen=True)
class OneHots:
    """One or several independent choices, each a one-hot, all side by side.

    The uniform share is part of the distribution: of samples, log-probability and entropy. DreamerV3's paper asks for
    it in the actor too; in its code the setting has no effect on discrete actions.

    Attributes:
        classes: of each choice.
        unimix: share of the uniform distribution.
    """

    classes: tuple[int, ...]
    unimix: float = 0.01

    @property
    def width(self) -> int:
        """Width of an action."""
        return sum(self.classes)

    @property
    def params(self) -> int:
        """Width of the logits."""
        return self.width

    def probs(self, params: Tensor) -> list[Tensor]:
        """Return the probabilities [.., classes] of every choice."""
        mixed = ((1 - self.unimix) * torch.softmax(part, -1) for part in params.split(self.classes, -1))
        return [soft + self.unimix / soft.shape[-1] for soft in mixed]

    def log_probs(self, params: Tensor) -> list[Tensor]:
        """Return their logarithms, finite even where a probability is too small for a float."""
        if self.unimix:
            return [probs.log() for probs in self.probs(params)]
        return [torch.log_softmax(part, -1) for part in params.split(self.classes, -1)]

    def sample(self, params: Tensor) -> Tensor:
        """Draw one-hots [.., A]."""
        if is_deterministic():
            return self.mode(params)
        with torch.no_grad():
            return torch.cat([_draw(probs) for probs in self.probs(params)], -1)

    def mode(self, params: Tensor) -> Tensor:
        """Return the likeliest one-hots [.., A]."""
        best = (F.one_hot(part.argmax(-1), part.shape[-1]) for part in params.split(self.classes, -1))
        return torch.cat(list(best), -1).to(params.dtype)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Compute the log-probability [..]."""
        chosen = zip(self.log_probs(params), action.split(self.classes, -1), strict=True)
        return torch.stack([(log_probs * one).sum(-1) for log_probs, one in chosen]).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..]."""
        every = self.log_probs(params)
        return torch.stack([-(log_probs.exp() * log_probs).sum(-1) for log_probs in every]).sum(0)


@dataclass(frozen=True)
class BoundedNormal:
    """Independent normals with mean in (-1, 1) and deviation in (0.1, 1); samples may lie beyond [-1, 1].

    Whoever takes the action clips it, environment and model alike; its log-probability is that of the unclipped one.

    Attributes:
        width: of an action.
        least: smallest deviation.
        most: largest deviation.

    Reference:
        Hafner et al. 2023, arXiv 2301.04104; its code (heads.py, `bounded_normal`).
    """

    width: int
    least: float = 0.1
    most: float = 1.0

    @property
    def params(self) -> int:
        """Width of raw means and raw deviations."""
        return 2 * self.width

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, [.., A] each."""
        mean, raw = params.chunk(2, -1)
        return torch.tanh(mean), (self.most - self.least) * torch.sigmoid(raw + 2) + self.least

    def sample(self, params: Tensor) -> Tensor:
        """Draw actions [.., A]."""
        with torch.no_grad():
            mean, std = self.split(params)
            return mean if is_deterministic() else torch.addcmul(mean, std, torch.randn_like(mean))

    def mode(self, params: Tensor) -> Tensor:
        """Return the means [.., A]."""
        return self.split(params)[0]

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Compute the log-density [..]."""
        mean, std = self.split(params)
        return (-0.5 * ((action - mean) / std).square() - std.log() - _HALF_LOG_TAU).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..]."""
        return (self.split(params)[1].log() + 0.5 + _HALF_LOG_TAU).sum(-1)


def _draw(probs: Tensor) -> Tensor:
    """Draw one-hots: the first class whose cumulative probability exceeds a uniform number."""
    sums = probs.cumsum(-1)
    above = (sums > torch.rand_like(sums[..., :1]) * sums[..., -1:]).to(probs.dtype)
    return torch.cat([above[..., :1], above[..., 1:] - above[..., :-1]], -1)
