from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import builder, make

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("ogbench")
MEDIUM = "ogbench/pointmaze-medium-v0"


def test_rows_with_the_goal_and_the_state_as_truth() -> None:
    env = make(MEDIUM, num_envs=2)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"obs": (2,), "goal": (2,)}
    assert list(env.truth) == ["state"] and env.spec.action.low == (-1, -1) and env.spec.fps == 10
    rows = env.reset(seed=0)
    goal = rows.obs["goal"].copy()
    for _ in range(5):
        rows = env.step(np.ones((2, 2), np.float32))
    assert np.array_equal(rows.obs["goal"], goal), "the goal of an episode stays"
    env.close()


def test_a_seed_decides_all_though_the_package_draws_from_global_numbers() -> None:
    def play(before: int) -> list[np.ndarray]:
        np.random.seed(before)  # noqa: NPY002 - what the package would draw from
        env: Any = builder("ogbench/pointmaze-teleport-v0")()
        seen = [env.reset(seed=4)[0]]
        seen += [env.step(np.array([1, 0.3], np.float32))[0] for _ in range(30)]
        seen += [env.reset()[0]]
        return [np.concatenate([one["obs"], one["goal"]]) for one in seen]

    first, again = play(0), play(1)
    assert all(map(np.array_equal, first, again))
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    env: Any = builder(MEDIUM)()
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    assert np.random.rand() == expected, "the caller's global numbers are left alone"  # noqa: NPY002


def test_the_goal_is_terminal_and_the_time_limit_is_not() -> None:
    env: Any = builder(MEDIUM, task=1)()
    obs, _ = env.reset(seed=0)
    env.unwrapped._maze.set_xy(obs["goal"])
    assert env.step(np.zeros(2, np.float32))[1:4] == (1.0, True, False)
    short: Any = builder(MEDIUM, task=1, steps=3)()
    short.reset(seed=0)
    assert [short.step(np.zeros(2, np.float32))[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_a_task_is_a_start_and_a_goal() -> None:
    places = {}
    for task in (1, 2):
        env: Any = builder(MEDIUM, task=task)()
        obs, _ = env.reset(seed=0)
        places[task] = obs["goal"]
        known = env.unwrapped._maze.task_infos[task - 1]
        assert np.abs(obs["goal"] - known["goal_xy"]).max() <= 1 and np.abs(obs["obs"] - known["init_xy"]).max() <= 1
    assert np.abs(places[1] - places[2]).max() > 4
    with pytest.raises(ConfigError, match="task 6, it has 1 to 5"):
        make(MEDIUM, task=6)


def test_a_picture_in_either_quality() -> None:
    try:
        env: Any = builder(MEDIUM, image=True, image_size=32, render_quality="fast")()
    except EnvironmentFault:
        pytest.skip("no way to draw here")
    image = env.reset(seed=0)[0]["image"]
    assert image.shape == (32, 32, 3) and image.std() > 5
    full: Any = builder(MEDIUM, image=True, image_size=32)()
    assert not np.array_equal(full.reset(seed=0)[0]["image"], image)
    full.close()
    assert np.array_equal(env.reset(seed=0)[0]["image"], image), "what the other gave back was its own"
    env.close()


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ogbench/pointmaze-medium-v0'"):
        make("ogbench/pointmaze-medium")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make(MEDIUM, colour="red")
