"""Walls: met at their exact place, never crossed, by hand and against small steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.worlds.maze import MAZES, PointMaze
from foreworld.worlds.walls import Faces, advance, first_face, grid_faces

BOX = Faces(  # two walls that end at one another: x >= 0 for y in [0, 2], y >= 0 for x in [0, 1]
    axis=np.array([0, 1]),
    side=np.array([1.0, 1.0]),
    at=np.array([0.0, 0.0]),
    low=np.array([0.0, 0.0]),
    high=np.array([2.0, 1.0]),
)
FLUSH = Faces(  # a wall at x = 0 for y in [-2, 0], and a block from y = 1 upwards whose side is flush with it
    axis=np.array([0, 0, 1]),
    side=np.array([1.0, 1.0, -1.0]),
    at=np.array([0.0, 0.0, 1.0]),
    low=np.array([-2.0, 1.0, -1.0]),
    high=np.array([0.0, 3.0, 0.0]),
)


def test_the_first_wall_is_found_at_its_share_of_the_way() -> None:
    place = np.array([[1.0, 1.0], [1.0, 1.0], [0.5, 2.0], [1.0, 1.0], [1.0, 1.0]])
    move = np.array([[-2.0, 0.0], [-0.5, 0.0], [0.0, -4.0], [2.0, 0.0], [-1.0, 3.0]])
    share, face = first_face(place, move, BOX)
    # half of the way to x = 0; too short; y = 0; away; past the end of the wall, which it would meet at y = 4
    assert np.allclose(share, [0.5, np.inf, 0.5, np.inf, np.inf])
    assert face[0] == 0 and face[2] == 1


def test_a_point_slides_bounces_or_stops() -> None:
    place, velocity = np.array([[0.4, 1.0]]), np.array([[-0.8, -0.2]])
    slid = advance(place, velocity, BOX, 1.0)
    assert np.allclose(slid, [[[0.0, 0.8]], [[0.0, -0.2]]], atol=2e-7)
    bounced = advance(place, velocity, BOX, 1.0, bounce=0.5)
    assert np.allclose(bounced, [[[0.2, 0.8]], [[0.4, -0.2]]])  # half a second on each side
    stopped = advance(place, velocity, BOX, 1.0, stop=True)
    assert np.allclose(stopped, [[[0.0, 0.9]], [[0.0, 0.0]]], atol=2e-7)
    cornered = advance(np.array([[0.1, 0.1]]), np.array([[-1.0, -1.0]]), BOX, 1.0)
    assert np.allclose(cornered, 0, atol=2e-7)
    flush = advance(*advance(np.array([[1.5, -1.0]]), np.array([[-2.0, 0.0]]), FLUSH, 1.0), FLUSH, 0.0)
    assert np.allclose(flush[0], [[0.0, -1.0]], atol=2e-7)
    passing = advance(flush[0], np.array([[-0.1, 3.0]]), FLUSH, 1.0)
    assert np.allclose(passing, [[[0.0, 2.0]], [[0.0, 3.0]]], atol=2e-7), "a corner flush with the wall does not catch"


def test_a_point_that_lies_in_a_wall_a_little_comes_out_of_it() -> None:
    place, velocity = advance(np.array([[-4e-3, 1.0]]), np.array([[-1.0, 0.5]]), BOX, 1.0)
    assert np.allclose(place, [[0.0, 1.5]], atol=2e-7) and np.allclose(velocity, [[0.0, 0.5]])
    state = PointMaze().start(np.random.default_rng(0), 200)
    state[:, :2] = 0.1  # in the corner, for a mass of radius 0.1
    larger = PointMaze(radius=0.103)
    for _ in range(5):
        state = larger.step(state, np.full((200, 2), -4.0))
    assert larger.free(state[:, :2]).all()


def test_the_faces_of_a_small_maze_by_hand() -> None:
    faces = grid_faces(np.array([[False, True], [False, False]]), 0.1)  # two cells below, the upper left is wall
    found = sorted(
        zip(faces.axis.tolist(), faces.side.tolist(), *(np.round(v, 9).tolist() for v in spans(faces)), strict=True)
    )
    assert found == sorted(
        [
            (0, 1.0, 0.1, 0.08, 0.92),  # faces go on for 0.02 into the walls that they meet
            (0, 1.0, 1.1, 0.9, 1.92),
            (0, -1.0, 1.9, 0.08, 1.92),
            (1, 1.0, 0.1, 0.08, 1.92),
            (1, -1.0, 0.9, 0.08, 1.1),
            (1, -1.0, 1.9, 1.08, 1.92),
        ]
    )


def spans(faces: Faces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return faces.at, faces.low, faces.high


@pytest.mark.parametrize("layout", list(MAZES))
def test_faces_of_a_maze_lie_where_free_space_ends(layout: str) -> None:
    world = PointMaze(layout=layout)
    for axis, side, at, low, high in zip(world.faces.axis, world.faces.side, *spans(world.faces), strict=True):
        along = np.linspace(low, high, 7)
        free, wall = (np.stack([np.full(7, at + by * side), along], 1)[:, :: 1 - 2 * axis] for by in (1e-6, -1e-6))
        assert not world.free(wall[1:-1]).any()
        assert world.free(free[1:-1]).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bounce=st.sampled_from([0.0, 0.4, 1.0]),
    radius=st.floats(0.05, 0.4),
    layout=st.sampled_from(list(MAZES)),
)
def test_no_wall_is_ever_crossed_and_energy_never_grows(seed: int, bounce: float, radius: float, layout: str) -> None:
    """Velocities are far too high for small steps, along the axes and along diagonals that meet corners."""
    rng = np.random.default_rng(seed)
    world = PointMaze(layout=layout, radius=radius)
    place = world.cells[rng.integers(len(world.cells), size=40)] + rng.choice([0.5, radius, 1 - radius], (40, 2))
    for _ in range(15):
        velocity = rng.choice([-30.0, -1.0, 0.0, 1.0, 30.0], (40, 2)) + rng.choice([0, 1], (40, 1)) * rng.normal(
            size=(40, 2)
        )
        after, left = advance(place, velocity, world.faces, 0.5, bounce=bounce)
        assert world.free(after).all()
        assert ((left**2).sum(1) <= (velocity**2).sum(1) * (1 + 1e-12)).all()
        if bounce == 1:
            assert np.allclose((left**2).sum(1), (velocity**2).sum(1))
        place = after


def test_exact_hits_agree_with_small_steps() -> None:
    """Small steps, each undone along an axis in which it would enter a wall."""
    world, rng = PointMaze(layout="medium", radius=0.2), np.random.default_rng(1)
    place = world.cells[rng.integers(len(world.cells), size=60)] + rng.uniform(0.2, 0.8, (60, 2))
    velocity = rng.normal(size=(60, 2)) * 2
    exact, _ = advance(place, velocity, world.faces, 1.0)
    for _ in range(4000):
        for axis in (0, 1):
            moved = place.copy()
            moved[:, axis] += velocity[:, axis] / 4000
            free = world.free(moved)
            place[free] = moved[free]
            velocity[~free, axis] = 0
    apart = np.abs(exact - place).max(1)
    assert apart.max() < 3e-3
