"""Random shooting: try actions at random and take the best. The baseline that every planner must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.sampling import Choices, uniform_probs
from foreworld.plan.search import Search
from foreworld.plan.searching import Searching


@dataclass(frozen=True, kw_only=True)
class RandomShooting(Searching):
    """Draw plans evenly from all there are, numbers or choices, and take the best; one of them is the warm start.

    Attributes:
        horizon: actions in a plan.
        candidates: plans in a round.
        iterations: rounds; more than one only matter where the time is limited.
        noise: what plans are made of; coloured noise makes actions that last.
    """

    candidates: int = 512
    iterations: int = 1
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse an empty search."""
        if min(self.horizon, self.candidates, self.iterations) < 1:
            raise ConfigError(
                "random shooting: horizon, candidates and iterations are at least 1, found "
                f"{self.horizon}, {self.candidates} and {self.iterations}"
            )

    @property
    def budget(self) -> int:
        """Rollouts for each environment."""
        return self.candidates * self.iterations

    @torch.no_grad()
    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A]."""
        batch, horizon, width = search.start.shape
        tried = search.best[:, None]
        while search.iterations < self.iterations and search.going_on():
            shape = (batch, self.candidates - tried.shape[1], horizon, width)
            drawn = _evenly(search.space, self.noise(shape, search.start.device))
            search.judge(torch.cat([tried, drawn], 1))
            tried = tried[:, :0]
        return search.plan()


def _evenly(space: Space, noise: Tensor) -> Tensor:
    """Turn standard normal numbers [B, N, H, A] into plans, every one as likely."""
    if space.kind == "discrete":
        return Choices(uniform_probs(noise[:, 0], space), space, 0.0).sample(noise)
    return 2 * torch.special.ndtr(noise) - 1
