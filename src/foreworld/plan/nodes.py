"""What tree search and exact search share: all joint choices, single steps of a model, and equal states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from foreworld.core import require, tree
from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.plan.objectives import PredictedReturn
from foreworld.plan.search import Search

S = TypeVar("S")

MOST_CHOICES = 4096
"""Joint choices beyond which a tree is as good as hopeless."""

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of as many bytes."""


def joint_choices(space: Space) -> Tensor:
    """Return every action there is.

    Args:
        space: discrete actions.

    Returns:
        [P, A] one-hots, the last component fastest.

    Raises:
        ConfigError: more than `MOST_CHOICES`.
    """
    number = 1
    for classes in space.classes:
        number *= classes
    if number > MOST_CHOICES:
        raise ConfigError(f"tree search: {number} joint actions are too many to look at each; use CategoricalCEM")
    eyes = [torch.eye(classes) for classes in space.classes]
    picks = torch.cartesian_prod(*(torch.arange(classes) for classes in space.classes)).reshape(number, -1)
    return torch.cat([eye[picks[:, i]] for i, eye in enumerate(eyes)], 1)


@dataclass(frozen=True)
class Arrivals(Generic[S]):
    """What a step of the model led to, N rows.

    Attributes:
        states: leaves [N, ...].
        reward: [N] for arriving.
        lasting: [N], discount times chance of a future.
        feat: [N, D].
    """

    states: S
    reward: Tensor
    lasting: Tensor
    feat: Tensor


class Stepper(Generic[S]):
    """Takes single steps, as an objective of rewards counts them.

    Args:
        search: what to search for; its objective must be `PredictedReturn`.

    Attributes:
        choices: [P, A], every action.
        objective: of the search.

    Raises:
        ConfigError: another objective, or too many choices.
        MissingCapability: the model predicts no reward.
    """

    def __init__(self, search: Search[S]) -> None:
        """Check what can be counted step by step."""
        if not isinstance(search.objective, PredictedReturn):
            raise ConfigError(
                "tree search adds rewards up step by step, which only the objective PredictedReturn allows; "
                "use CategoricalCEM for others"
            )
        require(search.model, "reward", "tree search")
        self.model, self.objective = search.model, search.objective
        self.choices = joint_choices(search.space).to(search.start.device)

    def step(self, states: S, choice: Tensor) -> Arrivals[S]:
        """Go on from states [N, ...] by choices [N] int."""
        after = self.model.step(states, self.choices[choice])
        read = self.model.read(after)
        assert read.reward is not None
        cont = torch.ones_like(read.reward) if read.cont is None else read.cont
        return Arrivals(after, read.reward.float(), self.objective.discount * cont.float(), read.feat)

    def beyond(self, feat: Tensor) -> Tensor:
        """Return what follows the last step [N], by features [N, D]."""
        value = self.objective.value
        return feat.new_zeros(len(feat), dtype=torch.float32) if value is None else value(feat).float()


def same(states: Any, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Find states that are the same bit by bit, of the same owner.

    Args:
        states: leaves [N, ...].
        owner: [N] int.

    Returns:
        One row of each kind [U], and the kind of every row [N].
    """
    key = owner.clone()
    for i, leaf in enumerate(tree.leaves(states)):
        # a sum of words times odd numbers, modulo 2^64: two kinds fall together less than once in 10^18 pairs
        words = leaf.reshape(len(leaf), -1).contiguous().view(WORDS[leaf.element_size()]).long()
        source = torch.Generator().manual_seed(i)
        factor = torch.randint(-(2**61), 2**61, (words.shape[1],), generator=source).to(words.device) * 2 + 1
        key = key * 0x9E3779B97F4A7C1 + (words * factor).sum(1)
    _, kind = torch.unique(key, return_inverse=True)
    rows = torch.arange(len(kind), device=kind.device)
    first = torch.full((int(kind.max()) + 1,), len(kind), device=kind.device).scatter_reduce(0, kind, rows, "amin")
    return first, kind
