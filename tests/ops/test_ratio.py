"""Intervals of ratios of sums: against resampling by hand, the jackknife, and at the edges of what is known."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.ops import bootstrap, bootstrap_ratio, jackknife_error, ratio_error
from foreworld.studies.coverage import root_mean_square, root_mean_square_error

SQUARES, STEPS = np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 2.0])


def moments(top: np.ndarray, bottom: np.ndarray) -> list[np.ndarray]:
    return [part.sum(0) for part in (top, bottom, top**2, top * bottom, bottom**2)]


def sample(episodes: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.lognormal(size=(episodes, *shape)), rng.integers(1, 9, (episodes, *shape)).astype(float)


@pytest.fixture
def same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a ratio be resampled as `bootstrap` resamples rows."""

    def drawn(count: int, repeats: int, seed: int) -> np.ndarray:
        rows = np.random.default_rng(seed).integers(count, size=(repeats, count))
        return np.stack([np.bincount(row, minlength=count) for row in rows]).astype(float)

    monkeypatch.setattr(importlib.import_module("foreworld.ops.ratio"), "_drawn", drawn)


def test_the_error_of_a_ratio_by_hand() -> None:
    # the ratio is 9 / 4; what is left of each episode is -5/4, -1/4, 3/2, whose squares sum to 31/8
    assert float(ratio_error(*moments(SQUARES, STEPS), episodes=3)) == pytest.approx(np.sqrt(31 / 8 * 3 / 2) / 4)
    # its root is 3 / 2, and the slope of the root there 1 / 3
    by_hand = np.sqrt(31 / 8 * 3 / 2) / 4 / 3
    assert float(root_mean_square_error(SQUARES[None], STEPS[None])[0]) == pytest.approx(by_hand)


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=(9, 4))
    assert np.allclose(ratio_error(*moments(x, np.ones_like(x)), episodes=9), x.std(0, ddof=1) / 3)


def test_the_error_of_a_skill_is_that_of_the_difference_of_logarithms() -> None:
    own, rival = sample(200)[0], sample(200)[0][::-1] + 1
    share = np.sqrt(own.sum() / rival.sum())
    influence = (own / own.mean() - rival / rival.mean()) / 2
    expected = share * influence.std(ddof=1) / np.sqrt(200)
    assert float(root_mean_square_error(own[None], rival[None])[0]) == pytest.approx(expected)


@pytest.mark.parametrize("episodes", [30, 300])
def test_the_error_of_a_ratio_is_near_the_jackknife(episodes: int) -> None:
    top, bottom = sample(episodes)
    left_out = jackknife_error(lambda top, bottom: top.sum(1) / bottom.sum(1), top[None], bottom[None])
    assert float(ratio_error(*moments(top, bottom), episodes=episodes)) == pytest.approx(float(left_out[0]), rel=0.05)


@pytest.mark.parametrize("episodes", [10, 30, 49, 50, 80])
@pytest.mark.parametrize("root", [True, False])
def test_few_episodes_get_a_studentised_interval_and_others_percentiles(
    episodes: int, root: bool, same_resamples: None
) -> None:
    top, bottom = sample(episodes, 3)

    def error(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return 2 * root_mean_square(top, bottom) ** (not root) * root_mean_square_error(top, bottom) / (1 + root)

    expected = bootstrap(
        lambda top, bottom: root_mean_square(top, bottom) ** (2 - root),
        top,
        bottom,
        method="t" if episodes < 50 else "percentile",
        error=error,
    )
    found = bootstrap_ratio(top, bottom, root=root)
    assert np.allclose(found.value, expected.value, rtol=1e-12)
    assert np.allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-7)


