"""Confidence intervals by resampling episodes, the units that are independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from foreworld.core.errors import ConfigError

Statistic = Callable[..., np.ndarray]
"""Maps resampled arrays [R, E, ...] to [R, ...]."""

Method = Literal["percentile", "bca", "t"]
Units = Literal["rows", "cells", "crossed"]

ROUNDING = 1e-13
"""Differences below this share of what is compared are rounding."""

CHUNK = int(4e6)
"""Numbers resampled at a time: memory does not grow with the number of resamples."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; `low` and `high` may be arrays like `value`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(
    statistic: Statistic,
    *samples: np.ndarray,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    method: Method = "percentile",
    units: Units = "rows",
    paired: bool = True,
    error: Statistic | None = None,
) -> Interval:
    """Compute a bootstrap interval, resampling axis 0 of all samples together.

    Resampling transitions instead of episodes gives intervals far too narrow, because
    the steps of an episode are correlated.

    `percentile` and `bca` are too narrow for fewer than some 50 episodes. `t` is the one for 4 to 50: it knows that the
    spread is estimated as well. It needs values that differ (for successes and failures there is `wilson`); with fewer
    than 4 it is infinite. `bca` and `t` need a smooth statistic, such as a mean, a ratio or an interquartile mean.

    A constant statistic has an interval of width 0. A resample whose statistic is not finite is left out; where more
    than half are, the interval is NaN.

    Args:
        statistic: maps resampled arrays [R, E, ...] to [R, ...], with episodes on axis 1.
        samples: arrays [E, ...], row e of each belongs to episode e.
        repeats: number of resamples.
        confidence: in (0, 1).
        seed: fixes the resamples.
        method: `percentile`, `bca` (bias-corrected and accelerated) or `t` (studentised).
        units: what is drawn. `rows`: whole rows. `cells`: for each column by itself, samples being [runs, tasks, ...]:
            the tasks are fixed, their runs are not. `crossed`: whole rows and whole columns, samples being
            [training seeds, starts, ...].
        paired: False draws every sample by itself; they may differ in length.
        error: for `t`: the standard error of the statistic, from the same arrays. The jackknife, E times slower, if
            not given.

    Returns:
        The statistic on the data, and its interval.

    Raises:
        ValueError: fewer than two episodes (of columns, for `crossed`), or paired samples of different length.
        ConfigError: a confidence outside (0, 1), or no repeats.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12 to 14; `cells` as Agarwal et al. 2021,
        arXiv 2108.13264, section 4; `crossed` as Owen, Annals of Applied Statistics 2007.

    Example:
        >>> import numpy as np
        >>> ci = bootstrap(lambda x: x.mean(1), np.arange(100.0))
        >>> bool(ci.low < 49.5 < ci.high)
        True
    """
    counts = [len(sample) for sample in samples]
    if min(counts) < 2 or (paired and len(set(counts)) > 1):
        raise ValueError(f"bootstrap: needs at least 2 episodes, the same for all, found {counts}")
    columns = [sample.shape[1] if sample.ndim > 1 else 0 for sample in samples]
    if units != "rows" and min(columns) < 1 + (units == "crossed"):
        raise ValueError(f"bootstrap: {units} needs a second axis to draw, found {[s.shape for s in samples]}")
    if not 0 < confidence < 1 or repeats < 1:
        raise ConfigError(f"bootstrap: needs 0 < confidence < 1 and repeats >= 1, found {confidence} and {repeats}")
    whole = [sample[None] for sample in samples]
    value = statistic(*whole)[0]
    draw = partial(
        _drawn, samples=samples, repeats=repeats, rng=np.random.default_rng(seed), units=units, paired=paired
    )
    if method == "t":
        spread = error if error is not None else partial(jackknife_error, statistic, units=units, paired=paired)
        both = draw(lambda *drawn: np.stack([statistic(*drawn), spread(*drawn)], 1))
        return studentised_interval(value, spread(*whole)[0], both[:, 0], both[:, 1], confidence)
    found = draw(statistic)
    if method == "percentile":
        return percentile_interval(value, found, confidence)
    found, levels = _finite(found), _tails(confidence, value.shape)
    acceleration = _acceleration(_left_out(statistic, whole, units, paired))
    return Interval(value, *_quantiles(found, _corrected(found, value, acceleration, levels)))


