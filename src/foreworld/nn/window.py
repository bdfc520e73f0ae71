"""Windows: the last rows of every row, as the state of families without a recurrent memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Which rows the window of every row holds, when B windows of K entries go on over T rows.

    An episode's first row fills its whole window, as does the first row that is seen at all.

    Attributes:
        index: [B, T, K], of entries in the old window followed by the rows, oldest first.
        repeated: [B, T, K] bool, where the first row stands in for rows that there are not.
    """

    index: Tensor
    repeated: Tensor

    @classmethod
    def over(cls, first: Tensor, seen: Tensor, width: int) -> Windows:
        """Find them.

        Args:
            first: [B, T] bool, rows that begin an episode.
            seen: [B] bool, whether the old window holds anything.
            width: K.

        Returns:
            What every row's window holds, [B, T, K].
        """
        batch, length = first.shape
        at = torch.arange(length, device=first.device).expand(batch, length)
        none = torch.full_like(at, -width)
        begun = torch.where(first, at, none)
        begun[:, 0] = torch.where(first[:, 0] | ~seen, 0, -width)
        begun = begun.cummax(1).values.unsqueeze(-1)
        wanted = at.unsqueeze(-1) + torch.arange(1 - width, 1, device=first.device)
        return cls(torch.maximum(wanted, begun) + width, wanted < begun)

    def of(self, before: Tensor, rows: Tensor) -> Tensor:
        """Gather entries.

        Args:
            before: [B, K, D], the old windows.
            rows: [B, T, D].

        Returns:
            The windows of every row, [B, T, K, D].
        """
        joined = torch.cat([before, rows], 1)
        batch, length, width = self.index.shape
        flat = self.index.reshape(batch, length * width, 1).expand(-1, -1, joined.shape[-1])
        return joined.gather(1, flat).unflatten(1, (length, width))


def slide(window: Tensor, entry: Tensor) -> Tensor:
    """Drop the oldest entry of windows and append a new one.

    Args:
        window: [.., K, D], oldest first.
        entry: [.., D].

    Returns:
        [.., K, D].
    """
    return torch.cat([window[..., 1:, :], entry.unsqueeze(-2)], -2)
