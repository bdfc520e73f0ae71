"""How fast two nearly equal states of a world part: its largest Lyapunov exponent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.worlds.world import World

BLOCKS = 10
"""Stretches of every run whose rates are compared for the standard error."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exponents:
    """The largest Lyapunov exponent, from every start.

    Attributes:
        value: [N], per second; a separation grows as exp(value · t).
        error: [N], standard error of each.
        per_step: [N], per step of the world.
    """

    value: np.ndarray
    error: np.ndarray
    per_step: np.ndarray


def lyapunov(
    world: World,
    state: np.ndarray,
    seconds: float,
    *,
    settle: float = 50.0,
    copies: int = 1,
    scatter: float = 1e-4,
    separation: float = 1e-7,
    seed: int = 0,
) -> Exponents:
    """Measure the largest Lyapunov exponent by following pairs of neighbours, pulled together at every step.

    The exponent is a mean over the states that the world visits. A single run visits them slowly, so each
    start can be run as many scattered copies, which forget one another in `settle` seconds and are then as
    good as a run `copies` times as long.

    Args:
        world: a world without randomness whose states stay bounded; its action, if any, is zero.
        state: starts, [N, S].
        seconds: how long growth is measured, in every copy.
        settle: seconds before that, in which the pairs turn to where they grow.
        copies: runs for each start.
        scatter: standard deviation by which the copies of a start differ, unless there is one only.
        separation: distance to which a pair is pulled together.
        seed: of scatter and of the first directions.

    Returns:
        Exponents [N].

    Raises:
        ConfigError: a stochastic world, no copies, or less than `BLOCKS` steps.

    Reference:
        Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov Characteristic Exponents for Smooth Dynamical
        Systems, 1980, part 2, equation 7, for the largest exponent.

    Example:
        >>> import numpy as np
        >>> from foreworld.worlds import Linear, lyapunov
        >>> world = Linear(modes=((0.9, 0.3), (0.5, 0.0)))
        >>> found = lyapunov(world, world.start(np.random.default_rng(0), 1), seconds=10, settle=5)
        >>> bool(abs(found.per_step[0] - np.log(0.9)) < 1e-6)
        True
    """
    steps = round(seconds / world.dt)
    if world.stochastic or copies < 1 or steps < BLOCKS:
        found = f"{world.name} ({'random' if world.stochastic else 'not random'}), {copies} copies, {steps} steps"
        raise ConfigError(f"lyapunov needs a world without noise, 1 copy and {BLOCKS} steps at least, found {found}")
    rng = np.random.default_rng(seed)
    here = np.repeat(np.asarray(state, np.float64), copies, 0)
    if copies > 1:
        here = here + scatter * rng.standard_normal(here.shape)
    away = rng.standard_normal(here.shape)
    pair = np.concatenate([here, here + away * (separation / np.linalg.norm(away, axis=1, keepdims=True))])
    for _ in range(round(settle / world.dt)):
        pair, _ = _step(world, pair, separation)
    lengths = np.diff(np.arange(BLOCKS + 1) * steps // BLOCKS)
    grown = np.zeros((BLOCKS, len(here)))
    for block, length in enumerate(lengths):
        for _ in range(length):
            pair, growth = _step(world, pair, separation)
            grown[block] += growth
    value = grown.sum(0).reshape(len(state), copies).mean(1) / steps
    rates = (grown / lengths[:, None]).reshape(BLOCKS, len(state), copies)
    error = rates.std((0, 2), ddof=1) / math.sqrt(BLOCKS * copies)
    return Exponents(value=value / world.dt, error=error / world.dt, per_step=value)


def _step(world: World, pair: np.ndarray, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Step all pairs [2 N, S]; return them pulled together again, and the logarithm of their growth [N]."""
    pair = world.step(pair)
    here, there = np.split(pair, 2)
    away = there - here
    distance = np.linalg.norm(away, axis=1)
    pulled = here + away * (separation / distance)[:, None]
    return np.concatenate([here, pulled]), np.log(distance / separation)
