"""The cross-entropy method, and its sample-efficient variant iCEM."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from foreworld.core.errors import ConfigError
from foreworld.plan.noise import Coloured, Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.sampling import Normals, adapt, elite_weights
from foreworld.plan.search import Search
from foreworld.plan.searching import Searching


@dataclass(frozen=True, kw_only=True)
class CEM(Searching):
    """Draw plans from normal distributions, and fit these to the best plans, again and again.

    Attributes:
        horizon: actions in a plan.
        candidates: plans in the first round.
        iterations: rounds.
        elites: the best of a round, which the distributions are fitted to.
        std: deviation at the beginning; actions lie in [-1, 1].
        min_std: what the deviation never falls below.
        momentum: share of the old distributions that stays, in [0, 1).
        decay: by what the candidates become fewer from round to round, but never fewer than two for each elite.
        keep: elites that are tried again in the next round, and shifted by the next search.
        noise: what plans are made of.

    Reference:
        Rubinstein and Kroese, The Cross-Entropy Method, 2004, section 5.

    Example:
        >>> import foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import CEM, PredictedReturn
        >>> model = Quadratic(seed=3)
        >>> x = model.starts(5, horizon=10)
        >>> with fw.seeded(0):
        ...     plan = CEM(horizon=10)(model, model.at(x), PredictedReturn())
        >>> resting = fw.imagine(model, model.at(x), 0 * plan.actions).reward.sum(1)
        >>> plan.actions.shape, plan.rollouts, bool((plan.score > resting / 2).all())
        (torch.Size([5, 10, 2]), 512, True)
    """

    kind = "vector"
    candidates: int = 64
    iterations: int = 8
    elites: int = 8
    std: float = 0.5
    min_std: float = 0.05
    momentum: float = 0.1
    decay: float = 1.0
    keep: int = 0
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.iterations, self.elites) < 1 or self.candidates < 2 * self.elites:
            raise ConfigError(
                "cem: horizon, iterations and elites are at least 1 and candidates twice the elites, found "
                f"{self.horizon}, {self.iterations}, {self.elites} and {self.candidates}"
            )
        if not (0 < self.std < torch.inf and 0 <= self.min_std <= self.std and 0 <= self.momentum < 1):
            raise ConfigError(
                "cem: std is positive and at least min_std, which is 0 or more, and momentum lies in [0, 1), found "
                f"{self.std}, {self.min_std} and {self.momentum}"
            )
        if not (self.decay >= 1 and 0 <= self.keep < self.elites):
            raise ConfigError(
                f"cem: decay is at least 1, and keep 0 or more and below the elites, found {self.decay} and {self.keep}"
            )

    @property
    def sizes(self) -> list[int]:
        """Candidates of every round."""
        fewest = 2 * self.elites
        return [max(round(self.candidates / self.decay**i), fewest) for i in range(self.iterations)]

    @property
    def budget(self) -> int:
        """Rollouts for each environment."""
        return sum(self.sizes)

    @torch.no_grad()
    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A]."""
        return adapt(
            search,
            Normals(search.start, torch.full_like(search.start, self.std), self.min_std),
            sizes=self.sizes,
            weigh=partial(elite_weights, elites=self.elites),
            noise=self.noise,
            momentum=self.momentum,
            keep=self.keep,
        )


@dataclass(frozen=True, kw_only=True)
class ICEM(CEM):
    """The cross-entropy method with actions that last, fewer candidates from round to round, and elites that stay.

    It has the settings of `CEM` (horizon, candidates, iterations, elites, std, min_std, momentum) with other defaults
    for these:

    Attributes:
        decay: by what the candidates become fewer from round to round, but never fewer than two for each elite.
        keep: elites that are tried again in the next round, and shifted by the next search.
        noise: what plans are made of; coloured, so that they explore further than by independent actions.

    Reference:
        Pinneri et al., Sample-efficient Cross-Entropy Method for Real-time Planning, 2020.
    """

    decay: float = 1.25
    keep: int = 3
    noise: Noise = field(default=Coloured(2.0))
