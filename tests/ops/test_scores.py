"""Scores of samples against brute force, and whether they reward what they should."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from foreworld.core.errors import ConfigError
from foreworld.ops import covered_by_normal, covered_by_samples, crps, energy_score

seeds = st.integers(0, 2**32)
LEVELS = (0.5, 0.8, 0.9, 0.95)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@given(seeds, st.integers(2, 9), st.booleans())
def test_scores_by_all_pairs(seed: int, count: int, fair: bool) -> None:
    samples, target = drawn(seed, 3, count, 4), drawn(seed + 1, 3, 4)
    pairs = count * (count - 1) if fair else count**2
    error = (samples - target[:, None]).norm(dim=-1).mean(-1)
    apart = (samples[:, :, None] - samples[:, None]).norm(dim=-1).sum((1, 2)) / (2 * pairs)
    assert torch.allclose(energy_score(samples, target, fair=fair), error - apart, atol=1e-12)
    line, point = samples[..., 0], target[..., 0]
    apart = (line[:, :, None] - line[:, None]).abs().sum((1, 2)) / (2 * pairs)
    expected = (line - point[:, None]).abs().mean(-1) - apart
    assert torch.allclose(crps(line, point, fair=fair), expected, atol=1e-12)


def test_the_energy_score_of_one_dimension_is_the_crps() -> None:
    samples, target = drawn(0, 5, 8), drawn(1, 5)
    for fair in (True, False):
        vectors = energy_score(samples[..., None], target[..., None], fair=fair)
        assert torch.allclose(vectors, crps(samples, target, fair=fair), atol=1e-12)


def test_crps_is_the_integral_of_its_definition() -> None:
    samples, target = drawn(2, 6), drawn(3)
    ordered = samples.numpy()

    def squared(x: float) -> float:
        return ((ordered <= x).mean() - (float(target) <= x)) ** 2

    edges = sorted([*ordered, float(target)])
    expected = sum(integrate.quad(squared, a, b)[0] for a, b in itertools.pairwise(edges))
    assert float(crps(samples, target, fair=False)) == pytest.approx(expected, rel=1e-9)


def test_fair_scores_do_not_depend_on_the_number_of_samples() -> None:
    # of a standard normal about itself: (sqrt(2) - 1) / sqrt(pi) for a target in the middle, 1 / sqrt(pi) on average
    target = drawn(4, 100_000)
    for count in (2, 5, 20):
        samples = drawn(5 + count, 100_000, count)
        assert float(crps(samples, target).mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=0.006)
        plain = float(crps(samples, target, fair=False).mean())
        assert plain == pytest.approx((1 + 1 / count) / math.sqrt(math.pi), abs=0.006)


@pytest.mark.parametrize("score", [crps, energy_score])
def test_the_true_distribution_scores_best(score: type) -> None:
    target, noise = drawn(0, 20_000, 2), drawn(1, 20_000, 16, 2)
    if score is crps:
        target, noise = target[..., 0], noise[..., 0]
    found = [
        float(score(0.2 * offset + scale * noise, target).mean())
        for offset, scale in ((0, 1), (0, 0.6), (0, 1.6), (1, 1))
    ]
    assert found[0] == min(found)


def test_one_sample_has_its_error_or_is_refused() -> None:
    assert float(crps(torch.tensor([3.0]), torch.tensor(1.0), fair=False)) == 2
    assert float(energy_score(torch.tensor([[3.0, 4.0]]), torch.zeros(2), fair=False)) == 5
    for call in (
        lambda: crps(torch.zeros(1), torch.tensor(0.0)),
        lambda: energy_score(torch.zeros(1, 2), torch.zeros(2)),
    ):
        with pytest.raises(ConfigError, match="at least 2 samples, found 1"):
            call()
    with pytest.raises(ConfigError, match="at least 1 samples"):
        crps(torch.zeros(0), torch.tensor(0.0), fair=False)


def test_digits_survive_a_large_offset_in_float32() -> None:
    samples, target = drawn(0, 50, 32), drawn(1, 50)
    far = crps((samples + 1000).float(), (target + 1000).float())
    assert torch.allclose(far.double(), crps(samples, target), atol=2e-4)
    vectors = torch.stack([samples, samples], -1)
    far = energy_score((vectors + 1000).float(), (target[:, None] + 1000).float())
    assert torch.allclose(far.double(), energy_score(vectors, target[:, None]), atol=4e-4)


@pytest.mark.parametrize("count", [39, 50, 199])
def test_intervals_of_samples_cover_as_often_as_they_say(count: int) -> None:
    samples, target = drawn(0, 20_000, count).exp(), drawn(1, 20_000).exp()
    found = covered_by_samples(samples, target, LEVELS).double().mean(0)
    # interpolated ends, as of 50 samples, are right for a flat density only
    assert found.tolist() == pytest.approx(LEVELS, abs=0.01)


def test_intervals_of_samples_by_hand() -> None:
    samples = torch.tensor([4.0, 1.0, 3.0, 2.0])
    # with 4 samples the interval of 60 % reaches from the first to the last, that of 20 % from the second to the third
    for target, expected in ((1.0, [False, True]), (2.0, [True, True]), (3.0, [True, True]), (4.1, [False, False])):
        assert covered_by_samples(samples, torch.tensor(target), [0.2, 0.6]).tolist() == expected


def test_what_is_nan_is_not_covered() -> None:
    samples = torch.arange(39.0)
    assert not covered_by_samples(samples, torch.tensor(math.nan), [0.9]).any()
    samples[7] = math.nan
    assert not covered_by_samples(samples, torch.tensor(20.0), [0.9]).any()


def test_too_few_samples_say_how_many_they_should_be() -> None:
    assert covered_by_samples(drawn(0, 39), drawn(1), [0.95]).shape == (1,)
    with pytest.raises(ConfigError, match="38 samples cannot state an interval of 95%; draw at least 39"):
        covered_by_samples(drawn(0, 38), drawn(1), [0.5, 0.95])


@pytest.mark.parametrize("levels", [[], [0.0], [0.5, 1.0], [math.nan]])
def test_levels_that_are_none_are_refused(levels: list[float]) -> None:
    zero = torch.tensor(0.0)
    for call in (
        lambda: covered_by_samples(drawn(0, 9), zero, levels),
        lambda: covered_by_normal(zero, zero, zero, levels),
    ):
        with pytest.raises(ConfigError, match="levels must lie"):
            call()


def test_intervals_of_a_normal() -> None:
    mean, deviation = drawn(0, 3, 4), drawn(1, 3, 4).exp()
    ends = [torch.from_numpy(np.stack(stats.norm.interval(level, mean, deviation))) for level in LEVELS]
    for share, expected in ((0.999, True), (1.001, False)):
        for i, (low, high) in enumerate(ends):
            for end in (low, high):
                target = mean + share * (end - mean)
                assert bool((covered_by_normal(mean, deviation, target, LEVELS)[..., i] == expected).all())
