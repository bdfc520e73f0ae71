"""Bands of the error, the replanning interval that follows, and the exploitation gap."""

from __future__ import annotations

import numpy as np
import pytest

from foreworld.core.errors import ConfigError, DataError, TooFewEpisodes
from foreworld.eval.bands import Bands, error_bands
from foreworld.eval.exploitation import exploitation_gap
from foreworld.eval.replanning import recommend_replanning


def walks(n: int, steps: int, seed: int) -> np.ndarray:
    """Heavy-tailed errors that add up."""
    rng = np.random.default_rng(seed)
    return np.abs(rng.standard_t(3, size=(n, 1)) * rng.normal(size=(n, steps)).cumsum(1))


def test_a_pointwise_band_is_the_conformal_quantile_of_each_step() -> None:
    errors = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, 20.0), (3, 1)), axis=1).T
    # ceil(20 * 0.9) = 18th of 19
    assert error_bands(errors, 0.9).pointwise.tolist() == [18.0, 18.0, 18.0]


def test_bands_cover_as_often_as_they_say_at_one_step_and_at_all() -> None:
    pool = walks(20_000, 30, seed=1)
    rng = np.random.default_rng(0)
    at_steps, at_all = [], []
    for repeat in range(200):
        bands = error_bands(pool[rng.integers(10_000, size=100)], 0.9, seed=repeat)
        inside = pool[10_000:] <= bands.pointwise
        at_steps.append(inside.mean(0))
        at_all.append((pool[10_000:] <= bands.trajectory).all(1).mean())
    # expected 91/101 = 0.901 and 46/51 = 0.902; the spread of one repeat is 0.03 and 0.04
    assert np.mean(at_steps, 0) == pytest.approx(0.901, abs=0.012)
    assert np.mean(at_all) == pytest.approx(0.902, abs=0.012)
    # a band for one step at a time does not hold a whole trajectory
    assert np.mean([(pool[:2000] <= bands.pointwise).all(1).mean()]) < 0.88


def test_the_band_over_trajectories_is_wider_but_not_by_the_number_of_steps() -> None:
    errors = walks(400, 100, seed=3)
    bands = error_bands(errors, 0.9)
    wider = bands.trajectory[5:] / bands.pointwise[5:]
    assert 1.0 < np.median(wider) < 3.0
    bonferroni = np.quantile(errors[:, -1], 1 - 0.1 / 100, method="higher")
    assert bands.trajectory[-1] < bonferroni


def test_trajectories_that_end_count_for_the_steps_that_they_have() -> None:
    errors = np.ones((60, 10))
    errors[:55, 5:] = np.nan
    bands = error_bands(errors, 0.9)
    assert bands.count.tolist() == [60] * 5 + [5] * 5
    assert bands.pointwise[:5].tolist() == [1.0] * 5 and np.isinf(bands.pointwise[5:]).all()
    cell = bands.to_json((1, 10, 50))
    assert cell["1"] == {"mean": 1.0, "pointwise": 1.0, "trajectory": 1.0, "trajectories": 60}
    assert cell["10"]["pointwise"] is None and "5 trajectories are too few" in cell["10"]["reason"]
    assert cell["50"]["pointwise"] is None and cell["50"]["reason"] == "only 10 steps"


def test_predictions_that_diverge_make_the_band_infinite_only_where_they_are_many() -> None:
    errors = np.full((100, 6), 0.1)
    errors[:5, 2:] = np.inf
    assert np.isfinite(error_bands(errors, 0.9).pointwise).all()
    errors[:20, 4:] = np.inf
    bands = error_bands(errors, 0.9)
    assert np.isfinite(bands.pointwise[:4]).all() and np.isinf(bands.pointwise[4:]).all()
    assert np.isinf(bands.trajectory).all()


def test_perfect_predictions_have_a_band_of_zero() -> None:
    bands = error_bands(np.zeros((40, 5)), 0.9)
    assert bands.pointwise.tolist() == bands.trajectory.tolist() == [0.0] * 5


