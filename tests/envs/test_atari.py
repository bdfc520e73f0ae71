from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from foreworld.core.errors import EnvironmentFault, UnknownName
from foreworld.envs import make
from foreworld.envs.area import resize_area

ale_py = pytest.importorskip("ale_py")

from foreworld.envs.atari import make_atari  # noqa: E402


def test_spec_and_rows() -> None:
    env = make("ALE/Freeway-v5", num_envs=2)
    rows = env.reset(seed=0)
    assert (env.spec.fps, env.spec.frame_skip) == (15.0, 4)
    assert (list(env.spec.obs), list(env.truth)) == (["image"], ["ram"])
    assert env.spec.action.classes == (3,), "the minimal action set"
    assert rows.obs["image"].shape == (2, 3, 64, 64) and rows.obs["image"].dtype == np.uint8
    assert rows.truth["ram"].shape == (2, 128) and rows.truth["ram"].dtype == np.uint8
    rows = env.step(np.array([1, 2]))
    assert rows.prev_action.tolist() == [1, 2]
    assert rows.obs["image"].max() > 100


def test_pictures_follow_the_standard_protocol() -> None:
    """Four frames an action, maximum of the last two, no sticky actions: as stepping the console by hand."""
    gym.register_envs(ale_py)
    plain = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    ours = make_atari("ALE/Pong-v5", noop_max=0)
    screen, _ = plain.reset(seed=3)
    obs, _ = ours.reset(seed=3)
    assert np.array_equal(obs["image"], resize_area(screen, 64, 64))
    actions = np.random.default_rng(0).integers(0, 6, 90)
    total = 0.0
    for action in actions:
        frames, reward = [], 0.0
        for _ in range(4):
            screen, earned, *_ = plain.step(action)
            frames.append(screen)
            reward += float(earned)
        obs, ours_reward, terminated, truncated, _ = ours.step(int(action))
        assert np.array_equal(obs["image"], resize_area(np.maximum(frames[2], frames[3]), 64, 64))
        assert np.array_equal(obs["truth/ram"], plain.unwrapped.ale.getRAM())
        assert ours_reward == reward and not terminated and not truncated
        total += reward
    assert total < 0, "something happened"


def test_grey_is_the_brightness_of_the_same_picture() -> None:
    coloured, grey = (make_atari("ALE/Pong-v5", image_size=None, grey=grey) for grey in (False, True))
    seen, shown = coloured.reset(seed=1)[0]["image"].astype(float), grey.reset(seed=1)[0]["image"]
    assert shown.shape == (210, 160, 1) and shown.max() > 100
    assert np.abs(shown[..., 0] - seen @ [0.299, 0.587, 0.114]).max() <= 0.51


def play(seed: int, **options: Any) -> list[bytes]:
    env = make_atari("ALE/Freeway-v5", **options)
    obs, _ = env.reset(seed=seed)
    frames = [obs["image"].tobytes()]
    for step in range(30):
        frames.append(env.step(step % 3)[0]["image"].tobytes())
    frames.append(env.reset()[0]["image"].tobytes())
    env.close()
    return frames


def test_the_seed_decides_and_idle_starts_differ() -> None:
    assert play(0) == play(0)
    assert len({tuple(play(seed)) for seed in range(2)}) > 1


def test_the_time_limit_is_a_truncation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreworld.envs.atari.TIME_LIMIT", 8)
    env = make_atari("ALE/Freeway-v5", noop_max=0)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_frame_skip_one_and_native_size() -> None:
    env = make("ALE/Freeway-v5", image_size=None, frame_skip=1)
    assert env.spec.obs["image"].shape == (3, 210, 160)
    assert (env.spec.fps, env.spec.frame_skip) == (60.0, 1)
    first = env.reset(seed=0).obs["image"]
    later = [env.step(np.array([1])).obs["image"] for _ in range(10)]
    assert any(not np.array_equal(first, image) for image in later)


def test_unknown_games_and_options_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ALE/Pong-v5'"):
        make("ALE/Pongg-v5")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make("ALE/Pong-v5", colour="red")
