"""Limits that new values keep with a stated probability, whatever their distribution.

They hold if the new value and those behind the limit could be exchanged: the same system, the same way to choose
actions. A limit found under one policy says nothing about another.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.ops.proportion import binomial_tail

ROUNDING = 1e-9
"""0.07 * 100 is 7.000000000000001: a rank that is whole but for rounding counts as whole."""


def order_statistic(n: int, violation_rate: float, confidence: float) -> int:
    """Return which of n sorted values new ones undercut with at most a violation rate, at a confidence.

    k is the largest with P(Binomial(n, violation_rate) <= k - 1) <= 1 - confidence. The confidence speaks of the n
    values: so often they are such that a new one lies below their k-th smallest with at most the violation rate.

    Args:
        n: values at hand.
        violation_rate: in (0, 1).
        confidence: in (0, 1).

    Returns:
        k, counted from 1; 0 when n is too small for any (see `least_samples`).

    Raises:
        ConfigError: a rate outside (0, 1), or a negative n.

    Reference:
        Wilks, Annals of Mathematical Statistics 1941; Vovk, arXiv 1209.2673, proposition 2a.

    Example:
        >>> [order_statistic(n, 0.1, 0.95) for n in (28, 29, 100, 1000)]
        [0, 1, 5, 85]
    """
    _check_rates(violation_rate=violation_rate, confidence=confidence)
    if n < 0:
        raise ConfigError(f"the number of values must not be negative, found {n}")
    allowed = (1 - confidence) * (1 + ROUNDING)
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        if binomial_tail(middle - 1, n, violation_rate) <= allowed:
            low = middle
        else:
            high = middle - 1
    return low


def least_samples(violation_rate: float, confidence: float) -> int:
    """Return the fewest values from which `order_statistic` gives an answer.

    Args:
        violation_rate: in (0, 1).
        confidence: in (0, 1).

    Returns:
        n, at least 1.

    Raises:
        ConfigError: a rate outside (0, 1).

    Example:
        >>> least_samples(0.1, 0.95)
        29
    """
    _check_rates(violation_rate=violation_rate, confidence=confidence)
    needed = math.log((1 - confidence) * (1 + ROUNDING)) / math.log1p(-violation_rate)
    return max(1, math.ceil(needed))


def conformal_upper(scores: np.ndarray, level: float) -> np.ndarray:
    """Return what a new score exceeds with probability of at most 1 - level.

    It is the ceil((n + 1) level)-th smallest of n scores. NaN is a missing score: it is left out, and n counts the
    others. A prediction that failed is not missing; give inf for it.

    Args:
        scores: [n, ...].
        level: in (0, 1).

    Returns:
        [...], in the unit of the scores; inf where n is too small.

    Raises:
        ConfigError: a level outside (0, 1).

    Reference:
        Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; Lei et al. 2018, arXiv 1604.04173.

    Example:
        >>> import numpy as np
        >>> float(conformal_upper(np.arange(1.0, 20.0), 0.9)), float(conformal_upper(np.ones(8), 0.9))
        (18.0, inf)
    """
    _check_rates(level=level)
    return _ranked(scores, lambda n: np.ceil((n + 1) * level - ROUNDING))


def conformal_lower(scores: np.ndarray, rate: float) -> np.ndarray:
    """Return what a new score falls below with probability of at most a rate.

    It is the floor((n + 1) rate)-th smallest of n scores. NaN is a missing score: it is left out, and n counts the
    others. A prediction that failed is not missing; give -inf, or 0 for a horizon.

    Args:
        scores: [n, ...].
        rate: in (0, 1).

    Returns:
        [...], in the unit of the scores; -inf where n is too small.

    Raises:
        ConfigError: a rate outside (0, 1).

    Reference:
        Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005.

    Example:
        >>> import numpy as np
        >>> float(conformal_lower(np.arange(1.0, 20.0), 0.1)), float(conformal_lower(np.ones(8), 0.1))
        (2.0, -inf)
    """
    _check_rates(rate=rate)
    return _ranked(scores, lambda n: np.floor((n + 1) * rate + ROUNDING))


def _ranked(scores: np.ndarray, rank: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Take the smallest of each rank along axis 0; below rank 1 it is -inf, beyond the last inf."""
    ordered = np.sort(np.asarray(scores, float), 0)
    count = (~np.isnan(ordered)).sum(0)
    place = rank(count).astype(int)
    padded = np.concatenate([np.full((1, *ordered.shape[1:]), -np.inf), ordered])
    found = np.take_along_axis(padded, np.minimum(place, count)[None], 0)[0]
    return np.where(place > count, np.inf, found)


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0 < value < 1:
            raise ConfigError(f"{name.replace('_', ' ')} must lie strictly between 0 and 1, found {value}")
