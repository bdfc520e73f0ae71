"""What an environment promised: the check of every observation and reward against its declaration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault
from foreworld.core.spaces import flat_values

LARGEST = float(np.finfo(np.float32).max)
ARRAYS, NUMBERS = (np.ndarray, np.generic), (float, int)
SLACK = 1e-4
"""How far a float may lie outside its bounds, relative to the bound: simulators round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaf:
    """One array of an observation: its type and shape, and its bounds where they say more than the type does.

    Floats always have bounds, those of float32 at the widest, so that one comparison finds NaN and infinities too.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bounds: tuple[np.ndarray, np.ndarray] | None = None

    def fits(self, value: Any) -> bool:
        """Say whether a value has exactly this type and shape; whether it lies inside the bounds is not asked."""
        return isinstance(value, ARRAYS) and value.dtype == self.dtype and value.shape == self.shape

    def fault(self, value: Any) -> str:
        """Say what is wrong with a value; nothing when it is as declared."""
        array = np.asarray(value)
        fits = array.dtype == self.dtype or np.can_cast(array.dtype, self.dtype, "same_kind")
        if array.shape != self.shape or not fits:
            return f"is {array.dtype} {array.shape}, declared as {self.dtype} {self.shape}"
        if self.bounds is None and array.dtype == self.dtype:
            return ""
        low, high = self.bounds or _type_bounds(self.dtype, self.shape)  # an integer of a wider type may be larger
        inside = (array >= low) & (array <= high)  # false for NaN too
        if inside.all():
            return ""
        at = np.unravel_index(int(inside.argmin()), self.shape)
        if array.dtype.kind == "f" and not abs(float(array[at])) <= LARGEST:
            return "is NaN or infinite"
        return f"is {array[at]}, outside its declared bounds, {low[at]:.6g} to {high[at]:.6g}"


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
        return Leaf(dtype=dtype, shape=shape, bounds=(_filled(low, shape, wide), _filled(high, shape, wide)))
    if dtype.kind not in "iu":
        return Leaf(dtype=dtype, shape=shape)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if ((low <= least) & (high >= most)).all():
        return Leaf(dtype=dtype, shape=shape)
    return Leaf(dtype=dtype, shape=shape, bounds=(np.broadcast_to(low, shape), np.broadcast_to(high, shape)))


class Contract:
    """The keys that an environment declared, and what it said about the value of each.

    Args:
        space: of its observations.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        """Read the declaration."""
        self.leaves = {key: leaf(inner) for key, inner in leaves(space).items()}

    def named(self, obs: Any) -> dict[str, Any]:
        """Return the values of an observation by name, after a look at the names alone.

        Raises:
            EnvironmentFault: a missing or added key.
        """
        found = flat_values(obs)
        if found.keys() != self.leaves.keys():
            raise EnvironmentFault(f"observed {sorted(found)}, declared {sorted(self.leaves)}")
        return found

    def checked(self, obs: Any) -> dict[str, Any]:
        """Return the values of an observation by name, all of them as declared.

        Raises:
            EnvironmentFault: a missing or added key, another type or shape, a value outside its bounds, NaN, infinity.
        """
        found = self.named(obs)
        for key, declared in self.leaves.items():
            if declared is not None and (fault := declared.fault(found[key])):
                raise broken(key, fault)
        return found


class Guard(gym.ObservationWrapper):
    """Check what an environment observes before other wrappers drop or change what is wrong with it."""

    def __init__(self, env: gym.Env) -> None:
        """Wrap an environment."""
        super().__init__(env)
        self._contract = Contract(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Check, and pass on."""
        self._contract.checked(observation)
        return observation


def broken(key: str, fault: str) -> EnvironmentFault:
    """Say which value of an observation is wrong, and how."""
    return EnvironmentFault(f"{key or 'observation'!r} {fault}")


def number(reward: Any) -> float:
    """Return a reward as one finite number.

    Raises:
        EnvironmentFault: it is something else.
    """
    if isinstance(reward, NUMBERS) and abs(reward) <= LARGEST:  # almost always; the rest is slower
        return reward
    value = np.asarray(reward)
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise EnvironmentFault(f"its reward is {value.dtype} {value.shape}, not one number")
    found = float(value.reshape(()))
    if not abs(found) <= LARGEST:  # written so that NaN fails too
        raise EnvironmentFault(f"its reward is {found}")
    return found


def _type_bounds(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    limits = np.iinfo(dtype)
    return np.full(shape, limits.min, dtype), np.full(shape, limits.max, dtype)


def _filled(bound: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.array(np.broadcast_to(bound, shape), dtype, order="C")


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
