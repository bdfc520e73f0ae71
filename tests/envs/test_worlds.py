from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import WorldEnv, make
from foreworld.envs.worlds import make_world
from foreworld.rollout.policies import RandomPolicy
from foreworld.worlds import WORLDS, Aiming, Fork, Guided, Pendulum, World, build, simulate
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
    fixed = {"rebound": 0} if "TwoRooms" in env_id else {}
    env = make(env_id, num_envs=2, image_size=32, **fixed)
    world: World = build(env_id, image_size=32, **fixed)
    rows = env.reset(seed=3)
    assert env.spec.fps == pytest.approx(1 / world.dt) and list(env.truth) == ["state"]
    state = np.concatenate([world.start(np.random.default_rng(seed), 1) for seed in (3, 4)])
    env_actions = RandomPolicy(env.action, seed=0)
    for _ in range(5):
        assert np.array_equal(rows.truth["state"], state.astype(np.float32))
        seen = world.observe(state)
        assert all(np.array_equal(rows.obs[key], seen[key]) for key in world.obs)
        act = env_actions(rows)
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


AIMING = [name for name in ACTING if isinstance(WORLDS[name].world, Aiming)]


@pytest.mark.parametrize("env_id", AIMING)
def test_starts_and_goals_are_told_and_taken(env_id: str) -> None:
    env, other = opened(env_id), opened(env_id)
    obs, info = env.reset(seed=3)
    assert set(info) == {"start", "goal", "distance", "success"} and not info["success"]
    again, same = other.reset(seed=8, options={"start": info["start"], "goal": info["goal"]})
    assert same["distance"] == info["distance"] > 0
    if "TwoRooms" not in env_id:  # which has walls of its own
        assert all(np.array_equal(again[key], obs[key]) for key in obs)
    whole, _ = other.reset(seed=9, options={"state": obs["truth/state"]})
    assert all(np.array_equal(whole[key], obs[key]) for key in obs)
    shown = env.goal()
    assert shown.keys() == obs.keys() and not np.array_equal(shown["truth/state"], obs["truth/state"])
    _, reached = other.reset(options={"state": shown["truth/state"]})
    assert reached["success"], "the goal that is shown is one that counts"
    *_, over, _, after = env.step(env.action_space.sample())
    assert set(after) == {"distance", "success"} and not over
    with pytest.raises(ConfigError, match="reset knows the options state, start and goal, found target"):
        env.reset(options={"target": 1})


@pytest.mark.parametrize("env_id", [name for name in AIMING if isinstance(WORLDS[name].world, Guided)])
def test_the_oracle_ends_an_episode_at_the_goal(env_id: str) -> None:
    env = opened(env_id, stop=True)
    world = cast(Guided, env.world)
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        over = cut = False
        while not over and not cut:
            act = world.oracle(obs["truth/state"][None])[0]
            obs, _, over, cut, info = env.step(act.astype(env.action_space.dtype))
        assert over and info["success"] and not cut


def test_a_game_of_catch_ends_with_no_future() -> None:
    env = make("foreworld/Catch-v0", num_envs=2)
    rows = [env.reset(seed=0)] + [env.step(np.zeros(2, np.int64)) for _ in range(10)]
    assert [bool(row.is_terminal[0]) for row in rows] == [False] * 9 + [True, False]
    assert [bool(row.is_first[0]) for row in rows] == [True] + [False] * 9 + [True]
    assert rows[9].reward[0] in (-1, 1) and not any(row.reward[0] for row in rows[:9])
    env.close()


def test_options_of_worlds_without_a_goal() -> None:
    env = opened("foreworld/Pendulum-v0")
    obs, info = env.reset(seed=0, options={"state": [0.5, -1.0]})
    assert info == {} and obs["truth/state"].tolist() == [0.5, -1.0]
    for wrong in ([0.5], [0.5, np.nan]):
        with pytest.raises(ConfigError, match="pendulum, state: expected 2 finite numbers"):
            env.reset(options={"state": wrong})
    with pytest.raises(ConfigError, match="reset knows the options state, found goal"):
        env.reset(options={"goal": [1.0]})
    with pytest.raises(EnvironmentFault, match="pendulum: no goal to show"):
        env.goal()
    with pytest.raises(EnvironmentFault, match="two rooms: no goal to show"):
        opened("foreworld/TwoRooms-v0").goal()


def test_start_and_goal_of_all_episodes_can_be_fixed() -> None:
    env = opened("foreworld/PointMaze-v0", start=[0.5, 0.5], goal=[2.5, 0.5])
    for seed in range(3):
        _, told = env.reset(seed=seed)
        assert told["start"].tolist() == [0.5, 0.5] and told["goal"].tolist() == [2.5, 0.5]
    _, told = env.reset(options={"goal": [0.5, 2.5]})  # for once
    assert told["goal"].tolist() == [0.5, 2.5] and told["start"].tolist() == [0.5, 0.5]
    assert env.reset()[1]["goal"].tolist() == [2.5, 0.5]
    with pytest.raises(ConfigError, match="inside a wall"):
        make_world("foreworld/PointMaze-v0", goal=[0.5, 1.5])
    with pytest.raises(ConfigError, match="has no goal"):
        make_world("foreworld/Pendulum-v0", goal=[0.5, 1.5])


def test_a_vector_shows_the_goal_of_every_episode() -> None:
    env = make("foreworld/Reach-v0", num_envs=2, image_size=16)
    world: Any = build("foreworld/Reach-v0", image_size=16)
    rows = env.reset(seed=0)
    for index in range(2):
        seen, state = env.goal(index), rows.truth["state"][index : index + 1].astype(np.float64)
        assert set(seen) == {"image", "truth/state"} and seen["image"].shape == (3, 16, 16)
        assert np.allclose(seen["truth/state"], world.reached(state)[0], atol=1e-6)
        there = world.observe(world.reached(state))["image"][0].astype(int)
        assert abs(seen["image"].astype(int) - there).max() <= 1
    env.close()
    blind = make("CartPole-v1")
    blind.reset(seed=0)
    with pytest.raises(EnvironmentFault, match="shows no goal"):
        blind.goal(0)
    aimless = make("foreworld/Pendulum-v0")
    aimless.reset(seed=0)
    with pytest.raises(EnvironmentFault, match="no goal to show"):
        aimless.goal(0)
