"""Everything that error curves tell about how far a model may be trusted, in one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.core.errors import DataError
from foreworld.eval.bands import Bands, error_bands
from foreworld.eval.compounding import Growth, measure_growth
from foreworld.eval.horizon import SafeHorizon, measure_horizon
from foreworld.eval.replanning import Replanning, recommend_replanning

EXCHANGEABLE = (
    "This holds for new episodes like these: the same world, and actions chosen in the same way. "
    "A planner looks for actions that the model overrates: calibrate on plans that it chose, too."
)


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How far a model may be trusted.

    Attributes:
        horizon: how many steps, how surely.
        bands: what the error of a new trajectory stays under.
        replanning: how often to plan anew.
        growth: by which law errors grow; None where there is no law to find.
        no_growth: why there is none.
        dt: seconds a step, if known.
    """

    horizon: SafeHorizon
    bands: Bands
    replanning: Replanning
    growth: Growth | None
    no_growth: str | None
    dt: float | None

    def to_json(self, steps: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
        """Return plain values; what is missing is None, with a reason beside it.

        Args:
            steps: where to list the bands.
        """
        found = self.horizon.to_json()
        found["safe_horizon_seconds"] = None if self.dt is None else self.horizon.safe.steps * self.dt
        if self.growth is None:
            names = ("growth_law", "growth_rate", "doubling_time", "plateau")
            found |= {key: value for name in names for key, value in ((name, None), (f"{name}_reason", self.no_growth))}
            found["meaning"] = None
        else:
            found |= self.growth.to_json()
        found |= self.replanning.to_json()
        return found | {"band_level": self.bands.level, "bands": self.bands.to_json(steps), "holds_for": EXCHANGEABLE}

    def in_words(self) -> str:
        """Say it in a few sentences, one a line."""
        growth = [f"No law of growth: {self.no_growth}."]
        if self.growth is not None:
            growth = [self.growth.in_words(), self.growth.rate.in_words()]
        return "\n".join([self.horizon.in_words(), *growth, self.replanning.in_words(), EXCHANGEABLE])


def measure_trust(
    errors: np.ndarray,
    episode: np.ndarray | None = None,
    dt: float | None = None,
    *,
    max_error: float = 0.2,
    confidence: float = 0.95,
    violation_rate: float = 0.1,
    latency: float | None = None,
    cut: np.ndarray | None = None,
    seed: int = 0,
) -> Trust:
    """Measure how far a model may be trusted, from its open-loop errors on held-out episodes.

    Args:
        errors: [N, K] error of trajectory n after k = 1..K steps, in deviations of the evaluation set; NaN after its
            end, infinite where it diverged.
        episode: [N] where several trajectories come from one episode.
        dt: seconds a step.
        max_error: the largest error that can be tolerated, in the unit of the errors.
        confidence: of the safe horizon and of the intervals.
        violation_rate: share of new trajectories that may exceed the limit.
        latency: seconds that planning takes; needs `dt`.
        cut: [N] true where an end before step K is that of the recording, not of the world.
        seed: of every choice and resample.

    Returns:
        Safe horizon, bands, replanning interval and law of growth.

    Raises:
        TooFewEpisodes: as many episodes cannot give such a guarantee; says how many can.
        DataError: no error curves.
        ConfigError: a rate outside (0, 1), a limit that is not positive, or a latency without `dt`.

    Example:
        >>> import numpy as np
        >>> rate = np.random.default_rng(0).uniform(0.002, 0.02, size=(200, 1))
        >>> found = measure_trust(rate * np.arange(1, 101), dt=0.05, latency=0.1)
        >>> found.horizon.safe.steps, found.replanning.every, found.growth.name
        (10, 10, 'linear')
    """
    horizon = measure_horizon(
        errors,
        episode,
        max_error=max_error,
        confidence=confidence,
        violation_rate=violation_rate,
        cut=cut,
        seed=seed,
    )
    bands = error_bands(np.asarray(errors, np.float64)[horizon.chosen], 1 - violation_rate, seed=seed)
    growth, no_growth = None, None
    try:
        growth = measure_growth(errors, episode, dt, confidence=confidence, seed=seed)
    except DataError as reason:
        no_growth = str(reason)
    return Trust(
        horizon=horizon,
        bands=bands,
        replanning=recommend_replanning(bands, max_error, dt, latency),
        growth=growth,
        no_growth=no_growth,
        dt=dt,
    )
