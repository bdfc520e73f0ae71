"""Which rows make up a batch: pure arithmetic on episode lengths and a counter-based generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import ConfigError


@dataclass(frozen=True)
class Piece:
    """A run of `count` rows of one episode, from row `start` on, placed at column `at` of window `window`."""

    window: int
    at: int
    episode: int
    start: int
    count: int


def generator(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """Return the generator of one batch: a pure function of its three arguments, each >= 0."""
    if min(seed, step, rank) < 0:
        raise ConfigError(f"seed, step and rank must be >= 0, found {seed}, {step}, {rank}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, rank])))


def cumulative_starts(lengths: np.ndarray, length: int, across: bool) -> np.ndarray:
    """Count the places where a window may start, summed up over the episodes.

    Args:
        lengths: [E] rows of each episode.
        length: rows of a window.
        across: whether a window may run into the next episode; then every row is a start.

    Returns:
        [E] int64; the last entry is the number of starts.
    """
    return np.cumsum(lengths if across else np.maximum(lengths - length + 1, 1))


def draw_starts(cumulative: np.ndarray, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw starts, all equally likely.

    Returns:
        Episode [B] and row within it [B].
    """
    flat = rng.integers(cumulative[-1], size=batch)
    episode = np.searchsorted(cumulative, flat, side="right")
    return episode, flat - np.where(episode > 0, cumulative[episode - 1], 0)


def pieces(episodes: np.ndarray, starts: np.ndarray, length: int, lengths: np.ndarray, across: bool) -> Iterator[Piece]:
    """Cut windows into runs of rows of one episode.

    A window that crosses an end goes on with the next episode; after the last comes the first,
    so that every row is covered equally often. Without `across` a window stops at the end.
    """
    for window, (first, start) in enumerate(zip(episodes.tolist(), starts.tolist(), strict=True)):
        at, episode = 0, first
        while at < length:
            count = min(length - at, int(lengths[episode]) - start)
            yield Piece(window, at, episode, start, count)
            if not across:
                break
            at, start, episode = at + count, 0, (episode + 1) % len(lengths)
