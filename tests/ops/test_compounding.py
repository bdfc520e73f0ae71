"""Closed forms of compounding error, against counting and against the published table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.core.errors import ConfigError
from foreworld.ops.compounding import cumulative_error, effective_members, ensemble_error, safe_horizon

TABLE = {
    0.01: (1.00, 4.90, 9.56, 18.21, 39.50, 63.40),
    0.005: (0.50, 2.48, 4.89, 9.54, 22.17, 39.42),
    0.001: (0.10, 0.50, 1.00, 1.98, 4.88, 9.52),
}


@pytest.mark.parametrize("error", TABLE)
def test_the_table_in_percent(error: float) -> None:
    found = [round(100 * cumulative_error(error, steps), 2) for steps in (1, 5, 10, 20, 50, 100)]
    assert found == list(TABLE[error])


@pytest.mark.parametrize(
    ("error", "limit", "steps"), [(0.01, 0.2, 22), (0.005, 0.2, 44), (0.001, 0.2, 223), (0.2, 0.2, 1)]
)
def test_known_horizons(error: float, limit: float, steps: int) -> None:
    assert safe_horizon(error, limit) == steps


def test_an_error_too_small_to_count_the_steps_sets_no_limit() -> None:
    assert safe_horizon(5e-324, 0.2) is None


@given(st.floats(1e-4, 0.999), st.floats(0, 0.999))
def test_the_horizon_is_the_last_step_within_the_limit(error: float, limit: float) -> None:
    steps = safe_horizon(error, limit)
    assert steps is not None
    assert cumulative_error(error, steps) <= limit * (1 + 1e-9)
    assert cumulative_error(error, steps + 1) > limit * (1 - 1e-9)


@given(st.integers(1, 200), st.floats(1e-4, 0.1))
def test_a_limit_met_exactly_is_not_missed(steps: int, error: float) -> None:
    assert safe_horizon(error, cumulative_error(error, steps)) == steps


@pytest.mark.parametrize(("error", "limit"), [(0, 0.2), (0, 0), (0.5, 1), (1, 1)])
def test_some_limits_are_never_exceeded(error: float, limit: float) -> None:
    assert safe_horizon(error, limit) is None


def test_ends_of_the_range() -> None:
    assert safe_horizon(1, 0.99) == 0
    assert safe_horizon(0.3, 0) == 0
    assert [cumulative_error(1, steps) for steps in (0, 1)] == [0, 1]
    assert cumulative_error(1e-15, 2) == pytest.approx(2e-15, rel=1e-12)


@pytest.mark.parametrize("value", [-1.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        safe_horizon(value, 0.2)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        safe_horizon(0.1, value)
    with pytest.raises(ConfigError):
        effective_members(5, value)


def test_ensembles() -> None:
    assert ensemble_error(0.01, 5, 0) == pytest.approx(0.01 / math.sqrt(5))
    assert ensemble_error(0.01, 5, 0.2) == pytest.approx(0.006)
    assert ensemble_error(0.01, 5, 1) == pytest.approx(0.01)
    assert ensemble_error(0.01, 1, 0.7) == pytest.approx(0.01)
    assert ensemble_error(0.01, 2, -1) == 0
    with pytest.raises(ConfigError, match="at least 1 member"):
        effective_members(0, 0)
    with pytest.raises(ConfigError, match=r"-0\.25 to 1"):
        effective_members(5, -0.3)
