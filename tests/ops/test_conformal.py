"""Ranks with a guarantee: against published numbers, and against counting how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.core.errors import ConfigError
from foreworld.ops import conformal_lower, conformal_upper, least_samples, order_statistic

rates = st.floats(0.01, 0.5)


@pytest.mark.parametrize(("n", "k"), [(28, 0), (29, 1), (50, 2), (100, 5), (200, 13), (500, 39), (1000, 85)])
def test_known_ranks(n: int, k: int) -> None:
    assert order_statistic(n, 0.1, 0.95) == k


@given(st.integers(0, 600), rates, st.floats(0.5, 0.999))
def test_the_rank_is_the_largest_that_keeps_the_promise(n: int, rate: float, confidence: float) -> None:
    k = order_statistic(n, rate, confidence)
    assert k == 0 or stats.binom.cdf(k - 1, n, rate) <= (1 - confidence) * (1 + 1e-8)
    assert k == n or stats.binom.cdf(k, n, rate) > (1 - confidence) * (1 - 1e-8)


@given(rates, st.floats(0.5, 0.999))
def test_the_least_number_is_the_first_with_a_rank(rate: float, confidence: float) -> None:
    n = least_samples(rate, confidence)
    assert order_statistic(n, rate, confidence) >= 1
    assert order_statistic(n - 1, rate, confidence) == 0


def test_numbers_met_exactly_are_not_missed_by_rounding() -> None:
    assert least_samples(0.1, 0.95) == 29
    assert least_samples(0.5, 0.75) == 2
    assert least_samples(0.2, 0.36) == 2  # 0.8 squared is 0.64, which floats miss
    assert order_statistic(2, 0.2, 0.36) == 1
    assert float(conformal_upper(np.arange(1.0, 100.0), 0.07)) == 7  # 100 times 0.07 is 7.000000000000001
    assert float(conformal_lower(np.arange(1.0, 100.0), 0.29)) == 29  # 100 times 0.29 is 28.999999999999996


def test_for_a_million_values() -> None:
    k = order_statistic(1_000_000, 0.1, 0.95)
    assert k == pytest.approx(1e5 - 1.645 * math.sqrt(9e4), abs=2)


def test_by_hand() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    assert [float(conformal_upper(scores, level)) for level in (0.05, 0.5, 0.9, 0.91)] == [1, 5, 9, math.inf]
    assert [float(conformal_lower(scores, rate)) for rate in (0.05, 0.1, 0.5, 0.95)] == [-math.inf, 1, 5, 9]


def test_missing_scores_are_left_out_column_by_column() -> None:
    scores = np.arange(1.0, 20.0)[:, None] * np.ones(3)
    scores[9:, 1] = np.nan
    scores[:, 2] = np.nan
    assert conformal_upper(scores, 0.9).tolist() == [18, 9, math.inf]
    assert conformal_lower(scores, 0.1).tolist() == [2, 1, -math.inf]


def test_failures_count_as_the_worst() -> None:
    scores = np.arange(1.0, 20.0)
    scores[:3] = math.inf
    assert float(conformal_upper(scores, 0.9)) == math.inf
    assert float(conformal_upper(scores, 0.8)) == 19


@pytest.mark.parametrize("name", ["normal", "lognormal", "standard_cauchy", "ties"])
def test_promises_hold_whatever_the_distribution(name: str) -> None:
    rng = np.random.default_rng(0)
    studies, n, rate, confidence = 4000, 60, 0.1, 0.9
    draw = (lambda size: rng.integers(0, 6, size).astype(float)) if name == "ties" else getattr(rng, name)
    scores, new = draw(size=(n, studies)), draw(size=studies)
    assert (new > conformal_upper(scores, 1 - rate)).mean() <= rate + 0.015
    assert (new < conformal_lower(scores, rate)).mean() <= rate + 0.015
    limit = np.sort(scores, 0)[order_statistic(n, rate, confidence) - 1]
    many = np.sort(draw(size=200_000))
    undercut = np.searchsorted(many, limit) / len(many)
    assert (undercut > rate).mean() <= 1 - confidence + 0.02
    if name != "ties":  # and not by being far too careful: k moves in steps
        assert (undercut > rate).mean() >= 0.04
        assert (new > conformal_upper(scores, 1 - rate)).mean() >= 0.07


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_rates_that_are_none_are_refused(value: float) -> None:
    calls = [
        lambda: order_statistic(10, value, 0.9),
        lambda: least_samples(0.1, value),
        lambda: conformal_upper(np.ones(3), value),
        lambda: conformal_lower(np.ones(3), value),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="strictly between 0 and 1"):
            call()
    with pytest.raises(ConfigError, match="number of values"):
        order_statistic(-1, 0.1, 0.9)
