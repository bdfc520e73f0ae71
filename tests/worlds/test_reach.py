"""Reach and catch: small tasks whose best and worst play is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foreworld.worlds import Acting, Catch, Guided, Reach


def returns(world: Acting, steps: int, oracle: bool, count: int = 400) -> np.ndarray:
    """Return what [count] episodes earn under the oracle, or under random actions."""
    rng = np.random.default_rng(0)
    state, total = world.start(rng, count), np.zeros(count)
    for _ in range(steps):
        if oracle:
            assert isinstance(world, Guided)
            act = world.oracle(state)
        elif world.action.kind == "discrete":  # type: ignore[union-attr]
            act = rng.integers(world.action.classes[0], size=count)  # type: ignore[union-attr]
        else:
            act = rng.uniform(world.action.low, world.action.high, (count, 2))  # type: ignore[union-attr]
        after = world.step(state, act)
        total += world.reward(state, act, after)
        state = after
    return total


def test_moves_by_hand() -> None:
    world = Reach(stride=0.1, tolerance=0.05)
    state = np.repeat([[0.5, 0.5, 0.2, 0.2]], 5, 0)
    after = world.step(state, np.arange(5))
    assert np.allclose(after[:, :2], [(0.5, 0.5), (0.6, 0.5), (0.5, 0.6), (0.4, 0.5), (0.5, 0.4)])
    assert np.allclose(world.step(state + np.array([0.4, 0, 0, 0]), np.ones(5, int))[:, 0], 0.9), "the edge"
    box = replace(world, box=True)
    assert np.allclose(box.step(state[:1], np.array([[0.05, -0.3]]))[0, :2], [0.55, 0.4])
    assert np.array_equal(world.oracle(state[:2] * (1, 1, 1, 2.5)), [3, 3])


def test_what_reach_pays() -> None:
    world, act = Reach(scale=0.4), np.zeros(3, int)
    state = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.7], [0.1, 0.1, 0.9, 0.9]])
    assert np.allclose(world.reward(state, act, state), [1, 0.5, 0])
    assert world.success(state).tolist() == [True, False, False]
    assert not world.over(state).any() and replace(world, stop=True).over(state).tolist() == [True, False, False]


@pytest.mark.parametrize("box", [False, True])
def test_random_play_earns_far_less_than_the_oracle(box: bool) -> None:
    world = Reach(box=box)
    random, best = returns(world, 50, oracle=False), returns(world, 50, oracle=True)
    assert random.mean() < 18 and best.mean() > 43 and best.min() > 35
    state = world.start(np.random.default_rng(1), 200)
    for _ in range(25):
        state = world.step(state, world.oracle(state))
    assert world.success(state).all()


def test_catch_by_hand() -> None:
    world = Catch()
    state = np.array([[0.0, 2.0, 2.0]])
    state = world.step(state, np.array([1]))
    assert state.tolist() == [[0, 1, 1]] and not world.over(state)[0]
    caught, missed = (world.step(state, np.array([move])) for move in (1, 2))
    assert caught.tolist() == [[0, 0, 0]] and world.over(caught)[0]
    assert world.reward(state, np.array([1]), caught) == 1 and world.reward(state, np.array([2]), missed) == -1
    assert (
        np.array_equal(world.step(caught, np.array([2])), caught) and world.reward(caught, np.array([2]), caught) == 0
    )
    assert world.step(np.array([[0.0, 5.0, 0.0]]), np.array([1]))[0, 2] == 0, "the edge"


def test_the_oracle_catches_all_and_random_play_few() -> None:
    world = Catch()
    assert (returns(world, 9, oracle=True) == 1).all()
    assert -0.75 < returns(world, 9, oracle=False).mean() < -0.45, "one in five or so"


@pytest.mark.parametrize(("world", "colours"), [(Reach(), 2), (Catch(), 2)])
def test_pictures_tell_states_apart(world: Reach | Catch, colours: int) -> None:
    states = np.unique(world.start(np.random.default_rng(0), 40), axis=0)
    pictures = world.render(states)
    assert len(np.unique(pictures.reshape(len(states), -1), axis=0)) == len(states)
    solid = {tuple(pixel) for pixel in pictures[0].reshape(3, -1).T.tolist()}
    assert len(solid) > colours


def test_the_paddle_is_under_the_ball_that_it_catches() -> None:
    world = Catch(size=50)
    picture = world.render(np.array([[3.0, 1.0, 3.0]]))[0].astype(float)
    blue, yellow = picture[2] > 200, (picture[0] > 200) & (picture[2] < 120)
    (rows, columns), (ball_rows, ball_columns) = np.nonzero(blue), np.nonzero(yellow)
    assert (columns.min(), columns.max()) == (30, 39) and rows.min() > ball_rows.max()
    assert abs(ball_columns.mean() - 34.5) < 0.6
