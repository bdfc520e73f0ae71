from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault
from foreworld.envs.contract import Guard, leaf, number

FLOATS = spaces.Box(-1, 1, (2,), np.float32)
HALF_OPEN = spaces.Box(0, np.inf, (1,), np.float64)
BYTES = spaces.Box(0, 255, (2, 2), np.uint8)
SYMBOLS = spaces.Box(0, 9, (2,), np.uint8)
MANY = spaces.MultiDiscrete([2, 3], start=[0, 1])


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (FLOATS, np.array([-1, 1], np.float64)),
        (FLOATS, [0.5, 1.00005]),
        (FLOATS, np.array([0, 1])),
        (HALF_OPEN, np.array([1e30])),
        (BYTES, np.full((2, 2), 255, np.uint8)),
        (SYMBOLS, np.array([0, 9], np.uint8)),
        (spaces.Discrete(3, start=-1), 1),
        (spaces.Discrete(3), np.int32(0)),
        (spaces.MultiBinary(2), np.array([0, 1], bool)),
        (MANY, np.array([1, 3])),
        (spaces.Box(-np.inf, np.inf, (1,), np.float32), np.array([-1e38], np.float32)),
    ],
)
def test_what_is_declared_passes(space: gym.Space[Any], value: Any) -> None:
    found = leaf(space)
    assert found is not None and found.fault(value) == ""


@pytest.mark.parametrize(
    ("space", "value", "fault"),
    [
        (FLOATS, np.array([0, 1.001]), r"is 1.001, outside its declared bounds, -1.0001 to 1.0001"),
        (FLOATS, np.array([0, np.inf]), "NaN or infinite"),
        (spaces.Box(-1, 1, (), np.float32), np.float32(2), "is 2.0, outside its declared bounds, -1.0001 to 1.0001"),
        (FLOATS, np.zeros(3), r"is float64 \(3,\), declared as float32 \(2,\)"),
        (HALF_OPEN, np.array([1e39]), "infinite"),  # too large for the float32 in which it is stored
        (HALF_OPEN, np.array([-0.5]), "outside"),
        (BYTES, np.zeros((2, 2), np.float32), "float32"),
        (SYMBOLS, np.array([0, 10], np.uint8), "is 10, outside its declared bounds, 0 to 9"),
        (spaces.Box(0, 9, (2,), np.int32), np.array([0, 300]), "is 300"),
        (BYTES, np.full((2, 2), 256, np.uint16), "is 256, outside its declared bounds, 0 to 255"),
        (spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32), np.array([2**31]), "is 2147483648"),
        (spaces.Discrete(3, start=-1), 2, "is 2, outside"),
        (spaces.Discrete(3), 0.0, "float64"),
        (spaces.MultiBinary(2), np.array([0, 2]), "is 2"),
        (MANY, np.array([1, 0]), "is 0"),
    ],
)
def test_what_is_not_declared_is_named(space: gym.Space[Any], value: Any, fault: str) -> None:
    found = leaf(space)
    assert found is not None
    with pytest.raises(AssertionError, match=fault):
        assert found.fault(value) == ""


class Giving(gym.Env[Any, Any]):
    """Give whatever it is told to."""

    observation_space: Any = spaces.Dict({"a": FLOATS, "b": spaces.Dict({"c": SYMBOLS}), "text": spaces.Text(5)})
    action_space = spaces.Discrete(2)
    obs: Any = {"a": [0, 0], "b": {"c": np.zeros(2, np.uint8)}, "text": "hi"}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.obs, 0.0, True, False, {}


def test_a_guard_passes_what_is_declared_as_it_is() -> None:
    env = Giving()
    assert Guard(env).reset()[0] is env.obs and Guard(env).step(0)[0] is env.obs


@pytest.mark.parametrize("obs", [{}, [0, 0], {**Giving.obs, "more": 1}, {**Giving.obs, "b": 3}])
def test_keys_are_those_declared(obs: Any) -> None:
    env = Giving()
    env.obs = obs
    for call in (Guard(env).reset, lambda: Guard(env).step(0)):
        with pytest.raises(EnvironmentFault, match=r"observed .*, declared"):
            call()


def test_a_guard_names_key_and_reason() -> None:
    env = Giving()
    env.obs = {**Giving.obs, "b": {"c": np.array([0, 10], np.uint8)}}
    with pytest.raises(EnvironmentFault, match="'b/c' is 10, outside its declared bounds, 0 to 9"):
        Guard(env).step(0)


@pytest.mark.parametrize("reward", [np.array([2], np.int32), 2, 2.0, np.float32(2), np.array(2.0)])
def test_a_reward_is_one_number(reward: Any) -> None:
    assert number(reward) == 2.0


@pytest.mark.parametrize("reward", [np.nan, -np.inf, 1e39, 10**400, np.float32(np.nan), "much", None, np.zeros(2)])
def test_a_reward_is_finite_and_a_number(reward: Any) -> None:
    with pytest.raises(EnvironmentFault, match="its reward is"):
        number(reward)
