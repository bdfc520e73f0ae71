"""`Searching`: what planners that search once have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from foreworld.core import WorldModel
from foreworld.plan.protocols import Objective, Plan, Warm
from foreworld.plan.search import Search


@dataclass(frozen=True, kw_only=True)
class Searching(ABC):
    """A planner that begins one search and says in `run` how it goes on.

    Attributes:
        horizon: actions in a plan.
        kind: of the actions that it can choose; None is any.
    """

    kind: ClassVar[Literal["vector", "discrete"] | None] = None
    horizon: int = 12

    def __call__(
        self,
        model: WorldModel[Any],
        state: Any,
        objective: Objective,
        warm: Warm | None = None,
        seconds: float | None = None,
    ) -> Plan:
        """Search for the best actions [B, H, A]; see `Planner`."""
        return self.run(
            Search(model, state, objective, horizon=self.horizon, warm=warm, seconds=seconds, kind=self.kind)
        )

    @abstractmethod
    def run(self, search: Search[Any]) -> Plan:
        """Search; nothing is dreamed yet."""
