"""`Stream`: the rows of one environment in order of arrival, wherever in memory or on disk they lie."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Part:
    """Rows of one episode that lie together: row `first + k` of the stream is row `base + k` of every column.

    Attributes:
        first: number of its first row in the stream.
        rows: how many; of a part that still fills up, as many as it can take.
        columns: name to [.., ...]: what the environment said.
        base: where in the columns it begins.
        carry: [rows, C] float16, the state of a filter after each row.
        begins: whether its first row is the first of the episode.
        ends: whether its last row is the last of the episode.
        is_terminal: whether that last row has no future.
    """

    first: int
    rows: int
    columns: Mapping[str, np.ndarray]
    base: int = 0
    carry: np.ndarray
    begins: bool
    ends: bool = False
    is_terminal: bool = False


class Stream:
    """Consecutive rows of one environment, as parts in order; rows keep their number for ever."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parts: list[Part] = []
        self._firsts: list[int] = []

    def put(self, part: Part) -> None:
        """Append a part; it takes the place of all that lay from its first row on."""
        at = bisect_left(self._firsts, part.first)
        del self._parts[at:], self._firsts[at:]
        self._parts.append(part)
        self._firsts.append(part.first)

    def move(self, first: int, columns: Mapping[str, np.ndarray], base: int) -> None:
        """Tell where the columns of the part that begins with row `first` lie from now on."""
        at = bisect_left(self._firsts, first)
        self._parts[at] = replace(self._parts[at], columns=columns, base=base)

    def evict(self) -> None:
        """Forget the oldest part."""
        del self._parts[0], self._firsts[0]

    def part(self, row: int) -> Part:
        """Return the part that holds a row."""
        return self._parts[bisect_right(self._firsts, row) - 1]

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
        """Cut rows start..stop-1 into runs that lie together.

        Returns:
            The part, the first row within it, and how many.
        """
        at = bisect_right(self._firsts, start) - 1
        while start < stop:
            part = self._parts[at]
            within = start - part.first
            count = min(stop - start, part.rows - within)
            yield part, within, count
            start, at = start + count, at + 1

    def join(self, start: int, stop: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Copy rows start..stop-1, at least one, into fresh columns [rows, ...] and carry [rows, C]."""
        runs = [(part, slice(at, at + count)) for part, at, count in self.pieces(start, stop)]
        names = runs[0][0].columns
        columns = {
            name: np.concatenate([p.columns[name][p.base + rows.start : p.base + rows.stop] for p, rows in runs])
            for name in names
        }
        return columns, np.concatenate([part.carry[rows] for part, rows in runs])
