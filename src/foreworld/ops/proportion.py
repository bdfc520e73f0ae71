"""Shares of successes: their intervals, the exact binomial, and how many attempts a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.ops.bootstrap import Interval


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Compute the score interval of a share of successes; it covers as often as it says on average.

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: in (0, 1).

    Returns:
        The share and its interval, within [0, 1].

    Raises:
        ConfigError: such counts or such a confidence cannot be.

    Reference:
        Wilson, Journal of the American Statistical Association 1927.

    Example:
        >>> ci = wilson(45, 50)
        >>> round(float(ci.low), 3), round(float(ci.high), 3)
        (0.786, 0.957)
    """
    _check(successes, trials, confidence)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    share = successes / trials
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # at the ends rounding would put 1e-17 where the bound is exactly 0 or 1
    low, high = (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)
    return _interval(share, low, high)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Compute the exact interval of a share of successes; it covers at least as often as it says, mostly more.

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: in (0, 1).

    Returns:
        The share and its interval, within [0, 1].

    Raises:
        ConfigError: such counts or such a confidence cannot be.

    Reference:
        Clopper and Pearson, Biometrika 1934.

    Example:
        >>> round(float(clopper_pearson(0, 29, 0.9).high), 4)  # 0 of 29: at most 9.8 % with 95 % confidence
        0.0981
    """
    _check(successes, trials, confidence)
    tail = (1 - confidence) / 2
    low = _root(lambda p: binomial_tail(trials - successes, trials, 1 - p) - tail) if successes else 0.0
    high = _root(lambda p: tail - binomial_tail(successes, trials, p)) if successes < trials else 1.0
    return _interval(successes / trials, low, high)


def proportion_difference(
    first: np.ndarray, second: np.ndarray, *, paired: bool = True, confidence: float = 0.95
) -> Interval:
    """Compute an interval of the difference of two shares of successes, from the score intervals of both.

    Args:
        first: [N] bool.
        second: [K] bool; if paired [N], of the same starts.
        paired: whether entry i of both belongs to the same start.
        confidence: in (0, 1).

    Returns:
        The share of the first minus that of the second, and its interval.

    Reference:
        Newcombe, Statistics in Medicine 1998, 17:873 (method 10) and, paired, 17:2635 (method 8).

    Example:
        >>> import numpy as np
        >>> ci = proportion_difference(np.arange(70) < 56, np.arange(80) < 48, paired=False)
        >>> round(float(ci.low), 4), round(float(ci.high), 4)
        (0.0524, 0.3339)
    """
    (a, a_low, a_high), (b, b_low, b_high) = (_bounds(arm, confidence) for arm in (first, second))
    shared = float(np.mean(first & second)) - a * b if paired else 0.0
    spread = math.sqrt(a * (1 - a) * b * (1 - b))
    phi = shared / spread if spread > 0 else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    return _interval(a - b, a - b - reach(a - a_low, b_high - b), a - b + reach(a_high - a, b - b_low))


def binomial_tail(k: int, n: int, p: float) -> float:
    """Return P(X <= k) of X successes in n attempts, exact to 12 digits for n up to millions.

    Args:
        k: successes; below 0 gives 0.
        n: attempts, at least 0.
        p: probability of a success.

    Returns:
        A probability.

    Raises:
        ConfigError: `n` is negative or `p` no probability.

    Reference:
        Loader, Fast and accurate computation of binomial probabilities, 2000, for the first term; the others follow
        from their ratios.

    Example:
        >>> round(binomial_tail(0, 29, 0.1), 4)
        0.0471
    """
    if n < 0 or not 0 <= p <= 1:
        raise ConfigError(f"binomial: needs n of at least 0 and p in [0, 1], found n={n}, p={p}")
    if k < 0 or k >= n:
        return float(k >= 0)
    if p in (0, 1):
        return 1.0 - p
    if k > n * p:
        # the smaller side is summed, so that no digits cancel
        return 1 - binomial_tail(n - k - 1, n, 1 - p)
    below = np.arange(k, 0, -1, dtype=float)
    ratios = below / (n - below + 1) * ((1 - p) / p)
    return min(1.0, math.exp(_log_mass(k, n, p)) * (1 + float(np.cumprod(ratios).sum())))


def samples_per_arm(first: float, second: float, *, power: float = 0.8, confidence: float = 0.95) -> int:
    """Return how many attempts each arm needs to tell two rates of success apart.

    It is the number for a test of the difference. `compare` of unpaired arms asks for more, see its docstring; the same
    starts in both arms need fewer.

    Args:
        first: rate of one arm, a probability.
        second: rate of the other.
        power: probability to find the difference, in (0, 1).
        confidence: of the two-sided test, in (0, 1).

    Returns:
        Attempts per arm.

    Raises:
        ConfigError: an argument is no probability, or the rates are equal.

    Reference:
        Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 6 (arcsine difference).

    Example:
        >>> samples_per_arm(0.90, 0.95), samples_per_arm(0.90, 0.98)
        (424, 122)
    """
    if not (0 <= first <= 1 and 0 <= second <= 1 and 0 < power < 1 and 0 < confidence < 1) or first == second:
        raise ConfigError(
            "samples_per_arm: needs two different rates in [0, 1], power and confidence in (0, 1), "
            f"found {first}, {second}, {power}, {confidence}"
        )
    effect = 2 * (math.asin(math.sqrt(first)) - math.asin(math.sqrt(second)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(power)
    return math.ceil(2 * (reach / effect) ** 2)


def _log_mass(k: int, n: int, p: float) -> float:
    """Return log P(X = k); logarithms of factorials would lose 9 of 16 digits at n = 1e6."""
    if k == 0:
        return n * math.log1p(-p)
    if k == n:
        return n * math.log(p)
    rest = _stirling(n) - _stirling(k) - _stirling(n - k) - _deviance(k, n * p) - _deviance(n - k, n * (1 - p))
    return rest + 0.5 * math.log(n / (2 * math.pi * k * (n - k)))


def _stirling(n: int) -> float:
    """Return what Stirling's formula leaves of log n!."""
    if n < 16:
        return math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi)
    square = n * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / n


def _deviance(x: float, mean: float) -> float:
    """Return x log(x / mean) + mean - x without cancellation where both are close."""
    if abs(x - mean) >= 0.1 * (x + mean):
        return x * math.log(x / mean) + mean - x
    v = (x - mean) / (x + mean)
    total, term = (x - mean) * v, 2 * x * v
    for j in range(3, 100, 2):
        term *= v * v
        if total + term / j == total:
            break
        total += term / j
    return total


def _root(rises: Callable[[float], float]) -> float:
    """Find where a rising function on [0, 1] crosses 0, by halving."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return middle


def _bounds(arm: np.ndarray, confidence: float) -> tuple[float, float, float]:
    ci = wilson(int(arm.sum()), len(arm), confidence)
    return float(ci.value), float(ci.low), float(ci.high)


def _interval(value: float, low: float, high: float) -> Interval:
    return Interval(np.array(value), np.array(low), np.array(high))


def _check(successes: int, trials: int, confidence: float) -> None:
    if trials < 1 or not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ConfigError(
            f"a share of successes needs 0 <= successes <= trials, trials >= 1 and a confidence in (0, 1), "
            f"found {successes} of {trials} at {confidence}"
        )
