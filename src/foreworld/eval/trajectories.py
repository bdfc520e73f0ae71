"""Error curves from anybody's predictions: true and predicted numbers, in memory or in one `.npz` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreworld.core.errors import DataError
from foreworld.data.npz import read_npz


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Open-loop errors of predicted trajectories.

    Attributes:
        errors: [N, K] root mean square over the dimensions, each in its own deviation; NaN after the end.
        episode: [N] the episode that each comes from.
        cut: [N] true where an end before step K is that of the recording; None if not known.
        dt: seconds a step, if known.
        deviation: [D] the unit of each dimension: the deviation of what was true.
    """

    errors: np.ndarray
    episode: np.ndarray
    cut: np.ndarray | None
    dt: float | None
    deviation: np.ndarray


def load_trajectories(path: Path) -> Trajectories:
    """Read trajectories from an `.npz` file.

    It holds `true` and `predicted` [episodes, steps, dimensions]: row k-1 is what was true, and what was predicted
    without looking, after k steps. Where episodes end early, either their rest is NaN in `true` or `lengths` [episodes]
    says how many steps they have. Optional: `dt`, seconds a step; `episode` [episodes], a number for each if some come
    from one episode; `cut` [episodes], true where the recording ended before the world did.

    Args:
        path: the file.

    Returns:
        The errors.

    Raises:
        DataError: whatever is wrong with the file, in one sentence.
    """
    found = read_npz(path, ["true", "predicted"], ["episode", "dt", "lengths", "cut"])
    try:
        errors, deviation = trajectory_errors(found["true"], found["predicted"], found.get("lengths"))
        count = len(errors)
        episode, cut = found.get("episode", np.arange(count)), found.get("cut")
        if episode.shape != (count,) or episode.dtype.kind not in "iu":
            raise DataError(f"episode: expected {count} whole numbers, found {episode.dtype} {episode.shape}")
        if cut is not None and (cut.shape != (count,) or not np.isin(cut, (0, 1)).all()):
            raise DataError(f"cut: expected {count} times true or false, found {cut.dtype} {cut.shape}")
        dt = _seconds(found.get("dt"))
    except DataError as fault:
        raise DataError(f"{path}: {fault}") from None
    return Trajectories(
        errors=errors, episode=episode, cut=None if cut is None else cut.astype(bool), dt=dt, deviation=deviation
    )


def trajectory_errors(
    true: np.ndarray, predicted: np.ndarray, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn true and predicted trajectories into error curves.

    Args:
        true: [N, K, D] what was true after k = 1..K steps; NaN after the end, unless `lengths` are given.
        predicted: [N, K, D] what was predicted; infinite where the prediction diverged.
        lengths: [N] steps of each, 1 to K; what comes after them is not looked at.

    Returns:
        errors [N, K], in deviations, NaN after the end; and the deviation of each dimension [D].

    Raises:
        DataError: other shapes or types, NaN before the end, or a dimension that never changes.

    Example:
        >>> import numpy as np
        >>> true = np.random.default_rng(0).normal(size=(50, 20, 3))
        >>> errors, deviation = trajectory_errors(true, true + 0.1 * deviation_of(true))
        >>> errors.shape, round(float(errors.mean()), 6)
        ((50, 20), 0.1)
    """
    for name, array in (("true", true), ("predicted", predicted)):
        if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fiu":
            raise DataError(
                f"{name}: expected numbers [episodes, steps, dimensions], found {array.dtype} {array.shape}"
            )
    if true.shape != predicted.shape:
        raise DataError(f"true {true.shape} and predicted {predicted.shape} differ in shape; they must be the same")
    there = _rows(true) if lengths is None else _rows_of(lengths, true.shape)
    true, predicted = true.astype(np.float64), predicted.astype(np.float64)
    _refuse("true", ~np.isfinite(true) & there[..., None], "is not finite before the end of its episode")
    _refuse(
        "predicted",
        np.isnan(predicted) & there[..., None],
        "is NaN where `true` goes on; a prediction that diverged is infinitely wrong, so write inf there",
    )
    deviation = deviation_of(true, there)
    with np.errstate(over="ignore"):
        miss = np.where(there[..., None], predicted - np.where(there[..., None], true, 0.0), 0.0) / deviation
        errors = np.sqrt((miss**2).mean(-1))
    return np.where(there, errors, np.nan), deviation


def deviation_of(true: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Return the standard deviation of each dimension over all rows.

    Args:
        true: [N, K, D].
        there: [N, K] which rows are real; by default all.

    Returns:
        [D], above 0.

    Raises:
        DataError: a dimension never changes, or its values are too large to square.
    """
    rows = true.reshape(-1, true.shape[-1]) if there is None else true[there]
    largest = np.abs(rows).max(0)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = rows.std(0)
    if not np.isfinite(deviation).all():
        i = int(np.argmin(np.isfinite(deviation)))
        raise DataError(f"true: dimension {i} has values of up to {largest[i]:.3g}, too large to square; scale it down")
    still = np.flatnonzero(deviation <= 1e-12 * largest)
    if len(still):
        i = int(still[0])
        raise DataError(f"true: dimension {i} never changes, so its error has no unit; leave this dimension out")
    return deviation


def _rows(true: np.ndarray) -> np.ndarray:
    """Return which rows are real [N, K]: all but those at the end that are NaN throughout."""
    told = ~np.isnan(true).all(2)
    there = np.logical_or.accumulate(np.flip(told, 1), 1)[:, ::-1]
    if not there[:, 0].all():
        raise DataError(f"true: episode {int(np.argmin(there[:, 0]))} has no step that is not NaN; leave it out")
    return there


def _rows_of(lengths: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    count, steps = shape[:2]
    whole = lengths.shape == (count,) and lengths.dtype.kind in "iu"
    if not whole or lengths.min() < 1 or lengths.max() > steps:
        raise DataError(
            f"lengths: expected {count} whole numbers from 1 to {steps}, found {lengths.dtype} {lengths.shape}"
            + (f" from {lengths.min()} to {lengths.max()}" if whole else "")
        )
    return np.arange(steps) < lengths[:, None]


def _refuse(name: str, bad: np.ndarray, what: str) -> None:
    if bad.any():
        n, k, d = np.argwhere(bad)[0]
        raise DataError(f"{name}: episode {n}, step {k + 1}, dimension {d} {what}")


def _seconds(dt: np.ndarray | None) -> float | None:
    if dt is None:
        return None
    if dt.size != 1 or dt.dtype.kind not in "fiu" or not 0 < float(dt.reshape(())) < np.inf:
        raise DataError(f"dt: expected one number of seconds above 0, found {dt.dtype} {dt.shape}")
    return float(dt.reshape(()))
