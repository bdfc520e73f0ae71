from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import builder, make, restorable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gym_pusht")

PUSHT = "gym_pusht/PushT-v0"


def test_rows_with_the_goal_and_the_state_as_truth() -> None:
    env = make(PUSHT, num_envs=2, image=True, image_size=48)
    shapes = {key: space.shape for key, space in env.spec.obs.items()}
    assert shapes == {"obs": (5,), "goal": (3,), "image": (3, 48, 48)}
    assert list(env.truth) == ["state"] and env.spec.fps == 10 and env.spec.action.high == (512, 512)
    rows = env.reset(seed=0)
    assert np.allclose(rows.obs["goal"], [256, 256, np.pi / 4]) and rows.obs["image"].std() > 5
    assert not np.array_equal(rows.obs["obs"][0], rows.obs["obs"][1])
    np.testing.assert_array_equal(rows.truth["state"][:, [0, 1, 4, 5]], rows.obs["obs"][:, :4])
    env.close()


def test_the_task_is_the_packages_from_start_to_picture() -> None:
    ours: Any = builder(PUSHT, image=True, image_size=None)()
    theirs: Any = gym.make(PUSHT, render_mode="rgb_array", obs_type="state")
    obs, (found, _) = ours.reset(seed=3)[0], theirs.reset(seed=3)
    for action in np.random.default_rng(0).uniform(100, 400, (25, 2)).astype(np.float32):
        assert np.array_equal(obs["obs"], found)
        assert np.array_equal(obs["image"], theirs.unwrapped._render())
        obs, reward, over, cut, _ = ours.step(action)
        found, *rest = theirs.step(action)
        assert (reward, over, cut) == tuple(rest[:3])


def test_success_is_terminal_and_the_limit_a_cut() -> None:
    env: Any = builder(PUSHT)()
    # the package turns the block about its centre of mass after it has put it there, which moves it
    env.reset(seed=0, options={"reset_to_state": [100, 100, 224.1802, 242.8198, np.pi / 4]})
    _, reward, over, cut, known = env.step(np.array([100, 100], np.float32))
    assert (reward, over, cut) == (1.0, True, False) and known["is_success"]
    short: Any = builder(PUSHT, steps=3)()
    short.reset(seed=0)
    assert [short.step(np.zeros(2, np.float32))[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_a_restored_moment_goes_on_alike_while_the_block_is_pushed() -> None:
    env: Any = builder(PUSHT)()
    obs, _ = env.reset(seed=1)
    for _ in range(12):
        obs, *_ = env.step(obs["obs"][2:4].astype(np.float32))  # into the block
    keeper = restorable(env)
    assert keeper is not None
    saved, before = keeper.save(), obs["obs"][2:5]
    pushes = np.random.default_rng(0).uniform(100, 400, (20, 2)).astype(np.float32)
    first = [env.step(push)[0]["truth/state"] for push in pushes]
    assert not np.allclose(first[-1][4:7], before), "the block was pushed"
    keeper.restore(saved)
    assert all(map(np.array_equal, first, [env.step(push)[0]["truth/state"] for push in pushes]))


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'gym_pusht/PushT-v0'"):
        make("gym_pusht/PushT-v1")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make(PUSHT, colour="red")
    with pytest.raises(ConfigError, match="at least 1 step"):
        make(PUSHT, steps=0)
