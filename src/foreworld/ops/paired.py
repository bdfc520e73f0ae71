"""Two arms: is one better, by how much, and how sure is that? Nothing is called better while it may not be."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foreworld.core.errors import DataError
from foreworld.ops.bootstrap import CHUNK, Interval, Method, bootstrap
from foreworld.ops.correlation import midranks
from foreworld.ops.proportion import binomial_tail, proportion_difference, wilson

Verdict = Literal["first", "second", "undecided"]

EXACT = 20
"""Up to so many pairs that differ, all 2^n flips of signs are counted."""

TIE = 1e-12
"""A flip counts as extreme as the data when it falls short of it by no more than this share."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What comparing two arms found.

    Attributes:
        first: mean of the first arm, with its interval.
        second: mean of the second arm, with its interval.
        difference: first minus second, with its interval.
        p: two-sided, of the hypothesis that the arms do not differ.
        verdict: which arm is better, if one is.
    """

    first: Interval
    second: Interval
    difference: Interval
    p: float
    verdict: Verdict


def compare(
    first: np.ndarray,
    second: np.ndarray,
    *,
    paired: bool = True,
    better: Literal["higher", "lower"] = "higher",
    confidence: float = 0.95,
    repeats: int = 10_000,
    seed: int = 0,
    method: Method = "t",
) -> Contest:
    """Compare the means of two arms.

    An arm is called better only if p is below 1 - confidence and the interval of the difference leaves out 0; the
    intervals of arms that are not paired must not touch either, which takes nearly twice as many values as a test
    alone. Successes and failures (bool) get score intervals and, paired, McNemar's test; numbers get bootstrap
    intervals and a test by exchanging the arms.

    Args:
        first: [N], one value for each episode or start; numbers or bool.
        second: [K]; if paired [N], from the same starts in the same order.
        paired: whether entry i of both belongs to the same start.
        better: whether higher values are better, as of returns, or lower ones, as of errors.
        confidence: in (0, 1).
        repeats: number of resamples, and of exchanges where all would be too many.
        seed: fixes both.
        method: of the bootstrap.

    Returns:
        Both arms, their difference, p and a verdict.

    Raises:
        DataError: paired arms of different length, fewer than 2 values, or a value that is not finite.

    Example:
        >>> import numpy as np
        >>> start = np.linspace(0, 9, 12)  # starts differ much, the arms little but always
        >>> compare(start + 0.1 + 0.01 * np.sin(start), start).verdict
        'first'
    """
    _check(first, second, paired)
    if not (binary := first.dtype == bool and second.dtype == bool):
        first, second = first.astype(float), second.astype(float)
    options = {"confidence": confidence, "repeats": repeats, "seed": seed, "method": method}
    if binary:
        arms = [wilson(int(arm.sum()), len(arm), confidence) for arm in (first, second)]
        difference = proportion_difference(first, second, paired=paired, confidence=confidence)
    else:
        arms = [bootstrap(_mean, arm, error=_error, **options) for arm in (first, second)]
        samples = [first - second] if paired else [first, second]
        difference = bootstrap(_gap, *samples, error=_gap_error, paired=paired, **options)
    if not paired:
        p = permutation(first, second, repeats=repeats, seed=seed)
    else:
        p = mcnemar(first, second) if binary else sign_flip(first - second, repeats=repeats, seed=seed)
    apart = difference.low > 0 or difference.high < 0
    if not paired:
        apart = apart and (arms[0].low > arms[1].high or arms[1].low > arms[0].high)
    verdict: Verdict = "undecided"
    if apart and p < 1 - confidence:
        verdict = "first" if (difference.value > 0) == (better == "higher") else "second"
    return Contest(first=arms[0], second=arms[1], difference=difference, p=p, verdict=verdict)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Test whether two arms succeed equally often on the same starts, exactly.

    Only starts count where one succeeds and the other fails.

    Args:
        first: [N] bool.
        second: [N] bool, of the same starts.

    Returns:
        p, two-sided.

    Reference:
        McNemar, Psychometrika 1947, by the exact binomial.

    Example:
        >>> import numpy as np
        >>> round(mcnemar(np.array([True] * 6 + [False] * 4), np.array([False] * 10)), 5)
        0.03125
    """
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * binomial_tail(min(won, lost), won + lost, 0.5))


