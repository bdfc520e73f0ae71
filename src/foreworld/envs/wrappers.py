"""Wrappers of one environment: keep some keys, resize pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import SpecError
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH, Space
from foreworld.envs.area import resize_area
from foreworld.envs.contract import leaves


class KeepKeys(gym.ObservationWrapper):
    """Keep some keys of a Dict observation, and every `truth/*` key.

    Args:
        env: an environment with a Dict observation.
        keys: what to keep.

    Raises:
        SpecError: no Dict observation, or an unknown key.
    """

    def __init__(self, env: gym.Env, keys: Sequence[str]) -> None:
        """Wrap an environment."""
        super().__init__(env)
        if not isinstance(env.observation_space, spaces.Dict):
            raise SpecError(
                f"keys {list(keys)}: the observation is one {type(env.observation_space).__name__}, no Dict"
            )
        known = env.observation_space.spaces
        for key in keys:
            if key not in known:
                raise SpecError(unknown("observation key", key, list(known)))
        self._keys = [key for key in known if key in keys or key.startswith(TRUTH) or key == TRUTH.rstrip("/")]
        self.observation_space = spaces.Dict({key: known[key] for key in self._keys})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Drop the other keys."""
        return {key: observation[key] for key in self._keys}


class ResizeImages(gym.ObservationWrapper):
    """Resize every picture of an observation to a square by area averaging; the rest passes.

    Args:
        env: any environment.
        size: side of the square.
    """

    def __init__(self, env: gym.Env, size: int) -> None:
        """Wrap an environment."""
        super().__init__(env)
        self._size = size
        self.observation_space = self._space(env.observation_space)
        self._resize = self._resizer(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Resize the pictures."""
        return self._resize(observation)

    def _space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        if isinstance(space, spaces.Dict):
            return spaces.Dict({key: self._space(inner) for key, inner in space.spaces.items()})
        image = _image(space)
        if image is None:
            return space
        channels = image.shape[0]
        square = (self._size, self._size)
        shape = {"hwc": (*square, channels), "chw": (channels, *square), "hw": square}[image.layout]
        return spaces.Box(0, 255, shape, np.uint8)

    def _resizer(self, space: spaces.Space[Any]) -> Callable[[Any], Any]:
        if isinstance(space, spaces.Dict):
            inner = {key: self._resizer(one) for key, one in space.spaces.items()}
            return lambda values: {key: resize(values[key]) for key, resize in inner.items()}
        image = _image(space)
        if image is None:
            return lambda value: value
        size = self._size
        if image.layout == "hwc":
            return lambda value: resize_area(np.asarray(value), size, size)
        if image.layout == "hw":
            return lambda value: resize_area(np.asarray(value)[..., None], size, size)[..., 0]
        return lambda value: resize_area(np.asarray(value).transpose(1, 2, 0), size, size).transpose(2, 0, 1)


def has_size(space: spaces.Space[Any], size: int) -> bool:
    """Say whether every picture of an observation is a square of this side already."""
    images = [_image(inner) for inner in leaves(space).values()]
    return all(image.shape[1:] == (size, size) for image in images if image is not None)


def _image(space: spaces.Space[Any]) -> Space | None:
    if not isinstance(space, spaces.Box):
        return None
    found = Space.from_gym(space, "observation")
    return found if found.kind == "image" else None
