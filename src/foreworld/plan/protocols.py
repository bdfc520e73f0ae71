"""What planners are given and what they give: objectives, plans, and what is left of a plan for the next one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from foreworld.core import Rollout, WorldModel, state

Objective = Callable[[Rollout[Any]], Tensor]
"""Dreams of B * N candidates to a score [B * N]; more is better.

An attribute `keep` names what it needs of a dream beside feat, reward and cont, as in `fw.imagine(keep=...)`.
"""


@state
class Warm:
    """Where the next search begins: what is left of a plan when some of its actions are done.

    Attributes:
        actions: [B, H, A] model-ready; zeros where nothing is planned yet.
        elites: [B, K, H, A] candidates to try again; None where a planner keeps none.
    """

    actions: Tensor
    elites: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The best that a search found, for each of B environments.

    Attributes:
        actions: [B, H, A] model-ready, within [-1, 1] or one-hot.
        score: [B], what the objective says of them; -inf where the search fell back.
        fell_back: [B] bool: no candidate had a finite score, so these actions are the warm start as it was.
        rollouts: dreams of H steps spent on each environment; one with a gradient counts as three.
        iterations: rounds done before the budget or the time was used up.
        elites: [B, K, H, A], the best of the last round; None where a planner keeps none.
    """

    actions: Tensor
    score: Tensor
    fell_back: Tensor
    rollouts: int
    iterations: int
    elites: Tensor | None = None

    def after(self, steps: int = 1) -> Warm:
        """Shift the plan by the steps that were carried out; what comes after its end is zero, the middle.

        Args:
            steps: how many actions were carried out, 0 or more.

        Returns:
            What the next search starts from. `fw.tree.where` clears the rows of environments that began anew.

        Raises:
            ValueError: a negative number of steps.
        """
        if steps < 0:
            raise ValueError(f"plan: {steps} steps cannot have been carried out; give 0 or more")
        elites = None if self.elites is None else _shifted(self.elites, steps)
        return Warm(actions=_shifted(self.actions, steps), elites=elites)


class Planner(Protocol):
    """What searches for actions in a world model, for B environments at once and independently.

    An attribute `kind` says which actions it can choose, `vector` or `discrete`; without it, or with None, any.
    """

    @property
    def horizon(self) -> int:
        """Number of actions in a plan."""
        ...

    @property
    def budget(self) -> int:
        """Rollouts that a search without a time limit spends on each environment, counted as in `Plan`.

        It may spend fewer only when it knows that nothing better is to be found.
        """
        ...

    def __call__(
        self,
        model: WorldModel[Any],
        state: Any,
        objective: Objective,
        warm: Warm | None = None,
        seconds: float | None = None,
    ) -> Plan:
        """Search for the best actions.

        Args:
            model: any world model with actions.
            state: where to start, leaves [B, ...].
            objective: what a dream is worth.
            warm: where to begin; None is the middle of all actions.
            seconds: no round begins that, as long as the last, would not be over by then; the first is always done.
                None is no limit.

        Returns:
            The best plan of each environment.
        """
        ...


def kind_of(planner: Planner) -> Literal["vector", "discrete"] | None:
    """Return the kind of actions that a planner can choose; None is any.

    Args:
        planner: anybody's; its attribute `kind` says so.
    """
    return getattr(planner, "kind", None)


def _shifted(actions: Tensor, steps: int) -> Tensor:
    done = min(steps, actions.shape[-2])
    return torch.cat([actions[..., done:, :], torch.zeros_like(actions[..., :done, :])], -2)
