"""Gymnasium spaces from `Space` and `Spec`: the way back from `Spec.from_space`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from foreworld.core.spaces import Space

ALONE = ("obs", "image")
"""Names that `Spec.from_space` gives to an observation that is no Dict."""


def gym_space(space: Space, unbounded: float = np.inf) -> spaces.Space[Any]:
    """Return the Gymnasium space from which a space was made.

    Args:
        space: of an observation or an action.
        unbounded: what stands for the bounds of numbers that have none.

    Returns:
        Box, Discrete, MultiDiscrete or MultiBinary; images in the layout of the source.

    Example:
        >>> gym_space(Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(1,)))
        Discrete(3, start=1)
        >>> gym_space(Space(kind="image", shape=(3, 64, 48), dtype="uint8", layout="hwc")).shape
        (64, 48, 3)
    """
    if space.kind == "image":
        return spaces.Box(0, 255, space.from_rest(np.empty(space.shape, np.uint8)).shape, np.uint8)
    dtype: Any = np.dtype(space.dtype).type
    if space.kind == "vector":
        if not space.bounded:
            return spaces.Box(-unbounded, unbounded, space.shape, dtype)
        low, high = (np.array(bound, dtype).reshape(space.shape) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=dtype)
    if not space.shape:
        return spaces.Discrete(space.classes[0], start=space.start[0])
    if space.dtype == "int8":
        return spaces.MultiBinary(space.shape)
    classes, start = (np.array(values).reshape(space.shape) for values in (space.classes, space.start))
    return spaces.MultiDiscrete(classes, start=start)


def gym_observation(obs: Mapping[str, Space], unbounded: float = np.inf) -> spaces.Space[Any]:
    """Return the observation space from which those of a `Spec` were made.

    Args:
        obs: by name, as in `Spec.obs`.
        unbounded: what stands for the bounds of numbers that have none.

    Returns:
        A Dict; the space itself where it is alone and has the name that an unnamed one gets.
    """
    found = {key: gym_space(space, unbounded) for key, space in obs.items()}
    return next(iter(found.values())) if alone(obs) else spaces.Dict(found)


def alone(obs: Mapping[str, Space]) -> bool:
    """Say whether an observation was no Dict: one space, with the name that an unnamed one gets."""
    return len(obs) == 1 and next(iter(obs)) in ALONE
