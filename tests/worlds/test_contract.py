"""What every world promises, whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foreworld.core.errors import ConfigError, DataError, SpecError, UnknownName
from foreworld.worlds import (
    WORLDS,
    Balls,
    Catch,
    DoublePendulum,
    Fork,
    Linear,
    Lorenz63,
    Pendulum,
    PointMaze,
    PushT,
    Reach,
    TwoRooms,
    World,
    build,
    frozen,
    simulate,
    thawed,
)
from foreworld.worlds.catalogue import passive

NOISY = Linear(noise=0.1, actions=1)
ALL = {name: entry.world for name, entry in WORLDS.items()} | {"noisy": NOISY}
NAMES = list(ALL)


ACTING = [Pendulum(torque=2), DoublePendulum(torque=2), Balls(push=2), Linear(actions=2), PointMaze()]
ACTING += [TwoRooms(rebound=0), Reach(box=True)]


def actions(world: World, n: int, seed: int = 1) -> np.ndarray | None:
    if world.action is None:
        return None
    rng = np.random.default_rng(seed)
    if world.action.kind == "discrete":
        return rng.integers(world.action.classes[0], size=n)
    return rng.uniform(world.action.low, world.action.high, (n, world.action.width))


@pytest.mark.parametrize("name", NAMES)
def test_states_and_observations_are_as_declared(name: str) -> None:
    world = ALL[name]
    state = world.start(np.random.default_rng(0), 3)
    assert state.shape == (3, world.width) and state.dtype == np.float64
    after = world.step(state, actions(world, 3), np.random.default_rng(1))
    assert after.shape == state.shape and not np.array_equal(after, state)
    seen = world.observe(after)
    assert set(seen) == set(world.obs)
    for key, space in world.obs.items():
        assert seen[key].shape == (3, *space.shape) and seen[key].dtype == space.dtype
    truth = world.truth(after)["state"]
    assert np.array_equal(truth, after) and not np.shares_memory(truth, after)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_pure_and_rows_do_not_know_of_one_another(name: str) -> None:
    world = ALL[name]
    state, act = world.start(np.random.default_rng(0), 40), actions(world, 40)
    kept = state.copy()
    once, again = (world.step(state, act, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(once, again) and np.array_equal(state, kept)
    if not world.stochastic:
        alone = [world.step(state[i : i + 1], None if act is None else act[i : i + 1])[0] for i in range(40)]
        assert np.allclose(alone, once, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_moment_goes_on_bit_by_bit(name: str) -> None:
    world = ALL[name]
    rng = np.random.default_rng(5)
    state = simulate(world, world.start(rng, 4), 10, rng=rng)[:, -1]
    saved = frozen(state, rng)
    went = simulate(world, state, 50, rng=rng)
    copied = {key: np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape) for key, value in saved.items()}
    state, rng = thawed(copied)
    assert np.array_equal(simulate(world, state, 50, rng=rng), went)


def test_a_moment_of_something_else_is_refused() -> None:
    saved = frozen(np.zeros((1, 2)), np.random.default_rng(0))
    with pytest.raises(DataError, match="expected"):
        thawed({"state": saved["state"]})
    with pytest.raises(DataError, match="random"):
        thawed(saved | {"random": saved["random"][:4]})
    with pytest.raises(DataError, match="MT19937"):
        frozen(np.zeros((1, 2)), np.random.Generator(np.random.MT19937()))


@pytest.mark.parametrize("world", ACTING)
def test_actions_act_are_clipped_and_none_is_zero(world: World) -> None:
    state = world.start(np.random.default_rng(0), 5)
    zero = np.zeros((5, world.action.width))  # type: ignore[union-attr]
    limit = zero + world.action.high  # type: ignore[union-attr]
    assert np.array_equal(world.step(state), world.step(state, zero))
    assert not np.allclose(world.step(state, limit), world.step(state, zero), atol=1e-4)
    assert np.array_equal(world.step(state, 3 * limit), world.step(state, limit))
    with pytest.raises(SpecError, match="expected \\(5, "):
        world.step(state, zero[:4])


def test_what_makes_no_sense_is_refused() -> None:
    state = np.zeros((1, 3))
    with pytest.raises(SpecError, match="lorenz63: takes no action"):
        Lorenz63().step(state, np.zeros((1, 1)))
    with pytest.raises(ConfigError, match="fork: its steps are random"):
        Fork().step(state)
    with pytest.raises(SpecError, match=r"reach: actions of shape \(1, 2\)"):
        Reach().step(np.full((1, 4), 0.5), np.zeros((1, 2)))
    for wrong in (5, -1, np.nan):
        with pytest.raises(SpecError, match="reach: its actions are 0 to 4"):
            Reach().step(np.full((1, 4), 0.5), np.array([wrong]))
    with pytest.raises(ConfigError, match="linear: its steps are random"):
        NOISY.step(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Pendulum, {"mass": 0}, "Pendulum.mass must be above 0"),
        (Pendulum, {"damping": -1}, "Pendulum.damping must be at least 0"),
        (Pendulum, {"dt": np.nan}, "Pendulum.dt"),
        (DoublePendulum, {"substeps": 0}, "DoublePendulum.substeps"),
        (Lorenz63, {"settle": np.inf}, "Lorenz63.settle"),
        (Linear, {"modes": ()}, "Linear.modes"),
        (Linear, {"modes": ((0.9, 4.0),)}, "Linear.modes"),
        (Fork, {"left": 1.5}, "Fork.left"),
        (Balls, {"radii": (0.6,)}, "Balls.radii"),
        (Balls, {"radii": (0.3, 0.3)}, "more than 40%"),
        (TwoRooms, {"wall": 10}, "TwoRooms.wall lies between 20.5 and 44.5"),
        (TwoRooms, {"limit": 0}, "TwoRooms.limit"),
        (PointMaze, {"layout": "maze"}, "PointMaze.layout is one of umaze, medium"),
        (PointMaze, {"layout": ("..", ".")}, "rows of one length"),
        (PointMaze, {"layout": (".#.",)}, "no two cells of this maze are 1 cells of way apart"),
        (PointMaze, {"radius": 0.5}, "PointMaze.bounce is at most 1 and radius below 0.5"),
        (PushT, {"unit": 0.3}, "PushT.unit"),
        (PushT, {"criterion": "area"}, "PushT.criterion is coverage or pose"),
        (Reach, {"scale": 0}, "Reach.scale"),
        (Catch, {"columns": 4}, "Catch.columns is odd"),
        (Catch, {"columns": 9, "rows": 4}, "leave time"),
    ],
)
def test_parameters_are_checked(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_worlds_are_built_by_id_with_other_parameters() -> None:
    assert build("foreworld/Balls-v0", image_size=32).obs["image"].shape == (3, 32, 32)
    assert build("foreworld/Fork-v0", left=0.2) == Fork(left=0.2)
    assert build("foreworld/Lorenz63-v0", image_size=32) == Lorenz63()
    with pytest.raises(UnknownName, match="did you mean 'foreworld/Pendulum-v0'"):
        build("foreworld/Pendulums-v0")
    with pytest.raises(ConfigError, match="unknown parameter 'gravty'; did you mean 'gravity'"):
        build("foreworld/Pendulum-v0", gravty=1)


def test_ids_say_which_worlds_go_on_by_themselves() -> None:
    acting = {name for name in WORLDS if not passive(name)}
    names = ("Catch", "DoublePendulum", "Linear", "Pendulum", "PointMaze", "PointMazeLarge", "PointMazeMedium")
    names += ("PushBalls", "PushT", "Reach", "TwoRooms")
    assert acting == {f"foreworld/{name}-v0" for name in names}
    assert not passive("CartPole-v1")
    for name, entry in WORLDS.items():
        assert ("no actions" in entry.about) == passive(name)
        assert ("pictures" in entry.about) == ("image" in entry.world.obs)
