"""Two rooms: the wall, its door, the shortest way, and what is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.core.errors import ConfigError
from foreworld.worlds import TwoRooms
from foreworld.worlds.rooms import DOT, HALF_DOOR, HALF_WALL, HIGH, LOW


def state_of(dot: tuple[float, float], goal: tuple[float, float], wall: float = 32.5, door: float = 20.5) -> np.ndarray:
    return np.array([[*dot, wall, door, *goal]])


def test_a_way_ends_at_the_wall_and_goes_on_through_the_door() -> None:
    world = TwoRooms(rebound=0)
    act = np.array([[2.0, 1.0]])
    assert np.allclose(world.step(state_of((20, 40), (50, 40)), act)[0, :2], [22, 41])
    # the wall begins at x = 31: half of the way is left
    assert np.allclose(world.step(state_of((30, 40), (50, 40)), act)[0, :2], [31, 40.5])
    assert np.allclose(replace(world, slide=True).step(state_of((30, 40), (50, 40)), act)[0, :2], [31, 41])
    assert np.allclose(world.step(state_of((30, 20), (50, 40)), act)[0, :2], [32, 21]), "the door"
    assert np.allclose(world.step(state_of((32, 24.5), (50, 40)), act)[0, :2], [33, 25]), "the upper side of the door"
    assert np.allclose(world.step(state_of((59, 59), (50, 40)), act)[0, :2], [60, 59.5]), "the frame"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), slide=st.booleans(), rebound=st.sampled_from([0.0, 0.5, 4.0]))
def test_no_wall_is_ever_crossed(seed: int, slide: bool, rebound: float) -> None:
    """From room to room there is only the door: whoever changes sides was in it in between."""
    rng = np.random.default_rng(seed)
    world = TwoRooms(slide=slide, rebound=rebound, limit=float(rng.choice([1.0, 2.45, 40.0])))
    state = world.start(rng, 30)
    for _ in range(40):
        after = world.step(state, rng.choice([-1, -0.3, 0, 0.3, 1], (30, 2)) * world.limit, rng)
        dot, wall, door = after[:, :2], after[:, 2], after[:, 3]
        assert ((dot >= LOW) & (dot <= HIGH)).all()
        in_wall = np.abs(dot[:, 0] - wall) < HALF_WALL - 1e-9
        assert (~in_wall | (np.abs(dot[:, 1] - door) <= HALF_DOOR + 1e-9)).all()
        sides = (state[:, 0] - wall) * (dot[:, 0] - wall) < 0
        share = (wall - state[:, 0]) / np.where(sides, dot[:, 0] - state[:, 0], 1)
        crossing = state[:, 1] + share * (dot[:, 1] - state[:, 1])
        if not world.stochastic and not slide:  # else the way has a bend
            assert (~sides | (np.abs(crossing - door) <= HALF_DOOR + 1e-9)).all()
        state = after


def test_a_dot_that_met_a_wall_is_thrown_back_and_does_not_stick() -> None:
    world, rng, n = TwoRooms(), np.random.default_rng(0), 20_000
    state = np.repeat(state_of((30, 40), (50, 40)), n, 0)
    after = world.step(state, np.repeat([[2.0, 1.0]], n, 0), rng)[:, :2]
    back, aside = 31 - after[:, 0], after[:, 1] - 40.5  # it met the wall at (31, 40.5)
    assert back.min() > 0, "on its own side"
    # half a normal of deviation 0.5 has mean 0.5 sqrt(2 / pi); five standard errors of 20,000 draws
    assert back.mean() == pytest.approx(0.5 * np.sqrt(2 / np.pi), abs=0.011)
    assert aside.mean() == pytest.approx(0, abs=0.018) and aside.std() == pytest.approx(0.5, abs=0.0126)
    free = world.step(state, np.repeat([[-2.0, 1.0]], n, 0), rng)[:, :2]
    assert np.allclose(free, [28, 41]), "what meets nothing goes its way"
    alone = world.step(state[:3], np.array([[-2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]), np.random.default_rng(1))
    beside = world.step(state[:3], np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]), np.random.default_rng(1))
    assert np.array_equal(alone[1:], beside[1:]), "one dot's luck is its own"
    assert replace(world, rebound=0).stochastic is False and replace(world, slide=True).stochastic is False


@pytest.mark.parametrize("across", [True, False])
def test_starts_and_goals_are_free_and_where_they_belong(across: bool) -> None:
    world = TwoRooms(across=across)
    state = world.start(np.random.default_rng(0), 4000)
    again = world.placed(state, *world.places(state))
    assert np.array_equal(again, state), "all of them are in free space"
    other = (state[:, 0] - state[:, 2]) * (state[:, 4] - state[:, 2]) < 0
    assert other.all() if across else 0.4 < other.mean() < 0.6
    assert np.abs(state[:, [0, 4]] - state[:, 2:3]).min() >= HALF_WALL + 2.6 - 1e-9
    fixed = TwoRooms(wall=32.5, door=10.5).start(np.random.default_rng(0), 9)
    assert (fixed[:, 2:4] == (32.5, 10.5)).all()
    assert state[:, 2].std() > 5 and state[:, 3].std() > 10


def test_the_shortest_way_by_hand_and_by_search() -> None:
    world = TwoRooms()
    # straight through the door; and round its lower corners at (31, 16) and (34, 16)
    assert world.shortest(state_of((20, 20), (50, 22)))[0][0] == pytest.approx(np.hypot(30, 2))
    bent = np.hypot(11, 6) + 3 + np.hypot(16, 6)
    length, following = world.shortest(state_of((20, 10), (50, 10)))
    assert length[0] == pytest.approx(bent, abs=0.01) and np.allclose(following, [[31, 16]], atol=0.01)
    # a search on a fine grid with eight neighbours is never shorter and at most 8 % longer
    state = world.start(np.random.default_rng(2), 6)
    assert (world.shortest(state)[0] >= world.distance(state) - 1e-9).all()
    for one in state:
        assert 0.99 < by_search(one) / world.shortest(one[None])[0][0] < 1.09


def by_search(state: np.ndarray, cell: float = 0.5) -> float:
    """Relax the lengths of ways on a grid until nothing changes."""
    axis = np.arange(LOW, HIGH + 1e-9, cell)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    free = (np.abs(x - state[2]) >= HALF_WALL) | (np.abs(y - state[3]) <= HALF_DOOR)
    away = np.where(free, np.hypot(x - state[4], y - state[5]), np.inf)
    length = np.where(away < 1.0, away, np.inf)
    while True:
        padded = np.pad(length, 1, constant_values=np.inf)
        ways = [
            padded[1 + i : len(padded) - 1 + i, 1 + j : len(padded) - 1 + j] + cell * np.hypot(i, j)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
        after = np.where(free, np.min(ways, 0), np.inf)
        if np.array_equal(after, length):
            break
        length = after
    near = np.hypot(x - state[0], y - state[1])
    return float((length + near)[near < 1].min())


@pytest.mark.parametrize("across", [True, False])
def test_the_oracle_reaches_every_goal_by_the_shortest_way(across: bool) -> None:
    world = TwoRooms(across=across, rebound=0)
    state = world.start(np.random.default_rng(1), 500)
    length = world.shortest(state)[0]
    gone = np.zeros(500)
    for _ in range(70):
        after = world.step(state, world.oracle(state).astype(np.float32))
        gone += np.linalg.norm(after[:, :2] - state[:, :2], axis=1)
        state = after
    assert world.success(state).all() and (world.distance(state) < 1e-3).all()
    assert np.allclose(gone, length, atol=0.05)


def test_success_and_rewards() -> None:
    world = TwoRooms()
    near, far = state_of((50, 40), (54.4, 40)), state_of((50, 40), (54.6, 40))
    assert world.success(near)[0] and not world.success(far)[0], "eb_jepa's 4.5"
    act = np.zeros((1, 2))
    assert world.reward(near, act, near) == 1 and world.reward(far, act, far) == 0
    assert replace(world, dense=True).reward(far, act, far)[0] == pytest.approx(-4.6 / 65)
    assert not world.over(near)[0] and replace(world, stop=True).over(near)[0]
    assert world.success(world.reached(far))[0]
    with pytest.raises(ConfigError, match=r"the goal .* lies inside a wall"):
        world.placed(near, goal=np.array([32.0, 40.0]))
    with pytest.raises(ConfigError, match="start: expected 2 finite numbers"):
        world.placed(near, start=np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("size", [32, 64, 65])
def test_the_picture_has_dot_walls_and_goal_in_channels_of_their_own(size: int) -> None:
    world = TwoRooms(goal_seen=True)
    state = world.start(np.random.default_rng(0), 50)
    pictures = world.render(state, size)
    assert pictures.shape == (50, 3, size, size)
    middle = (np.arange(size) + 0.5) * 65 / size
    for channel, at in ((0, 0), (2, 4)):
        weight = pictures[:, channel].astype(float)
        across, up = (weight.sum(1) @ middle, 65 - weight.sum(2) @ middle / weight.sum((1, 2)))
        assert np.abs(across / weight.sum((1, 2)) - state[:, at]).max() < 0.15
        assert np.abs(up - state[:, at + 1]).max() < 0.15
    wall = pictures[:, 1].astype(float).sum((1, 2)) / 255 * (65 / size) ** 2
    frame = 57**2 - 55**2
    assert np.allclose(wall, frame + 2 * HALF_WALL * (55 - 2 * HALF_DOOR), rtol=0.01)
    assert not replace(world, goal_seen=False).render(state)[:, 2].any()


def test_at_65_pixels_the_dot_is_that_of_the_peers() -> None:
    picture = TwoRooms().render(state_of((20.5, 40.5), (50, 40)))[0]
    row, column = np.unravel_index(picture[0].argmax(), (65, 65))
    assert (row, column) == (64 - 40, 20) and picture[0, row, column] == 255
    assert picture[0, row, column + 2] == round(255 * np.exp(-4 / (2 * DOT**2)))
    assert picture[1, :, 31:34].sum() > picture[1, :, 28:31].sum() and set(np.unique(picture[1])) == {0, 255}
