"""What to plan for, in which environments, and what says how near it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from foreworld.agents import Dreamer
from foreworld.agents.goal import GoalMPC
from foreworld.agents.mpc import MPC
from foreworld.core import Spec, require, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.envs import Rows, Vector
from foreworld.envs.area import resize_area
from foreworld.models.simulated import Simulated
from foreworld.plan import Objective, Planner, PredictedReturn, SpreadPenalty, Sum
from foreworld.plan.objectives import Over
from foreworld.report.picture_file import read_picture
from foreworld.studies.trials import Judge
from foreworld.worlds.catalogue import WORLDS, rebuild
from foreworld.worlds.world import Aiming

Goal = Literal["own", "reward"] | Path | tuple[float, ...]
"""The environment's own goals; predicted return; a picture; or coordinates of a bundled world."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What a dream is worth.

    Attributes:
        discount: of predicted rewards, per step; None for that of the run's agent, or 0.99 without one.
        critic: add what the run's agent expects after the horizon, if there is an agent.
        spread: weight of the disagreement of an ensemble, as a penalty; 0 for none.
        over: nearness to a goal summed over all steps of a dream, at the last alone, or at the nearest.
    """

    discount: float | None = None
    critic: bool = True
    spread: float = 0.0
    over: Over = "nearest"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if (self.discount is not None and not 0 <= self.discount <= 1) or not self.spread >= 0:
            raise ConfigError(
                f"objective: discount lies in [0, 1] and spread is 0 or more, found {self.discount} and {self.spread}"
            )

    def of_reward(self, agent: Dreamer | None) -> PredictedReturn:
        """Return the predicted return, with what an agent expects after it."""
        if agent is None or not self.critic:
            return PredictedReturn(discount=0.99 if self.discount is None else self.discount)
        own = agent.config.discount
        if self.discount not in (None, own):
            raise ConfigError(
                f"objective: the critic was trained with a discount of {own}, not {self.discount}; leave out the "
                "discount, or the critic by --objective.no-critic"
            )
        return PredictedReturn(discount=own, value=agent.value)


@dataclass(frozen=True, kw_only=True)
class Control:
    """How plans are carried out.

    Attributes:
        execute: actions of a plan that are carried out before the next search.
        deadline: seconds for a decision; None for no limit.
        chance: dream by samples, not by the model's modes.
    """

    execute: int = 1
    deadline: float | None = None
    chance: bool = False


class Player:
    """What is needed to plan in environments with a model: goals, objectives and the model's view of the rows.

    Args:
        model: any world model with actions; `Simulated` is given the true state.
        env: where to act.
        goal: what for.
        worth: what a dream is worth.
        agent: has a critic; None where there is none.

    Attributes:
        world: the bundled world that it is; None for any other environment.
        judge: says how near the goal is; None for predicted return.
        shown: the picture that is the goal, as the model sees it; None for other goals.

    Raises:
        SpecError: the environment is another than the model's.
        ConfigError: a goal that this environment cannot have.
        MissingCapability: what the model lacks to plan for this.
    """

    def __init__(self, model: Any, env: Vector, goal: Goal, worth: Worth, agent: Dreamer | None = None) -> None:
        """Refuse what does not fit, before anything is played."""
        refuse_other_world(model.spec, env)
        self.model, self.env, self.worth = model, env, worth
        self.world = rebuild(env.env_id, env.options) if env.env_id in WORLDS else None
        self._exact = isinstance(model, Simulated)
        if self._exact and isinstance(goal, Path):
            raise ConfigError("--goal: the world itself plans to states, not to pictures; give coordinates, or a run")
        self.shown = picture(goal, model.spec) if isinstance(goal, Path) else None
        if worth.spread:
            require(model, "spread", "a penalty for disagreement")
        if goal == "reward":
            require(model, "reward", "planning for predicted return")
            self.judge, self._objective = None, self._sum(worth.of_reward(agent))
            return
        self._objective = None
        if not self._exact:
            require(model, "embed", "planning to a goal")
        if self.shown is None and not isinstance(self.world, Aiming):
            raise ConfigError(f"{env.env_id}: has no goal of its own; give --goal reward or a picture")
        self.judge = self._picture_judge() if self.shown is not None else world_judge(cast(Aiming, self.world))

    @property
    def measure(self) -> Literal["success", "mean_return", "goal_distance"]:
        """What is measured."""
        if self.judge is None:
            return "mean_return"
        return "success" if self.shown is None else "goal_distance"

    def plan(self, planner: Planner, control: Control) -> MPC:
        """Return what acts by a planner."""
        options: dict[str, Any] = {**asdict(control), "watch": self._watch if self._exact else None}
        if self._objective is not None:
            return MPC(self.model, planner, self._objective, self.env.num_envs, **options)
        return GoalMPC(
            self.model,
            planner,
            self.env.goal if self.shown is None else lambda index: cast(Any, self.shown),
            self.env.num_envs,
            over=self.worth.over,
            beside=self._penalty(),
            locate=(lambda seen: seen["truth/state"].float()) if self._exact else None,
            **options,
        )

    def _watch(self, rows: Rows) -> Any:
        return self.model.at(torch.from_numpy(rows.truth["state"]))

    def _penalty(self) -> Objective | None:
        return Sum([SpreadPenalty()], [self.worth.spread]) if self.worth.spread else None

    def _sum(self, first: Objective) -> Objective:
        penalty = self._penalty()
        return first if penalty is None else Sum([first, penalty])

    def _picture_judge(self) -> Judge:
        goal = self._embed({key: value[None] for key, value in cast(Any, self.shown).items()})

        def judge(rows: Rows) -> tuple[None, np.ndarray]:
            return None, (self._embed(rows.obs) - goal).square().mean(-1).cpu().numpy()

        return judge

    @torch.no_grad()
    def _embed(self, obs: Mapping[str, np.ndarray]) -> Tensor:
        device = tree.leaves(self.model.initial(1))[0].device
        return self.model.embed({key: torch.from_numpy(obs[key]).to(device) for key in self.model.spec.obs})


def refuse_other_world(spec: Spec, env: Vector) -> None:
    """Refuse environments that show or take something else than a model knows.

    Raises:
        SpecError: names the difference.
    """
    if spec.action is None:
        raise SpecError("the model takes no actions, so there is nothing to plan; train one with actions")
    pairs = [("actions", spec.action, env.action)]
    pairs += [(repr(key), space, env.spec.obs.get(key)) for key, space in spec.obs.items()]
    for what, wanted, found in pairs:
        if found is None or (wanted.kind, wanted.shape, wanted.classes) != (found.kind, found.shape, found.classes):
            shown = "nothing" if found is None else _described(found)
            raise SpecError(
                f"{env.env_id}: the model knows {what} as {_described(wanted)}, here it is {shown}; act in the world "
                "that it was trained in"
            )


def picture(path: Path, spec: Spec) -> dict[str, np.ndarray]:
    """Read a picture as what a model is shown, averaged to its size.

    Args:
        path: any file that Pillow reads.
        spec: of the model, which sees one picture and nothing else.

    Returns:
        The name of the observation to uint8 [C, H, W].

    Raises:
        SpecError: the model sees something else, or the file is no picture.
        MissingExtra: Pillow is not installed.
    """
    if len(spec.obs) != 1 or not spec.images:
        raise SpecError(f"--goal {path}: the model sees {', '.join(spec.obs)}; a picture alone is no goal for it")
    channels, height, width = spec.obs[spec.images[0]].shape
    found = resize_area(read_picture(path, channels), height, width)
    return {spec.images[0]: np.ascontiguousarray(np.moveaxis(found, -1, 0))}


def world_judge(world: Aiming) -> Judge:
    """Return what judges rows by the true state, as the world itself does."""

    def judge(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        state = np.asarray(rows.truth["state"], np.float64)
        return world.success(state), world.distance(state)

    return judge


def _described(space: Any) -> str:
    return f"{space.kind} {list(space.classes or space.shape)}"
