"""When a learning curve reaches a threshold, the same for foreworld and for its peers; needs NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLDS = {"CartPole-v1": 475.0, "Pendulum-v1": -200.0, "foreworld/Catch-v0": 0.8}
"""Mean returns at which a task counts as solved: Gymnasium's own for CartPole, the usual one for Pendulum, nine of ten
balls caught for Catch."""


def reached(steps: Sequence[int], returns: Sequence[Sequence[float]], threshold: float) -> dict[str, int | None]:
    """Say when the mean return of an evaluation was first on or above a threshold, and from when on always.

    Args:
        steps: [E] environment steps before each evaluation.
        returns: [E] returns of its episodes.
        threshold: of the mean.

    Returns:
        `first_step` and `stays_from_step`; None where that did not happen.

    Example:
        >>> reached([1000, 2000, 3000, 4000], [[1.0], [9.0], [2.0], [8.0]], 5.0)
        {'first_step': 2000, 'stays_from_step': 4000}
    """
    above = np.array([np.mean(earned) >= threshold for earned in returns], bool)
    always = np.logical_and.accumulate(above[::-1])[::-1]
    names = {"first_step": above, "stays_from_step": always}
    return {name: steps[int(flags.argmax())] if flags.any() else None for name, flags in names.items()}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say how many seeds reached a threshold, and after how many steps.

    Args:
        runs: at least one, each with what `reached` returned.

    Returns:
        For each of its names: how many did, and the least, median and greatest number of steps. A seed that never did
        counts as infinite, which is None here; of an even number of seeds the median is the greater of the two.

    Example:
        >>> summary([{"first_step": 3000, "stays_from_step": None}])["first_step"]
        {'reached': 1, 'least': 3000, 'median': 3000, 'greatest': 3000}
    """
    found: dict[str, Any] = {"seeds": len(runs)}
    for name in ("first_step", "stays_from_step"):
        steps = sorted((run[name] for run in runs), key=lambda step: np.inf if step is None else step)
        found[name] = {
            "reached": sum(step is not None for step in steps),
            "least": steps[0],
            "median": steps[len(steps) // 2],
            "greatest": steps[-1],
        }
    return found
