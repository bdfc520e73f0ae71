"""The part that all planners share: candidates are dreamed, judged and counted, and the best is remembered."""

from __future__ import annotations

import time
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from foreworld.core import WorldModel, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.spaces import Space
from foreworld.plan.protocols import Objective, Plan, Warm
from foreworld.rollout import imagine

S = TypeVar("S")

GRADIENT_COST = 3
"""Rollouts that one with a gradient counts as: the way back costs about twice the way forth."""


class Search(Generic[S]):
    """B searches side by side for H actions each; nothing passes between them.

    Args:
        model: any world model with actions.
        state: where to start, leaves [B, ...].
        objective: what a dream is worth.
        horizon: H.
        warm: where to begin; None is the middle.
        seconds: after that `going_on` says no; None is no limit.
        kind: the kind of actions that the planner can choose; None is any.

    Attributes:
        model: as given.
        state: as given.
        objective: as given.
        space: of the actions.
        start: [B, H, A], the warm start.
        elites: [B, K, H, A], those of the search before; None where there are none.
        best: [B, H, A], the best candidate so far.
        score: [B], of the best; -inf before any was finite.
        rollouts: spent so far on each environment.
        iterations: rounds begun.

    Raises:
        SpecError: the model takes no actions, or actions of another kind.
        ConfigError: the warm start is of another shape.
    """

    def __init__(
        self,
        model: WorldModel[S],
        state: S,
        objective: Objective,
        *,
        horizon: int,
        warm: Warm | None = None,
        seconds: float | None = None,
        kind: Literal["vector", "discrete"] | None = None,
    ) -> None:
        """Begin with nothing but the warm start."""
        self.model, self.state, self.objective = model, state, objective
        self._began = time.monotonic()
        self._end = None if seconds is None else self._began + seconds
        self.space = _space(model, kind)
        first = tree.leaves(state)[0]
        shape = (len(first), horizon, self.space.width)
        if warm is not None and warm.actions.shape != shape:
            raise ConfigError(
                f"plan: the warm start has shape {list(warm.actions.shape)} where {list(shape)} is planned; "
                "start without it, or keep batch and horizon"
            )
        warm = Warm(actions=torch.zeros(shape)) if warm is None else warm
        warm = tree.map(lambda leaf: leaf.to(first.device, torch.float32).nan_to_num(0.0).clamp(-1, 1), warm)
        self.start, self.elites = warm.actions, warm.elites
        discrete = self.space.kind == "discrete"
        self.best = self.space.one_hot(self.space.from_one_hot(self.start)) if discrete else self.start
        self.score = torch.full(shape[:1], -torch.inf, device=first.device)
        self.rollouts = self.iterations = 0
        self._repeated: tuple[int, S] | None = None

    def going_on(self) -> bool:
        """Begin another round, if one that takes as long as the last is over in time; the first is always done."""
        if self._end is not None:
            self.score.cpu()  # rounds are only queued on a GPU: wait for the last one before looking at the clock
            now = time.monotonic()
            if self.iterations and now + (now - self._began) > self._end:
                return False
            self._began = now
        self.iterations += 1
        return True

    def judge(self, candidates: Tensor) -> Tensor:
        """Dream candidates, count them, and remember the best.

        Args:
            candidates: [B, N, H, A]; with a gradient they count threefold.

        Returns:
            Scores [B, N] as the objective gave them, with their gradient; NaN and infinite ones are never the best.

        Raises:
            ValueError: the objective returns no score per candidate.
        """
        batch, number = candidates.shape[:2]
        dream = imagine(
            self.model, self._states(number), candidates.flatten(0, 1), keep=getattr(self.objective, "keep", ())
        )
        score = self.objective(dream)
        if score.shape != (batch * number,):
            raise ValueError(
                f"plan: the objective returned {list(score.shape)} for {batch * number} dreams; return one score each"
            )
        score = score.reshape(batch, number)
        self.rollouts += number * (GRADIENT_COST if candidates.requires_grad else 1)
        self.remember(candidates.detach(), sound(score.detach()))
        return score

    def _states(self, number: int) -> S:
        """Repeat the start for so many candidates; models never write into it, so the next round has it too."""
        if self._repeated is None or self._repeated[0] != number:
            self._repeated = (number, tree.repeat(self.state, number))
        return self._repeated[1]

    def remember(self, candidates: Tensor, score: Tensor) -> None:
        """Keep what is better than the best so far.

        Args:
            candidates: [B, N, H, A].
            score: [B, N]; -inf is never better.
        """
        top, which = score.max(1)
        better = top > self.score
        chosen = candidates[torch.arange(len(which), device=which.device), which]
        self.best = torch.where(better[:, None, None], chosen, self.best)
        self.score = torch.where(better, top.to(self.score), self.score)

    def plan(self, elites: Tensor | None = None) -> Plan:
        """Return the best so far.

        Args:
            elites: [B, K, H, A], to be tried again by the next search.
        """
        return Plan(
            actions=self.best,
            score=self.score,
            fell_back=~self.score.isfinite(),
            rollouts=self.rollouts,
            iterations=self.iterations,
            elites=elites,
        )


def sound(score: Tensor) -> Tensor:
    """Put -inf, which never wins, for scores that are NaN or infinite.

    Args:
        score: of any shape.

    Returns:
        Likewise shaped.
    """
    return torch.where(score.isfinite(), score, -torch.inf)


def _space(model: WorldModel[Any], kind: str | None) -> Space:
    space = model.spec.action
    if space is None:
        raise SpecError("plan: the model takes no actions, so there is nothing to plan; train one with actions")
    if kind is not None and space.kind != kind:
        other = (
            "CategoricalCEM, TreeSearch or RandomShooting"
            if space.kind == "discrete"
            else "CEM, ICEM, MPPI, Gradient or QuasiNewton"
        )
        raise SpecError(f"plan: the actions are {space.kind}, which this planner cannot choose; use {other}")
    return space
