"""Spaces of arrays that come without a declaration, and Minari's way to write a declaration down."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from foreworld.core.errors import DataError
from foreworld.core.spaces import Space

MOST_NUMBERS = 2**24
"""Numbers of one row."""


def space_of(array: Any) -> Space:
    """Return the space of the rows of an array.

    Args:
        array: [T, ...]; only its shape and type are looked at. Bytes of the form of a picture are one.

    Example:
        >>> space_of(np.zeros((5, 64, 64, 3), np.uint8)).layout, space_of(np.zeros((5, 7))).dtype
        ('hwc', 'float32')
    """
    shape, dtype = tuple(array.shape[1:]), np.dtype(array.dtype)
    if dtype == np.uint8 and len(shape) in (2, 3):
        found = Space.from_gym(spaces.Box(0, 255, shape, np.uint8), "image")
        if found.kind == "image":
            return found
    return Space(kind="vector", shape=shape, dtype="float32" if dtype.kind == "f" else dtype.name)


def declaration(space: Space) -> dict[str, Any]:
    """Return a space in Minari's JSON form."""
    if space.kind == "discrete" and not space.shape:
        return {"type": "Discrete", "dtype": "int64", "start": space.start[0], "n": space.classes[0]}
    if space.kind == "discrete":
        nested = {name: np.reshape(getattr(space, name), space.shape).tolist() for name in ("classes", "start")}
        return {"type": "MultiDiscrete", "dtype": space.dtype, "nvec": nested["classes"], "start": nested["start"]}
    shape, dtype = space.from_rest(np.empty((1, *space.shape), space.dtype)).shape[1:], np.dtype(space.dtype)
    if space.kind == "image":
        bounds: tuple[Any, Any] = (np.zeros(shape, int), np.full(shape, 255))
    elif space.bounded:
        bounds = (np.reshape(space.low, shape), np.reshape(space.high, shape))
    elif dtype.kind == "f":
        bounds = (np.full(shape, -np.inf), np.full(shape, np.inf))
    else:
        limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        bounds = (np.full(shape, limits[0]), np.full(shape, limits[1]))
    return {
        "type": "Box",
        "dtype": space.dtype,
        "shape": list(shape),
        "low": bounds[0].tolist(),
        "high": bounds[1].tolist(),
    }


def declared(where: str, said: Any) -> spaces.Space[Any]:
    """Return the Gymnasium space that Minari's JSON form says.

    Args:
        where: the file, for the message.
        said: plain JSON values.

    Raises:
        DataError: it is no declaration of a space that can be stored.
    """
    try:
        return _declared(where, said, 0)
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError, AttributeError) as fault:
        raise DataError(f"{where}: is no declaration of a space ({type(fault).__name__}: {fault})") from fault


def _declared(where: str, said: dict[str, Any], depth: int) -> spaces.Space[Any]:
    kind = said["type"]
    if depth > 8:
        raise DataError(f"{where}: nests spaces more than 8 deep")
    if kind == "Dict":
        inner = {str(key): _declared(where, one, depth + 1) for key, one in said["subspaces"].items()}
        return spaces.Dict(inner)
    if kind == "Tuple":
        return spaces.Tuple([_declared(where, one, depth + 1) for one in said["subspaces"]])
    if kind == "Text":
        return spaces.Text(1)
    if kind == "Discrete":
        return spaces.Discrete(int(said["n"]), start=int(said["start"]))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(said["nvec"], dtype=np.dtype(said["dtype"]).type, start=said.get("start"))
    if kind == "MultiBinary":
        size = said["n"]
        if np.prod(size, dtype=float) > MOST_NUMBERS:
            raise DataError(f"{where}: MultiBinary of {size} is too large")
        return spaces.MultiBinary(size)
    if kind != "Box":
        raise DataError(f"{where}: {kind!r:.40} spaces are not supported")
    # their length is bounded by that of the text, which no shape is
    low, high = (np.array(said[name], said["dtype"]) for name in ("low", "high"))
    if list(low.shape) != list(said["shape"]) or high.shape != low.shape:
        raise DataError(f"{where}: bounds of shape {low.shape} for a Box of shape {said['shape']!r:.60}")
    return spaces.Box(low, high, dtype=low.dtype.type)
