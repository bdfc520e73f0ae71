"""What one environment promised: the check of every observation and reward against its declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault
from foreworld.core.spaces import flat_values

LARGEST = float(np.finfo(np.float32).max)
SLACK = 1e-4
"""How far a float may lie outside its bounds, relative to the bound: simulators round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaf:
    """One array of an observation: its type and shape, and its bounds where they say more than the type does.

    Floats always have bounds, those of float32 at the widest, so that one comparison finds NaN and infinities too.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def fault(self, value: Any) -> str:
        """Say what is wrong with a value; nothing when it is as declared."""
        array = np.asarray(value)
        fits = array.dtype == self.dtype or np.can_cast(array.dtype, self.dtype, "same_kind")
        if array.shape != self.shape or not fits:
            return f"is {array.dtype} {array.shape}, declared as {self.dtype} {self.shape}"
        if self.low is None or self.high is None:
            return ""
        inside = (array >= self.low) & (array <= self.high)  # false for NaN too
        if inside.all():
            return ""
        at = np.unravel_index(int(inside.argmin()), self.shape)
        if array.dtype.kind == "f" and not abs(float(array[at])) <= LARGEST:
            return "is NaN or infinite"
        return f"is {array[at]}, outside its declared bounds, {self.low[at]:.6g} to {self.high[at]:.6g}"


def leaves(space: gym.Space[Any], prefix: str = "") -> dict[str, gym.Space[Any]]:
    """Name the spaces of an observation as `flat_values` names its values: a single one is `""`."""
    if not isinstance(space, spaces.Dict):
        return {prefix.rstrip("/"): space}
    found: dict[str, gym.Space[Any]] = {}
    for key, inner in space.spaces.items():
        found |= leaves(inner, f"{prefix}{key}/")
    return found


def leaf(space: gym.Space[Any]) -> Leaf | None:
    """Describe a space; None for texts and graphs, which are refused later unless the key is left out."""
    if space.shape is None or space.dtype is None:
        return None
    dtype, shape = np.dtype(space.dtype), tuple(space.shape)
    low, high = _bounds(space)
    if dtype.kind == "f":
        low = np.maximum(low - SLACK * np.maximum(1, np.abs(low)), -LARGEST)
        high = np.minimum(high + SLACK * np.maximum(1, np.abs(high)), LARGEST)
        wide = np.result_type(dtype, np.float32)
        return Leaf(dtype=dtype, shape=shape, low=_filled(low, shape, wide), high=_filled(high, shape, wide))
    if dtype.kind not in "iu":
        return Leaf(dtype=dtype, shape=shape)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if ((low <= least) & (high >= most)).all():
        return Leaf(dtype=dtype, shape=shape)
    return Leaf(dtype=dtype, shape=shape, low=np.broadcast_to(low, shape), high=np.broadcast_to(high, shape))


class Guard(gym.Wrapper):
    """Check what an environment gives against what it declared.

    A missing or added key, another type or shape, a value outside its bounds, NaN and infinities
    raise `EnvironmentFault`; what the environment itself raises passes as it is.
    """

    def __init__(self, env: gym.Env) -> None:
        """Wrap an environment."""
        super().__init__(env)
        self._leaves = {key: leaf(space) for key, space in leaves(env.observation_space).items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset and check."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._check(flat_values(obs))
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and check; the reward becomes a float."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._check(flat_values(obs))
        return obs, _reward(reward), bool(terminated), bool(truncated), info

    def _check(self, found: Mapping[str, Any]) -> None:
        if set(found) != set(self._leaves):
            raise EnvironmentFault(f"observed {sorted(found)}, declared {sorted(self._leaves)}")
        for key, declared in self._leaves.items():
            fault = declared.fault(found[key]) if declared is not None else ""
            if fault:
                raise EnvironmentFault(f"{key or 'observation'!r} {fault}")


def _filled(bound: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(bound, shape), dtype)


def _reward(reward: Any) -> float:
    if type(reward) is float and abs(reward) <= LARGEST:  # almost always; the rest is slower
        return reward
    value = np.asarray(reward)
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise EnvironmentFault(f"its reward is {value.dtype} {value.shape}, not one number")
    number = float(value.reshape(()))
    if not abs(number) <= LARGEST:  # written so that NaN fails too
        raise EnvironmentFault(f"its reward is {number}")
    return number


def _bounds(space: gym.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        start = getattr(space, "start", np.zeros_like(space.nvec))
        return start, start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return np.asarray(0), np.asarray(1)
    if isinstance(space, spaces.Box):
        wide = np.float64 if space.dtype.kind == "f" else space.dtype
        return np.asarray(space.low, wide), np.asarray(space.high, wide)
    return np.asarray(-np.inf), np.asarray(np.inf)
