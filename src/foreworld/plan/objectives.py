"""What a dream is worth: predicted return, nearness to a goal, certainty, and sums of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from foreworld.core import Rollout
from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.core.protocols import REMEDIES
from foreworld.ops import discounted_return
from foreworld.plan.protocols import Objective

Over = Literal["sum", "last", "nearest"]
"""Which states of a dream are compared with a goal."""

TIE = 0.01
"""Weight of the mean distance beside the nearest."""


@dataclass(frozen=True, kw_only=True)
class PredictedReturn:
    """The discounted sum of predicted rewards, each weighted by the chance to get there; see `discounted_return`.

    Without a continue head nothing ends.

    Attributes:
        discount: per step, in [0, 1].
        value: features [B, D] to what follows from there [B], such as a critic; None is nothing after the horizon.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import PredictedReturn
        >>> model = Quadratic(seed=3)
        >>> dream = fw.imagine(model, model.at(torch.ones(5, 4)), torch.zeros(5, 8, 2))
        >>> bool(torch.allclose(PredictedReturn()(dream), dream.reward.sum(1)))
        True
    """

    discount: float = 1.0
    value: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse a discount that is none."""
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"predicted return: the discount lies in [0, 1], found {self.discount}")

    def __call__(self, dream: Rollout[Any]) -> Tensor:
        """Return the score [B] of dreams."""
        reward = _there(dream.reward, "reward", "predicted return")
        cont = torch.ones_like(reward) if dream.cont is None else dream.cont
        if self.value is not None:
            # the value is one more reward, beyond the last state
            reward = torch.cat([reward, self.value(dream.feat[:, -1])[:, None]], 1)
            cont = torch.cat([cont, cont[:, -1:]], 1)
        return discounted_return(reward, cont, self.discount)


@dataclass(frozen=True, kw_only=True)
class GoalDistance:
    """How far the dream is from a goal: minus the mean squared difference, which is 0 at the goal.

    Predicted ends count for nothing here: what ends early would be near for free.

    Attributes:
        goal: [B, E] one per environment, or [1, E] for all; from the same encoder as what it is compared with.
        space: `embed`, of families with an embedding space, or `feat`.
        over: `sum` over all states reached, so that early is better; the `last` alone; or the `nearest`, so that a way
            round an obstacle, which leads away from the goal at first, costs next to nothing: a hundredth of the mean
            over all states, so that of equally near dreams one wins that arrives early and stays.
    """

    goal: Tensor
    space: Literal["embed", "feat"] = "embed"
    over: Over = "sum"

    def __post_init__(self) -> None:
        """Refuse what is no goal, and unknown words."""
        if self.goal.dim() != 2 or self.space not in ("embed", "feat") or self.over not in get_args(Over):
            raise ConfigError(
                "goal distance: a goal is [B, E], the space embed or feat, and over is sum, last or nearest; found "
                f"{list(self.goal.shape)}, {self.space!r} and {self.over!r}"
            )

    @property
    def keep(self) -> tuple[str, ...]:
        """What a dream must hold."""
        return ("embed",) if self.space == "embed" else ()

    def __call__(self, dream: Rollout[Any]) -> Tensor:
        """Return the score [B * N] of dreams.

        Raises:
            ConfigError: the goals are not as many as the environments, or of another width.
        """
        reached = dream.feat if self.space == "feat" else _there(dream.embed, "embed", "goal distance")
        number, extra = divmod(len(reached), len(self.goal))
        if extra or reached.shape[-1] != self.goal.shape[-1]:
            raise ConfigError(
                f"goal distance: goals of shape {list(self.goal.shape)} do not fit dreams of shape "
                f"{list(reached.shape)}; give one goal per environment"
            )
        reached = reached[:, -1:] if self.over == "last" else reached
        apart = reached.unflatten(0, (-1, number)) - self.goal.to(reached)[:, None, None]  # candidates are adjacent
        far = apart.square().mean(-1)
        return -(far.amin(-1) + TIE * far.mean(-1) if self.over == "nearest" else far.sum(-1)).flatten()


@dataclass(frozen=True, kw_only=True)
class SpreadPenalty:
    """How far the members of an ensemble are apart, as a penalty: minus the sum of `spread` over the states reached.

    States beyond a predicted end count for nothing: no model was trained there, so none knows.
    """

    keep = ("spread",)

    def __call__(self, dream: Rollout[Any]) -> Tensor:
        """Return the score [B] of dreams."""
        spread = _there(dream.spread, "spread", "spread penalty")
        return -discounted_return(spread, torch.ones_like(spread) if dream.cont is None else dream.cont)


class Sum:
    """Several objectives together.

    Args:
        objectives: which.
        weights: one for each; all 1 by default.

    Raises:
        ConfigError: no objective, or another number of weights.

    Example:
        >>> from foreworld.plan import PredictedReturn, SpreadPenalty, Sum
        >>> careful = Sum([PredictedReturn(), SpreadPenalty()], [1.0, 0.5])
        >>> careful.keep
        ('spread',)
    """

    def __init__(self, objectives: Sequence[Objective], weights: Sequence[float] | None = None) -> None:
        """Pair objectives with weights."""
        self.objectives = tuple(objectives)
        self.weights = (1.0,) * len(self.objectives) if weights is None else tuple(weights)
        if not self.objectives or len(self.objectives) != len(self.weights):
            raise ConfigError(
                f"sum: as many weights as objectives are needed, at least one; found {len(self.weights)} for "
                f"{len(self.objectives)}"
            )
        self.keep = tuple(sorted({name for one in self.objectives for name in getattr(one, "keep", ())}))

    def __call__(self, dream: Rollout[Any]) -> Tensor:
        """Return the score [B] of dreams."""
        return torch.stack([w * one(dream) for w, one in zip(self.weights, self.objectives, strict=True)]).sum(0)


def _there(found: Tensor | None, capability: str, purpose: str) -> Tensor:
    if found is None:
        raise MissingCapability(f"{purpose} needs {capability!r}, which the dream lacks: {REMEDIES[capability]}")
    return found
