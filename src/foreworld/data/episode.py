"""One episode as arrival rows, and the checks it passes before it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from foreworld.core.errors import DataError
from foreworld.core.spaces import TRUTH, Space
from foreworld.data.schema import ACTION, OBS, Column, Schema


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """T actions and the T+1 rows around them; every other flag follows from their number.

    Attributes:
        obs: name to [T+1, ...], in the form at rest (images uint8 [T+1, C, H, W]).
        prev_action: [T+1, ...], what the environment took to arrive at each row; zero in
            the first; None for plain video.
        reward: [T+1], earned by arriving, zero in the first row; None for all zero.
        is_terminal: whether the last row has no future (truncation is not terminal).
        truth: name to [T+1, ...], simulator state; never shown to a model.
    """

    obs: Mapping[str, np.ndarray]
    prev_action: np.ndarray | None = None
    reward: np.ndarray | None = None
    is_terminal: bool = False
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_transitions(
        cls,
        obs: Mapping[str, np.ndarray],
        action: np.ndarray | None,
        reward: np.ndarray | None = None,
        *,
        is_terminal: bool = False,
        truth: Mapping[str, np.ndarray] | None = None,
    ) -> Episode:
        """Build an episode from transitions, where `action[t]` and `reward[t]` lead from `obs[t]` to `obs[t+1]`.

        Args:
            obs: name to [T+1, ...].
            action: [T, ...], or None for plain video.
            reward: [T], or None.
            is_terminal: whether the last observation has no future.
            truth: name to [T+1, ...].

        Example:
            >>> import numpy as np
            >>> from foreworld.data import Episode
            >>> Episode.from_transitions({"obs": np.zeros((3, 2))}, np.array([1, 4])).prev_action
            array([0, 1, 4])
        """
        return cls(
            obs=obs,
            prev_action=None if action is None else _after_zero(action),
            reward=None if reward is None else _after_zero(reward),
            is_terminal=is_terminal,
            truth=truth or {},
        )


def stored_rows(episode: Episode, schema: Schema) -> dict[str, np.ndarray]:
    """Check an episode and return its columns in the stored types.

    Returns:
        Column name to [T+1, ...], C-contiguous.

    Raises:
        DataError: names the column, and the row where one is at fault.
    """
    _same_keys("obs", episode.obs, schema.spec.obs)
    _same_keys("truth", episode.truth, schema.truth)
    if (episode.prev_action is None) != (schema.spec.action is None):
        stated = "no action" if schema.spec.action is None else "an action"
        raise DataError(f"column {ACTION!r}: the spec has {stated}, the episode differs")
    rows = len(next(iter(episode.obs.values())))
    if rows < 2:
        raise DataError(f"an episode needs at least 2 rows (one step), found {rows}")
    given = {OBS + key: value for key, value in episode.obs.items()}
    given |= {TRUTH + key: value for key, value in episode.truth.items()}
    given["reward"] = np.zeros(rows, np.float32) if episode.reward is None else episode.reward
    if episode.prev_action is not None:
        given[ACTION] = episode.prev_action
    at = np.arange(rows)
    given |= {"is_first": at == 0, "is_last": at == rows - 1}
    given["is_terminal"] = given["is_last"] & bool(episode.is_terminal)
    spaces = _spaces(schema)
    columns = {name: _cast(name, given[name], rows, column) for name, column in schema.columns.items()}
    for name, array in columns.items():
        if name in spaces:
            _check_classes(name, array[1:] if name == ACTION else array, spaces[name], 1 if name == ACTION else 0)
    if ACTION in columns and columns[ACTION][0].any():
        raise DataError(f"column {ACTION!r}, row 0: no action led to the first row, it must be zero (shifted by one?)")
    return columns


def _spaces(schema: Schema) -> dict[str, Space]:
    found = {OBS + key: space for key, space in schema.spec.obs.items()}
    found |= {TRUTH + key: space for key, space in schema.truth.items()}
    return found if schema.spec.action is None else {**found, ACTION: schema.spec.action}


def _cast(name: str, value: np.ndarray, rows: int, column: Column) -> np.ndarray:
    array, dtype = np.asarray(value), np.dtype(column.dtype)
    if array.shape != (rows, *column.shape):
        raise DataError(f"column {name!r}: shape {array.shape}, expected {(rows, *column.shape)}")
    stored = np.ascontiguousarray(array) if array.dtype == dtype else _converted(name, array, dtype)
    if dtype.kind == "f" and np.count_nonzero(np.isfinite(stored)) < stored.size:
        row = int(np.argmin(np.isfinite(stored.reshape(rows, -1)).all(1)))
        raise DataError(f"column {name!r}, row {row}: NaN, infinite or too large for {dtype}")
    return stored


def _converted(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype.kind in "iu":
        bounds, least, most = np.iinfo(dtype), int(array.min()), int(array.max())
        if least < bounds.min or most > bounds.max:
            raise DataError(f"column {name!r}: values from {least} to {most} do not fit {dtype}")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DataError(f"column {name!r}: {array.dtype} values cannot be stored as {dtype}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype)


def _check_classes(name: str, array: np.ndarray, space: Space, first: int) -> None:
    if space.kind != "discrete":
        return
    flat = array.reshape(len(array), -1)
    low = np.asarray(space.start)
    known = (flat >= low) & (flat < low + np.asarray(space.classes))
    if np.count_nonzero(known) < known.size:
        row = int(known.all(1).argmin())
        raise DataError(f"column {name!r}, row {row + first}: {array[row]} is not one of the classes of its space")


def _same_keys(what: str, given: Mapping[str, object], expected: Mapping[str, object]) -> None:
    if missing := sorted(set(expected) - set(given)):
        raise DataError(f"column '{what}/{missing[0]}': missing from the episode")
    if extra := sorted(set(given) - set(expected)):
        raise DataError(f"column '{what}/{extra[0]}': not in the spec of the store; leave it out")


def _after_zero(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    return np.concatenate([np.zeros_like(array, shape=(1, *array.shape[1:])), array])
