"""`Replay`: what N environments said, as it arrives, and windows of it to learn from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foreworld.core.errors import ConfigError, DataError, NonFinite
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.archive import Archive, Place
from foreworld.data.episode import Episode
from foreworld.data.page import CHUNK, Arrived, Page
from foreworld.data.sampling import draw_starts, generator
from foreworld.data.schema import ACTION, OBS, Schema, Source
from foreworld.data.stream import Part, Stream
from foreworld.data.windows import Batch, Windows

LARGEST_HALF = 65504.0
"""Largest float16: beyond it a carry is cut off."""


class _Finished(NamedTuple):
    """A finished episode: its stream, its first row there, how many rows, and whether it ended in a terminal state."""

    stream: int
    first: int
    rows: int
    is_terminal: bool


class _Gathered(NamedTuple):
    """A finished episode that is not on disk yet, and its columns, each [rows, ...]."""

    place: _Finished
    columns: dict[str, np.ndarray]


class Replay:
    """Rows of N environments as they arrive, and windows of them to learn from.

    Every environment is a stream: its episodes in order of arrival. A window is T+1 consecutive rows of one
    stream and may cross episodes; its first row only lends its carry (the state of the filter that acted, or of
    the last update that replayed it), the other T are the segment. All starts of all streams are equally likely,
    but every T new rows of a stream are replayed first, once. An episode of a single row says nothing and is dropped;
    the first row of an episode therefore counts when its second has arrived.

    With `path`, finished episodes are appended to a native store, which `fw.load` reads at any moment. What is
    sealed there is read from there; open episodes and carries are in memory.

    Calls may come from several threads.

    Args:
        path: folder of the store, new unless `state` is given; None keeps everything in memory.
        spec: what the model is told; an action has bounds or a fitted range.
        num_envs: N.
        length: T.
        capacity: rows that are kept; beyond them the oldest whole episodes are evicted, never an open one.
        max_bytes: the same in bytes of rows and carries; None for no such limit.
        truth: spaces of the simulator state by name; stored, never sampled.
        source: where the rows come from, for the store.
        carry: C, width of the filter's flat state; 0 for none.
        seed: which sequence of batches.
        state: what `save` returned: everything is again as it was then, and what was stored since is removed.

    Raises:
        ConfigError: a size below one, or a capacity below one window.
        SpecError: an unbounded action.
        OutputExists: `path` holds episodes and `state` was not given.
        CheckpointError: `state` is of another replay, or the store lacks what it counts.

    Example:
        >>> from foreworld.data import Replay
        >>> from foreworld.envs import make
        >>> from foreworld.rollout.collect import RandomPolicy
        >>> env = make("CartPole-v1", num_envs=2)
        >>> replay = Replay(None, env.spec, num_envs=2, length=8, capacity=1000)
        >>> policy, rows = RandomPolicy(env.action), env.reset(seed=0)
        >>> for _ in range(20):
        ...     replay.add(rows)
        ...     rows = env.step(policy(rows))
        >>> replay.sample(batch=4, step=0).segment.reward.shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        path: str | Path | None,
        spec: Spec,
        *,
        num_envs: int,
        length: int,
        capacity: int,
        max_bytes: int | None = None,
        truth: Mapping[str, Space] | None = None,
        source: Source | None = None,
        carry: int = 0,
        seed: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin with nothing, or where `state` left off."""
        kept = truth if path is not None and truth else {}
        schema = Schema(spec=spec, truth=dict(kept))
        self.bytes_per_row = schema.bytes_per_row + 2 * carry
        limit = capacity if max_bytes is None else min(capacity, max_bytes // self.bytes_per_row)
        if min(num_envs, length) < 1 or carry < 0 or limit <= length:
            raise ConfigError(
                f"a replay of {num_envs} environments with room for {limit} rows holds no window of {length} + 1; "
                "raise capacity or max_bytes"
            )
        if spec.action is not None:
            spec.action.to_model(torch.zeros(spec.action.shape, dtype=getattr(torch, spec.action.dtype)))
        self.length, self.carry, self.seed = length, carry, seed
        self._limit = limit
        columns = {n: c for n, c in schema.columns.items() if not n.startswith("is_")}
        self._page = Page(columns, num_envs, carry)
        self._streams = [Stream() for _ in range(num_envs)]
        self._windows = Windows(spec, columns, length, carry)
        self._lock = RLock()
        self._head, self._stop = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._next_online = np.ones(num_envs, np.int64)
        self._page_first, self._born = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._open, self._held = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        self._queue: deque[tuple[int, int]] = deque()
        self._finished: deque[_Finished] = deque()
        self._unshelved: deque[_Gathered] = deque()
        self._gathered: deque[_Gathered] = deque()
        self._rows = 0
        self.added = 0
        self._archive = None if path is None else Archive(Path(path), spec, kept, source, None)

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return self._rows

    @property
    def episodes(self) -> int:
        """Episodes that are kept, open ones included."""
        return len(self._finished) + int(np.count_nonzero(self._open & ~self._held))

    @property
    def steps(self) -> int:
        """Actions that are kept: rows that are not the first of their episode."""
        return self._rows - self.episodes

    @property
    def bytes(self) -> int:
        """Bytes of all rows and carries that are kept, in memory or on disk."""
        return self._rows * self.bytes_per_row

    def ready(self) -> bool:
        """Tell whether a window can be cut."""
        return bool((self._stop - self._head > self.length).any())

    def add(self, rows: Arrived, carry: np.ndarray | None = None) -> None:
        """Add the row of every environment that arrived.

        Args:
            rows: of N environments.
            carry: [N, C], state of the acting filter after each row; None for zeros.

        Raises:
            DataError: a row that belongs to no episode, or an episode that does not fit the spec.
            NonFinite: a carry is NaN.
            WriteFailed: the disk refused a shard; the rows are kept and the next episode tries again.
        """
        half = None if carry is None or not self.carry else _half(torch.from_numpy(carry))
        with self._lock:
            begins = rows.is_first & rows.arrived
            orphans = rows.arrived & ~rows.is_first & ~self._open
            if orphans.any():
                raise DataError(f"environment {int(orphans.argmax())}: its row is not the first and follows an end")
            for i in np.flatnonzero(begins).tolist():
                self._end(i, is_terminal=False)  # what should have followed never came
                self._born[i] = self._page_first[i]
                self._open[i] = True
            which = self._page.write(rows, half)
            self._count(which, begins)
            for i in np.flatnonzero(rows.is_last & rows.arrived).tolist():
                self._end(i, is_terminal=bool(rows.is_terminal[i]))
            for i in np.flatnonzero(self._page.filled == CHUNK).tolist():
                self._settle(i)
            for i in np.flatnonzero(self._stop - self._next_online >= self.length).tolist():
                while self._stop[i] - self._next_online[i] >= self.length:
                    self._queue.append((i, int(self._next_online[i])))
                    self._next_online[i] += self.length
            while self._rows > self._limit and self._finished:
                self._evict()
            self._shelve()

    def sample(self, batch: int, step: int, out: Batch | None = None) -> Batch:
        """Cut windows: what is new and was never replayed first, then any, all equally likely.

        The same calls in the same order give the same batches; what is drawn depends on `seed` and `step` alone.

        Args:
            batch: B, number of windows.
            step: which batch it is.
            out: a batch of the same size that is no longer needed: its observations are overwritten and given back.

        Raises:
            DataError: no window can be cut yet.
        """
        with self._lock:
            starts: list[tuple[int, int]] = []
            while self._queue and len(starts) < batch:
                stream, first = self._queue.popleft()
                if first > self._head[stream]:
                    starts.append((stream, first))
            if len(starts) < batch:
                starts += self._draw(batch - len(starts), step)
            return self._windows.cut(self._streams, starts, out)

    def write_back(self, batch: Batch, carry: Tensor) -> None:
        """Replace the carries of the rows of a batch, for the windows that begin after them.

        Args:
            batch: what `sample` returned; rows that were evicted since are skipped.
            carry: [B, T, C], new states of the model after each row of the segment.

        Raises:
            DataError: another shape.
            NonFinite: a carry is NaN; nothing is replaced.
        """
        shape = (len(batch.refs), self.length, self.carry)
        if tuple(carry.shape) != shape:
            raise DataError(f"carries of shape {tuple(carry.shape)} do not fit a batch of {shape}")
        half = _half(carry.detach())
        with self._lock:
            for new, (stream, start) in zip(half, batch.refs.tolist(), strict=True):
                first = max(start, int(self._head[stream]))
                for part, within, count in self._streams[stream].pieces(first, start + self.length):
                    at = part.first + within - start
                    part.carry[within : within + count] = new[at : at + count]

    def seal(self) -> None:
        """Write all finished episodes to disk."""
        with self._lock:
            if self._archive is not None:
                self._moved(self._archive.seal())

    def close(self) -> None:
        """Write all finished episodes to disk and release the folder; open episodes are not stored."""
        with self._lock:
            if self._archive is not None:
                self._archive.close()

    def _count(self, which: np.ndarray, begins: np.ndarray) -> None:
        """Count what the page took; the first row of an episode is held back until its second has come."""
        page = self._page
        for i in which[page.filled[which] == 1].tolist():
            first = int(self._page_first[i])
            begun = first == self._born[i]
            views, carry = page.views[i], page.carry[i]
            self._streams[i].put(Part(first=first, rows=CHUNK, columns=views, carry=carry, begins=begun))
        goes_on = which[~begins[which]]
        fresh = goes_on[self._held[goes_on]]
        self._stop[goes_on] += 1
        self._stop[fresh] += 1
        self._held[fresh] = False
        self._held[begins] = True
        self._rows += len(goes_on) + len(fresh)
        self.added += len(goes_on)

    def _end(self, i: int, is_terminal: bool) -> None:
        """Close the open episode of stream i, if there is one; a single row is forgotten."""
        if not self._open[i]:
            return
        self._open[i], self._page.filled[i] = False, 0
        if self._held[i]:
            self._held[i] = False
            return
        first, stop = int(self._born[i]), int(self._stop[i])
        columns, carry = self._streams[i].join(first, stop)
        part = Part(
            first=first,
            rows=stop - first,
            columns=columns,
            carry=carry,
            begins=True,
            ends=True,
            is_terminal=is_terminal,
        )
        self._streams[i].put(part)
        self._page_first[i] = stop
        self._finished.append(_Finished(i, first, stop - first, is_terminal))
        if self._archive is not None:
            self._unshelved.append(_Gathered(self._finished[-1], columns))

    def _settle(self, i: int) -> None:
        """Move what the page holds of stream i to memory of its own."""
        first = int(self._page_first[i])
        columns, carry = self._streams[i].join(first, first + CHUNK)
        begun = first == self._born[i]
        self._streams[i].put(Part(first=first, rows=CHUNK, columns=columns, carry=carry, begins=begun))
        self._page_first[i], self._page.filled[i] = first + CHUNK, 0

    def _evict(self) -> None:
        """Forget the oldest finished episode."""
        gone = self._finished.popleft()
        self._streams[gone.stream].evict()
        self._head[gone.stream] += gone.rows
        self._rows -= gone.rows

    def _shelve(self) -> None:
        """Give finished episodes to the archive, which writes them when enough have gathered."""
        if self._archive is None:
            return
        while self._unshelved:
            self._archive.add(_episode(self._unshelved[0]))
            self._gathered.append(self._unshelved.popleft())
            if self._archive.full:
                self._moved(self._archive.seal())

    def _moved(self, places: list[Place]) -> None:
        """Read from disk what was just sealed there."""
        for columns, base in places:
            place = self._gathered.popleft().place
            if place.first >= self._head[place.stream]:
                self._streams[place.stream].move(place.first, columns, base)

    def _draw(self, batch: int, step: int) -> list[tuple[int, int]]:
        """Draw windows: stream and first row of the segment of each."""
        starts = np.cumsum(np.maximum(self._stop - self._head - self.length, 0))
        if starts[-1] == 0:
            raise DataError(f"no {self.length + 1} rows of one environment have arrived yet; collect more first")
        streams, within = draw_starts(starts, batch, generator(self.seed, step))
        return list(zip(streams.tolist(), (self._head[streams] + within + 1).tolist(), strict=True))


def _episode(gathered: _Gathered) -> Episode:
    columns = gathered.columns
    return Episode(
        obs={name.removeprefix(OBS): array for name, array in columns.items() if name.startswith(OBS)},
        prev_action=columns.get(ACTION),
        reward=columns["reward"],
        is_terminal=gathered.place.is_terminal,
        truth={name.removeprefix(TRUTH): array for name, array in columns.items() if name.startswith(TRUTH)},
    )


def _half(carry: Tensor) -> np.ndarray:
    """Round carries to float16, on their own device; what is too large is cut off."""
    cut = carry.clamp(-LARGEST_HALF, LARGEST_HALF)
    if bool(cut.sum().isnan()):
        raise NonFinite("a carry is NaN; the model's state has diverged, go back to the last checkpoint")
    return cut.half().cpu().numpy()
