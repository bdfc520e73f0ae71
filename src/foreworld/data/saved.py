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
LARGEST = 2**48
"""No number of a row or an episode comes near it; beyond, sums could overflow."""

Rows = Mapping[str, np.ndarray]
"""Column name to [rows, ...]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """The state of a replay beside its sealed shards.

    Attributes:
        form: number of streams N, rows of a segment T, width of a carry C.
        added: actions that were ever added.
        evicted: episodes that were evicted, oldest first.
        saves: what `oldest` was in each of the last two stored states, this one included.
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
        found |= {GATHERED + name: array for name, array in self.gathered.items()}
        found |= {OPEN + name: array for name, array in self.open.items()}
        if self.carry is not None:
            found["carry"] = self.carry
        return {name: torch.from_numpy(array) for name, array in found.items()}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], form: tuple[int, int, int], columns: Mapping[str, Column]) -> Saved:
        """Read what `tensors` returned, for a replay of the same form.

        Raises:
            CheckpointError: it is of another replay, or contradicts itself.
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
        shapes: dict[str, tuple[int, ...]] = {"counts": (4,), "streams": (form[0], 5), "next_online": (form[0],)}
        for name, width in (("saves", ()), ("queue", (2,)), ("episodes", (4,))):
            shapes[name] = (*arrays[name].shape[:1], *width)
        for name, shape in shapes.items():
            array = arrays[name]
            if array.dtype != np.int64 or array.shape != shape or (array < 0).any() or (array > LARGEST).any():
                raise CheckpointError(f"the state of the replay is damaged: {name!r} is not possible; restore a copy")
        added, evicted, sealed, shards = arrays["counts"].tolist()
        found = cls(
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
        if contradiction := found._contradiction():
            raise CheckpointError(f"the state of the replay contradicts itself ({contradiction}); restore a copy")
        return found

    def _contradiction(self) -> str:
        """Say which numbers cannot be true together; nothing where all can. Whoever cuts windows relies on them."""
        count, length, width = self.form
        head, stop, opened, held, born = self.streams.T
        if (opened > 1).any() or (held > opened).any() or (born[opened > 0] < head[opened > 0]).any():
            return "open episodes"
        end = np.where(opened, born, stop)  # of what is finished
        if (head > end).any() or (held & (born != stop)).any() or (opened & ~held & (stop - born < 2)).any():
            return "rows of the streams"
        stream, first, rows, terminal = self.episodes.T
        if (stream >= count).any() or (rows < 2).any() or (terminal > 1).any():
            return "finished episodes"
        numbers = self.oldest + np.arange(len(stream))
        if max(self.evicted, self.sealed, *self.saves, self.shards) > self.oldest + len(stream):
            return "counts"
        for i in range(count):
            mine = (stream == i) & (numbers >= self.evicted)
            edges = np.append(first[mine], end[i])
            if edges[0] != head[i] or (np.diff(edges) != rows[mine]).any():
                return f"episodes of stream {i}"
        behind = stop - self.next_online
        if (self.next_online < 1).any() or (behind >= length).any() or (behind < -1).any():
            return "online windows"
        streams, starts = self.queue.T
        if (streams >= count).any() or (starts < 1).any() or (starts + length > stop[streams % count]).any():
            return "queue"
        live = int((stop + held - born)[opened > 0].sum())
        kept = live + int(rows[numbers >= self.evicted].sum())
        if self.carry is not None and (self.carry.shape != (kept, width) or self.carry.dtype != np.float16):
            return "carries"
        wanted = {GATHERED: int(rows[numbers >= self.sealed].sum()), OPEN: live}
        for kind, columns in ((GATHERED, self.gathered), (OPEN, self.open)):
            if any(len(array) != wanted[kind] for array in columns.values()):
                return f"rows of {kind.rstrip('/')}"
        return ""

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
    array = arrays[name]
    if array.shape[1:] != column.shape or array.dtype != column.dtype:
        found = f"{array.dtype} of shape {array.shape}"
        raise CheckpointError(f"the state of the replay is of another one: {name!r} is {found}")
    return array
