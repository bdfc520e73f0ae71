"""`GoalMPC`: plan to what shall be seen, in the embedding space of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from foreworld.agents.mpc import MPC
from foreworld.core import Rollout, WorldModel, require, tree
from foreworld.envs import Rows
from foreworld.plan import GoalDistance, Objective, Planner, Sum
from foreworld.plan.objectives import Over

See = Callable[[int], Mapping[str, np.ndarray]]
"""Number of an environment to what is seen at the goal of its episode, name to [...] as it is stored."""

Locate = Callable[[Any], Tensor]
"""What is seen, name to [K, ...], to positions [K, E] in the space where distances count."""


class GoalMPC(MPC):
    """Plan to goals: every environment has one for each episode, and a dream is worth as much as it comes near to it.

    Goal and dream are compared by one encoder, the model's own.

    Args:
        model: a world model that provides `embed`.
        planner: searches.
        see: shows the goal; asked whenever an episode begins.
        num_envs: N.
        over: nearness summed over all states of a dream, so that early is better; of the `last` alone; or of the
            `nearest`, so that ways round obstacles cost nothing.
        beside: a further objective, added to the nearness.
        locate: what finds a goal among a model's features, in place of its embedding space; for models whose
            features are positions already.
        **options: further ones of `MPC`.

    Attributes:
        goals: [N, E], of the episodes that are under way.

    Raises:
        MissingCapability: the model has no embedding space.

    Reference:
        Zhou et al., DINO-WM: World models on pre-trained visual features enable zero-shot planning, 2024, section 3.3.
    """

    goals: Tensor

    def __init__(
        self,
        model: WorldModel[Any],
        planner: Planner,
        see: See,
        num_envs: int,
        *,
        over: Over = "sum",
        beside: Objective | None = None,
        locate: Locate | None = None,
        **options: Any,
    ) -> None:
        """Begin without goals."""
        if locate is None:
            require(model, "embed", "planning to a goal")
        self._space: Literal["embed", "feat"] = "embed" if locate is None else "feat"
        self._locate: Locate = getattr(model, "embed") if locate is None else locate  # noqa: B009 - no protocol has it
        self._see, self._over, self._beside = see, over, beside
        self._seen = np.zeros(num_envs, bool)
        # what a dream is worth is said by `aim`, for the goals of the moment
        super().__init__(model, planner, self.nearness, num_envs, **options)

    def aim(self, rows: Rows, which: Tensor) -> Objective:
        """Return what the dreams of environments with the numbers [K] are worth: nearness to their goals of now."""
        fresh = which.numpy()[(rows.is_first | ~self._seen)[which.numpy()]]
        if len(fresh):
            self._look(fresh)
        return self._near(self.goals[which.to(self.goals.device)])

    def nearness(self, dream: Any) -> Tensor:
        """Return how near dreams of all environments come to their goals, [N * candidates]."""
        return self._near(self.goals)(dream)

    def aimed_at(self, dream: Rollout[Any], index: int) -> int:
        """Return which step of a dream counts most, from 0: the one nearest to the goal, or the last.

        Args:
            dream: [1, H], with `embed` where goals lie in the embedding space.
            index: number of the environment.
        """
        reached = dream.feat if self._space == "feat" else dream.embed
        assert reached is not None
        if self._over != "nearest":
            return reached.shape[1] - 1
        return int((reached[0] - self.goals[index]).square().mean(-1).argmin())

    def _near(self, goals: Tensor) -> Objective:
        near = GoalDistance(goal=goals, space=self._space, over=self._over)
        return near if self._beside is None else Sum([near, self._beside])

    def _look(self, fresh: np.ndarray) -> None:
        """Find the goals of environments with the numbers [K]."""
        seen = [self._see(index) for index in fresh.tolist()]
        device = tree.leaves(self.state)[0].device
        together = {key: torch.from_numpy(np.stack([one[key] for one in seen])).to(device) for key in seen[0]}
        found = self._locate(together)
        if not self._seen.any():
            self.goals = found.new_zeros(len(self._seen), found.shape[-1])
        self.goals[torch.from_numpy(fresh).to(device)] = found
        self._seen[fresh] = True
