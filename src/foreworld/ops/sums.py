"""Bootstrap intervals of statistics of sums over episodes, by one matrix product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foreworld.ops.bootstrap import Interval, percentile_interval


def bootstrap_sums(
    statistic: Callable[..., np.ndarray],
    *samples: np.ndarray,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute a percentile bootstrap interval of a statistic that needs only the sums over the episodes.

    A resample is how often each episode was drawn, so that all resampled sums are one product [R, E] x [E, N]: for a
    thousand episodes some hundred times faster than gathering the rows.

    Args:
        statistic: maps sums [R, ...] to [R, ...].
        samples: arrays [E, ...] to be summed over the episodes, row e of each belongs to episode e.
        repeats: number of resamples.
        confidence: in (0, 1).
        seed: fixes the resamples.

    Returns:
        The statistic on the data, and its interval; NaN where more than half of the resamples have none.

    Raises:
        ValueError: fewer than two episodes, or samples of different length.

    Example:
        >>> import numpy as np
        >>> total, count = np.arange(100.0), np.ones(100)
        >>> ci = bootstrap_sums(lambda total, count: total / count, total, count)
        >>> float(ci.value), bool(ci.low < 49.5 < ci.high)
        (49.5, True)
    """
    count = len(samples[0])
    if count < 2 or any(len(sample) != count for sample in samples):
        raise ValueError(f"bootstrap: needs at least 2 episodes, the same for all, found {[len(s) for s in samples]}")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats).astype(float)
    value = statistic(*(sample.sum(0)[None] for sample in samples))[0]
    sums = [(drawn @ sample.reshape(count, -1)).reshape(repeats, *sample.shape[1:]) for sample in samples]
    return percentile_interval(value, statistic(*sums), confidence)
