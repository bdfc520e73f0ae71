"""`MPC`: act by planning with a world model, again and again (model predictive control)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.agents.acting import as_taken, filtered
from foreworld.core import WorldModel, deterministic, is_deterministic
from foreworld.core.errors import ConfigError
from foreworld.envs import Rows
from foreworld.plan import Objective, Plan, Planner
from foreworld.rollout.replan import Replanning

Watch = Callable[[Rows], Any]
"""Rows that arrived from N environments to states of a model, leaves [N, ...]."""


@dataclass(kw_only=True)
class PlanLog:
    """How planning went so far.

    Attributes:
        seconds: of every decision in which something was planned: from the rows that arrived to the actions.
        planned: plans made, one for each environment whose turn it was.
        fell_back: plans of which no candidate had a finite score, so that the plan before was carried on.
        missed: decisions that took longer than the deadline.
        rollouts: dreams, summed over the plans.
        latest: numbers [K] of environments, and the newest plans, which are theirs.
    """

    seconds: list[float] = field(default_factory=list)
    planned: int = 0
    fell_back: int = 0
    missed: int = 0
    rollouts: int = 0
    latest: tuple[Tensor, Plan] | None = None

    def add(self, which: Tensor, plan: Plan, seconds: float, deadline: float | None) -> None:
        """Count a decision."""
        self.seconds.append(seconds)
        self.planned += len(which)
        self.fell_back += int(plan.fell_back.sum())
        self.missed += deadline is not None and seconds > deadline
        self.rollouts += plan.rollouts * len(which)
        self.latest = which, plan


class MPC:
    """Plan, carry out the beginning of the plan, and plan again, in N environments at once. No actor is needed.

    Args:
        model: the world model.
        planner: searches.
        objective: what a dream is worth.
        num_envs: N.
        execute: actions of a plan that are carried out before the next search.
        deadline: seconds for a decision, filtering included; the planner stops in time, and what takes longer all the
            same is counted. None is no limit.
        chance: dream by samples; else by the model's modes, so that no candidate wins by luck.
        watch: what makes states of rows, in place of the model's own filter.

    Attributes:
        log: how planning went.
        state: of the model after the last rows, leaves [N, ...].

    Raises:
        ConfigError: more actions would be carried out than are planned, or there is no time at all.

    Example:
        >>> import foreworld as fw
        >>> from foreworld.agents import MPC
        >>> from foreworld.envs import make
        >>> from foreworld.plan import CategoricalCEM, PredictedReturn
        >>> env = make("CartPole-v1", num_envs=2)
        >>> model = fw.RSSM(env.spec, deter=16, units=8, latents=2, classes=4)  # train it first
        >>> planner = CategoricalCEM(horizon=5, candidates=16, iterations=2, elites=4)
        >>> policy = MPC(model, planner, PredictedReturn(), num_envs=2)
        >>> rows = env.step(policy(env.reset(seed=0)))
        >>> policy.log.planned, policy.log.rollouts
        (2, 64)
    """

    def __init__(
        self,
        model: WorldModel[Any],
        planner: Planner,
        objective: Objective,
        num_envs: int,
        *,
        execute: int = 1,
        deadline: float | None = None,
        chance: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """Begin without memory and without a plan."""
        if execute > planner.horizon:
            raise ConfigError(
                f"mpc: {execute} actions shall be carried out of plans of {planner.horizon}; execute fewer, or plan "
                "further"
            )
        if deadline is not None and not deadline > 0:
            raise ConfigError(f"mpc: a deadline is a positive time, found {deadline} s")
        self.model, self.planner, self.objective = model, planner, objective
        self.deadline, self.chance = deadline, chance
        self.log = PlanLog()
        self.state: Any = model.initial(num_envs) if watch is None else None
        self._replanning = Replanning(num_envs, execute)
        self._watch = watch

    @property
    def __name__(self) -> str:
        """What a dataset notes as the policy."""
        return f"mpc ({type(self.planner).__name__})"

    def aim(self, rows: Rows, which: Tensor) -> Objective:
        """Return what the dreams of environments with the numbers [K] are worth: one objective for all."""
        return self.objective

    @torch.no_grad()
    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row, as the environment takes them."""
        began = time.perf_counter()
        with deterministic(is_deterministic() or not self.chance):
            self.state = self._watch(rows) if self._watch else filtered(self.model, self.state, rows)

            def search(which: Tensor, state: Any, left: Any) -> Plan:
                spent = time.perf_counter() - began
                seconds = None if self.deadline is None else max(0.0, self.deadline - spent)
                return self.planner(self.model, state, self.aim(rows, which), left, seconds)

            action, found = self._replanning(self.state, *_whose_turn(rows), search)
        taken = as_taken(self.model.spec, action, rows)
        if found is not None:
            self.log.add(*found, time.perf_counter() - began, self.deadline)
        return taken


def _whose_turn(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return where an episode begins, and where an action counts: the one after an end is ignored. [N] bool each."""
    return torch.from_numpy(rows.is_first), torch.from_numpy(rows.arrived & ~rows.is_last)
