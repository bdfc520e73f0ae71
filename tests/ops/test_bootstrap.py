"""Intervals by resampling, against scipy on the same resamples, and against hand computation."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.core.errors import ConfigError
from foreworld.ops import bootstrap, interquartile_mean, interquartile_mean_error, jackknife_error
from foreworld.ops.bootstrap import Interval, Method, Units

METHODS: tuple[Method, ...] = ("percentile", "bca", "t")


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(1)


def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x.sum(1) / y.sum(1)


def same(a: Interval, b: Interval, tolerance: float = 1e-12) -> bool:
    pairs = [(a.value, b.value), (a.low, b.low), (a.high, b.high)]
    return all(np.allclose(*pair, rtol=0, atol=tolerance) for pair in pairs)


def by_scipy(statistic: Any, *samples: np.ndarray, method: str, paired: bool = True, seed: int = 0) -> tuple[Any, Any]:
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=2000,
        method={"percentile": "percentile", "bca": "BCa"}[method],
        paired=paired,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return found.low, found.high


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("name", ["normal", "exponential", "integers", "heavy"])
def test_one_sample_as_scipy_does_it_on_the_same_resamples(method: Any, name: str) -> None:
    rng = np.random.default_rng(1)
    drawn = {
        "normal": rng.normal(size=12),
        "exponential": rng.exponential(size=30),
        "integers": rng.integers(0, 4, 15).astype(float),
        "heavy": rng.standard_cauchy(20),
    }[name]
    ci = bootstrap(mean, drawn, method=method)
    low, high = by_scipy(lambda x, axis: x.mean(axis), drawn, method=method)
    assert (float(ci.low), float(ci.high)) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_paired_samples_as_scipy_does_it(method: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.exponential(size=14), rng.uniform(1, 2, size=14)
    ci = bootstrap(ratio, x, y, method=method)
    low, high = by_scipy(lambda x, y, axis: x.sum(axis) / y.sum(axis), x, y, method=method)
    assert (float(ci.low), float(ci.high)) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_samples_drawn_each_by_itself_as_scipy_does_it(method: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.exponential(size=9), rng.normal(size=17)
    ci = bootstrap(lambda x, y: x.mean(1) - y.mean(1), x, y, method=method, paired=False, repeats=2000)
    # scipy draws all of x before y; here both are drawn chunk by chunk, which is the same for one chunk
    low, high = by_scipy(lambda x, y, axis: x.mean(axis) - y.mean(axis), x, y, method=method, paired=False)
    assert (float(ci.low), float(ci.high)) == pytest.approx((low, high), rel=1e-12)


def test_studentised_interval_by_a_loop() -> None:
    x = np.random.default_rng(4).exponential(size=8)
    rng, ratios = np.random.default_rng(5), []
    for pick in rng.integers(8, size=(500, 8)):
        drawn = x[pick]
        ratios.append((drawn.mean() - x.mean()) / (drawn.std(ddof=1) / np.sqrt(8)))
    few, many = np.quantile(ratios, [0.05, 0.95])
    error = x.std(ddof=1) / np.sqrt(8)
    for given_error in (None, lambda x: x.std(1, ddof=1) / np.sqrt(x.shape[1])):
        ci = bootstrap(mean, x, method="t", repeats=500, confidence=0.9, seed=5, error=given_error)
        assert float(ci.low) == pytest.approx(x.mean() - many * error, rel=1e-12)
        assert float(ci.high) == pytest.approx(x.mean() - few * error, rel=1e-12)


def test_percentile_interval_is_the_quantile_of_the_resamples() -> None:
    x = np.random.default_rng(6).normal(size=(20, 3))
    drawn = x[np.random.default_rng(7).integers(20, size=(300, 20))].mean(1)
    ci = bootstrap(mean, x, repeats=300, seed=7, confidence=0.8)
    assert same(ci, Interval(x.mean(0), *np.quantile(drawn, [0.1, 0.9], axis=0)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("units", ["rows", "cells", "crossed"])
def test_the_seed_decides(method: Method, units: Units) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))

    def found(seed: int) -> Interval:
        return bootstrap(lambda x: x.mean((1, 2)), x, repeats=200, seed=seed, method=method, units=units)

    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    first = found(0)
    np.random.seed(2)  # noqa: NPY002
    assert same(first, found(0), 0)
    assert not same(first, found(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("units", ["rows", "cells"])
def test_chunks_change_nothing(method: Method, units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(7, 3))
    whole = bootstrap(lambda x: x.mean((1, 2)), x, repeats=100, method=method, units=units)
    monkeypatch.setattr(importlib.import_module("foreworld.ops.bootstrap"), "CHUNK", 200)
    assert same(whole, bootstrap(lambda x: x.mean((1, 2)), x, repeats=100, method=method, units=units))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("foreworld.ops.bootstrap"), "CHUNK", 1000)
    largest = 0

    def watched(x: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, x.size)
        return x.mean(1)

    for method in METHODS:
        bootstrap(watched, np.random.default_rng(0).normal(size=100), method=method, repeats=50)
    assert largest <= 1000


def test_columns_of_a_statistic_are_independent_of_each_other() -> None:
    x = np.random.default_rng(0).exponential(size=(12, 5))
    for method in METHODS:
        every, third = bootstrap(mean, x, method=method), bootstrap(mean, x[:, 2], method=method)
        assert same(Interval(every.value[2], every.low[2], every.high[2]), third)


def test_cells_draw_every_column_by_itself() -> None:
    # the sum of a row is the same for all rows: drawn by rows nothing varies, drawn by cells it does
    x = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    rows = bootstrap(lambda x: x.mean((1, 2)), x, repeats=300)
    cells = bootstrap(lambda x: x.mean((1, 2)), x, repeats=300, units="cells")
    assert float(rows.low) == float(rows.high) == 1.5
    assert float(cells.low) < 1 < 2 < float(cells.high)
    # each column of a resample holds values of that column only
    tagged = np.arange(4.0)[:, None] + np.array([0.0, 10.0])

    def unmixed(x: np.ndarray) -> np.ndarray:
        return ((x < 10) == (np.arange(2) == 0)).all((1, 2)).astype(float)

    assert float(bootstrap(unmixed, tagged, repeats=50, units="cells").low) == 1
    assert float(bootstrap(unmixed, tagged, repeats=50, units="crossed").low) == 0


def test_crossed_draws_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    by_row, by_column = rng.normal(size=(8, 1)) * np.ones(50), np.ones((50, 1)) * rng.normal(size=8)
    for x in (by_row, by_column):
        crossed = bootstrap(lambda x: x.mean((1, 2)), x, units="crossed", seed=1)
        assert float(crossed.high - crossed.low) > 0.5
    rows_alone = bootstrap(lambda x: x.mean((1, 2)), by_column, seed=1)
    assert float(rows_alone.high - rows_alone.low) < 1e-12


def test_jackknife_error_of_a_mean_is_the_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=(3, 9, 2))
    assert np.allclose(jackknife_error(mean, x), x.std(1, ddof=1) / 3)
    y = np.random.default_rng(1).normal(size=(3, 4, 2))
    alone = jackknife_error(lambda x, y: x.mean(1) - y.mean(1), x, y, paired=False)
    assert np.allclose(alone, np.hypot(x.std(1, ddof=1) / 3, y.std(1, ddof=1) / 2))
    crossed = jackknife_error(lambda x: x.mean((1, 2)), x, units="crossed")
    assert np.allclose(crossed, np.hypot(x.mean(2).std(1, ddof=1) / 3, x.mean(1).std(1, ddof=1) / np.sqrt(2)))


def test_jackknife_error_of_an_interquartile_mean_agrees_with_the_closed_form() -> None:
    x = np.random.default_rng(0).normal(size=(1, 400))
    closed, counted = interquartile_mean_error(x), jackknife_error(lambda x: interquartile_mean(x, 1), x)
    assert float(closed[0]) == pytest.approx(float(counted[0]), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_vary_has_no_width(method: Method) -> None:
    ci = bootstrap(mean, np.full((5, 2), 0.3), method=method, repeats=50)
    assert np.allclose([ci.low, ci.high], 0.3, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_a_statistic_that_nothing_moves_is_finite(method: Method) -> None:
    # the minimum is in almost every resample, so that all of them lie on one side
    x = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    ci = bootstrap(lambda x: np.minimum(x.min(1), 1), np.concatenate([np.zeros(30), x]), method=method, repeats=100)
    assert float(ci.low) == float(ci.high) == 0


def test_bca_is_finite_where_all_resamples_lie_on_one_side() -> None:
    x = np.linspace(0, 1, 12)
    ci = bootstrap(lambda x: x.max(1), x, method="bca", repeats=100)
    assert np.isfinite([ci.low, ci.high]).all()
    assert 0 < ci.low <= ci.high <= 1


def test_too_few_values_for_a_studentised_interval_say_all_is_possible() -> None:
    ci = bootstrap(mean, np.array([1.0, 2.0]), method="t")
    assert (float(ci.low), float(ci.high)) == (-np.inf, np.inf)


@pytest.mark.parametrize("method", METHODS)
def test_resamples_that_say_nothing_are_left_out_up_to_half_of_them(method: Method) -> None:
    x = np.random.default_rng(0).normal(size=(10, 2)) + 5
    x[1:, 1] = np.nan  # the second column is known of one episode only: two thirds of the resamples hold it

    def known(x: np.ndarray) -> np.ndarray:
        count = (~np.isnan(x)).sum(1)
        return np.divide(np.nansum(x, 1), count, out=np.full(count.shape, np.nan), where=count > 0)

    ci = bootstrap(known, x, method=method, repeats=400)
    assert np.isfinite([ci.low[0], ci.high[0]]).all()
    if method != "t":  # whose spread is unknown from one episode
        assert np.allclose([ci.low[1], ci.high[1]], x[0, 1])
    assert np.isnan(bootstrap(lambda x: np.full(len(x), np.nan), np.arange(3.0), method=method, repeats=20).low)


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=12), st.floats(0.1, 10), st.floats(-100, 100))
def test_intervals_of_a_mean_move_and_stretch_with_the_data(values: list[int], scale: float, offset: float) -> None:
    x = np.array(values, float)
    for method in METHODS:
        plain = bootstrap(mean, x, repeats=30, method=method)
        moved = bootstrap(mean, scale * x + offset, repeats=30, method=method)
        for end in ("low", "high"):
            expected = scale * float(getattr(plain, end)) + offset
            assert float(getattr(moved, end)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_bootstrap_is_narrower_with_more_episodes() -> None:
    rng = np.random.default_rng(0)
    few, many = bootstrap(mean, rng.normal(size=20), seed=1), bootstrap(mean, rng.normal(size=2000), seed=1)
    assert many.high - many.low < (few.high - few.low) / 5
    assert few.low < few.value < few.high


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 episodes"):
        bootstrap(mean, np.ones(1))
    with pytest.raises(ValueError, match="the same for all"):
        bootstrap(ratio, np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="second axis"):
        bootstrap(mean, np.ones(3), units="cells")
    with pytest.raises(ValueError, match="second axis"):
        bootstrap(mean, np.ones((3, 1)), units="crossed")
    with pytest.raises(ConfigError, match="confidence"):
        bootstrap(mean, np.ones(3), confidence=1)
