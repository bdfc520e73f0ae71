"""Model predictive path integral control: all candidates count, the better ones more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from foreworld.core.errors import ConfigError
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.sampling import Normals, adapt, softmax_weights
from foreworld.plan.search import Search
from foreworld.plan.searching import Searching


@dataclass(frozen=True, kw_only=True)
class MPPI(Searching):
    """Draw plans from normal distributions, and fit these to all of them, weighted by exp(score / temperature).

    Scores are counted in deviations of the candidates' scores, so one temperature fits rewards of any scale.

    Attributes:
        horizon: actions in a plan.
        candidates: plans in a round.
        iterations: rounds.
        temperature: in deviations; towards 0 only the best counts.
        std: deviation at the beginning; actions lie in [-1, 1].
        min_std: what the deviation never falls below.
        momentum: share of the old distributions that stays, in [0, 1).
        noise: what plans are made of.

    Reference:
        Williams et al., Information Theoretic MPC, 2017, algorithm 2. Deviations are fitted as in Hansen et al.,
        Temporal Difference Learning for Model Predictive Control, 2022.
    """

    kind = "vector"
    candidates: int = 64
    iterations: int = 8
    temperature: float = 0.2
    std: float = 0.5
    min_std: float = 0.05
    momentum: float = 0.1
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.iterations) < 1 or self.candidates < 2:
            raise ConfigError(
                "mppi: horizon and iterations are at least 1 and candidates at least 2, found "
                f"{self.horizon}, {self.iterations} and {self.candidates}"
            )
        ranges = 0 < self.std < torch.inf and 0 <= self.min_std <= self.std and 0 <= self.momentum < 1
        if not (ranges and self.temperature > 0):
            raise ConfigError(
                "mppi: std and temperature are positive, min_std lies in [0, std] and momentum in [0, 1), found "
                f"{self.std}, {self.temperature}, {self.min_std} and {self.momentum}"
            )

    @property
    def budget(self) -> int:
        """Rollouts for each environment."""
        return self.candidates * self.iterations

    @torch.no_grad()
    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A]."""
        return adapt(
            search,
            Normals(search.start, torch.full_like(search.start, self.std), self.min_std),
            sizes=[self.candidates] * self.iterations,
            weigh=partial(softmax_weights, temperature=self.temperature),
            noise=self.noise,
            momentum=self.momentum,
        )