def test_no_end_lies_further_away_than_thrice_that_of_percentiles(same_resamples: None) -> None:
    # of these, the studentised interval is infinite for 2 and 3 episodes, and sixty times too wide for 5
    for episodes in (2, 3, 5):
        top, bottom = np.exp(2 * np.arange(episodes)), np.ones(episodes)
        plain, found = bootstrap(lambda x: x.mean(1), top), bootstrap_ratio(top, bottom)
        assert float(found.high - found.value) == pytest.approx(3 * float(plain.high - found.value))
        assert 0 <= float(found.low) < float(plain.low)


def test_the_number_of_episodes_that_reach_a_step_decides(same_resamples: None) -> None:
    top, bottom = sample(80, 5)
    for step, reached in enumerate((80, 49, 7, 1, 0)):
        top[reached:, step] = bottom[reached:, step] = 0
    found = bootstrap_ratio(top, bottom)
    with np.errstate(invalid="ignore"):
        plain = bootstrap(lambda top, bottom: top.sum(1) / bottom.sum(1), top, bottom)
    wider = (found.high - found.low)[:3] / (plain.high - plain.low)[:3]
    assert wider[0] == pytest.approx(1) and 1.02 < wider[1] < wider[2] < 3
    assert np.allclose([found.low[3], found.high[3]], found.value[3], rtol=1e-12)
    assert np.isnan([found.value[4], found.low[4], found.high[4]]).all()


def test_columns_are_independent_of_each_other_and_bottoms_are_shared() -> None:
    top, bottom = sample(20, 4, 3)
    bottom = bottom[..., :1]
    found = bootstrap_ratio(top, bottom, root=True)
    alone = bootstrap_ratio(top[:, 2, 1], bottom[:, 2, 0], root=True)
    assert found.value.shape == found.low.shape == found.high.shape == (4, 3)
    assert np.allclose([found.low[2, 1], found.high[2, 1]], [alone.low, alone.high], rtol=1e-12)


def test_what_does_not_vary_has_no_width() -> None:
    bottom = np.arange(1.0, 21)
    for top, value in ((0.1 * bottom, 0.1), (0 * bottom, 0.0)):
        for root in (False, True):
            found = bootstrap_ratio(top, bottom, root=root)
            expected = np.sqrt(value) if root else value
            assert np.allclose([found.value, found.low, found.high], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("root", [True, False])
def test_an_error_in_one_episode_of_many_has_finite_ends(root: bool) -> None:
    # more than a third of the resamples are without it: they know of no spread at all
    found = bootstrap_ratio(np.eye(20)[0], np.ones(20), root=root)
    assert 0 <= float(found.low) < float(found.value) < float(found.high) < 1


def test_what_is_not_finite_has_no_interval() -> None:
    top, bottom = sample(20, 2)
    top[3, 0], top[4, 1] = np.inf, np.nan
    found = bootstrap_ratio(top, bottom)
    assert np.isinf(found.value[0]) and np.isnan(found.value[1])
    assert np.isnan([found.low, found.high]).all()


@given(
    st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 9)), min_size=2, max_size=60),
    st.floats(1e-3, 1e3),
    st.booleans(),
)
def test_intervals_are_finite_not_negative_and_stretch_with_the_unit(
    rows: list[tuple[float, int]], unit: float, root: bool
) -> None:
    top = np.array([error if count else 0 for error, count in rows])
    bottom = np.array([float(count) for _, count in rows])
    found = bootstrap_ratio(top, bottom, root=root, repeats=200)
    scaled = bootstrap_ratio(top * unit, bottom, root=root, repeats=200)
    factor = np.sqrt(unit) if root else unit
    for end in ("value", "low", "high"):
        assert np.isfinite(getattr(found, end)) == (bottom.sum() > 0)
        assert float(getattr(scaled, end)) == pytest.approx(
            factor * float(getattr(found, end)), rel=1e-6, abs=1e-9 * factor, nan_ok=True
        )
    assert not found.low < 0


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 episodes"):
        bootstrap_ratio(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="the same for all"):
        bootstrap_ratio(np.ones(3), np.ones(4))
