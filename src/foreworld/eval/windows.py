"""Which stretches of held-out episodes an evaluation looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foreworld.core import Segment
from foreworld.core.errors import DataError
from foreworld.data import Dataset


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

    def batches(self, data: Dataset, size: int) -> Iterator[tuple[np.ndarray, Segment]]:
        """Read the windows in about equal batches: the episode of each [B], and the rows [B, context + horizon]."""
        for part in np.array_split(np.arange(len(self.episode)), -(-len(self.episode) // size)):
            yield self.episode[part], data.windows(self.episode[part], self.start[part], self.context + self.horizon)


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
