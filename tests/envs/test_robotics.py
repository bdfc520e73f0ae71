from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from foreworld.core.errors import EnvironmentFault, UnknownName
from foreworld.envs import builder, make

os.environ.setdefault("MUJOCO_GL", "egl")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    robotics = pytest.importorskip("gymnasium_robotics")

UMAZE = "PointMaze_UMaze-v3"


def test_rows_with_goals_by_name_and_the_state_as_truth() -> None:
    env = make(UMAZE, num_envs=2)
    shapes = {key: space.shape for key, space in env.spec.obs.items()}
    assert shapes == {"observation": (4,), "achieved_goal": (2,), "desired_goal": (2,)}
    assert list(env.truth) == ["state"] and env.spec.action.low == (-1, -1) and env.spec.fps == 100
    rows = env.reset(seed=0)
    np.testing.assert_array_equal(rows.truth["state"].astype(np.float32), rows.obs["observation"])
    assert not np.array_equal(rows.obs["desired_goal"][0], rows.obs["desired_goal"][1])
    last = [bool(env.step(np.zeros((2, 2), np.float32)).is_last[0]) for _ in range(300)]
    assert last == [False] * 299 + [True], "cut off by the time limit of the id"
    env.close()


def test_a_maze_is_the_packages_step_by_step() -> None:
    ours: Any = builder(UMAZE)()
    obs, _ = ours.reset(seed=5)
    theirs: Any = gym.make(UMAZE)
    found, _ = theirs.reset(seed=int(np.random.default_rng(5).integers(2**31)))
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32):
        assert all(np.array_equal(obs[key], found[key]) for key in found)
        obs, reward, over, cut, _ = ours.step(action)
        found, *rest = theirs.step(action)
        assert (reward, over, cut) == tuple(rest[:3])


def test_reaching_the_goal_is_terminal_only_where_it_ends_the_task() -> None:
    options = {"goal_cell": np.array([1, 1]), "reset_cell": np.array([1, 1])}
    for continuing in (True, False):
        env: Any = builder(UMAZE, continuing_task=continuing)()
        env.unwrapped._maze.position_noise_range = 0.0  # the package takes this option and passes it on to who does not
        obs, known = env.reset(seed=0, options=options)
        assert known["success"] and np.allclose(obs["achieved_goal"], obs["desired_goal"], atol=1e-6)
        _, reward, over, cut, _ = env.step(np.zeros(2, np.float32))
        assert (reward, over, cut) == (1.0, not continuing, False)


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = builder(UMAZE)()
    assert not Path(env.unwrapped._maze.tmp_xml_file_path).exists()


def test_a_picture_in_either_quality() -> None:
    try:
        env: Any = builder(UMAZE, image=True, image_size=32, render_quality="fast")()
    except EnvironmentFault:
        pytest.skip("no way to draw here")
    image = env.reset(seed=0)[0]["image"]
    assert image.shape == (32, 32, 3) and image.std() > 5 and np.array_equal(env.render(), image)
    full: Any = builder(UMAZE, image=True, image_size=32)()
    assert not np.array_equal(full.reset(seed=0)[0]["image"], image)


def test_an_ant_has_goals_too() -> None:
    env = make("AntMaze_UMaze-v5")
    rows = env.reset(seed=0)
    assert rows.obs["desired_goal"].shape == (1, 2) and rows.truth["state"].shape == (1, 29)
    env.close()


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'PointMaze_UMaze-v3'"):
        make("PointMaze_UMazes-v3")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make(UMAZE, colour="red")
