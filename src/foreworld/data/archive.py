"""`Archive`: the finished episodes of a replay as a native store that other commands read while it grows."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foreworld.core.errors import CheckpointError, DataError, OutputExists, WriteFailed
from foreworld.core.spaces import Space, Spec
from foreworld.data.dropped import Dropped
from foreworld.data.episode import Episode
from foreworld.data.saved import Saved
from foreworld.data.schema import Schema, Source
from foreworld.data.shard import Shard, allow_files, open_shard, open_shards, shard_paths, verify_shards
from foreworld.data.store import Writer, largest_shard, rows_to_seal

Place = tuple[Mapping[str, np.ndarray], int]
"""Columns of a shard, and the row there at which an episode begins."""


class Archive:
    """Append finished episodes to a store, say where the sealed ones lie, and drop the oldest.

    Args:
        path: folder of the store.
        spec: what a model is told.
        truth: spaces of the simulator state by name.
        source: where the rows come from.
        state: go on from an earlier state of the replay; shards that were sealed since are removed.

    Attributes:
        dropped: episodes that are no longer there.

    Raises:
        OutputExists: the store holds episodes already, and `state` was not given.
        CheckpointError: shards that were there then are missing, or hold other episodes; nothing was removed.
    """

    def __init__(
        self,
        path: Path,
        spec: Spec,
        truth: Mapping[str, Space],
        source: Source | None,
        state: Saved | None = None,
    ) -> None:
        """Open the store, new or as it was."""
        self._path, self._most = path, largest_shard(Schema(spec=spec, truth=truth))
        # it never seals by itself: where that fails, `add` must still have added
        self._writer = Writer(path, spec, source=source, truth=truth, shard_rows=sys.maxsize)
        self._shards: deque[Shard] = deque()
        try:
            if state is None and self._writer.shards:
                raise OutputExists(f"{path}: holds episodes already; resume the run they are of, or choose another")
            dropped = Dropped.read(path)
            self.dropped, self._first = dropped.episodes, dropped.shards
            if state is not None:
                self._go_back(state)
        except BaseException:
            self._writer.close()
            raise

    @property
    def shards(self) -> int:
        """Number of the next shard: that after the newest one whose episodes were returned by `seal`."""
        return self._first + len(self._shards)

    @property
    def places(self) -> list[Place]:
        """Where the sealed episodes lie, those that are left, in the order in which they were added."""
        return [place for shard in self._shards for place in _places(shard)]

    def full(self, rows: int) -> bool:
        """Tell whether so much has gathered that it should be sealed, `rows` being kept in all."""
        return self._writer.gathered >= rows_to_seal(rows, self._most)

    def add(self, episode: Episode) -> None:
        """Check an episode and gather it.

        Raises:
            DataError: it does not fit the spec; it was not added.
        """
        self._writer.add(episode)

    def seal(self) -> list[Place]:
        """Write what has gathered, and return where on disk it lies.

        Raises:
            WriteFailed: the disk refused; what was not written is still gathered, and what was written but cannot be
                read is returned by a later call.
        """
        self._writer.seal()
        try:
            return self._mapped()
        except DataError as fault:
            raise WriteFailed(str(fault)) from fault

    def drop(self, episodes: int) -> None:
        """Drop the shards that hold nothing but the oldest `episodes` that were ever added; the newest shard stays.

        Raises:
            WriteFailed: the disk refused; what is left is a whole store.
        """
        gone, count = 0, 0
        for shard in list(self._shards)[:-1]:
            if self.dropped + count + len(shard.lengths) > episodes:
                break
            gone, count = gone + 1, count + len(shard.lengths)
        if gone:
            self._writer.drop(self._first + gone, self.dropped + count)
            self._first, self.dropped = self._first + gone, self.dropped + count
            for _ in range(gone):
                self._shards.popleft()

    def close(self) -> None:
        """Seal the rest and release the folder."""
        self._writer.close()

    def _go_back(self, state: Saved) -> None:
        """Return to a state; only when the store is found to hold what it counts on, what came later is removed."""
        if state.shards > self._writer.shards or state.oldest < self.dropped:
            raise CheckpointError(
                f"{self._path}: lacks shards that the checkpoint counts on; resume from a newer one, or restore a copy"
            )
        kept = [path for path in shard_paths(self._path) if int(path.name) < state.shards]
        verify_shards(self._path, kept)
        self._shards += open_shards(kept, self._writer.schema)
        lengths = [rows for shard in self._shards for rows in shard.lengths.tolist()]
        stated = dict(enumerate(state.episodes[:, 2].tolist(), state.oldest))
        same = all(stated.get(number, rows) == rows for number, rows in enumerate(lengths, self.dropped))
        if self.dropped + len(lengths) != state.sealed or not same:
            raise CheckpointError(f"{self._path}: holds other episodes than the checkpoint counts; restore a copy")
        self._writer.rewind(state.shards)

    def _mapped(self) -> list[Place]:
        """Open the shards that were sealed since the last call, and return where their episodes lie."""
        if self.shards == self._writer.shards:
            return []
        fresh = [path for path in shard_paths(self._path) if int(path.name) >= self.shards]
        allow_files((len(self._shards) + len(fresh)) * len(self._writer.schema.columns))
        opened = [open_shard(path, self._writer.schema) for path in fresh]
        self._shards += opened
        return [place for shard in opened for place in _places(shard)]


def _places(shard: Shard) -> list[Place]:
    starts = np.cumsum(shard.lengths) - shard.lengths
    return [(shard.columns, start) for start in starts.tolist()]
