"""Tests of two arms, against scipy; and that nothing is called better while it may not be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreworld.core.errors import DataError
from foreworld.ops import compare, mcnemar, permutation, sign_flip, signed_rank

seeds = st.integers(0, 2**32)


@given(seeds, st.integers(1, 60))
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(seed: int, count: int) -> None:
    first, second = np.random.default_rng(seed).integers(2, size=(2, count)).astype(bool)
    won, lost = (first & ~second).sum(), (second & ~first).sum()
    expected = stats.binomtest(int(won), int(won + lost), 0.5).pvalue if won + lost else 1
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-10)
    assert mcnemar(first, second) == mcnemar(second, first)


@given(seeds, st.integers(2, 12), st.booleans())
def test_sign_flips_are_those_of_scipy(seed: int, count: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    # sums of these are exact: with others, scipy may count the sum that was seen as smaller than itself
    x = (rng.integers(-3, 6, count) if ties else rng.normal(0.4 * 1024, 1024, count).round()) / 1024
    expected = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip(x) == pytest.approx(expected, rel=1e-10)


@given(seeds, st.integers(2, 16))
def test_signed_ranks_are_those_of_wilcoxon(seed: int, count: int) -> None:
    x = np.random.default_rng(seed).normal(0.4, 1, count)
    assert signed_rank(x) == pytest.approx(stats.wilcoxon(x, method="exact").pvalue, rel=1e-10)


def test_signed_ranks_by_draws() -> None:
    x = np.random.default_rng(0).normal(0.3, 1, 60)
    assert signed_rank(x, repeats=40_000) == pytest.approx(stats.wilcoxon(x).pvalue, abs=0.005)
    x[7] = 1e9  # an outlier decides the mean but not the ranks
    assert abs(np.log(signed_rank(x) / signed_rank(np.clip(x, -9, 9)))) < 1e-12


@given(seeds, st.integers(2, 5), st.integers(2, 5))
def test_permutations_are_those_of_scipy(seed: int, count: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=count), rng.normal(0.5, 1, size=others)
    # scipy doubles the smaller tail; ours counts deals as far from the mean on either side
    deals = stats.permutation_test(
        (x, y), lambda x, y: abs(x.mean() - y.mean()), n_resamples=np.inf, alternative="greater"
    )
    assert permutation(x, y) == pytest.approx(deals.pvalue, rel=1e-10)


def test_draws_are_near_the_exact_answer_and_seeded() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.4, 1, 24)
    error = x.std(ddof=0) / np.sqrt(len(x))  # of so many flips the sum is normal
    assert sign_flip(x, repeats=40_000) == pytest.approx(
        2 * stats.norm.sf(abs(x.mean()) / np.hypot(error, x.mean() / 24**0.5)), abs=0.01
    )
    assert sign_flip(x, seed=1) == sign_flip(x, seed=1) != sign_flip(x, seed=2)
    a, b = rng.normal(size=30), rng.normal(0.5, 1, size=40)
    assert permutation(a, b, repeats=40_000) == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.01)
    assert permutation(a, b, seed=1) == permutation(a, b, seed=1) != permutation(a, b, seed=2)
    assert sign_flip(np.full(200, 1.0), repeats=99) == 0.01  # never 0


def test_what_does_not_differ() -> None:
    assert sign_flip(np.zeros(5)) == signed_rank(np.zeros(5)) == 1
    assert mcnemar(np.ones(4, bool), np.ones(4, bool)) == 1
    assert permutation(np.ones(4), np.ones(5)) == 1


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_arms_without_difference_are_rarely_called_better(paired: bool, binary: bool) -> None:
    rng, called = np.random.default_rng(0), 0
    for seed in range(200):
        start, noise = rng.normal(size=15), rng.normal(size=(2, 15))
        arms = noise + start if paired else noise
        first, second = arms > 0 if binary else arms
        called += compare(first, second, paired=paired, repeats=200, seed=seed).verdict != "undecided"
    assert called <= 17  # 5 % of 200, and 2.3 deviations


def test_arms_that_differ_are_told_apart_and_pairs_help() -> None:
    rng = np.random.default_rng(0)
    start = 3 * rng.normal(size=40)
    first, second = start + 1 + 0.5 * rng.normal(size=40), start + 0.5 * rng.normal(size=40)
    found = compare(first, second, repeats=500)
    assert found.verdict == "first"
    assert found.difference.low > 0
    assert found.p < 0.01
    assert compare(first, second, better="lower", repeats=500).verdict == "second"
    assert compare(second, first, repeats=500).verdict == "second"
    assert compare(first, second, paired=False, repeats=500).verdict == "undecided"
    assert compare(first + 9, second, paired=False, repeats=500).verdict == "first"


def test_successes() -> None:
    index = np.arange(60)
    first, second = index % 10 != 0, index % 2 == 0
    found = compare(first, second)
    assert (found.first.value, found.second.value, found.verdict) == (0.9, 0.5, "first")
    assert found.p == mcnemar(first, second)
    # 45 against 49 of 50, the size of a published gain, decides nothing
    apart = compare(np.arange(50) < 49, np.arange(50) < 45, paired=False)
    assert apart.p == pytest.approx(stats.fisher_exact([[49, 1], [45, 5]]).pvalue, abs=0.02)
    assert apart.verdict == "undecided"


def test_nothing_is_better_when_the_interval_holds_0_or_arms_overlap() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        shift = rng.uniform(0, 1.5)
        first, second = rng.normal(shift, 1, 12), rng.normal(0, 1, 12)
        for paired in (True, False):
            found = compare(first, second, paired=paired, repeats=200)
            holds = found.difference.low <= 0 <= found.difference.high
            overlap = found.first.low <= found.second.high and found.second.low <= found.first.high
            if holds or found.p >= 0.05 or (not paired and overlap):
                assert found.verdict == "undecided"
            else:
                assert found.verdict in ("first", "second")


def test_so_few_pairs_decide_nothing_however_clear() -> None:
    # of 5 pairs even the clearest have p = 1 / 16
    assert compare(np.arange(5.0) + 9, np.arange(5.0) ** 1.1).verdict == "undecided"
    assert compare(np.arange(6.0) + 9, np.arange(6.0) ** 1.1).verdict == "first"
    assert compare(np.ones(3, bool), np.zeros(3, bool)).verdict == "undecided"


def test_what_cannot_be_compared_is_refused() -> None:
    x = np.arange(4.0)
    for first, second, words in (
        (x, x[:3], "same starts"),
        (x, np.array([1, 2, np.nan, 4]), "NaN"),
        (x[:1], x[:1], "at least 2"),
        (x[None], x[None], "one list"),
    ):
        with pytest.raises(DataError, match=words):
            compare(first, second)
    for call in (sign_flip, signed_rank, lambda x: permutation(x, x)):
        with pytest.raises(DataError, match="NaN"):
            call(np.array([1.0, np.nan]))
