"""Two planners, one after the other: a broad search, and a fine one from where it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from foreworld.core import WorldModel
from foreworld.core.errors import ConfigError
from foreworld.plan.cem import CEM
from foreworld.plan.protocols import Objective, Plan, Planner, Warm, kind_of
from foreworld.plan.quasi_newton import QuasiNewton


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """Search with one planner, then with another that starts from its plan.

    By default CEM, then steps that learn the curvature: 976 rollouts.

    Attributes:
        first: finds the region.
        second: finds the best in it.

    Example:
        >>> import foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import Hybrid, PredictedReturn
        >>> model = Quadratic(seed=3)
        >>> x = model.starts(5, horizon=12)
        >>> with fw.seeded(0):
        ...     plan = Hybrid()(model, model.at(x), PredictedReturn())
        >>> bool((plan.score > 1.001 * model.optimum(x, horizon=12)[1]).all())
        True
    """

    first: Planner = field(default_factory=lambda: CEM(iterations=4))
    second: Planner = field(default_factory=lambda: QuasiNewton(iterations=240))

    def __post_init__(self) -> None:
        """Refuse planners that do not fit together."""
        if self.first.horizon != self.second.horizon:
            raise ConfigError(
                f"hybrid: both planners need the same horizon, found {self.first.horizon} and {self.second.horizon}"
            )

    @property
    def kind(self) -> Literal["vector", "discrete"] | None:
        """The kind of actions that both can choose; None is any."""
        return kind_of(self.first) or kind_of(self.second)

    @property
    def horizon(self) -> int:
        """Number of actions in a plan."""
        return self.first.horizon

    @property
    def budget(self) -> int:
        """Rollouts for each environment."""
        return self.first.budget + self.second.budget

    def __call__(
        self,
        model: WorldModel[Any],
        state: Any,
        objective: Objective,
        warm: Warm | None = None,
        seconds: float | None = None,
    ) -> Plan:
        """Search for the best actions [B, H, A]; see `Planner`."""
        begun = time.monotonic()
        broad = self.first(model, state, objective, warm, seconds)
        spent = time.monotonic() - begun
        left = None if seconds is None else seconds - spent
        if left is not None and left < spent / broad.iterations:  # the first round of the second would come too late
            return broad
        fine = self.second(model, state, objective, broad.after(0), left)
        better = fine.score > broad.score
        return Plan(
            actions=torch.where(better[:, None, None], fine.actions, broad.actions),
            score=torch.where(better, fine.score, broad.score),
            fell_back=broad.fell_back & fine.fell_back,
            rollouts=broad.rollouts + fine.rollouts,
            iterations=broad.iterations + fine.iterations,
            elites=broad.elites,
        )
