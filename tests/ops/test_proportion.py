"""Binomial tails, intervals of shares and sizes of studies, against scipy and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.core.errors import ConfigError
from foreworld.ops import binomial_tail, clopper_pearson, proportion_difference, samples_per_arm, wilson


@given(st.integers(0, 300), st.integers(-1, 301), st.floats(0, 1))
def test_tail_is_that_of_scipy(n: int, k: int, p: float) -> None:
    assert binomial_tail(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("p", [1e-6, 0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [10_000, 1_000_000])
@pytest.mark.parametrize("deviations", [-6, -2, -0.5, 0, 0.5, 3])
def test_tail_for_many_attempts(n: int, p: float, deviations: float) -> None:
    k = int(n * p + deviations * math.sqrt(n * p * (1 - p)))
    # scipy's incomplete beta is itself good to some 10 digits here
    assert binomial_tail(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-9, abs=1e-300)


def test_tail_by_whole_numbers() -> None:
    # exact: sums of binomial coefficients over a power of two
    for n, k in ((64, 20), (200, 90), (1000, 480), (3000, 1400)):
        exact = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        assert binomial_tail(k, n, 0.5) == pytest.approx(exact, rel=1e-12)


def test_tail_at_the_ends() -> None:
    assert [binomial_tail(k, 5, 0.3) for k in (-1, 5, 9)] == [0, 1, 1]
    assert [binomial_tail(2, 5, p) for p in (0, 1)] == [1, 0]
    assert binomial_tail(0, 0, 0.5) == 1
    assert binomial_tail(0, 1_000_000, 1e-9) == pytest.approx(math.exp(-1e-3), rel=1e-8)
    for n, p in ((-1, 0.5), (5, 1.1), (5, math.nan)):
        with pytest.raises(ConfigError, match="binomial"):
            binomial_tail(1, n, p)


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_intervals_are_those_of_scipy(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    test = stats.binomtest(successes, trials)
    for ours, name in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(confidence, name)
        found = ours(successes, trials, confidence)
        assert (float(found.low), float(found.high)) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_intervals_at_the_ends() -> None:
    for ours in (wilson, clopper_pearson):
        assert (float(ours(0, 7).low), float(ours(7, 7).high)) == (0, 1)
        for successes, trials, confidence in ((8, 7, 0.9), (-1, 7, 0.9), (0, 0, 0.9), (1, 7, 1)):
            with pytest.raises(ConfigError, match="share of successes"):
                ours(successes, trials, confidence)


def test_differences_as_published() -> None:
    # Newcombe 1998, 17:873, table II, method 10
    for a, m, b, n, low, high in ((56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090)):
        found = proportion_difference(np.arange(m) < a, np.arange(n) < b, paired=False)
        assert (round(float(found.low), 4), round(float(found.high), 4)) == (low, high)


def test_pairs_that_agree_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(100) < 0.6
    second = first ^ (rng.random(100) < 0.05)
    paired, alone = (proportion_difference(first, second, paired=paired) for paired in (True, False))
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)
    assert paired.low <= paired.value <= paired.high


def test_paired_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        easy, luck = rng.random(60), rng.random((2, 60))
        first, second = 0.7 * easy + 0.3 * luck[0] < 0.7, 0.7 * easy + 0.3 * luck[1] < 0.6
        found = proportion_difference(first, second)
        held += bool(found.low <= 0.1428 <= found.high)  # the mean of 2 million such pairs
    assert 925 <= held <= 985


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(0.9, 0.95, 424), (0.9, 0.98, 122), (0.8, 0.85, 903), (0.5, 0.6, 388)]
)
def test_attempts_for_80_percent_power(first: float, second: float, expected: int) -> None:
    # statsmodels 0.15, NormalIndPower().solve_power: 423.73, 121.32, 902.34, 387.17
    assert samples_per_arm(first, second) == samples_per_arm(second, first) == expected


def test_the_promised_power_is_there() -> None:
    n, rng = samples_per_arm(0.5, 0.6), np.random.default_rng(0)
    a, b = rng.binomial(n, 0.5, 20_000) / n, rng.binomial(n, 0.6, 20_000) / n
    z = (b - a) / np.sqrt((a + b) / 2 * (1 - (a + b) / 2) * 2 / n)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.01)


def test_what_cannot_be_planned_is_refused() -> None:
    for first, second, power in ((0.5, 0.5, 0.8), (-0.1, 0.5, 0.8), (0.1, 0.5, 1.0)):
        with pytest.raises(ConfigError, match="samples_per_arm"):
            samples_per_arm(first, second, power=power)
