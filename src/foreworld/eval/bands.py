"""Bands that the error of a new trajectory stays under with a stated probability: at one step, or at all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.eval.curves import alive, checked
from foreworld.ops import conformal_upper


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Upper bands of the error, in its own unit; infinite where the data cannot tell.

    Attributes:
        level: probability to stay under, for a new trajectory that can be exchanged with these.
        pointwise: [K] at each step by itself, for one that reaches the step.
        trajectory: [K] at all its steps together.
        mean: [K] mean error.
        count: [K] trajectories that reach each step.
        split: how many of them scaled the band over trajectories; the others set its height.
    """

    level: float
    pointwise: np.ndarray
    trajectory: np.ndarray
    mean: np.ndarray
    count: np.ndarray
    split: int

    def to_json(self, steps: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
        """Return the bands at some steps as plain values; None where there is none, with a reason.

        Args:
            steps: which.
        """
        return {str(step): self._cell(step) for step in steps}

    def _cell(self, step: int) -> dict[str, Any]:
        if step > len(self.count):
            return {"mean": None, "pointwise": None, "trajectory": None, "reason": f"only {len(self.count)} steps"}
        at = step - 1
        cell: dict[str, Any] = {
            "mean": _number(self.mean[at]),
            "pointwise": _number(self.pointwise[at]),
            "trajectory": _number(self.trajectory[at]),
            "trajectories": int(self.count[at]),
        }
        if cell["pointwise"] is None or cell["trajectory"] is None:
            cell["reason"] = f"{self.count[at]} trajectories are too few for {self.level:.3g}, or diverged"
        return cell


def error_bands(errors: np.ndarray, level: float = 0.9, *, seed: int = 0) -> Bands:
    """Compute conformal bands of the error.

    The band over whole trajectories comes from a split: one half says how the error usually grows (its `level` quantile
    at each step), and the other half by which factor that must be raised so that whole trajectories stay under it. The
    largest ratio over time is one score a trajectory, so nothing is lost to the number of steps.

    Args:
        errors: [N, K] one trajectory per independent episode; NaN after its end.
        level: in (0, 1).
        seed: of the split.

    Returns:
        The bands.

    Raises:
        DataError: no error curves.
        ConfigError: a level outside (0, 1).

    Reference:
        Lei et al., Distribution-free predictive inference for regression, 2018 (split conformal); Cleaveland et al.,
        Conformal prediction regions for time series, 2024, section 3 (one score over all steps).

    Example:
        >>> import numpy as np
        >>> found = error_bands(np.random.default_rng(0).uniform(size=(999, 3)))
        >>> found.pointwise.round(1).tolist(), bool(found.trajectory.max() > 0.95)
        ([0.9, 0.9, 0.9], True)
    """
    errors, _ = checked(errors)
    order = np.random.default_rng(seed).permutation(len(errors))
    split = len(errors) // 2
    scaling, raising = errors[order[:split]], errors[order[split:]]
    scale = _scale(scaling, level)
    ratio = np.where(np.isnan(raising) | np.isnan(scale), -np.inf, raising / np.where(np.isnan(scale), 1.0, scale))
    factor = np.maximum(conformal_upper(ratio.max(1), level), 0)  # negative where nobody reached a scaled step
    there = np.where(np.isnan(errors), 0.0, errors)
    count = alive(errors)
    return Bands(
        level=level,
        pointwise=conformal_upper(errors, level),
        trajectory=np.where(np.isnan(scale), np.inf, factor * np.where(np.isnan(scale), 1.0, scale)),
        mean=np.divide(there.sum(0), count, out=np.full(len(count), np.nan), where=count > 0),
        count=count,
        split=split,
    )


def _scale(errors: np.ndarray, level: float) -> np.ndarray:
    """Return the usual size of the error at each step [K], above 0; NaN where no trajectory is left."""
    ordered = np.sort(np.where(np.isinf(errors), np.nan, errors), 0)
    count = (~np.isnan(ordered)).sum(0)
    place = np.clip(np.ceil(count * level).astype(int) - 1, 0, None)
    found = np.take_along_axis(ordered, place[None], 0)[0] if len(ordered) else np.full(errors.shape[1], np.nan)
    largest = np.nanmax(found, initial=0.0)
    return np.where(count > 0, np.maximum(found, 1e-6 * largest if largest > 0 else 1.0), np.nan)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
