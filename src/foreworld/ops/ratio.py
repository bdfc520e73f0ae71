"""Intervals of ratios of sums over episodes: means over steps, root mean squares, one error as a share of another."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from foreworld.ops.bootstrap import ROUNDING, Interval, percentile_interval, studentised_interval

FEW = 50
"""Fewer episodes than this get a studentised interval; of more, percentiles cover at most five points less."""

FURTHEST = 3.0
"""An end of a studentised interval lies at most so many times as far from the value as that of the percentile interval.
Without this, of errors with long tails, one interval in a hundred from ten episodes would be nine times as wide as the
value, and all from three infinite. It costs 0.1 points of coverage from ten episodes and 0.7 from five."""


def bootstrap_ratio(
    top: np.ndarray,
    bottom: np.ndarray,
    *,
    root: bool = False,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute a bootstrap interval of a ratio of two sums over the episodes, or of its square root.

    A percentile interval of few episodes is too narrow. So a cell that fewer than 50 have a part in gets a studentised
    one, no end of which lies more than three times as far from the value as that of the percentile interval.

    A resample is how often each episode was drawn, so that all resampled sums are one product [R, E] x [E, N]: for a
    thousand episodes some hundred times faster than gathering the rows.

    Args:
        top: [E, ...] to be summed over the episodes.
        bottom: the same, or a shape that broadcasts to it.
        root: take the square root, as for a root mean square.
        repeats: number of resamples.
        confidence: in (0, 1).
        seed: fixes the resamples.

    Returns:
        The ratio and its interval; NaN where the sum at the bottom is not above 0, or that of most resamples.

    Raises:
        ValueError: fewer than two episodes, or not the same for both.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.

    Example:
        >>> import numpy as np
        >>> squares, steps = np.arange(100.0), np.ones(100)
        >>> ci = bootstrap_ratio(squares, steps, root=True)
        >>> round(float(ci.value), 3), bool(ci.low < 7.036 < ci.high)
        (7.036, True)
    """
    count = len(top)
    if count < 2 or len(bottom) != count:
        raise ValueError(f"bootstrap: needs at least 2 episodes, the same for all, found {[count, len(bottom)]}")
    drawn = _drawn(count, repeats, seed)
    value = np.asarray(_ratio(top.sum(0), bottom.sum(0), root))
    with np.errstate(invalid="ignore"):
        found = _ratio(np.tensordot(drawn, top, 1), np.tensordot(drawn, bottom, 1), root)
    plain = percentile_interval(value, found, confidence)
    few = np.asarray((((top != 0) | (bottom != 0)).sum(0) < FEW) & np.isfinite(value))
    if not few.any():
        return plain
    part = top[:, few], np.broadcast_to(bottom, top.shape)[:, few]
    error = _errors(np.ones((1, count)), *part, value[few][None], root)[0]
    errors = _errors(drawn, *part, found[:, few], root)
    wide = studentised_interval(value[few], error, found[:, few], errors, confidence)
    low, high = plain.low.copy(), plain.high.copy()
    least = np.where((part[0] >= 0).all(0), 0, -np.inf)  # what is never negative has no negative mean
    low[few] = np.maximum(_limited(value[few], wide.low, plain.low[few]), least)
    high[few] = _limited(value[few], wide.high, plain.high[few])
    return Interval(value, low, high)


def ratio_error(
    top: np.ndarray, bottom: np.ndarray, tops: np.ndarray, both: np.ndarray, bottoms: np.ndarray, episodes: int
) -> np.ndarray:
    """Return the standard error of a ratio of two sums over episodes, to first order (delta method).

    That of its square root is this / (2 root). Everything it needs is a sum over the episodes, so that it costs a
    bootstrap three products more.

    Args:
        top: [...] sum at the top.
        bottom: [...] sum at the bottom, above 0.
        tops: [...] sum of the squares of what is summed at the top.
        both: [...] sum of the products of top and bottom.
        bottoms: [...] sum of the squares of what is summed at the bottom.
        episodes: how many were summed.

    Returns:
        [...], in the unit of the ratio.

    Reference:
        Cochran, Sampling Techniques, 1977, chapter 6, of a population without end.

    Example:
        >>> import numpy as np
        >>> top, bottom = np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 2.0])
        >>> sums = (part.sum() for part in (top, bottom, top**2, top * bottom, bottom**2))
        >>> float(ratio_error(*sums, episodes=3).round(4))
        0.6027
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top / bottom
        squares = tops - 2 * ratio * both + ratio**2 * bottoms
        squares = np.where(squares <= ROUNDING * (tops + ratio**2 * bottoms), 0, squares)
        return np.sqrt(squares * episodes / (episodes - 1)) / bottom


@lru_cache(maxsize=1)
def _drawn(count: int, repeats: int, seed: int) -> np.ndarray:
    """Draw how often each episode is in each resample, [R, E]; one evaluation asks for the same ones over and over."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats).astype(float)
    drawn.flags.writeable = False
    return drawn


def _ratio(top: np.ndarray, bottom: np.ndarray, root: bool) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        found = top / np.where(bottom > 0, bottom, np.nan)
    return np.sqrt(np.maximum(found, 0)) if root else found


def _limited(value: np.ndarray, end: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Keep an end within reach of that of the percentile interval, which also stands in for one that is NaN."""
    most = FURTHEST * np.abs(plain - value)
    return np.where(np.isnan(end), plain, value + np.clip(end - value, -most, most))


def _errors(drawn: np.ndarray, top: np.ndarray, bottom: np.ndarray, found: np.ndarray, root: bool) -> np.ndarray:
    """Return the standard errors of the statistics [R, N] of resamples [R, E] of columns [E, N]."""
    # the error of top / bottom - c is the same for any c; this one leaves small squares, with nothing lost to rounding
    rest = top - top.sum(0) / bottom.sum(0) * bottom
    sums = (drawn @ part for part in (rest, bottom, rest**2, rest * bottom, bottom**2))
    error = ratio_error(*sums, episodes=len(top))
    return np.divide(error, 2 * found, out=np.zeros_like(error), where=found > 0) if root else error