def test_the_split_is_fixed_by_its_seed() -> None:
    errors = walks(50, 20, seed=4)
    assert (error_bands(errors, seed=1).trajectory == error_bands(errors, seed=1).trajectory).all()
    assert (error_bands(errors, seed=1).trajectory != error_bands(errors, seed=2).trajectory).any()


def bands_of(pointwise: list[float]) -> Bands:
    values = np.array(pointwise)
    return Bands(level=0.9, pointwise=values, trajectory=values, mean=values, count=np.full(len(values), 99), split=49)


def test_replan_before_the_band_passes_the_limit() -> None:
    bands = bands_of([0.05, 0.1, 0.2, 0.21, 0.1])
    found = recommend_replanning(bands, 0.2)
    assert (found.every, found.at_least, found.soonest) == (3, False, None)
    assert "planning time was not given" in found.in_words()
    assert found.to_json()["replan_latency_checked"] is False
    # 0.3 s of planning are exactly 3 steps of 0.1 s, whatever rounding does
    quick = recommend_replanning(bands, 0.2, dt=0.1, latency=0.3)
    assert (quick.every, quick.soonest) == (3, 3) and "(0.3 s)" in quick.in_words()
    slow = recommend_replanning(bands, 0.2, dt=0.1, latency=0.31)
    assert slow.every is None and slow.reason == "a plan takes 4 steps to make, and the error stays within 0.2 for 3"
    assert recommend_replanning(bands, 0.5).at_least
    none = recommend_replanning(bands, 0.01)
    assert none.every is None and "after one step already" in none.in_words()
    assert recommend_replanning(bands_of([0.1, np.inf]), 0.2).every == 1
    assert recommend_replanning(bands_of([np.nan, 0.1]), 0.2).every is None


@pytest.mark.parametrize(("dt", "latency"), [(None, 0.1), (0.1, -1.0), (0.1, np.inf)])
def test_a_latency_needs_the_length_of_a_step(dt: float | None, latency: float) -> None:
    with pytest.raises(ConfigError, match="planning latency"):
        recommend_replanning(bands_of([0.1]), 0.2, dt, latency)


def test_a_planner_that_picks_what_is_overrated_is_found_out() -> None:
    """Of 10 plans with model errors of deviation 1, the best looking is overrated by about 1.54 if all are equal."""
    error = np.random.default_rng(0).normal(size=(200, 10))
    found = exploitation_gap(error.max(1), error.mean(1), 2.0)
    assert float(found.gap.value) == pytest.approx(1.54, abs=0.15)
    assert 0 < found.gap.low < 1.54 < found.gap.high
    assert "exploits" in found.in_words()
    assert found.to_json()["gap_in_deviations"] == pytest.approx(float(found.gap.value) / 2)
    honest = exploitation_gap(error[:, 0], error[:, 1:].mean(1), 2.0)
    assert honest.gap.low < 0 < honest.gap.high and "No exploitation" in honest.in_words()
    assert found.starts == 200


def test_intervals_of_the_gap_cover_what_is_true() -> None:
    covered = 0
    for study in range(200):
        rng = np.random.default_rng(study)
        gap = exploitation_gap(2 * rng.exponential(size=30), rng.exponential(size=30), 1.0, seed=study).gap
        covered += bool(gap.low < 1.0 < gap.high)
    assert 183 <= covered <= 198


def test_the_gap_needs_finite_values_from_the_same_starts() -> None:
    values = np.zeros(20)
    with pytest.raises(TooFewEpisodes, match="4 starts"):
        exploitation_gap(values[:4], values[:4], 1.0)
    with pytest.raises(DataError, match="each start"):
        exploitation_gap(values, values[:19], 1.0)
    broken = values.copy()
    broken[3] = np.nan
    with pytest.raises(DataError, match="start 3"):
        exploitation_gap(broken, values, 1.0)
