"""`Restorable`: what can be put back exactly to an earlier moment, its random numbers included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from foreworld.core.errors import DataError

_WORD = 2**64


@runtime_checkable
class Restorable(Protocol):
    """An environment, or anything else that goes on, whose moments can be kept and put back.

    After `restore(save())` the same actions give the same observations, rewards and ends, bit by bit.
    """

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment as plain arrays by name; what happens later does not change them."""
        ...

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that this object, or another one made in the same way, has saved."""
        ...


def generator_words(rng: np.random.Generator) -> np.ndarray:
    """Return the state of a PCG64 generator, which `np.random.default_rng` and Gymnasium use.

    Args:
        rng: the generator; it is left as it is.

    Returns:
        uint64 [6]: state and increment, 128 bits each, and the half of a number that is left over.

    Raises:
        DataError: another kind of generator.
    """
    held = rng.bit_generator.state
    if held["bit_generator"] != "PCG64":
        raise DataError(f"a {held['bit_generator']} generator cannot be saved; use np.random.default_rng(seed)")
    long = [held["state"]["state"], held["state"]["inc"]]
    words = [part for number in long for part in divmod(number, _WORD)]
    return np.array([*words, held["has_uint32"], held["uinteger"]], np.uint64)


def generator_from(words: np.ndarray) -> np.random.Generator:
    """Return a generator that goes on where `generator_words` found one.

    Args:
        words: uint64 [6].

    Returns:
        A PCG64 generator.

    Raises:
        DataError: not six numbers of that kind.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> saved = generator_words(rng)
        >>> rng.random() == generator_from(saved).random()
        True
    """
    if words.shape != (6,) or words.dtype != np.uint64:
        raise DataError(f"a saved generator is uint64 [6], found {words.dtype} {list(words.shape)}")
    state_high, state_low, inc_high, inc_low, has_half, half = map(int, words)
    kind = np.random.PCG64()
    kind.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high * _WORD + state_low, "inc": inc_high * _WORD + inc_low},
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(kind)


def saved_fields(
    saved: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...] | None]
) -> dict[str, np.ndarray]:
    """Return the arrays of a saved moment, which must have these names and shapes.

    Args:
        saved: name to array of any shape, as `save` returned it.
        shapes: name to shape; None where any shape will do.

    Returns:
        Name to array, of the given shape.

    Raises:
        DataError: it was saved by something else; the name is given.
    """
    if set(saved) != set(shapes):
        raise DataError(f"a saved moment holds {sorted(saved)}, expected {sorted(shapes)}; restore what this one saved")
    found = {name: np.asarray(saved[name]) for name in shapes}
    for name, shape in shapes.items():
        if shape is not None and found[name].shape != shape:
            raise DataError(f"a saved moment's {name!r} has shape {found[name].shape}, expected {shape}")
    return found
