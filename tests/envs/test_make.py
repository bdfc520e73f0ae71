from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault, MissingExtra, SpecError, UnknownName
from foreworld.envs import make
from foreworld.envs.area import area_weights, resize_area


class Camera(gym.Env[Any, Any]):
    """Show a picture in three layouts, a grid of symbols and a sentence; misbehave on request."""

    fault = ""

    def __init__(self) -> None:
        self.action_space = spaces.MultiBinary(2)
        self.observation_space = spaces.Dict(
            {
                "front": spaces.Box(0, 255, (40, 30, 3), np.uint8),
                "planes": spaces.Box(0, 255, (3, 40, 30), np.uint8),
                "grey": spaces.Box(0, 255, (40, 30), np.uint8),
                "grid": spaces.Box(0, 9, (7, 7), np.uint8),
                "mission": spaces.Text(10),
                "truth": spaces.Dict({"pos": spaces.Box(-1, 1, (2,), np.float32)}),
            }
        )

    def observe(self) -> dict[str, Any]:
        front = self.np_random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        return {
            "front": front,
            "planes": front.transpose(2, 0, 1),
            "grey": front[..., 0],
            "grid": np.ones((7, 7), np.uint8),
            "mission": "go",
            "truth": {"pos": np.zeros(2, np.float32)},
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs = self.observe()
        if self.fault == "raise":
            raise RuntimeError("engine on fire")
        if self.fault == "shape":
            obs["grid"] = obs["grid"][:3]
        if self.fault == "dtype":
            obs["grid"] = obs["grid"] + 0.5
        if self.fault == "nan":
            obs["truth"] = {"pos": np.full(2, np.nan, np.float32)}
        if self.fault == "keys":
            del obs["grid"]
        return obs, 0.0, False, False, {}


KEYS = ["front", "planes", "grey", "grid"]


@pytest.fixture(autouse=True)
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "Camera-v0", gym.envs.registration.EnvSpec("Camera-v0", Camera))


def test_pictures_are_resized_in_every_layout_and_the_rest_passes() -> None:
    env = make("Camera-v0", keys=KEYS, image_size=20)
    rows = env.reset(seed=0)
    front, planes, grey = (rows.obs[k] for k in ("front", "planes", "grey"))
    assert (front.shape, grey.shape, front.dtype) == ((1, 3, 20, 20), (1, 1, 20, 20), np.uint8)
    assert np.array_equal(front, planes) and np.array_equal(front[:, :1], grey)
    assert rows.obs["grid"].shape == (1, 7, 7)
    assert rows.truth["pos"].shape == (1, 2)
    assert {k: s.shape for k, s in env.spec.obs.items()} == {k: v.shape[1:] for k, v in rows.obs.items()}
    assert make("Camera-v0", keys=["front"], image_size=None).reset().obs["front"].shape == (1, 3, 40, 30)


def test_an_unsupported_space_names_its_key_and_can_be_left_out() -> None:
    with pytest.raises(SpecError, match=r"'mission': Text.*Leave the key out"):
        make("Camera-v0")
    with pytest.raises(SpecError, match="unknown observation key 'fronts'; did you mean 'front'"):
        make("Camera-v0", keys=["fronts"])
    with pytest.raises(SpecError, match="no Dict"):
        make("CartPole-v1", keys=["image"])
    assert list(make("Camera-v0", keys=["grid"]).spec.obs) == ["grid"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "RuntimeError: engine on fire"),
        ("shape", r"'grid' is uint8 \(3, 7\), declared as uint8 \(7, 7\)"),
        ("dtype", "'grid' is float64"),
        ("nan", "'truth/pos' is NaN"),
        ("keys", "observed .*declared"),
    ],
)
def test_a_broken_contract_names_environment_and_key(monkeypatch: pytest.MonkeyPatch, fault: str, message: str) -> None:
    env = make("Camera-v0", num_envs=2, keys=KEYS)
    env.reset()
    monkeypatch.setattr(Camera, "fault", fault)
    with pytest.raises(EnvironmentFault, match=f"10 faults in a row; first fault: Camera-v0, environment 0: {message}"):
        for _ in range(10):
            env.step(np.zeros((2, 2), np.int8))


def test_the_same_seed_gives_the_same_rows_and_environments_differ() -> None:
    env = make("Camera-v0", num_envs=2, keys=["front"])
    first, again = env.reset(seed=5).obs["front"], env.reset(seed=5).obs["front"]
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, env.reset(seed=9).obs["front"])


def test_max_steps_cuts_off_without_a_terminal_state() -> None:
    env = make("Pendulum-v1", max_steps=3)
    env.reset(seed=0)
    rows = [env.step(np.zeros((1, 1))) for _ in range(4)]
    assert [bool(r.is_last[0]) for r in rows] == [False, False, True, False]
    assert not any(r.is_terminal[0] for r in rows)
    assert rows[3].is_first[0]


def test_workers_give_the_same_rows() -> None:
    found = []
    for workers in (False, True):
        env = make("CartPole-v1", num_envs=2, workers=workers, max_steps=5)
        rows = [env.reset(seed=1)] + [env.step(np.array([0, 1])) for _ in range(12)]
        found.append([(r.obs["obs"].tolist(), r.is_first.tolist(), r.is_last.tolist()) for r in rows])
        env.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("env_id", "error", "message"),
    [
        ("CartPol-v1", UnknownName, "did you mean 'CartPole-v1'"),
        ("Nowhere/Game-v0", UnknownName, "unknown environment"),
        ("no_such_module:Game-v0", MissingExtra, "no_such_module"),
        ("Camera-v0", EnvironmentFault, "cannot be opened.*colour"),
    ],
)
def test_what_cannot_be_made_is_said_clearly(env_id: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(env_id, **({"colour": "red"} if env_id == "Camera-v0" else {}))


@pytest.mark.parametrize(
    ("package", "env_id", "extra"),
    [
        ("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid"),
        ("ale_py", "ALE/Pong-v5", "atari"),
        ("Box2D", "LunarLander-v3", "box2d"),
        ("mujoco", "HalfCheetah-v5", "mujoco"),
        ("dm_control", "dmc/walker-walk", "dmc"),
        ("crafter", "crafter/reward", "crafter"),
    ],
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, env_id: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for name in [n for n in sys.modules if n.startswith(f"gymnasium.envs.{extra}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=rf"foreworld\[{extra}\]"):
        make(env_id)


def test_numbers_below_one_are_refused() -> None:
    for bad in ({"num_envs": 0}, {"max_steps": 0}, {"image_size": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            make("CartPole-v1", **bad)


def test_area_weights_by_hand() -> None:
    assert np.allclose(area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    assert np.allclose(area_weights(210, 64).sum(1), 1)
    assert np.allclose(area_weights(210, 64).sum(0), 64 / 210), "every input pixel counts the same"
    assert np.array_equal(area_weights(5, 5), np.eye(5, dtype=np.float32))


def test_whole_factors_are_block_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    blocks = image.reshape(4, 3, 4, 2, 3).mean((1, 3))
    assert np.abs(resize_area(image, 4, 4) - blocks).max() <= 0.5 + 1e-4
    assert resize_area(image, 12, 8) is image


def test_resize_agrees_with_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (210, 160, 3), dtype=np.uint8)
    for size in (64, 84, 96):
        theirs = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(resize_area(image, size, size) - theirs).max() <= 1
