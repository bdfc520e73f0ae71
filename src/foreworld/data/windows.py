"""`Batch`: windows of streams as one segment, and how they are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foreworld.core.errors import DataError
from foreworld.core.spaces import Spec
from foreworld.core.types import Segment
from foreworld.data.schema import ACTION, OBS, Column
from foreworld.data.stream import Part, Stream


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Windows of a replay.

    Attributes:
        segment: [B, T, ...], the rows to learn from; windows may cross episodes, nothing is padded.
        carry: [B, C] float32, the state of a filter after the row before each segment; zero if it is not known.
            Where the segment begins with `is_first`, it belongs to the episode before.
        refs: [B, 2] int64, stream and number of the first row there: what `Replay.write_back` needs.
    """

    segment: Segment
    carry: Tensor
    refs: np.ndarray


class _Run(NamedTuple):
    """Rows of one part: `count` of them from its row `within` on, placed at column `at` of window `window`."""

    window: int
    at: int
    part: Part
    within: int
    count: int


class Windows:
    """Cut windows of one length out of streams.

    Args:
        spec: what the model is told.
        columns: types and shapes of what a row holds.
        length: T.
        carry: C.
    """

    def __init__(self, spec: Spec, columns: Mapping[str, Column], length: int, carry: int) -> None:
        """Remember the form."""
        self._spec, self._columns, self._length, self._carry = spec, columns, length, carry

    def cut(self, streams: Sequence[Stream], starts: Sequence[tuple[int, int]], out: Batch | None = None) -> Batch:
        """Copy windows into fresh tensors, or observations into those of `out`.

        Args:
            streams: where the rows lie.
            starts: for each window its stream and the first row of its segment; the row before it must be there too.
            out: a batch of the same size.

        Raises:
            DataError: `out` has another size or type.
        """
        carry = np.empty((len(starts), self._carry), np.float32)
        runs: list[_Run] = []
        for window, (stream, first) in enumerate(starts):
            at = -1
            for part, within, count in streams[stream].pieces(first - 1, first + self._length):
                if at < 0:
                    carry[window] = part.carry[within]
                    at, within, count = 0, within + 1, count - 1
                if count:
                    runs.append(_Run(window, at, part, within, count))
                at += count
        is_first, is_last, is_terminal = self._flags(len(starts), runs)
        action = None
        if self._spec.action is not None:
            taken = self._spec.action.to_model(self._fill(ACTION, len(starts), runs))
            action = taken.masked_fill_(is_first[..., None], 0.0)
        segment = Segment(
            obs={
                key: self._fill(OBS + key, len(starts), runs, None if out is None else out.segment.obs[key])
                for key in self._spec.obs
            },
            prev_action=action,
            reward=self._fill("reward", len(starts), runs),
            is_first=is_first,
            is_terminal=is_terminal,
            is_last=is_last,
        )
        return Batch(segment=segment, carry=torch.from_numpy(carry), refs=np.array(starts, np.int64).reshape(-1, 2))

    def _flags(self, batch: int, runs: list[_Run]) -> tuple[Tensor, Tensor, Tensor]:
        """Return is_first, is_last and is_terminal, [B, T] each: they follow from where episodes begin and end."""
        first, last, terminal = torch.zeros(3, batch, self._length, dtype=torch.bool).unbind(0)
        for window, at, part, within, count in runs:
            if part.begins and within == 0:
                first[window, at] = True
            if part.ends and within + count == part.rows:
                last[window, at + count - 1] = True
                terminal[window, at + count - 1] = part.is_terminal
        return first, last, terminal

    def _fill(self, name: str, batch: int, runs: list[_Run], tensor: Tensor | None = None) -> Tensor:
        """Copy one column of all windows into a tensor [B, T, ...], a fresh one unless given."""
        column = self._columns[name]
        shape, dtype = (batch, self._length, *column.shape), getattr(torch, column.dtype)
        if tensor is None:
            tensor = torch.empty(shape, dtype=dtype)
        elif (tensor.shape, tensor.dtype) != (shape, dtype):
            raise DataError(f"{name}: `out` holds {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
        into = tensor.numpy()
        for window, at, part, within, count in runs:
            start = part.base + within
            into[window, at : at + count] = part.columns[name][start : start + count]
        return tensor