def sign_flip(differences: np.ndarray, *, repeats: int = 10_000, seed: int = 0) -> float:
    """Test whether paired differences average 0, by exchanging the arms of each pair.

    Args:
        differences: [N], of the pairs.
        repeats: random exchanges, if more than 20 pairs differ; else all are counted.
        seed: fixes them.

    Returns:
        p, two-sided; never 0.

    Raises:
        DataError: a value is not finite.

    Reference:
        Fisher, The Design of Experiments, 1935, section 21; for the random exchanges Phipson and Smyth 2010,
        arXiv 1603.05766.

    Example:
        >>> import numpy as np
        >>> sign_flip(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        0.03125
    """
    _check_finite(differences)
    moved = differences[differences != 0].astype(float)
    if not len(moved):
        return 1.0
    limit = abs(moved.sum()) - TIE * np.abs(moved).sum()
    if len(moved) <= EXACT:
        sums = np.zeros(1)
        for step in moved:
            sums = np.concatenate([sums + step, sums - step])
        return float((np.abs(sums) >= limit).mean())
    rng, extreme = np.random.default_rng(seed), 0
    chunk = max(1, CHUNK // len(moved))
    for start in range(0, repeats, chunk):
        signs = rng.integers(2, size=(min(chunk, repeats - start), len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= limit).sum())
    return (extreme + 1) / (repeats + 1)


def signed_rank(differences: np.ndarray, *, repeats: int = 10_000, seed: int = 0) -> float:
    """Test whether paired differences are symmetric about 0, by their ranks: outliers count for little.

    Differences of 0 are left out; ties share their mean rank.

    Args:
        differences: [N], of the pairs.
        repeats: random exchanges, if more than 20 pairs differ; else all are counted.
        seed: fixes them.

    Returns:
        p, two-sided; never 0.

    Raises:
        DataError: a value is not finite.

    Reference:
        Wilcoxon, Biometrics Bulletin 1945.
    """
    moved = differences[differences != 0]
    return sign_flip(np.sign(moved) * midranks(np.abs(moved)), repeats=repeats, seed=seed)


def permutation(first: np.ndarray, second: np.ndarray, *, repeats: int = 10_000, seed: int = 0) -> float:
    """Test whether two arms that are not paired have the same mean, by dealing their values anew.

    Args:
        first: [N].
        second: [K].
        repeats: random deals; if there are no more than these, all are counted.
        seed: fixes them.

    Returns:
        p, two-sided; never 0.

    Raises:
        DataError: a value is not finite.

    Reference:
        Fisher 1935; Phipson and Smyth 2010, arXiv 1603.05766.
    """
    _check_finite(first, second)
    pooled = np.concatenate([first, second]).astype(float)
    pooled -= pooled.mean()
    count = len(first)
    limit = abs(pooled[:count].sum()) - TIE * np.abs(pooled).sum()
    if math.comb(len(pooled), count) <= repeats:
        deals = np.array(list(itertools.combinations(range(len(pooled)), count)))
        return float((np.abs(pooled[deals].sum(1)) >= limit).mean())
    rng, extreme = np.random.default_rng(seed), 0
    chunk = max(1, CHUNK // len(pooled))
    for start in range(0, repeats, chunk):
        dealt = rng.permuted(np.broadcast_to(pooled, (min(chunk, repeats - start), len(pooled))), axis=1)
        extreme += int((np.abs(dealt[:, :count].sum(1)) >= limit).sum())
    return (extreme + 1) / (repeats + 1)


def _mean(x: np.ndarray) -> np.ndarray:
    return x.mean(1)


def _error(x: np.ndarray) -> np.ndarray:
    return x.std(1, ddof=1) / math.sqrt(x.shape[1])


def _gap(*arms: np.ndarray) -> np.ndarray:
    return arms[0].mean(1) - (arms[1].mean(1) if len(arms) > 1 else 0)


def _gap_error(*arms: np.ndarray) -> np.ndarray:
    return np.sqrt(sum(_error(arm) ** 2 for arm in arms))


def _check(first: np.ndarray, second: np.ndarray, paired: bool) -> None:
    if first.ndim != 1 or second.ndim != 1 or min(len(first), len(second)) < 2:
        raise DataError(
            f"compare: needs at least 2 values an arm, in one list each, found {first.shape}, {second.shape}"
        )
    if paired and len(first) != len(second):
        raise DataError(f"compare: paired arms must have the same starts, found {len(first)} and {len(second)} values")
    _check_finite(first, second)


def _check_finite(*arms: np.ndarray) -> None:
    if not all(np.isfinite(arm).all() for arm in arms):
        raise DataError("compare: a value is NaN or infinite; leave out its start from both arms, or score the failure")
