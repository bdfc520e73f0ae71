from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import WorldEnv, make
from foreworld.envs.worlds import make_world
from foreworld.worlds import WORLDS, Fork, Pendulum, World, build, simulate
from foreworld.worlds.catalogue import passive
from foreworld.worlds.world import Acting

ACTING = [name for name in WORLDS if not passive(name)]


def opened(env_id: str, **options: Any) -> WorldEnv:
    return cast(WorldEnv, make_world(env_id, **options))


@pytest.mark.filterwarnings("ignore:.*(probably too (low|high)|symmetric and normalized|not having a spec)")
@pytest.mark.parametrize("env_id", ACTING)
def test_gymnasium_finds_no_fault(env_id: str) -> None:
    """Its advice to bound observations and to scale actions is not followed: the numbers have units."""
    check_env(opened(env_id))


@pytest.mark.parametrize("env_id", ACTING)
def test_rows_follow_the_world(env_id: str) -> None:
    env = make(env_id, num_envs=2, image_size=32)
    world: World = build(env_id, image_size=32)
    rows = env.reset(seed=3)
    assert env.spec.fps == pytest.approx(1 / world.dt) and list(env.truth) == ["state"]
    state = np.concatenate([world.start(np.random.default_rng(seed), 1) for seed in (3, 4)])
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert np.array_equal(rows.truth["state"], state.astype(np.float32))
        seen = world.observe(state)
        assert all(np.array_equal(rows.obs[key], seen[key]) for key in world.obs)
        space = env.action
        act = rng.uniform(space.low, space.high, (2, space.width)).astype(np.float32)
        before, state = state, np.concatenate([world.step(state[i : i + 1], act[i : i + 1]) for i in range(2)])
        rows = env.step(act)
        assert np.allclose(rows.reward, cast(Acting, world).reward(before, act, state), rtol=1e-6)
        assert not rows.is_last.any()
    env.close()


def test_episodes_are_cut_off_after_their_steps() -> None:
    env = make("foreworld/Linear-v0", steps=3)
    env.reset(seed=0)
    rows = [env.step(np.zeros((1, 2))) for _ in range(4)]
    assert [bool(row.is_last[0]) for row in rows] == [False, False, True, False]
    assert not any(row.is_terminal[0] for row in rows)
    assert env.options["steps"] == 3
    assert opened("foreworld/PushBalls-v0").steps == WORLDS["foreworld/PushBalls-v0"].steps


def test_a_pushed_ball_is_pictured_and_the_corner_pays() -> None:
    env = opened("foreworld/PushBalls-v0")
    obs, _ = env.reset(seed=1)
    picture = env.render()
    assert picture is not None and picture.shape == (64, 64, 3)
    assert np.array_equal(picture, obs["image"].transpose(1, 2, 0))
    rewards = [env.step(np.array([6.0, 6.0], np.float32))[1] for _ in range(60)]
    assert rewards[-1] > 0.9
    assert opened("foreworld/Pendulum-v0").render() is None


def test_worlds_run_in_workers() -> None:
    found = []
    for workers in (False, True):
        env = make("foreworld/Pendulum-v0", num_envs=2, workers=workers, steps=4, gravity=1.62)
        rows = [env.reset(seed=1)] + [env.step(np.ones((2, 1), np.float32)) for _ in range(9)]
        found.append([(row.obs["obs"].tolist(), row.is_first.tolist(), row.reward.tolist()) for row in rows])
        env.close()
    assert found[0] == found[1]


def test_what_is_no_environment_is_said_clearly() -> None:
    with pytest.raises(EnvironmentFault, match=r"Lorenz63-v0: takes no action.*foreworld collect"):
        make("foreworld/Lorenz63-v0")
    with pytest.raises(EnvironmentFault, match="fork: takes no action"):
        WorldEnv(cast(Acting, Fork()))
    with pytest.raises(EnvironmentFault, match="steps=0"):
        WorldEnv(Pendulum(torque=1), steps=0)
    with pytest.raises(UnknownName, match="did you mean 'foreworld/Pendulum-v0'"):
        make("foreworld/Pendulumm-v0")
    with pytest.raises(ConfigError, match="unknown parameter 'colour'"):
        make("foreworld/Pendulum-v0", colour="red")


def test_a_world_without_actions_can_be_given_some() -> None:
    env = make("foreworld/FreePendulum-v0", torque=2.0)
    rows = env.reset(seed=0)
    rows = env.step(np.array([[1.0]]))
    start = Pendulum().start(np.random.default_rng(0), 1)
    went = simulate(Pendulum(torque=2.0), start, 1, actions=np.ones((1, 1, 1)))[:, 1]
    assert np.array_equal(rows.truth["state"], went.astype(np.float32))
