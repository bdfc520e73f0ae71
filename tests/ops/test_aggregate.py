"""Aggregates over runs and tasks, against scipy and against what rliable said of the same scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.ops import (
    bootstrap,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    task_median,
)

RLIABLE = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "rliable.json").read_text())
FUNCTIONS: dict[str, Any] = {
    "aggregate_iqm": interquartile_mean,
    "aggregate_median": task_median,
    "aggregate_mean": lambda x: x.mean((-2, -1)),
    "aggregate_optimality_gap": optimality_gap,
}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_interquartile_mean_is_the_trimmed_mean(values: list[float]) -> None:
    expected = stats.trim_mean(values, 0.25)
    assert float(interquartile_mean(np.array(values), 0)) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_interquartile_mean_of_several_axes() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    assert np.allclose(interquartile_mean(x, (1, 2)), stats.trim_mean(x.reshape(3, 20, 2), 0.25, axis=1), atol=1e-15)
    assert np.allclose(interquartile_mean(x, -1), x.mean(-1))  # of two nothing is trimmed


def test_a_missing_score_is_not_trimmed_away() -> None:
    x = np.arange(8.0).reshape(4, 2)
    x[3, 1] = np.nan
    for function in (interquartile_mean, task_median, optimality_gap, lambda x: probability_of_improvement(x, x)):
        assert np.isnan(function(x))


@pytest.mark.parametrize("name", RLIABLE["scores"])
def test_values_are_those_of_rliable(name: str) -> None:
    found = RLIABLE["scores"][name]
    first, second = np.array(found["first"]), np.array(found["second"])
    for key, function in FUNCTIONS.items():
        assert float(function(first)) == pytest.approx(found[key], rel=1e-12, abs=1e-12)
    improvement = float(probability_of_improvement(first, second))
    assert improvement == pytest.approx(found["probability_of_improvement"], rel=1e-12)
    assert performance_profile(first, np.array(found["thresholds"])) == pytest.approx(found["profile"], rel=1e-12)


@pytest.mark.parametrize("name", [name for name, found in RLIABLE["scores"].items() if "intervals" in found])
def test_intervals_are_those_of_rliable_up_to_the_draws(name: str) -> None:
    found = RLIABLE["scores"][name]
    scores = np.array(found["first"])
    # both ends are quantiles of resamples, theirs of 50,000, ours of 10,000; of whole scores they move in steps
    step = 1.01 / scores.size if name == "ties" else 0
    for key, (low, high) in found["intervals"].items():
        ci = bootstrap(FUNCTIONS[key], scores, units="cells", repeats=10_000)
        assert (float(ci.low), float(ci.high)) == pytest.approx((low, high), abs=max(step, 0.035 * (high - low)))


def test_rliable_ignores_its_seed() -> None:
    # the reason not to depend on it; if this changes, the file was made by another version
    assert RLIABLE["seed_ignored"] is True


def test_by_hand() -> None:
    x = np.array([[0.0, 4.0], [1.0, 0.5]])
    assert float(task_median(x)) == pytest.approx((0.5 + 2.25) / 2)
    assert float(optimality_gap(x)) == pytest.approx(1 - (0 + 1 + 1 + 0.5) / 4)
    assert float(optimality_gap(x, target=2)) == pytest.approx(2 - (0 + 2 + 1 + 0.5) / 4)
    assert performance_profile(x, np.array([0.0, 0.5, 9.0])).tolist() == [0.75, 0.5, 0.0]


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_probability_of_improvement_counts_pairs(seed: int, runs: int, others: int, tasks: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, (2, runs, tasks)), rng.integers(0, 3, (2, others, tasks))
    pairs = np.sign(x[:, :, None] - y[:, None, :]) / 2 + 0.5
    assert np.allclose(probability_of_improvement(x, y), pairs.mean((1, 2, 3)), atol=1e-15)
