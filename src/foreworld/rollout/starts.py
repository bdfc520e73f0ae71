"""Where dreams begin: states after stretches of recorded episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from foreworld.core import WorldModel, tree
from foreworld.core.errors import ConfigError, DataError
from foreworld.data import Dataset

S = TypeVar("S")

Starts = Callable[[np.random.Generator, int], S]
"""Draws start states, leaves [N, ...], from a generator and N; torch is seeded when it is called."""


def recorded_starts(model: WorldModel[S], data: Dataset, context: int = 8) -> Starts[S]:
    """Return what draws states that a model is in after recorded rows.

    All rows are equally likely, but the last of an episode, after which nothing would follow.

    Args:
        model: filters the rows.
        data: episodes of the model's world.
        context: rows that it sees before the dream begins, fewer near the beginning of an episode.

    Returns:
        A function of a generator and N, which returns states with leaves [N, ...].

    Raises:
        ConfigError: a context below 1.
        DataError: no episode has two rows.
        SpecError: data of another world.
    """
    if context < 1:
        raise ConfigError(f"a context has at least 1 row, found {context}")
    seen = data.with_spec(model.spec)
    ends = np.cumsum(np.maximum(seen.lengths - 1, 0))
    if not ends[-1]:
        raise DataError(f"{data.path}: no episode has a row that another follows, from which a dream could begin")

    @torch.no_grad()
    def draw(rng: np.random.Generator, count: int) -> S:
        flat = rng.integers(ends[-1], size=count)
        episode = np.searchsorted(ends, flat, side="right")
        row = flat - np.where(episode > 0, ends[episode - 1], 0)
        first = np.maximum(row - context + 1, 0)
        start = model.initial(count)
        device = tree.leaves(start)[0].device
        states = model.observe(start, tree.to(seen.windows(episode, first, context), device))
        return tree.index(states, (torch.arange(count, device=device), torch.as_tensor(row - first, device=device)))

    return draw
