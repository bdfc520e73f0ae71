"""`Archive`: the finished episodes of a replay as a native store that other commands read while it grows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foreworld.core.errors import CheckpointError, OutputExists
from foreworld.core.spaces import Space, Spec
from foreworld.data.episode import Episode
from foreworld.data.schema import Schema, Source
from foreworld.data.shard import SHARDS, Shard, allow_files, open_shard, shard_paths, verify_shards
from foreworld.data.store import Writer, largest_shard, rows_to_seal

Place = tuple[Mapping[str, np.ndarray], int]
"""Columns of a shard, and the row there at which an episode begins."""


class Archive:
    """Append finished episodes to a store, and say where on disk those lie that are sealed.

    Args:
        path: folder of the store.
        spec: what a model is told.
        truth: spaces of the simulator state by name.
        source: where the rows come from.
        shards: go on from an earlier state, when the store had so many shards; later ones are removed.

    Raises:
        OutputExists: the store holds episodes already, and `shards` was not given.
        CheckpointError: shards that were there then are missing.
    """

    def __init__(
        self, path: Path, spec: Spec, truth: Mapping[str, Space], source: Source | None, shards: int | None
    ) -> None:
        """Open the store, new or as it was."""
        self._most = largest_shard(Schema(spec=spec, truth=truth))
        # never by itself: when `add` fails, the episode must not have been added
        self._writer = Writer(path, spec, source=source, truth=truth, shard_rows=sys.maxsize)
        self._shards: list[Shard] = []
        self._sealed_rows = 0
        try:
            if shards is None and self._writer.shards:
                raise OutputExists(f"{path}: holds episodes already; resume the run they are of, or choose another")
            if shards is not None and shards > self._writer.shards:
                raise CheckpointError(f"{path / SHARDS}: shard {shards - 1:06d} is missing; restore it from a copy")
            self._writer.rewind(shards or 0)
            verify_shards(path, shard_paths(path))
            self._mapped()
        except BaseException:
            self._writer.close()
            raise

    @property
    def shards(self) -> int:
        """How many shards were sealed."""
        return self._writer.shards

    @property
    def places(self) -> list[Place]:
        """Where the sealed episodes lie, in the order in which they were added."""
        return [place for shard in self._shards for place in _places(shard)]

    @property
    def full(self) -> bool:
        """Whether so much has gathered that it should be sealed."""
        return self._writer.gathered >= rows_to_seal(self._sealed_rows, self._most)

    def add(self, episode: Episode) -> None:
        """Check an episode and gather it.

        Raises:
            DataError: it does not fit the spec; it was not added.
        """
        self._writer.add(episode)

    def seal(self) -> list[Place]:
        """Write what has gathered, and return where on disk it lies."""
        self._writer.seal()
        return self._mapped()

    def close(self) -> None:
        """Seal the rest and release the folder."""
        self._writer.close()

    def _mapped(self) -> list[Place]:
        """Open the shards that were sealed since the last call, and return where their episodes lie."""
        if len(self._shards) == self._writer.shards:
            return []
        fresh = shard_paths(self._writer.path)[len(self._shards) :]
        allow_files(self._writer.shards * len(self._writer.schema.columns))
        opened = [open_shard(path, self._writer.schema) for path in fresh]
        self._shards += opened
        self._sealed_rows += sum(int(shard.lengths.sum()) for shard in opened)
        return [place for shard in opened for place in _places(shard)]


def _places(shard: Shard) -> list[Place]:
    starts = np.cumsum(shard.lengths) - shard.lengths
    return [(shard.columns, start) for start in starts.tolist()]
