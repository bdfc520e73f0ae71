from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import OpenEpisode, builder, make

os.environ.setdefault("MUJOCO_GL", "egl")  # before the suite is imported
suite = pytest.importorskip("dm_control.suite")


def drawable() -> bool:
    """Say whether this machine can draw."""
    try:
        builder("dmc/cartpole-balance", image=True, plain=True)().close()
    except EnvironmentFault:
        return False
    return True


def test_a_task_is_what_the_suite_says_step_by_step() -> None:
    env: Any = builder("dmc/walker-walk", repeat=2)()
    obs, _ = env.reset(seed=3)
    theirs = suite.load("walker", "walk")
    theirs.task.random.seed(int(np.random.default_rng(3).integers(2**32)))
    found = theirs.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32):
        for key, value in found.observation.items():
            assert np.array_equal(obs[key], np.atleast_1d(value).astype(np.float32)), key
        assert np.array_equal(obs["truth/state"], theirs.physics.get_state())
        obs, reward, over, cut, _ = env.step(action)
        first, found = theirs.step(action), theirs.step(action)
        assert reward == first.reward + found.reward and not over and not cut
    env.close()


def test_vectors_by_name_or_joined_and_time_as_declared() -> None:
    env = make("dmc/walker-walk")
    assert {key: space.shape for key, space in env.spec.obs.items()} == {
        "height": (1,),
        "orientations": (14,),
        "velocity": (9,),
    }
    assert (env.spec.fps, env.spec.frame_skip, list(env.truth)) == (40, 1, ["state"])
    assert env.spec.action.low == (-1,) * 6
    parts = env.reset(seed=0)
    flat = make("dmc/walker-walk", flat=True, repeat=2)
    assert (flat.spec.fps, flat.spec.frame_skip) == (20, 2)
    joined = flat.reset(seed=0).obs["proprio"][0]
    assert joined.tolist() == [*parts.obs["orientations"][0], *parts.obs["height"][0], *parts.obs["velocity"][0]]


def test_a_thousand_steps_cut_an_episode_off() -> None:
    env = builder("dmc/cartpole-balance", repeat=8)()
    env.reset(seed=0)
    found = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(125)]
    assert found[-1] == (False, True) and set(found[:-1]) == {(False, False)}


def test_an_end_without_future_is_terminal() -> None:
    env: Any = builder("dmc/cartpole-balance")()
    env.reset(seed=0)
    env.unwrapped._env.task.get_termination = lambda physics: 0.0
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)


def test_a_seed_decides_and_an_episode_is_opened_again() -> None:
    env = make("dmc/cartpole-swingup", num_envs=2)
    rows = env.reset(1, [OpenEpisode()] * 2)
    assert not np.array_equal(rows.obs["position"][0], rows.obs["position"][1])
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 2, 1)):
        rows = env.step(action)
    stood = env.episodes()
    again = make("dmc/cartpole-swingup", num_envs=2)
    assert np.array_equal(again.reset(1, stood).truth["state"], rows.truth["state"]) and again.reopened.all()


@pytest.mark.skipif(not drawable(), reason="no way to draw here")
def test_pictures_are_the_suites_and_the_plain_ones_cheaper() -> None:
    env = make("dmc/walker-walk", proprio=False, image=True, image_size=32)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"image": (3, 32, 32)}
    seen = env.reset(seed=0).obs["image"][0].transpose(1, 2, 0)
    theirs = suite.load("walker", "walk")
    theirs.task.random.seed(int(np.random.default_rng(0).integers(2**32)))
    theirs.reset()
    assert np.array_equal(seen, theirs.physics.render(32, 32, camera_id=0))
    plain: Any = builder("dmc/walker-walk", image=True, plain=True, image_size=32)()
    other = plain.reset(seed=0)[0]["image"]
    assert not np.array_equal(seen, other) and np.abs(seen.astype(int) - other).mean() < 30
    assert np.array_equal(plain.render(), other)
    for one in (env, theirs, plain):
        one.close()


@pytest.mark.skipif(not drawable(), reason="no way to draw here")
def test_fast_pictures_are_plain_ones_without_the_sky() -> None:
    seen = {}
    for name, options in {"plain": {"plain": True}, "fast": {"render_quality": "fast"}}.items():
        env: Any = builder("dmc/walker-walk", image=True, image_size=48, **options)()
        seen[name] = env.reset(seed=0)[0]["image"].astype(int)
        env.close()
    assert not np.array_equal(seen["plain"], seen["fast"]) and seen["fast"].std() > 5
    same = (seen["plain"] == seen["fast"]).all(-1)
    assert 0.1 < same.mean() < 0.95 and (seen["fast"][~same] == 0).all(), "where the sky was is black, and nothing else"
    with pytest.raises(ConfigError, match="did you mean 'fast'"):
        make("dmc/walker-walk", render_quality="fats")


@pytest.mark.parametrize("name", ["dmc/cup-catch", "dmc/ball_in_cup-catch", "dmc/cartpole-swingup-sparse"])
def test_ids_are_taken_with_either_stroke(name: str) -> None:
    builder(name)().close()


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(UnknownName, match="unknown task 'dmc/walker-wolk'; did you mean 'dmc/walker-walk'"):
        make("dmc/walker-wolk")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make("dmc/walker-walk", colour="red")
    with pytest.raises(ConfigError, match="at least one of proprio and image"):
        make("dmc/walker-walk", proprio=False)
