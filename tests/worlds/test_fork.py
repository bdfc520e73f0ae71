"""The odds of the fork, its way, and why a single guess must fail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreworld.worlds import Fork, simulate


@pytest.mark.parametrize("left", [0.0, 0.2, 0.7, 1.0])
def test_sides_come_with_their_odds(left: float) -> None:
    """The count lies within the 99.9 % interval of the binomial distribution, here by its normal approximation."""
    world, rng, n = Fork(left=left), np.random.default_rng(0), 20_000
    ends = simulate(world, world.start(rng, n), 24, rng=rng)[:, -1]
    share = (ends[:, 2] == -1).mean()
    assert abs(share - left) <= 3.29 * math.sqrt(left * (1 - left) / n)
    assert np.array_equal(np.sign(ends[:, 0]), ends[:, 2]) and (ends[:, 2] != 0).all()


def test_the_ball_rolls_evenly_round_the_corner_and_stops_at_the_end() -> None:
    world = Fork(left=1.0, speed=0.3)
    start = np.array([[0.0, -0.7, 0.0]])
    found = simulate(world, start, 6, rng=np.random.default_rng(0))[0]
    expected = [[0, -0.7, 0], [0, -0.4, 0], [0, -0.1, 0], [-0.2, 0, -1], [-0.5, 0, -1], [-0.8, 0, -1], [-1, 0, -1]]
    assert np.allclose(found, expected)
    exact = simulate(world, np.array([[0.0, -0.6, 0.0]]), 2, rng=np.random.default_rng(0))[0, -1]
    assert np.allclose(exact, [0, 0, -1], atol=1e-12), "the side is drawn on arrival"


def test_nothing_before_the_junction_tells_the_side() -> None:
    world, rng = Fork(left=0.5), np.random.default_rng(1)
    states = simulate(world, world.start(rng, 20_000), 24, rng=rng)
    far = states[:, 0, 1] < np.median(states[:, 0, 1])
    left = states[:, -1, 2] == -1
    assert abs(left[far].mean() - left[~far].mean()) < 3.29 * math.sqrt(0.25 / 10_000 * 2)
    at = np.arange(len(states))
    before = (states[:, :, 2] != 0).argmax(1) - 1
    assert np.array_equal(states[at, before, 0], np.zeros(20_000))


def test_the_best_single_guess_is_where_the_ball_never_is() -> None:
    world, rng = Fork(left=0.7), np.random.default_rng(2)
    ends = simulate(world, world.start(rng, 4000), 24, rng=rng)[:, -1, 0]
    guess = ends.mean()
    assert guess == pytest.approx(0.3 - 0.7, abs=0.05)
    assert np.abs(ends - guess).min() > 0.3
    # samples with the right odds have an energy score that no single guess reaches, not even the likelier side
    sample, other = rng.permutation(ends), rng.permutation(ends)
    score = np.abs(ends - sample).mean() - np.abs(sample - other).mean() / 2
    assert score < 0.75 * min(np.abs(ends - single).mean() for single in (guess, np.median(ends)))


@pytest.mark.parametrize("size", [32, 64])
def test_the_ball_is_drawn_where_it_is(size: int) -> None:
    world, rng = Fork(size=size), np.random.default_rng(3)
    states = simulate(world, world.start(rng, 5), 24, rng=rng).reshape(-1, 3)
    pictures = world.observe(states)["image"].astype(float)
    yellow = np.clip(pictures[:, 0] - pictures[:, 2], 0, None)  # neither the ground nor the ways are
    middle = np.arange(size) + 0.5
    weight = yellow.sum((1, 2))
    across, down = yellow.sum(1) @ middle / weight, yellow.sum(2) @ middle / weight
    assert np.abs(across - size * (0.5 + 0.4 * states[:, 0])).max() < 0.1
    assert np.abs(down - size * (1 - (0.7 + 0.4 * states[:, 1]))).max() < 0.1
