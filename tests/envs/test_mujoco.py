"""Pictures of MuJoCo: the same as Gymnasium's, or others drawn much sooner when asked for."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.envs import builder, make, restorable

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco")
HOPPER = "Hopper-v5"


def drawable() -> bool:
    """Say whether this machine can draw."""
    try:
        builder(HOPPER, image=True, render_quality="fast", image_size=16)().close()
    except EnvironmentFault:
        return False
    return True


needs_gl = pytest.mark.skipif(not drawable(), reason="no way to draw here")


@needs_gl
def test_a_picture_is_gymnasiums_with_vector_and_state_beside() -> None:
    env = make(HOPPER, image=True, image_size=32)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"obs": (11,), "image": (3, 32, 32)}
    assert list(env.truth) == ["state"]
    rows = env.reset(seed=3)
    theirs: Any = gym.make(HOPPER, render_mode="rgb_array", width=32, height=32)
    obs, _ = theirs.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32):
        assert np.array_equal(rows.obs["image"][0], np.moveaxis(theirs.render(), -1, 0))
        assert np.array_equal(rows.obs["obs"][0], obs.astype(np.float32))
        data = theirs.unwrapped.data
        np.testing.assert_allclose(rows.truth["state"][0], [*data.qpos, *data.qvel], rtol=1e-6)
        rows, (obs, *_) = env.step(action[None]), theirs.step(action)
    env.close()
    theirs.close()


@needs_gl
def test_two_in_one_process_each_see_themselves() -> None:
    alone, beside = builder(HOPPER, image=True, image_size=24)(), builder("HalfCheetah-v5", image=True, image_size=24)()
    first = alone.reset(seed=0)[0]["image"]
    beside.reset(seed=0)
    assert np.array_equal(alone.reset(seed=0)[0]["image"], first)
    beside.close()
    assert np.array_equal(alone.reset(seed=0)[0]["image"], first), "what the other gave back was its own"
    beside = builder(HOPPER, image=True, image_size=24)()
    assert np.array_equal(beside.reset(seed=0)[0]["image"], first)
    del beside  # not closed
    gc.collect()
    assert np.array_equal(alone.reset(seed=0)[0]["image"], first)


@needs_gl
def test_the_control_suite_and_gymnasium_draw_in_one_process() -> None:
    pytest.importorskip("dm_control")
    ours, suites = (builder(name, image=True, image_size=24)() for name in (HOPPER, "dmc/cartpole-balance"))
    alone = ours.reset(seed=0)[0]["image"], suites.reset(seed=0)[0]["image"]
    assert all(picture.std() > 5 for picture in alone)
    for _ in range(2):
        assert np.array_equal(ours.reset(seed=0)[0]["image"], alone[0])
        assert np.array_equal(suites.reset(seed=0)[0]["image"], alone[1])
    suites.close()
    del suites
    gc.collect()
    assert np.array_equal(ours.reset(seed=0)[0]["image"], alone[0])
    ours.close()


@needs_gl
def test_fast_pictures_are_others_that_show_the_same_and_come_sooner() -> None:
    frames, seconds, obs = {}, {}, {}
    for quality in ("full", "fast"):
        env: Any = builder(HOPPER, image=True, image_size=64, render_quality=quality)()
        obs[quality] = env.reset(seed=0)[0]
        frames[quality] = obs[quality]["image"].astype(int)
        took = []
        for _ in range(3):
            before = time.process_time()
            env.step(np.zeros(env.action_space.shape, np.float32))
            took.append(time.process_time() - before)
        seconds[quality] = min(took)
        env.close()
    assert all(np.array_equal(obs["full"][key], obs["fast"][key]) for key in obs["full"] if key != "image")
    assert not np.array_equal(frames["full"], frames["fast"])
    assert frames["fast"].std() > 5, "something is seen"
    if seconds["full"] > 0.02:  # drawn by software, where it matters
        assert seconds["fast"] < seconds["full"] / 3


@needs_gl
def test_a_pictured_environment_can_be_put_back() -> None:
    env = builder(HOPPER, image=True, image_size=16, render_quality="fast")()
    env.reset(seed=0)
    keeper = restorable(env)
    assert keeper is not None
    saved = keeper.save()
    first = [env.step(np.full(3, 0.5, np.float32))[0]["image"] for _ in range(4)]
    keeper.restore(saved)
    again = [env.step(np.full(3, 0.5, np.float32))[0]["image"] for _ in range(4)]
    assert all(map(np.array_equal, first, again))


def test_without_a_picture_nothing_changes() -> None:
    env = make(HOPPER)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"obs": (11,)}
    env.close()


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fast'"):
        make(HOPPER, image=True, render_quality="fats")
    with pytest.raises(ConfigError, match="add image=True"):
        make(HOPPER, render_quality="fast")
    with pytest.raises(EnvironmentFault, match="colour"):
        make(HOPPER, colour="red")
