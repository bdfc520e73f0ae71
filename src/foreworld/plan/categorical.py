"""The cross-entropy method for discrete actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from foreworld.core.errors import ConfigError
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.sampling import Choices, adapt, elite_weights
from foreworld.plan.search import Search
from foreworld.plan.searching import Searching


@dataclass(frozen=True, kw_only=True)
class CategoricalCEM(Searching):
    """Draw plans from a distribution over the classes of every step, and fit it to the best plans, again and again.

    Attributes:
        horizon: actions in a plan.
        candidates: plans in a round.
        iterations: rounds.
        elites: the best of a round, which the distribution is fitted to.
        unimix: share of the uniform distribution that stays, so that no class is ever given up.
        trust: probability of the warm start's actions at the beginning, beside their share of the rest.
        momentum: share of the old distribution that stays, in [0, 1).
        noise: what plans are made of.

    Reference:
        Rubinstein and Kroese, The Cross-Entropy Method, 2004, section 4.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.finite import Finite
        >>> from foreworld.plan import CategoricalCEM, PredictedReturn
        >>> model = Finite(states=6, actions=3, seed=1)
        >>> at = torch.arange(6)[model.futures[:6] > 0]
        >>> with fw.seeded(0):
        ...     plan = CategoricalCEM(horizon=4)(model, model.at(at), PredictedReturn())
        >>> bool(torch.allclose(plan.score, model.optimum(at, horizon=4)[1]))
        True
    """

    kind = "discrete"
    candidates: int = 64
    iterations: int = 8
    elites: int = 8
    unimix: float = 0.3
    trust: float = 0.5
    momentum: float = 0.3
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.iterations, self.elites) < 1 or self.candidates < 2 * self.elites:
            raise ConfigError(
                "categorical cem: horizon, iterations and elites are at least 1 and candidates twice the elites, found "
                f"{self.horizon}, {self.iterations}, {self.elites} and {self.candidates}"
            )
        if not (0 < self.unimix <= 1 and 0 <= self.trust < 1 and 0 <= self.momentum < 1):
            raise ConfigError(
                "categorical cem: unimix lies in (0, 1], trust and momentum in [0, 1), found "
                f"{self.unimix}, {self.trust} and {self.momentum}"
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
            Choices.around(search.start, search.space, self.trust, self.unimix),
            sizes=[self.candidates] * self.iterations,
            weigh=partial(elite_weights, elites=self.elites),
            noise=self.noise,
            momentum=self.momentum,
        )
