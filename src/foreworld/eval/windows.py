"""Which stretches of episodes an evaluation looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from foreworld.core import Segment
from foreworld.core.errors import DataError
from foreworld.data import Dataset
from foreworld.data.sampling import cumulative_starts, draw_starts, generator


@dataclass(frozen=True)
class Windows:
    """Stretches of `context + horizon` rows; those near an episode's end are shorter and padded.

    Attributes:
        episode: [W] episode of each window.
        start: [W] its first row.
        context: rows that the model sees.
        horizon: steps to predict.
    """

    episode: np.ndarray
    start: np.ndarray
    context: int
    horizon: int

    def __len__(self) -> int:
        """W, the number of windows."""
        return len(self.episode)

    def in_order(self) -> Windows:
        """Sort the windows by episode and row."""
        order = np.lexsort((self.start, self.episode))
        return Windows(self.episode[order], self.start[order], self.context, self.horizon)

    def batches(self, data: Dataset, size: int) -> Iterator[tuple[np.ndarray, Segment, dict[str, Tensor]]]:
        """Read the windows in about equal batches.

        Yields:
            Numbers of the windows [B], their rows [B, context + horizon], and their simulator state by name.
        """
        length = self.context + self.horizon
        for part in np.array_split(np.arange(len(self)), -(-len(self) // size)):
            episodes, starts = self.episode[part], self.start[part]
            yield part, data.windows(episodes, starts, length), data.truth(episodes, starts, length)


def sum_by_episode(cells: np.ndarray, episode: np.ndarray, episodes: int | None = None) -> np.ndarray:
    """Sum windows [W, H] up to episodes [E, H].

    Args:
        cells: [W, H].
        episode: [W] of each window.
        episodes: E; by default up to the last that has a window.
    """
    total = np.zeros((int(episode.max()) + 1 if episodes is None else episodes, cells.shape[1]))
    np.add.at(total, episode, cells)
    return total


def choose_windows(data: Dataset, context: int, horizon: int, per_episode: int) -> Windows:
    """Spread windows evenly over every episode that has at least one row after the context.

    The order goes round the episodes, so that neighbours in a batch come from different ones.

    Args:
        data: held-out episodes.
        context: rows that the model sees first.
        horizon: steps to predict.
        per_episode: windows per episode; fewer where they would coincide.

    Raises:
        DataError: no episode is long enough.
    """
    found: list[tuple[int, int, int]] = []
    for episode, length in enumerate(data.lengths.tolist()):
        if length > context:
            latest = max(0, length - context - horizon)
            starts = np.unique(np.linspace(0, latest, per_episode).astype(int))
            found += [(turn, episode, start) for turn, start in enumerate(starts.tolist())]
    if not found:
        longest = int(data.lengths.max())
        raise DataError(f"no episode has more than {context} rows (the longest has {longest}); lower --context")
    order = np.array(sorted(found))
    return Windows(order[:, 1], order[:, 2], context, horizon)


def random_windows(data: Dataset, length: int, count: int, seed: int = 0) -> Windows:
    """Draw windows of `length` rows, all starts equally likely; nothing is to be predicted in them."""
    cumulative = cumulative_starts(data.lengths, length, across=False)
    episodes, starts = draw_starts(cumulative, count, generator(seed, 0))
    return Windows(episodes, starts, length, 0)
