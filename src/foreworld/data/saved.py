"""`Saved`: what of a replay is not on disk, as tensors that a checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foreworld.core.errors import CheckpointError
from foreworld.data.schema import Column

OPEN, GATHERED = "open/", "gathered/"

Rows = Mapping[str, np.ndarray]
"""Column name to [rows, ...]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """The state of a replay beside its sealed shards.

    Attributes:
        form: number of streams N, rows of a segment T, width of a carry C.
        added: actions that were ever added.
        evicted: episodes that were evicted, oldest first.
        saves: what `oldest` was in each of the last states that were saved, this one included.
        sealed: episodes that were sealed on disk.
        shards: shards that those lie in.
        streams: [N, 5] counters of each stream.
        next_online: [N] first row of the next online window of each.
        queue: [Q, 2] online windows not replayed yet: stream and first row.
        episodes: [E, 4] finished episodes that are kept or not yet sealed: stream, first row, rows, is_terminal.
        gathered: rows of those that are not sealed, in this order.
        open: rows of open episodes, in order of the streams.
        carry: [rows, C] float16 of the episodes that are kept and then of the open ones; None where it was too large.
    """

    form: tuple[int, int, int]
    added: int
    evicted: int
    saves: tuple[int, ...]
    sealed: int
    shards: int
    streams: np.ndarray
    next_online: np.ndarray
    queue: np.ndarray
    episodes: np.ndarray
    gathered: Rows
    open: Rows
    carry: np.ndarray | None

    @property
    def oldest(self) -> int:
        """Number of the first of `episodes`, counted from the first that was ever finished."""
        return min(self.evicted, self.sealed)

    def tensors(self) -> dict[str, Tensor]:
        """Return it as tensors of types that a checkpoint stores."""
        found = {
            "form": np.array(self.form),
            "counts": np.array([self.added, self.evicted, self.sealed, self.shards]),
            "saves": np.array(self.saves, np.int64),
            "streams": self.streams,
            "next_online": self.next_online,
            "queue": self.queue,
            "episodes": self.episodes,
        }
        found |= {GATHERED + name: _signed(array) for name, array in self.gathered.items()}
        found |= {OPEN + name: _signed(array) for name, array in self.open.items()}
        if self.carry is not None:
            found["carry"] = self.carry
        return {name: torch.from_numpy(array) for name, array in found.items()}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], form: tuple[int, int, int], columns: Mapping[str, Column]) -> Saved:
        """Read what `tensors` returned, for a replay of the same form.

        Raises:
            CheckpointError: it is of another replay.
        """
        names = {"form", "counts", "saves", "streams", "next_online", "queue", "episodes"}
        names |= {kind + name for kind in (GATHERED, OPEN) for name in columns}
        if odd := sorted(names ^ (set(tensors) - {"carry"})):
            raise CheckpointError(
                f"the state of the replay is of another one: {odd[0]!r} is not in both; check the run"
            )
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        if tuple(arrays["form"].tolist()) != form:
            raise CheckpointError(
                f"the state is of a replay of (streams, rows, carry) {arrays['form'].tolist()}, this one has "
                f"{list(form)}; resume with the run's own config"
            )
        added, evicted, sealed, shards = arrays["counts"].tolist()
        return cls(
            form=form,
            added=added,
            evicted=evicted,
            saves=tuple(arrays["saves"].tolist()),
            sealed=sealed,
            shards=shards,
            streams=arrays["streams"],
            next_online=arrays["next_online"],
            queue=arrays["queue"],
            episodes=arrays["episodes"],
            gathered={name: _rows(arrays, GATHERED + name, column) for name, column in columns.items()},
            open={name: _rows(arrays, OPEN + name, column) for name, column in columns.items()},
            carry=arrays.get("carry"),
        )

    def carries(self) -> np.ndarray:
        """Return the carries of the kept rows, zero where they were too large to be saved."""
        if self.carry is not None:
            return self.carry
        finished = self.episodes[max(self.evicted - self.sealed, 0) :, 2].sum()
        rows = int(finished) + len(next(iter(self.open.values())))
        return np.zeros((rows, self.form[2]), np.float16)


def stacked(episodes: Sequence[Rows], columns: Mapping[str, Column]) -> Rows:
    """Join the rows of episodes, of none to no rows."""
    empty = {name: np.empty((0, *column.shape), column.dtype) for name, column in columns.items()}
    return {name: np.concatenate([empty[name], *(episode[name] for episode in episodes)]) for name in columns}


def _rows(arrays: Mapping[str, np.ndarray], name: str, column: Column) -> np.ndarray:
    array, dtype = arrays[name], np.dtype(column.dtype)
    if array.shape[1:] != column.shape or array.itemsize != dtype.itemsize:
        raise CheckpointError(f"the state of the replay is of another one: {name!r} has shape {array.shape}")
    return array.view(dtype)


def _signed(array: np.ndarray) -> np.ndarray:
    """View numbers of a type that safetensors has no name for as such that it has one for."""
    wide = array.dtype.kind == "u" and array.itemsize > 1
    return array.view(f"i{array.itemsize}") if wide else array
