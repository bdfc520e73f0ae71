"""`Writer`: append whole episodes to a native store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from foreworld.core.disk import remove_folder
from foreworld.core.errors import DataError, OutputExists, WriteFailed
from foreworld.core.files import MANIFEST, holds_nothing, lock_folder, make_folder, sha256, sweep_partial
from foreworld.core.spaces import Space, Spec
from foreworld.data.dropped import Dropped
from foreworld.data.episode import Episode, stored_rows
from foreworld.data.schema import SCHEMA_FILE, Schema, Source
from foreworld.data.shard import SHARDS, shard_path, shard_paths, sweep_dropped, write_shard

SHARD_BYTES = 64 * 2**20
SHARD_ROWS = 2**16
SEAL_ROWS = (64, 4096)
"""Least and most rows that are gathered before they are sealed; between the two, a quarter of what is on disk."""


def rows_to_seal(sealed: int, most: int = SEAL_ROWS[1]) -> int:
    """Return how many rows of a growing store should gather before they are sealed, `sealed` being on disk."""
    return min(most, max(SEAL_ROWS[0], sealed // 4))


def largest_shard(schema: Schema) -> int:
    """Return how many rows make a large shard, about 64 MiB."""
    return max(1, min(SHARD_ROWS, SHARD_BYTES // schema.bytes_per_row))


class Writer:
    """Append episodes to a store, new or existing; one writer at a time.

    Episodes are checked as they are added and reach the disk as sealed shards: when enough
    rows have gathered, and at the end. What an interruption can lose is what had gathered.
    The folder is locked until the block ends (or `close`), also against a second writer in this process.

    Args:
        path: folder of the store; created if absent.
        spec: what a model is told; of an existing store it must be the same.
        source: where the rows come from; an existing store keeps its own.
        truth: spaces of the simulator state by name, if it is recorded.
        shard_rows: rows after which a shard is sealed; by default about 64 MiB of them.

    Raises:
        OutputExists: the folder holds something else.
        DataError: the store has another spec, or cannot be read.
        InUse: another writer has it open.
        WriteFailed: the disk refused.

    Example:
        >>> import tempfile, numpy as np, foreworld as fw
        >>> from foreworld.data import Episode, Writer
        >>> from foreworld.core import Space
        >>> spec = fw.Spec(obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")}, action=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Writer(folder, spec) as writer:
        ...         writer.add(Episode(obs={"obs": np.zeros((5, 2), np.float32)}))
        ...     fw.load(folder).rows
        5
    """

    def __init__(
        self,
        path: str | Path,
        spec: Spec,
        *,
        source: Source | None = None,
        truth: Mapping[str, Space] | None = None,
        shard_rows: int | None = None,
    ) -> None:
        """Open a store for appending."""
        self.path = Path(path)
        self.schema = Schema(spec=spec, truth=dict(truth or {}), source=source or Source())
        self.episodes = 0
        self.rows = 0
        self._shard_rows = shard_rows or largest_shard(self.schema)
        self._gathered: list[dict[str, np.ndarray]] = []
        self._gathered_rows = 0
        self._lock = ExitStack()
        self._next_shard = self._open()
        self._is_open = True

    @property
    def shards(self) -> int:
        """Number of the next shard: how many there are."""
        return self._next_shard

    @property
    def gathered(self) -> int:
        """Rows that were added and are not sealed yet."""
        return self._gathered_rows

    def add(self, episode: Episode) -> None:
        """Check an episode and append it.

        Raises:
            DataError: it does not fit the spec; the column and row are named and nothing is added.
            WriteFailed: the disk refused a full shard; its episodes are still gathered, and `seal` tries again.
        """
        if not self._is_open:
            raise DataError(f"{self.path}: this writer is closed; open a new one to append")
        columns = stored_rows(episode, self.schema)
        rows = len(columns["reward"])
        self._gathered.append(columns)
        self._gathered_rows += rows
        self.episodes += 1
        self.rows += rows
        if self._gathered_rows >= self._shard_rows:
            self.seal()

    def seal(self) -> None:
        """Write what has gathered as one shard; a failure leaves earlier shards as they are."""
        if not self._gathered:
            return
        path = shard_path(self.path, self._next_shard)
        if path.exists():  # whole, though its writing failed at the very end; by now more has gathered
            remove_folder(path)
        write_shard(path, self.schema.columns, self._gathered)
        self._next_shard += 1
        self._gathered, self._gathered_rows = [], 0

    def rewind(self, shards: int) -> None:
        """Remove the shards from number `shards` on, the newest first: return to a moment when there were no more.

        Raises:
            WriteFailed: the disk refused; what is left is a whole store.
        """
        while self._next_shard > shards:
            remove_folder(shard_path(self.path, self._next_shard - 1))
            self._next_shard -= 1

    def drop(self, shards: int, episodes: int) -> None:
        """Forget the oldest sealed shards; what stays keeps its numbers.

        Args:
            shards: number of the first that stays; one must.
            episodes: how many all shards before it held, those that were dropped earlier included.

        Raises:
            WriteFailed: the disk refused; what is left is a whole store, and the same call may be tried again.
        """
        fingerprint = self._dropped.fingerprint or sha256(shard_path(self.path, 0) / MANIFEST, WriteFailed)
        dropped = Dropped(shards=shards, episodes=episodes, fingerprint=fingerprint)
        dropped.write(self.path)
        self._dropped = dropped
        sweep_dropped(self.path, shards)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Seal the last shard; whole episodes are kept also when the block fails, unless the disk did."""
        try:
            if not isinstance(fault, OSError | MemoryError):
                self.seal()
        finally:
            self._release()

    def close(self) -> None:
        """Seal the last shard and release the folder, as the end of a `with` block does."""
        self.__exit__(None, None, None)

    def _release(self) -> None:
        self._is_open = False
        self._lock.close()

    def _open(self) -> int:
        schema = self.path / SCHEMA_FILE
        if not schema.exists() and self.path.exists() and not holds_nothing(self.path):
            raise OutputExists(f"{self.path} exists and is not a dataset; choose another folder")
        make_folder(self.path)
        with ExitStack() as opened:
            opened.enter_context(lock_folder(self.path))
            if schema.exists():
                self._agree()
            make_folder(self.path / SHARDS)
            last = shard_paths(self.path)[-1:]
            sweep_partial(self.path / SHARDS)
            self._dropped = Dropped.read(self.path)
            sweep_dropped(self.path, self._dropped.shards)
            if not schema.exists():
                self.schema.write(self.path)
            self._lock = opened.pop_all()
        return int(last[0].name) + 1 if last else Dropped.read(self.path).shards

    def _agree(self) -> None:
        found = Schema.read(self.path)
        if (found.spec, found.truth) != (self.schema.spec, self.schema.truth):
            raise DataError(f"{self.path}: holds rows of another spec; write to another folder")
        self.schema = found
