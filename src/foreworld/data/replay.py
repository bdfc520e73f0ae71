"""`Replay`: what N environments said, as it arrives, and windows of it to learn from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from foreworld.core.errors import ConfigError, DataError, NonFinite, WriteFailed
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.archive import Archive, Place
from foreworld.data.episode import Episode
from foreworld.data.page import Arrived
from foreworld.data.sampling import draw_starts, generator
from foreworld.data.saved import Saved, stacked
from foreworld.data.schema import ACTION, OBS, Schema, Source
from foreworld.data.tracks import Finished, Tracks
from foreworld.data.windows import Batch, Windows

LARGEST_HALF = 65504.0
"""Largest float16: beyond it a carry is cut off."""
SAVES = 2
"""Stored states that stay valid while the replay goes on: those of the two checkpoints that a run keeps."""
LARGEST_CARRIES = 2 * 2**30
"""Bytes of carries that a checkpoint may take."""


class _Gathered(NamedTuple):
    """A finished episode that is not on disk yet, and its columns, each [rows, ...]."""

    place: Finished
    columns: Mapping[str, np.ndarray]


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
        keep_all: keep on disk what is evicted. Otherwise a shard goes when all its episodes are evicted, and
            none of the last two states that were stored (`confirm`), nor one saved since, counts on them.
        state: what `save` returned: everything is again as it was then, and what was stored since is removed.

    Attributes:
        length: T.
        carry: C.
        seed: which sequence of batches.
        added: actions that were ever added, evicted ones included.
        lost_carries: whether it goes on from a state whose carries were too large to be saved, so that they are zero.
        bytes_per_row: bytes of one row and its carry.

    Raises:
        ConfigError: a size below one, or a capacity below one window.
        SpecError: an unbounded action.
        OutputExists: `path` holds episodes and `state` was not given.
        CheckpointError: `state` is of another replay, or the store lacks what it counts.

    Example:
        >>> from foreworld.data import Replay
        >>> from foreworld.envs import make
        >>> from foreworld.rollout.policies import RandomPolicy
        >>> env = make("CartPole-v1", num_envs=2)
        >>> replay = Replay(None, env.spec, num_envs=2, length=8, capacity=1000)
        >>> policy, rows = RandomPolicy(env.action), env.reset(seed=0)
        >>> for _ in range(20):
        ...     replay.add(rows)
        ...     rows = env.step(policy(rows))
        >>> env.close()
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
        keep_all: bool = False,
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
        self.added, self.lost_carries = 0, False
        self._form = (num_envs, carry)
        columns = {n: c for n, c in schema.columns.items() if not n.startswith("is_")}
        self._limit, self._rows, self._evicted, self._sealed = limit, 0, 0, 0
        self._columns = columns
        self._tracks = Tracks(columns, num_envs, carry)
        self._windows = Windows(spec, columns, length, carry)
        self._finished: deque[Finished] = deque()
        self._gathered: deque[_Gathered] = deque()
        self._unshelved: deque[_Gathered] = deque()
        self._online: deque[tuple[int, int]] = deque()
        self._next_online = np.ones(num_envs, np.int64)
        self._stored: deque[int] = deque(maxlen=SAVES)  # how many were evicted when each state was saved
        self._saved: list[int] = []  # the same of states of which nobody has said that they are stored
        self._keep_all = keep_all
        self._lock = RLock()
        found = None if state is None else Saved.read(state, (num_envs, length, carry), columns)
        self._archive: Archive | None = None
        if path is not None:
            self._archive = Archive(Path(path), spec, kept, source, found)
        if found is not None:
            try:
                self._resume(found)
            except BaseException:
                self.close()
                raise

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return self._rows

    @property
    def episodes(self) -> int:
        """Episodes that are kept, open ones included."""
        return len(self._finished) + self._tracks.open_episodes

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
        return bool((self._tracks.stop - self._tracks.head > self.length).any())

    def add(self, rows: Arrived, carry: np.ndarray | None = None) -> None:
        """Add the row of every environment that arrived.

        Args:
            rows: of N environments.
            carry: [N, C], state of the acting filter after each row; None for zeros.

        Raises:
            DataError: rows or carries of another form, a row that belongs to no episode, or an
                episode that does not fit the spec.
            NonFinite: a carry is NaN.
            WriteFailed: the disk refused a shard; the rows are kept and the next episode tries again.
        """
        half = None
        if carry is not None and self.carry:
            if carry.shape != self._form:
                raise DataError(f"carries of shape {carry.shape} arrived, {self._form} are stored")
            half = _half(torch.from_numpy(carry if carry.flags.writeable else carry.copy()))
        with self._lock:
            for episode in self._tracks.add(rows, half):
                self._finish(episode)
            self.added += int(np.count_nonzero(rows.arrived & ~rows.is_first))
            self._rows = int((self._tracks.stop - self._tracks.head).sum())
            self._queue()
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
            DataError: no window can be cut yet, or none is asked for.
        """
        if batch < 1:
            raise DataError(f"a batch needs at least one window, found {batch}")
        with self._lock:
            starts: list[tuple[int, int]] = []
            while self._online and len(starts) < batch:
                stream, first = self._online.popleft()
                if first > self._tracks.head[stream]:
                    starts.append((stream, first))
            if len(starts) < batch:
                starts += self._draw(batch - len(starts), step)
            return self._windows.cut(self._tracks.streams, starts, out)

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
                first = max(start, int(self._tracks.head[stream]))
                for part, within, count in self._tracks.streams[stream].pieces(first, start + self.length):
                    at = part.first + within - start
                    part.carry[within : within + count] = new[at : at + count]

    def save(self) -> dict[str, Tensor]:
        """Return what is not on disk, as tensors for a checkpoint.

        They are what `state` takes: a replay made with them, and with the same other arguments, goes on to the bit
        as this one does. Carries of more than 2 GiB are left out; the first windows after a
        return then begin with a carry of zero.

        Say by `confirm` when they are stored; until then nothing goes from disk that an earlier state needs.
        """
        with self._lock:
            sealed = self._evicted if self._archive is None else self._sealed
            # what was evicted but is not sealed yet will be sealed again by who goes on from here
            self._saved.append(min(self._evicted, sealed))
            unsealed = self._unsealed()
            lost = [one.place for one in (*self._gathered, *self._unshelved)][: max(self._evicted - sealed, 0)]
            opened = self._tracks.open_rows()
            carries = [self._tracks.streams[one.stream].part(one.first).carry for one in self._finished]
            carries += [carry for _, carry in opened]
            small = sum(carry.nbytes for carry in carries) <= LARGEST_CARRIES
            none = np.empty((0, self.carry), np.float16)
            return Saved(
                form=(len(self._tracks.streams), self.length, self.carry),
                added=self.added,
                evicted=self._evicted,
                saves=(*self._stored, self._saved[-1])[-SAVES:],
                sealed=sealed,
                shards=0 if self._archive is None else self._archive.shards,
                streams=self._tracks.numbers(),
                next_online=self._next_online.copy(),
                queue=np.array(self._online, np.int64).reshape(-1, 2),
                episodes=np.array([*lost, *self._finished], np.int64).reshape(-1, 4),
                gathered=stacked(unsealed, self._columns),
                open=stacked([columns for columns, _ in opened], self._columns),
                carry=np.concatenate([none, *carries]) if small else None,
            ).tensors()

    def confirm(self) -> None:
        """Note that what `save` returned last is stored: of earlier states, only the one stored before it must do."""
        with self._lock:
            if self._saved:
                self._stored.append(self._saved[-1])
                self._saved.clear()

    def seal(self) -> None:
        """Write all finished episodes to disk."""
        with self._lock:
            if self._archive is not None:
                self._moved(self._archive.seal())

    def close(self) -> None:
        """Write all finished episodes to disk and release the folder; open episodes are not stored."""
        with self._lock:
            if self._archive is None:
                return
            try:
                self._shelve()
            finally:
                self._archive.close()

    def __enter__(self) -> Self:
        """Return the replay."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; where the block failed, that is said, and not that the disk refuses too."""
        with nullcontext() if fault is None else suppress(WriteFailed):
            self.close()

    def _finish(self, episode: Finished) -> None:
        self._finished.append(episode)
        if self._archive is not None:
            part = self._tracks.streams[episode.stream].part(episode.first)
            self._unshelved.append(_Gathered(episode, part.columns))

    def _queue(self) -> None:
        """Queue the windows that are complete: their rows are to be replayed first, once."""
        for i in np.flatnonzero(self._tracks.stop - self._next_online >= self.length).tolist():
            while self._tracks.stop[i] - self._next_online[i] >= self.length:
                self._online.append((i, int(self._next_online[i])))
                self._next_online[i] += self.length

    def _evict(self) -> None:
        """Forget the oldest finished episodes while there are too many rows."""
        before = self._evicted
        while self._rows > self._limit and self._finished:
            gone = self._finished.popleft()
            self._tracks.evict(gone)
            self._evicted += 1
            self._rows -= gone.rows
        if self._evicted > before:
            self._drop()

    def _shelve(self) -> None:
        """Give finished episodes to the archive, which writes them when enough have gathered."""
        if self._archive is None:
            return
        while self._unshelved:
            self._archive.add(_episode(self._unshelved[0]))
            self._gathered.append(self._unshelved.popleft())
            if self._archive.full(self._rows):
                self._moved(self._archive.seal())

    def _drop(self) -> None:
        """Remove from disk what was evicted, unless it is needed to go on from one of the last checkpoints."""
        if self._archive is not None and not self._keep_all:
            self._archive.drop(min([self._evicted, *self._stored, *self._saved]))

    def _moved(self, places: list[Place]) -> None:
        """Read from disk what was just sealed there."""
        for columns, base in places:
            place = self._gathered.popleft().place
            self._sealed += 1
            if place.first >= self._tracks.head[place.stream]:
                self._tracks.streams[place.stream].move(place.first, columns, base)

    def _draw(self, batch: int, step: int) -> list[tuple[int, int]]:
        """Draw windows: stream and first row of the segment of each."""
        head = self._tracks.head
        starts = np.cumsum(np.maximum(self._tracks.stop - head - self.length, 0))
        if starts[-1] == 0:
            raise DataError(f"no {self.length + 1} rows of one environment have arrived yet; collect more first")
        streams, within = draw_starts(starts, batch, generator(self.seed, step))
        return list(zip(streams.tolist(), (head[streams] + within + 1).tolist(), strict=True))

    def _unsealed(self) -> list[Mapping[str, np.ndarray]]:
        """Return the columns of the finished episodes that are not on disk."""
        if self._archive is not None:
            return [one.columns for one in (*self._gathered, *self._unshelved)]
        return [self._tracks.streams[i].join(first, first + rows)[0] for i, first, rows, _ in self._finished]

    def _resume(self, found: Saved) -> None:
        """Take up a saved state."""
        self.added, self._evicted, self._sealed = found.added, found.evicted, found.sealed
        self.lost_carries = self.carry > 0 and found.carry is None
        self._next_online = found.next_online.copy()
        self._online.extend((stream, first) for stream, first in found.queue.tolist())
        opened = self._tracks.resume(found.streams)
        self._rows = int((self._tracks.stop - self._tracks.head).sum())
        self._stored.extend(found.saves)
        places = {} if self._archive is None else dict(enumerate(self._archive.places, self._archive.dropped))
        rows, carries = _Reel(found.gathered), _Reel({"": found.carries()})
        for number, entry in enumerate(found.episodes.tolist(), found.oldest):
            stream, first, count, is_terminal = entry
            episode = Finished(stream, first, count, bool(is_terminal))
            columns, base = places[number] if number < found.sealed else (rows.take(episode.rows), 0)
            if number >= found.sealed and self._archive is not None:
                self._unshelved.append(_Gathered(episode, columns))
            if number >= found.evicted:
                self._finished.append(episode)
                self._tracks.put(episode, columns, base, carries.take(episode.rows)[""].copy())
        rows = _Reel(found.open)
        self._tracks.reopen([(rows.take(n), carries.take(n)[""].copy()) for n in opened])
        self._shelve()


class _Reel:
    """Rows that are taken off one after another."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns, self._at = columns, 0

    def take(self, rows: int) -> dict[str, np.ndarray]:
        """Return the next rows, without a copy."""
        start, self._at = self._at, self._at + rows
        return {name: array[start : self._at] for name, array in self._columns.items()}


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
