"""Error curves of many trajectories as one plain array, their pooled curve, and resamples of whole episodes."""

from __future__ import annotations

import numpy as np

from foreworld.core.errors import DataError, TooFewEpisodes

LEAST_EPISODES = 5
"""Fewer episodes cannot be split into parts to fit on and parts to judge on, and give no interval."""


def checked(errors: np.ndarray, episode: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Check error curves and number their episodes from 0.

    Args:
        errors: [N, K] error of trajectory n after k = 1..K steps, at least 0; NaN after its end, infinite where a
            prediction diverged.
        episode: [N] the episode that each comes from; by default every trajectory has its own.

    Returns:
        errors [N, K] as float64, and episode [N] as numbers 0..G-1.

    Raises:
        DataError: other shapes, negative errors, NaN before a later error, or a trajectory of no steps.
    """
    found = np.asarray(errors, np.float64)
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(f"errors: expected an array [trajectories, steps], found shape {found.shape}")
    owner = np.arange(len(found)) if episode is None else np.asarray(episode)
    if owner.shape != found.shape[:1]:
        raise DataError(f"episode: expected one number for each of {len(found)} trajectories, found {owner.shape}")
    if (found < 0).any():
        n, k = np.argwhere(found < 0)[0]
        raise DataError(f"errors: trajectory {n} has {found[n, k]:.3g} after {k + 1} steps; errors are not negative")
    gone = np.isnan(found)
    torn = gone[:, :-1] & ~gone[:, 1:]
    if torn.any() or gone[:, 0].any():
        n = int(np.flatnonzero(torn.any(1) | gone[:, 0])[0])
        raise DataError(f"errors: trajectory {n} has NaN before its end; NaN may stand only after the last step")
    return found, np.unique(owner, return_inverse=True)[1]


def require_some(episode: np.ndarray) -> None:
    """Refuse to measure growth on a handful of episodes.

    Args:
        episode: [N] numbers 0..G-1.

    Raises:
        TooFewEpisodes: fewer than 5.
    """
    found = int(episode.max()) + 1
    if found < LEAST_EPISODES:
        raise TooFewEpisodes(f"{found} episodes; the growth of errors needs {LEAST_EPISODES} at least")


def alive(errors: np.ndarray) -> np.ndarray:
    """Return how many trajectories reach each step.

    Args:
        errors: [N, K], NaN after the end.

    Returns:
        [K].
    """
    return (~np.isnan(errors)).sum(0)


def resample(episode: np.ndarray, repeats: int, seed: int) -> np.ndarray:
    """Draw episodes with replacement, and count how often each trajectory is drawn.

    Args:
        episode: [N] numbers 0..G-1.
        repeats: R.
        seed: fixes the draws.

    Returns:
        [R, N].
    """
    groups = int(episode.max()) + 1
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=repeats)[:, episode].astype(np.float64)


def pooled(errors: np.ndarray, counts: np.ndarray, typical: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pool the trajectories that reach a step, for many weightings at once.

    Args:
        errors: [N, K], NaN after the end.
        counts: [R, N] how often each trajectory counts.
        typical: take the mean of logarithms, which a few wild trajectories do not rule; else of the errors.

    Returns:
        logarithms of the pooled errors [R, K], 0 where there is none, and the weight behind each step [R, K].
    """
    there = np.isfinite(errors) & (errors > 0) if typical else np.isfinite(errors)
    value = np.where(there, errors, 1.0)
    weight = counts @ there
    total = counts @ np.where(there, np.log(value) if typical else value, 0.0)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    if typical:
        return mean, weight
    return np.log(np.where(mean > 0, mean, 1.0)), np.where(mean > 0, weight, 0.0)
