"""The point maze: motion by hand, goals, the way there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foreworld.core.errors import ConfigError
from foreworld.worlds import MAZES, PointMaze, simulate
from foreworld.worlds.maze import GOAL, MASS

HALL = ("....", "....")


def test_a_push_acts_at_once_and_drag_slows_down_along_a_straight_line() -> None:
    world = PointMaze(layout=HALL, drag=2.0, dt=0.1, push=4.0)
    state = np.array([[1.0, 1.0, 0.5, -0.2, 3.0, 1.0]])
    after = world.step(state, np.array([[3.0, 0.0]]))
    slow = np.exp(-0.2)
    velocity = np.array([0.8, -0.2])
    assert np.allclose(after[0], [*(1 + velocity * (1 - slow) / 2), *(velocity * slow), 3, 1])
    halves = simulate(replace(world, dt=0.05), state, 2)[:, -1]
    assert np.allclose(halves, world.step(state)), "without a push it does not matter how time is cut"
    free = replace(world, drag=0.0)
    assert np.allclose(free.step(state)[0, :4], [1.05, 0.98, 0.5, -0.2])


def test_walls_take_the_velocity_across_or_give_it_back() -> None:
    state = np.array([[3.8, 1.0, 2.0, 0.5, 1.0, 1.0]])
    world = PointMaze(layout=HALL, drag=0.0, dt=0.1)
    assert np.allclose(world.step(state)[0, :4], [3.9, 1.05, 0.0, 0.5])
    assert np.allclose(replace(world, bounce=0.5).step(state)[0, :4], [3.85, 1.05, -1.0, 0.5])
    elastic = replace(world, bounce=1.0)
    states = simulate(elastic, elastic.start(np.random.default_rng(0), 20) + np.array([0, 0, 3, -2, 0, 0]), 200)
    assert np.allclose(elastic.energy(states.reshape(-1, 6)), (9 + 4) / 2)


@pytest.mark.parametrize("layout", list(MAZES))
def test_every_cell_can_be_reached_and_the_oracle_does_so(layout: str) -> None:
    world = PointMaze(layout=layout)
    assert (world.ways >= 0).all(), "one maze, not two"
    assert np.array_equal(world.ways, world.ways.T) and (np.diagonal(world.ways) == 0).all()
    state = world.start(np.random.default_rng(0), 300)
    reached = np.zeros(300, bool)
    for _ in range(150):
        state = world.step(state, world.oracle(state))
        reached |= world.success(state)
    assert reached.all() and world.success(state).all(), "and stays there"
    assert world.free(state[:, :2]).all()


def test_ways_by_hand() -> None:
    world = PointMaze()  # a U lying on its side: up to 6 cells of way
    number = {tuple(cell): index for index, cell in enumerate(world.cells.tolist())}
    assert world.ways[number[0, 0], number[0, 2]] == 6 and world.ways[number[0, 0], number[1, 0]] == 1
    apart = PointMaze(layout=("...#...",), apart=2)
    assert apart.ways.min() == -1 and len(np.argwhere(apart.ways >= 2)) == 4
    start = apart.start(np.random.default_rng(0), 50)
    assert ((start[:, 0] < 3) == (start[:, 4] < 3)).all(), "a goal is never where no way leads"


def test_starts_are_at_rest_and_goals_in_other_cells() -> None:
    world = PointMaze(layout="medium", apart=5)
    state = world.start(np.random.default_rng(0), 500)
    assert np.array_equal(world.placed(state, *world.places(state)), state)
    assert not state[:, 2:4].any()
    here, there = (world._cell(state[:, at : at + 2]) for at in (0, 4))
    assert world.ways[here, there].min() == 5


def test_goals_rewards_and_what_is_seen() -> None:
    world = PointMaze(goal_seen=True, pictures=True)
    state = world.placed(world.start(np.random.default_rng(0), 1), np.array([0.5, 0.5]), np.array([0.9, 0.7]))
    assert world.distance(state)[0] == pytest.approx(np.hypot(0.4, 0.2)) and world.success(state)[0]
    assert world.reward(state, np.zeros((1, 2)), state)[0] == 1
    assert replace(world, dense=True).reward(state, np.zeros((1, 2)), state)[0] == pytest.approx(np.exp(-np.sqrt(0.2)))
    assert replace(world, stop=True).over(state)[0] and not world.over(state)[0]
    assert set(world.observe(state)) == {"obs", "goal", "image"} == set(world.obs)
    assert set(PointMaze(goal_seen=False).obs) == {"obs"}
    moving = state + np.array([0, 0, 1, 1, 0, 0])
    assert not world.placed(moving, start=np.array([0.5, 0.5]))[0, 2:4].any()
    for wrong in ([0.5, 1.5], [0.05, 0.5], [-3.0, 0.5]):
        with pytest.raises(ConfigError, match=r"the start .* lies inside a wall"):
            world.placed(state, start=np.array(wrong))


@pytest.mark.parametrize("layout", ["umaze", "large"])
def test_mass_goal_and_walls_are_drawn_where_they_are(layout: str) -> None:
    world = PointMaze(layout=layout, pictures=True)
    state = world.start(np.random.default_rng(1), 1)
    picture = world.render(state, 256)[0].astype(float)
    longest = max(world.solid.shape) + 2
    shift = (longest - np.array(world.solid.shape)) / 2
    for at, colour in ((0, MASS), (4, GOAL)):
        x, y = (state[0, at : at + 2] + shift) / longest * 256
        assert np.allclose(picture[:, int(256 - y), int(x)], colour, atol=2)
    for cell, wall in zip(np.argwhere(world.solid >= 0), world.solid.ravel(), strict=True):
        x, y = (cell + 0.2 + shift) / longest * 256
        assert (picture[0, int(256 - y), int(x)] > 90) == wall
