"""`Page`: the newest rows of N streams, where a row of all of them is written by one assignment a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from foreworld.core.errors import DataError
from foreworld.core.spaces import TRUTH
from foreworld.data.schema import ACTION, OBS, Column

CHUNK = 64
"""Rows of every stream that a page holds before they are moved to memory of their own."""


class Arrived(Protocol):
    """One row of each of N environments in the form in which they are stored, as `envs.vector.Rows` is."""

    @property
    def obs(self) -> Mapping[str, np.ndarray]:
        """Name to [N, ...]; images uint8 [N, C, H, W]."""
        ...

    @property
    def prev_action(self) -> np.ndarray:
        """[N, ...], what each environment took to get here; zero where `is_first`."""
        ...

    @property
    def reward(self) -> np.ndarray:
        """Float32 [N], earned by arriving; zero where `is_first`."""
        ...

    @property
    def is_first(self) -> np.ndarray:
        """[N] bool, the first row of an episode; it also ends the episode before it."""
        ...

    @property
    def is_terminal(self) -> np.ndarray:
        """[N] bool, no future exists."""
        ...

    @property
    def is_last(self) -> np.ndarray:
        """[N] bool, the last row of an episode."""
        ...

    @property
    def truth(self) -> Mapping[str, np.ndarray]:
        """Name to [N, ...], simulator state."""
        ...

    @property
    def arrived(self) -> np.ndarray:
        """[N] bool; where false, nothing new came and the rest means nothing."""
        ...


class Page:
    """Room for CHUNK rows of N streams; each fills its own part from the start, at its own pace.

    Args:
        columns: what a row holds.
        streams: N.
        carry: C, width of the filter's state.

    Attributes:
        filled: [N] how many rows of each stream lie here.
        views: for each stream its columns, [CHUNK, ...] each, without a copy.
        carry: [N, CHUNK, C] float16.
    """

    def __init__(self, columns: Mapping[str, Column], streams: int, carry: int) -> None:
        """Make room."""
        self.filled = np.zeros(streams, np.int64)
        self.carry = np.zeros((streams, CHUNK, carry), np.float16)
        self._columns = {name: np.zeros((streams, CHUNK, *c.shape), c.dtype) for name, c in columns.items()}
        self.views = [{name: array[i] for name, array in self._columns.items()} for i in range(streams)]
        self._all = np.arange(streams)

    def check(self, rows: Arrived) -> None:
        """Check that rows have every column in its stored shape, and of a type that fits it.

        Raises:
            DataError: names the column.
        """
        for name, array in self._columns.items():
            value, shape = _column(rows, name), (len(array), *array.shape[2:])
            if value is None:
                raise DataError(f"column {name!r}: missing from the rows that arrived")
            if value.shape != shape or not np.can_cast(value.dtype, array.dtype, "same_kind"):
                raise DataError(
                    f"column {name!r}: {value.dtype} of shape {value.shape} arrived, {array.dtype} of {shape} is stored"
                )

    def write(self, rows: Arrived, carry: np.ndarray | None) -> np.ndarray:
        """Write the rows that arrived behind the others of their streams.

        Returns:
            Numbers of the streams that were written.
        """
        count = int(np.count_nonzero(rows.arrived))
        which = self._all if count == len(self._all) else np.flatnonzero(rows.arrived)
        at = self.filled[which]
        for name, array in self._columns.items():
            value = _column(rows, name)
            assert value is not None
            array[which, at] = value if which is self._all else value[which]
        if self.carry.shape[2]:
            self.carry[which, at] = 0 if carry is None else carry[which]
        self.filled[which] += 1
        return which


def _column(rows: Arrived, name: str) -> np.ndarray | None:
    if name.startswith(OBS):
        return rows.obs.get(name.removeprefix(OBS))
    if name.startswith(TRUTH):
        return rows.truth.get(name.removeprefix(TRUTH))
    return rows.prev_action if name == ACTION else rows.reward
