"""Confidence intervals by resampling episodes, the units that are independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; `low` and `high` may be arrays like `value`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *samples: np.ndarray,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute a percentile bootstrap interval, resampling axis 0 of all samples together.

    Resampling transitions instead of episodes gives intervals far too narrow, because
    the steps of an episode are correlated.

    Args:
        statistic: maps resampled arrays [R, E, ...] to [R, ...], with episodes on axis 1.
        samples: arrays [E, ...], row e of each belongs to episode e.
        repeats: number of resamples.
        confidence: in (0, 1).
        seed: fixes the resamples.

    Returns:
        The statistic on the data, and its interval.

    Raises:
        ValueError: fewer than two episodes, or samples of different length.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Example:
        >>> import numpy as np
        >>> ci = bootstrap(lambda x: x.mean(1), np.arange(100.0))
        >>> bool(ci.low < 49.5 < ci.high)
        True
    """
    count = len(samples[0])
    if count < 2 or any(len(sample) != count for sample in samples):
        raise ValueError(f"bootstrap: needs at least 2 episodes, the same for all, found {[len(s) for s in samples]}")
    rng = np.random.default_rng(seed)
    value = statistic(*(sample[None] for sample in samples))[0]
    chunk = max(1, int(4e6 // max(sample.size for sample in samples)))
    draws = []
    for start in range(0, repeats, chunk):
        pick = rng.integers(count, size=(min(chunk, repeats - start), count))
        draws.append(statistic(*(sample[pick] for sample in samples)))
    tail = (1 - confidence) / 2
    drawn = np.concatenate(draws)
    # where a resample has nothing to say (no episode reaches the step) it is left out, up to half of them
    enough = np.isfinite(drawn).mean(0) >= 0.5
    filled = np.where(enough, drawn, 0.0)
    low, high = np.nanquantile(np.where(np.isfinite(filled), filled, np.nan), [tail, 1 - tail], axis=0)
    return Interval(value, np.where(enough, low, np.nan), np.where(enough, high, np.nan))
