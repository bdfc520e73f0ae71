"""`Tracks`: the rows of N environments as they arrive, one stream each, cut into episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from foreworld.core.errors import DataError
from foreworld.data.page import CHUNK, Arrived, Page
from foreworld.data.schema import Column
from foreworld.data.stream import Part, Stream


class Finished(NamedTuple):
    """A finished episode: its stream, its first row there, how many rows, and whether it ended in a terminal state."""

    stream: int
    first: int
    rows: int
    is_terminal: bool


class Tracks:
    """Streams of N environments that grow row by row.

    An episode of a single row says nothing and is forgotten; the first row of an episode therefore counts
    when its second has arrived.

    Args:
        columns: what a row holds.
        envs: N.
        carry: C.

    Attributes:
        streams: where the rows lie.
        head: [N] number of the oldest row that is kept.
        stop: [N] number after that of the newest row that counts.
        open: [N] whether an episode is open.
    """

    def __init__(self, columns: Mapping[str, Column], envs: int, carry: int) -> None:
        """Begin with nothing."""
        self.streams = [Stream() for _ in range(envs)]
        self.head, self.stop = np.zeros(envs, np.int64), np.zeros(envs, np.int64)
        self.open = np.zeros(envs, bool)
        self._held = np.zeros(envs, bool)  # streams whose newest row is a first one that does not count yet
        self._born = np.zeros(envs, np.int64)  # first row of the open episode
        self._checked = False
        self._page = Page(columns, envs, carry)
        self._page_first = np.zeros(envs, np.int64)  # number of the first row in the page

    @property
    def open_episodes(self) -> int:
        """Open episodes of which a row counts."""
        return int(np.count_nonzero(self.open & ~self._held))

    def add(self, rows: Arrived, carry: np.ndarray | None) -> list[Finished]:
        """Add the rows that arrived, and return the episodes that are finished by them.

        Raises:
            DataError: a row that belongs to no episode, or rows of another form; nothing was added.
        """
        if not self._checked:
            self._page.check(rows)
            self._checked = True
        begins = rows.is_first & rows.arrived
        orphans = rows.arrived & ~rows.is_first & ~self.open
        if orphans.any():
            raise DataError(f"environment {int(orphans.argmax())}: a row came that no row with is_first went before")
        ended = [self._end(i, is_terminal=False) for i in begins.nonzero()[0].tolist()]  # what followed never came
        self._born[begins], self.open[begins] = self._page_first[begins], True
        which = self._page.write(rows, carry)
        self._count(which, begins)
        lasts = (rows.is_last & rows.arrived).nonzero()[0].tolist()
        ended += [self._end(i, is_terminal=bool(rows.is_terminal[i])) for i in lasts]
        for i in (self._page.filled == CHUNK).nonzero()[0].tolist():
            self._settle(i)
        return [one for one in ended if one is not None]

    def evict(self, gone: Finished) -> None:
        """Forget the oldest episode of a stream."""
        self.streams[gone.stream].evict()
        self.head[gone.stream] += gone.rows

    def put(self, episode: Finished, columns: Mapping[str, np.ndarray], base: int, carry: np.ndarray) -> None:
        """Put a finished episode at the end of what its stream holds."""
        part = Part(
            first=episode.first,
            rows=episode.rows,
            columns=columns,
            base=base,
            carry=carry,
            begins=True,
            ends=True,
            is_terminal=episode.is_terminal,
        )
        self.streams[episode.stream].put(part)

    def numbers(self) -> np.ndarray:
        """Return the counters of each stream, [N, 5] int64: head, stop, open, held, first row of the open episode."""
        return np.stack([self.head, self.stop, self.open, self._held, self._born], 1)

    def open_rows(self) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Copy columns and carries of the open episodes, held rows included, in order of the streams."""
        stops = self.stop + self._held
        return [self.streams[i].join(int(self._born[i]), int(stops[i])) for i in np.flatnonzero(self.open).tolist()]

    def resume(self, numbers: np.ndarray) -> list[int]:
        """Set the counters of each stream, and return how many rows of each open episode `reopen` must be given."""
        self.head, self.stop, opened, held, self._born = numbers.T.copy()
        self.open, self._held = opened.astype(bool), held.astype(bool)
        self._page_first = np.where(self.open, self._born, self.stop)
        return (self.stop + self._held - self._born)[self.open].tolist()

    def reopen(self, rows: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> None:
        """Put back what `open_rows` returned."""
        for i, (columns, carry) in zip(np.flatnonzero(self.open).tolist(), rows, strict=True):
            born, settled = int(self._born[i]), len(carry) // CHUNK * CHUNK
            left = len(carry) - settled
            if settled:
                self.streams[i].put(Part(first=born, rows=settled, columns=columns, carry=carry, begins=True))
            self._page_first[i] = born + settled
            self._page.filled[i] = left
            for name, array in self._page.views[i].items():
                array[:left] = columns[name][settled:]
            self._page.carry[i, :left] = carry[settled:]
            if left:
                self._begin_page(i)

    def _count(self, which: np.ndarray, begins: np.ndarray) -> None:
        """Count what the page took; the first row of an episode is held back until its second has come."""
        for i in which[self._page.filled[which] == 1].tolist():
            self._begin_page(i)
        goes_on = which[~begins[which]]
        fresh = goes_on[self._held[goes_on]]
        self.stop[goes_on] += 1
        self.stop[fresh] += 1
        self._held[fresh] = False
        self._held[begins] = True

    def _begin_page(self, i: int) -> None:
        """Tell stream i that its rows go on in the page."""
        first = int(self._page_first[i])
        columns, carry = self._page.views[i], self._page.carry[i]
        self.streams[i].put(Part(first=first, rows=CHUNK, columns=columns, carry=carry, begins=first == self._born[i]))

    def _end(self, i: int, is_terminal: bool) -> Finished | None:
        """Close the open episode of stream i, if there is one; a single row is forgotten."""
        if not self.open[i]:
            return None
        self.open[i], self._page.filled[i] = False, 0
        if self._held[i]:
            self._held[i] = False
            return None
        first, stop = int(self._born[i]), int(self.stop[i])
        episode = Finished(i, first, stop - first, is_terminal)
        columns, carry = self.streams[i].join(first, stop)
        self.put(episode, columns, 0, carry)
        self._page_first[i] = stop
        return episode

    def _settle(self, i: int) -> None:
        """Move what the page holds of stream i to memory of its own."""
        first = int(self._page_first[i])
        columns, carry = self.streams[i].join(first, first + CHUNK)
        self.streams[i].put(Part(first=first, rows=CHUNK, columns=columns, carry=carry, begins=first == self._born[i]))
        self._page_first[i], self._page.filled[i] = first + CHUNK, 0
