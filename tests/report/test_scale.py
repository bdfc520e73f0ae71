from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.report.scale import Axis, aligned, linear_ticks, log_ticks, number, span, tick_labels


def test_linear_axis_places_ends_and_middle() -> None:
    np.testing.assert_allclose(Axis(-1, 3, 100, 0)([-1, 1, 3, 5]), [100, 50, 0, -50])


def test_log_axis_places_decades_evenly_and_drops_what_has_no_logarithm() -> None:
    np.testing.assert_allclose(Axis(0.1, 1000, 0, 400, log=True)([0.1, 1, 1000, 0, -5]), [0, 100, 400, np.nan, np.nan])


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.3, 0.32, 3, [-0.2, 0, 0.2]),
        (1, 50, 5, [10, 20, 30, 40, 50]),
        (0, 20000, 4, [0, 5000, 10000, 15000, 20000]),
        (1e-7, 3e-7, 2, [1e-7, 2e-7, 3e-7]),
    ],
)
def test_linear_ticks(low: float, high: float, count: int, expected: list[float]) -> None:
    assert linear_ticks(low, high, count) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
def test_linear_ticks_lie_inside_evenly_and_about_as_many_as_asked(low: float, size: float, count: int) -> None:
    ticks = linear_ticks(low, low + size, count)
    assert 1 <= len(ticks) <= 2 * count + 2
    assert all(low - size * 1e-6 <= tick <= low + size * (1 + 1e-6) for tick in ticks)
    assert np.ptp(np.diff(ticks)) < size * 1e-6 if len(ticks) > 2 else True


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.02, 4, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
        (1, 1e5, [1, 10, 100, 1e3, 1e4, 1e5]),
        (2, 3, [2, 2.2, 2.4, 2.6, 2.8, 3]),
    ],
)
def test_log_ticks(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


@given(st.floats(-200, 200), st.floats(0.01, 90))
def test_log_ticks_lie_inside(exponent: float, decades: float) -> None:
    low, high = 10**exponent, 10 ** (exponent + decades)
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)


def test_span_pads_only_the_ends_that_the_data_decide() -> None:
    assert span(np.array([1.0, np.nan, 3.0, np.inf]), (0, None), pad=0.1) == pytest.approx((0, 3.3))
    assert span(np.array([1.0, 100.0, -5.0]), log=True, pad=0.5) == pytest.approx((0.1, 1000))


@pytest.mark.parametrize(
    ("values", "fixed", "log", "expected"),
    [
        ([2.0, 2.0], (None, None), False, (1.8, 2.2)),
        ([0.0], (None, None), False, (-1, 1)),
        ([0.0], (0, None), False, (0, 1)),
        ([4.0], (None, None), True, (2, 8)),
        ([], (None, None), False, None),
        ([np.nan], (None, None), False, None),
        ([-1.0, 0.0], (None, None), True, None),
    ],
)
def test_span_of_constant_and_empty(
    values: list[float], fixed: tuple[float | None, float | None], log: bool, expected: tuple[float, float] | None
) -> None:
    found = span(np.array(values), fixed, log)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1 + 0.2, "0.3"), (-2.5, "−2.5"), (999.6, "1000"), (9999, "9999"), (12340, "12.3k"), (2e6, "2M"),
     (1e-5, "10⁻⁵"), (2.5e-4, "2.5×10⁻⁴"), (1e12, "10¹²"), (math.nan, "–"), (-math.inf, "−∞")],
)  # fmt: skip
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_tick_labels_share_decimals_and_differ() -> None:
    assert tick_labels([-0.5, 0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert tick_labels([1000.1, 1000.2, 1000.3]) == ["1000.1", "1000.2", "1000.3"]
    assert tick_labels([0, 2000, 10000]) == ["0", "2k", "10k"]
    assert tick_labels([1, 10, 100, 1000, 10000], log=True) == ["1", "10", "100", "1000", "10k"]


def test_aligned_leaves_words_alone() -> None:
    assert aligned(["1", "2.25"]) == ["1.00", "2.25"]
    assert aligned(["1", "10⁻⁵"]) == ["1", "10⁻⁵"]
    assert aligned([]) == []
