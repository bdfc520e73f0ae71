"""Pushing a T: contacts and pushes by hand, symmetries, the arena, areas against exact polygons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.core.errors import ConfigError
from foreworld.worlds import PushT, Tee, simulate
from foreworld.worlds.push import BLOCK, GROUND, PIXEL, PUSHER
from foreworld.worlds.tee import angle_between, to_block, to_world

WORLD = PushT(goal_drawn=True)
UP = np.zeros((1, 3))  # the block in the middle, upright
TOP = 9.5 / 7  # of the T above its centre of mass, in units


def state_of(pusher: tuple[float, float], block: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return np.array([[*pusher, *block, *pusher, *block]])


def test_the_shape_is_that_of_the_peers() -> None:
    tee = Tee(1.0)
    assert np.allclose(tee.high.max(0), [2, TOP]) and np.allclose(tee.low.min(0), [-2, TOP - 4])
    assert np.allclose(tee.points.mean(0), 0, atol=0.02), "the origin is the centre of mass"
    assert len(np.unique(np.round(tee.corners, 9), axis=0)) == 8
    # mean distance from the centre of mass, by a fine sum
    x, y = np.meshgrid(np.linspace(-2, 2, 801), np.linspace(TOP - 4, TOP, 801))
    grid = np.stack([x.ravel(), y.ravel()], 1)
    assert tee.spread == pytest.approx(np.linalg.norm(grid[tee.inside(grid)], axis=1).mean(), rel=0.005)
    assert WORLD.unit == 30 * PIXEL and WORLD.radius == 15 * PIXEL


def test_contacts_by_hand() -> None:
    tee, radius = Tee(0.1), 0.05
    top = 0.1 * TOP
    place = np.array([(0.0, top + 0.04), (0.0, top + 0.06), (0.203, top + 0.004), (0.0, top - 0.02)])
    depth, point, out = tee.contact(place, np.repeat(UP, 4, 0), radius)
    # into the upper side; beside it; at the corner, at a distance of 5 thousandths; the middle itself is inside
    assert np.allclose(depth, [0.01, -0.01, 0.045, 0.07])
    assert np.allclose(point, [(0, top), (0, top), (0.2, top), (0, top)])
    assert np.allclose(out, [(0, 1), (0, 1), (0.6, 0.8), (0, 1)])
    turned = np.array([[0.3, -0.2, math.pi / 2]])  # up is now left
    depth, point, out = tee.contact(np.array([[0.3 - top - 0.04, -0.2]]), turned, radius)
    assert np.allclose(depth, 0.01) and np.allclose(out, [(0, 1)])


def test_a_push_through_the_centre_of_mass_does_not_turn() -> None:
    start = 0.1171875 * TOP + WORLD.radius + 0.05  # above the T
    after = WORLD.step(state_of((0.0, start)), np.array([[0.0, start - 0.15]]))
    assert np.allclose(after[0, :5], [0, start - 0.15, 0, -0.1, 0], atol=1e-12)


def test_a_push_off_the_centre_turns_as_the_limit_surface_says() -> None:
    tee = Tee(0.1)
    arm, depth = -0.15, 1e-6
    pose = tee.pushed(UP, np.array([depth]), np.array([[0.15, 0.1 * TOP]]), np.array([[0.0, 1.0]]))
    share = depth / (1 + (arm / tee.spread) ** 2)
    assert np.allclose(pose, [[0, -share, arm * share / tee.spread**2]], rtol=1e-9)
    # the point of contact has moved down by the depth
    moved = to_world(np.array([[0.15, 0.1 * TOP]]), pose)[0, 0] - (0.15, 0.1 * TOP)
    assert moved[1] == pytest.approx(-depth, rel=1e-5)
    assert np.array_equal(tee.pushed(UP, np.array([-0.1]), np.array([[0.15, 0.1]]), np.array([[0.0, 1.0]])), UP)


def test_what_is_not_pushed_stands() -> None:
    state = state_of((-0.8, -0.8))
    after = simulate(WORLD, state, 5, actions=np.full((1, 5, 2), (0.9, -0.9)))[0]
    assert np.array_equal(after[:, 2:], np.repeat(state[:, 2:], 6, 0))
    assert np.allclose(np.linalg.norm(np.diff(after[:, :2], axis=0), axis=1), WORLD.reach)
    near = WORLD.step(state, np.array([[-0.75, -0.8]]))
    assert np.allclose(near[0, :2], [-0.75, -0.8]), "it stops where it was sent"
    assert np.array_equal(WORLD.step(near), near), "None stays"


def played(seed: int, count: int = 30, steps: int = 40, world: PushT = WORLD) -> tuple[np.ndarray, np.ndarray]:
    """Return states [N, T + 1, 10] and actions [N, T, 2] of pushers that go for the block again and again."""
    rng = np.random.default_rng(seed)
    states, actions = [world.start(rng, count)], []
    for _ in range(steps):
        aim = states[-1][:, 2:4] + rng.normal(0, 0.25, (count, 2))
        actions.append(np.clip(aim, -1, 1))
        states.append(world.step(states[-1], actions[-1]))
    return np.stack(states, 1), np.stack(actions, 1)


def test_the_mirror_image_of_a_push_is_the_push_of_the_mirror_image() -> None:
    states, actions = played(0)
    assert np.abs(np.diff(states[:, :, 2:5], axis=1)).max(2).max(1).min() > 0.01, "all blocks were pushed"
    mirror = np.array([-1, 1, -1, 1, -1, -1, 1, -1, 1, -1.0])
    again = simulate(WORLD, states[:, 0] * mirror, 40, actions=actions * (-1, 1))
    assert np.abs(again * mirror - states).max() < 1e-6
    quarter = np.array([[0, 1], [-1, 0]])  # row vectors turned by a quarter
    turned = states.copy()
    for at in (0, 2, 5, 7):
        turned[..., at : at + 2] = states[..., at : at + 2] @ quarter
    turned[..., [4, 9]] += math.pi / 2
    again = simulate(WORLD, turned[:, 0], 40, actions=actions @ quarter)
    assert np.abs(again - turned).max() < 1e-6


def test_smaller_pieces_of_the_way_change_little() -> None:
    """Each step is taken from the same states; the error falls with the length of a piece."""
    states, actions = played(1)
    before, act = states[:, :-1].reshape(-1, 10), actions.reshape(-1, 2)
    coarse, better, fine = (replace(WORLD, substeps=n).step(before, act) for n in (10, 40, 200))
    off, less = (np.abs(found - fine)[:, :5].max(1) for found in (coarse, better))
    assert np.median(off) < 5e-3 and np.quantile(off, 0.9) < 0.03
    assert np.quantile(less, 0.9) < 0.4 * np.quantile(off, 0.9)
    moved = np.abs(fine - before)[:, 2:5].max(1) > 0.05
    assert moved.sum() > 200


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_block_and_pusher_stay_in_the_arena_and_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = WORLD.start(rng, 25)
    assert (WORLD.tee.contact(state[:, :2], state[:, 2:5], WORLD.radius)[0] <= 0).all()
    for _ in range(20):
        state = WORLD.step(state, np.clip(state[:, 2:4] * 1.4 + rng.normal(0, 0.1, (25, 2)), -1, 1))
        assert np.abs(to_world(WORLD.tee.corners, state[:, 2:5])).max() < 1 + 1e-9
        assert np.abs(state[:, :2]).max() <= 1
        middle = to_block(state[:, None, :2], state[:, 2:5])[:, 0]
        assert not WORLD.tee.inside(middle).any(), "a pusher never gets into the block"


def clipped(subject: np.ndarray, other: np.ndarray) -> float:
    """Return the area that two convex polygons, counterclockwise, have in common."""
    for a, b in zip(other, np.roll(other, -1, 0), strict=True):
        side = np.array([(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in subject])
        kept = []
        for i, point in enumerate(subject):
            j = (i + 1) % len(subject)
            if side[i] >= 0:
                kept.append(point)
            if side[i] * side[j] < 0:
                kept.append(point + (subject[j] - point) * side[i] / (side[i] - side[j]))
        if len(kept) < 3:
            return 0.0
        subject = np.array(kept)
    x, y = subject.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def test_coverage_agrees_with_the_exact_area() -> None:
    tee, rng = Tee(0.1), np.random.default_rng(0)
    poses = rng.normal(0, 0.05, (60, 3)) * (1, 1, 10)
    home = rng.normal(0, 0.05, (60, 3)) * (1, 1, 10)
    exact = []
    for pose, other in zip(poses, home, strict=True):
        bars = [
            to_world(tee.corners.reshape(2, 4, 2)[bar, [0, 2, 3, 1]], p[None])[0]
            for p in (pose, other)
            for bar in (0, 1)
        ]
        exact.append(sum(clipped(one, two) for one in bars[:2] for two in bars[2:]) / (7 * 0.1**2))
    off = np.abs(tee.coverage(poses, home) - exact)
    assert off.max() < 0.01 and off.mean() < 0.003
    assert 0.1 < np.mean(exact) < 0.9


def test_success_by_coverage_and_by_pose() -> None:
    state = WORLD.reached(WORLD.start(np.random.default_rng(0), 1))
    pose = replace(WORLD, criterion="pose")
    assert WORLD.success(state)[0] and pose.success(state)[0] and pose.distance(state)[0] == 0
    off = state + np.array([19 * PIXEL, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert pose.success(off)[0] and WORLD.success(off)[0]
    off = state + np.array([15 * PIXEL, 0, 14 * PIXEL, 0, 0, 0, 0, 0, 0, 0])
    assert not pose.success(off)[0], "pusher and block share 20 pixels"
    for turn, good in ((math.radians(19), True), (math.radians(21), False), (2 * math.pi, True)):
        assert pose.success(state + np.array([0, 0, 0, 0, turn, 0, 0, 0, 0, 0]))[0] == good
    assert not WORLD.success(state + np.array([0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0]))[0]
    act = np.zeros((1, 2))
    assert WORLD.reward(state, act, state)[0] == 1
    half = state + np.array([0, 0, 0.5 * WORLD.unit, 0, 0, 0, 0, 0, 0, 0])
    assert WORLD.reward(half, act, half)[0] == pytest.approx(WORLD.coverage(half)[0] / 0.95)
    assert replace(WORLD, dense=False).reward(half, act, half)[0] == 0
    assert angle_between(np.array([0.1, 3.1]), np.array([6.2, -3.1])) == pytest.approx(
        [2 * math.pi - 6.1, 2 * math.pi - 6.2]
    )


def test_a_state_that_was_played_can_be_the_goal_and_is_reached_by_the_same_actions() -> None:
    states, actions = played(3, steps=25)
    world = replace(WORLD, criterion="pose")
    start = world.placed(world.start(np.random.default_rng(9), 30), states[:, 0, :5], states[:, -1, :5])
    assert world.success(start).sum() < 5
    assert world.success(simulate(world, start, 25, actions=actions)[:, -1]).all()
    assert np.array_equal(world.places(start)[1], states[:, -1, :5])


def test_goals_are_that_of_the_peers_or_drawn() -> None:
    fixed = PushT().start(np.random.default_rng(0), 20)
    assert np.allclose(fixed[:, 7:], (0, 0, math.pi / 4))
    assert WORLD.start(np.random.default_rng(0), 20)[:, 7:].std(0).min() > 0.2
    with pytest.raises(ConfigError, match="outside the arena"):
        WORLD.placed(fixed[:1], start=np.array([0, 0, 0.95, 0, 0]))
    with pytest.raises(ConfigError, match="pusher inside the block"):
        WORLD.placed(fixed[:1], goal=np.array([0.5, 0, 0.5, 0, 0]))


def test_goals_that_random_pushes_lead_to_can_be_reached_in_as_many_steps() -> None:
    world, still = PushT(goal_after=12, criterion="pose"), PushT(goal_after=12, criterion="pose", reach=1e-9)
    states = world.start(np.random.default_rng(3), 200)
    moved = np.linalg.norm(states[:, 2:4] - states[:, 7:9], axis=1)
    assert 0.2 < (moved > 0.02).mean() < 0.9
    assert world.success(states).mean() < 0.05
    # what a pusher does that cannot go anywhere is nothing
    assert still.success(still.start(np.random.default_rng(3), 20)).all()
    # no pusher is further from its goal than 12 steps take it
    assert (np.linalg.norm(states[:, :2] - states[:, 5:7], axis=1) <= 12 * world.reach + 1e-9).all()
    for wrong in ({"goal_after": -1}, {"goal_after": 5, "goal_drawn": True}):
        with pytest.raises(ConfigError, match="goal_after is a number of steps, without goal_drawn"):
            PushT(**wrong)


def test_goals_may_be_those_that_need_a_push() -> None:
    world = PushT(goal_after=25, criterion="pose", goal_pushed=True)
    state = world.start(np.random.default_rng(0), 100)
    turn = angle_between(state[:, 4], state[:, 9])
    assert ((np.linalg.norm(state[:, 2:4] - state[:, 7:9], axis=1) > world.tolerance) | (turn > world.turn)).all()
    reached = np.zeros(100, bool)
    for _ in range(50):
        state = world.step(state, state[:, 5:7])
        reached |= world.success(state)
    assert reached.mean() < 0.15, "who goes straight to the pusher's place"
    with pytest.raises(ConfigError, match="set goal_after too"):
        PushT(goal_pushed=True)


@pytest.mark.parametrize(
    ("world", "steps", "least"),
    [
        (PushT(goal_after=25, criterion="pose", goal_pushed=True), 50, 0.9),
        pytest.param(PushT(goal_drawn=True, criterion="pose"), 100, 0.9, marks=pytest.mark.slow),
        pytest.param(PushT(goal_drawn=True), 100, 0.85, marks=pytest.mark.slow),
    ],
)
def test_the_oracle_pushes_the_block_to_its_goal(world: PushT, steps: int, least: float) -> None:
    state = world.start(np.random.default_rng(1), 20)
    reached = world.success(state)
    for _ in range(steps):
        state = np.where(reached[:, None], state, world.step(state, world.oracle(state)))
        reached = world.success(state)
    assert reached.mean() >= least


@pytest.mark.parametrize("size", [32, 64])
def test_block_and_pusher_are_drawn_where_they_are(size: int) -> None:
    world = PushT(goal_seen=False, goal_drawn=True, size=size)
    states, _ = played(2, world=world)
    states = states[:, -1]
    pictures = world.render(states).astype(float)
    mix = np.array([BLOCK, PUSHER], float).T - np.array(GROUND, float)[:, None]
    cover = np.einsum("kc,nchw->nkhw", np.linalg.pinv(mix), pictures - np.array(GROUND, float)[:, None, None])
    middle = (np.arange(size) + 0.5) * 2 / size - 1
    weight = cover.sum((2, 3))
    across, down = cover.sum(2) @ middle / weight, cover.sum(3) @ middle / weight
    assert np.abs(across[:, 0] - states[:, 2]).max() < 0.02 and np.abs(down[:, 0] + states[:, 3]).max() < 0.02
    assert np.abs(across[:, 1] - states[:, 0]).max() < 0.02 and np.abs(down[:, 1] + states[:, 1]).max() < 0.02
    assert np.allclose(weight[:, 0] * (2 / size) ** 2, 7 * world.unit**2, rtol=0.05)
    assert not np.array_equal(PushT(size=size, goal_drawn=True).render(states), world.render(states))
