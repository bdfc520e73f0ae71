"""Correlations and the area under the curve, against scipy and against counting."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.ops import auroc, kendall, midranks, pearson, spearman

seeds = st.integers(0, 2**32)


def with_ties(seed: int, shape: tuple[int, ...] = (12,), values: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, values, shape).astype(float), rng.integers(0, values, shape).astype(float)


@given(seeds)
def test_midranks_are_those_of_scipy(seed: int) -> None:
    x, _ = with_ties(seed, (3, 4, 9))
    assert np.array_equal(midranks(x), stats.rankdata(x, axis=-1))


@given(seeds, st.integers(2, 15), st.integers(2, 30))
def test_correlations_are_those_of_scipy(seed: int, count: int, values: int) -> None:
    x, y = with_ties(seed, (count,), values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant lists
        for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr), (kendall, stats.kendalltau)):
            assert float(ours(x, y)) == pytest.approx(float(theirs(x, y)[0]), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("function", [pearson, spearman, kendall])
def test_leading_axes(function: type) -> None:
    x, y = with_ties(0, (2, 3, 8), 9)
    found = function(x, y)
    assert found.shape == (2, 3)
    assert float(found[1, 2]) == float(function(x[1, 2], y[1, 2]))


@pytest.mark.parametrize("function", [pearson, spearman, kendall])
def test_what_has_no_correlation_is_nan(function: type) -> None:
    x = np.array([0.1, 0.2, 0.3])
    for other in (np.full(3, 0.1), np.array([1.0, np.nan, 2.0])):
        assert np.isnan(function(x, other))
        assert np.isnan(function(other, x))
    assert np.isnan(function(x[:1], x[:1]))


def test_a_line_correlates_fully_at_any_scale() -> None:
    x = np.array([1.0, 2.0, 4.0])
    for scale, offset in ((1e-100, 0), (1e100, 0), (1e-6, 1e3)):
        assert float(pearson(x, scale * x + offset)) == pytest.approx(1, abs=1e-9)


@given(seeds, st.integers(2, 12))
def test_auroc_counts_pairs(seed: int, count: int) -> None:
    score, _ = with_ties(seed, (count,), 4)
    positive = np.random.default_rng(seed + 1).integers(2, size=count).astype(bool)
    pairs = np.sign(score[positive][:, None] - score[~positive]) / 2 + 0.5
    assert float(auroc(score, positive)) == pytest.approx(pairs.mean() if pairs.size else np.nan, nan_ok=True)


def test_auroc_is_mann_whitney_with_leading_axes() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.normal(size=(3, 50)), rng.integers(2, size=(3, 50)).astype(bool)
    for i, found in enumerate(auroc(score, positive)):
        won = stats.mannwhitneyu(score[i][positive[i]], score[i][~positive[i]]).statistic
        assert found == pytest.approx(won / (positive[i].sum() * (~positive[i]).sum()))
    assert np.isnan(auroc(np.array([1.0, np.nan]), np.array([True, False])))