def jackknife_error(
    statistic: Statistic, *samples: np.ndarray, units: Units = "rows", paired: bool = True
) -> np.ndarray:
    """Estimate the standard error of a statistic by leaving out each row in turn.

    Args:
        statistic: maps arrays [R, E, ...] to [R, ...]; a smooth one, so not a median.
        samples: arrays [R, E, ...].
        units: as of `bootstrap`; `crossed` leaves out each column too.
        paired: whether a row is left out of all samples at once.

    Returns:
        [R, ...], in the unit of the statistic; of the mean, its usual standard error.

    Reference:
        Efron and Tibshirani 1993, eq. 11.5.

    Example:
        >>> import numpy as np
        >>> float(jackknife_error(lambda x: x.mean(1), np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])).round(4)[0])
        0.7071
    """
    parts = _left_out(statistic, samples, units, paired)
    return np.sqrt(sum((part.shape[1] - 1) * part.var(1) for part in parts))


def _drawn(
    function: Statistic,
    samples: Sequence[np.ndarray],
    repeats: int,
    rng: np.random.Generator,
    units: Units,
    paired: bool,
) -> np.ndarray:
    """Evaluate a function on resamples, [R, ...]."""
    chunk = max(1, CHUNK // max(sample.size for sample in samples))
    found = []
    for start in range(0, repeats, chunk):
        size = min(chunk, repeats - start)
        picks = [_pick(rng, size, sample.shape, units) for sample in (samples[:1] if paired else samples)]
        found.append(function(*(sample[picks[0 if paired else i]] for i, sample in enumerate(samples))))
    return np.concatenate(found)


def _pick(rng: np.random.Generator, size: int, shape: tuple[int, ...], units: Units) -> tuple[np.ndarray, ...]:
    """Draw the indices that resample an array."""
    if units == "rows":
        return (rng.integers(shape[0], size=(size, shape[0])),)
    if units == "cells":
        return rng.integers(shape[0], size=(size, *shape[:2])), np.arange(shape[1])
    return rng.integers(shape[0], size=(size, shape[0], 1)), rng.integers(shape[1], size=(size, 1, shape[1]))


def _left_out(statistic: Statistic, samples: Sequence[np.ndarray], units: Units, paired: bool) -> list[np.ndarray]:
    """Compute a statistic without each row, [R, E, ...]: of all samples at once, or one array for each."""
    groups = [list(range(len(samples)))] if paired else [[i] for i in range(len(samples))]
    parts = [_without_each(statistic, samples, group) for group in groups]
    if units == "crossed":
        turned = [sample.swapaxes(1, 2) for sample in samples]
        parts += [_without_each(partial(_turned, statistic), turned, group) for group in groups]
    return parts


def _turned(statistic: Statistic, *samples: np.ndarray) -> np.ndarray:
    return statistic(*(sample.swapaxes(1, 2) for sample in samples))


def _without_each(statistic: Statistic, samples: Sequence[np.ndarray], group: list[int]) -> np.ndarray:
    """Leave out each row of a group of samples in turn, [R, E, ...]."""
    repeats, count = samples[group[0]].shape[:2]
    step = max(1, CHUNK // max(sample.size for sample in samples))
    found = []
    for start in range(0, count, step):
        gone = np.arange(start, min(start + step, count))[:, None]
        others = np.arange(count - 1)
        kept = others + (others >= gone)
        parts = [
            sample[:, kept] if i in group else np.repeat(sample[:, None], len(gone), 1)
            for i, sample in enumerate(samples)
        ]
        value = statistic(*(part.reshape(-1, *part.shape[2:]) for part in parts))
        found.append(value.reshape(repeats, len(gone), *value.shape[1:]))
    return np.concatenate(found, 1)


def _acceleration(parts: list[np.ndarray]) -> np.ndarray:
    """Compute a sixth of the skewness of the rows' influence, [...]; 0 where no row has any."""
    cubes, squares = 0.0, 0.0
    for part in parts:
        without = _finite(part[0])
        count = len(without)
        influence = (count - 1) / count * (_mean(without) - without)
        cubes = cubes + np.nansum(influence**3, 0)
        squares = squares + np.nansum(influence**2, 0)
    spread = np.asarray(squares) ** 1.5
    return np.divide(cubes, 6 * spread, out=np.zeros_like(spread), where=spread > 0)


def _corrected(found: np.ndarray, value: np.ndarray, acceleration: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Move levels by the bias of the resamples and by the acceleration, [2, ...]."""
    there = np.maximum(np.isfinite(found).sum(0), 1)
    # a resample that differs by rounding alone is equal, else the order of its episodes would decide
    tied = np.abs(found - value) <= ROUNDING * _largest(found)
    below = (((found < value) & ~tied).sum(0) + 0.5 * tied.sum(0)) / there
    # where every resample lies on one side, the bias is as large as so many resamples can show
    least = 1 / (there + 1)
    bias = _normal_quantile(np.clip(below, least, 1 - least))
    shifted = bias + _normal_quantile(levels)
    return torch.special.ndtr(torch.from_numpy(bias + shifted / (1 - acceleration * shifted))).numpy()


def studentised_interval(
    value: np.ndarray, error: np.ndarray, found: np.ndarray, errors: np.ndarray, confidence: float
) -> Interval:
    """Turn resampled statistics and their standard errors into an interval.

    Args:
        value: [...] the statistic on the data.
        error: [...] its standard error.
        found: [R, ...] the statistic on resamples; those that are not finite are left out.
        errors: [R, ...] their standard errors.
        confidence: in (0, 1).

    Returns:
        The interval; NaN where more than half of the resamples were left out.
    """
    least = ROUNDING * np.maximum(np.abs(value), _largest(found))
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(np.abs(found - value) <= least, 0.0, found - value)
        # a resample without spread says either nothing (0 / 0) or that all is possible (x / 0)
        ratio = np.where(np.isfinite(moved) & np.isfinite(errors), moved / np.where(errors <= least, 0, errors), np.nan)
        few, many = _quantiles(ratio, _tails(confidence, value.shape))
        low, high = value - many * error, value - few * error
    still = error <= least
    return Interval(value, np.where(still, value, low), np.where(still, value, high))


def percentile_interval(value: np.ndarray, found: np.ndarray, confidence: float) -> Interval:
    """Return the interval between two quantiles of resampled statistics.

    Args:
        value: [...] the statistic on the data.
        found: [R, ...] on resamples; those that are not finite are left out.
        confidence: in (0, 1).

    Returns:
        The interval; NaN where more than half of the resamples were left out.
    """
    return Interval(value, *_quantiles(_finite(found), _tails(confidence, value.shape)))


def _tails(confidence: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return the lower and the upper level of an interval, [2, ...]."""
    return np.stack([np.full(shape, level) for level in ((1 - confidence) / 2, (1 + confidence) / 2)])


def _finite(found: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(found), found, np.nan)


def _largest(found: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of axis 0, of what is finite."""
    return np.abs(np.where(np.isfinite(found), found, 0)).max(0)


def _mean(found: np.ndarray) -> np.ndarray:
    """Average axis 0 over what is not NaN; 0 where nothing is."""
    return np.nansum(found, 0) / np.maximum((~np.isnan(found)).sum(0), 1)


def _quantiles(found: np.ndarray, levels: np.ndarray) -> list[np.ndarray]:
    """Interpolate quantiles of axis 0, each level [...] its own for every column; NaN where most of a column is NaN."""
    ordered = np.sort(found, 0)
    count = (~np.isnan(ordered)).sum(0)
    return [_interpolated(ordered, count, level) for level in levels]


def _interpolated(ordered: np.ndarray, count: np.ndarray, level: np.ndarray) -> np.ndarray:
    place = level * np.maximum(count - 1, 0)
    under = np.floor(place).astype(int)
    over = np.minimum(under + 1, np.maximum(count - 1, 0))
    low, high = (np.take_along_axis(ordered, i[None], 0)[0] for i in (under, over))
    with np.errstate(invalid="ignore"):
        mixed = low + (high - low) * (place - under)
    mixed = np.where((low == high) | np.isneginf(low) | (place == under), low, mixed)
    return np.where(2 * count >= len(ordered), mixed, np.nan)


def _normal_quantile(level: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(np.asarray(level, float))).numpy()
