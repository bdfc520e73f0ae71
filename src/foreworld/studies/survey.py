"""One pass over every row of a dataset: ranges, repeats, duplicates, lengths, returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.data.schema import ACTION, OBS

CHUNK = 1024

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Range:
    """What one column holds.

    Attributes:
        low: least value of every component, [*shape].
        high: greatest value, [*shape].
        bad: (episode, row) of the first value that is NaN or infinite; None if all are finite.
        bad_rows: rows with such values.
    """

    low: np.ndarray
    high: np.ndarray
    bad: tuple[int, int] | None
    bad_rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """Facts of a dataset, before anything is made of them.

    Attributes:
        columns: range by column; of the actions without the first row, which has none.
        taken: for every component of a discrete action, how often each class was taken.
        lengths: [E] rows.
        returns: [E] undiscounted.
        terminal: [E] whether the last row is terminal.
        repeated: [E] rows whose observation equals the one before in every value.
        choices: [E] stretches of rows with the same action; of video, its steps.
        copies: (episode, earlier episode) with the same observations and actions.
        misplaced: (flag or column, episode, row) of the first value that breaks the arrival rows.
    """

    columns: Mapping[str, Range]
    taken: tuple[np.ndarray, ...]
    lengths: np.ndarray
    returns: np.ndarray
    terminal: np.ndarray
    repeated: np.ndarray
    choices: np.ndarray
    copies: tuple[tuple[int, int], ...]
    misplaced: tuple[tuple[str, int, int], ...]


def survey(data: Dataset, progress: Progress | None = None) -> Survey:
    """Read every row once.

    Args:
        data: the rows.
        progress: called with (rows read, rows).
    """
    ranges: dict[str, list[Range]] = {name: [] for name in _valued(data)}
    returns, terminal, repeated, choices = (np.zeros(data.episodes) for _ in range(4))
    first_of: dict[bytes, int] = {}
    copies: list[tuple[int, int]] = []
    misplaced: dict[str, tuple[str, int, int]] = {}
    taken = _no_counts(data)
    done = 0
    for episode in range(data.episodes):
        raw = data.raw(episode)
        for name, found in ranges.items():
            skipped = int(name == ACTION)
            found.append(_range(raw[name][skipped:], episode, skipped))
        for counts, values in zip(taken, _classes(data, raw), strict=True):
            counts += np.bincount(values, minlength=len(counts))[: len(counts)]
        returns[episode] = raw["reward"].sum(dtype=np.float64)
        terminal[episode] = raw["is_terminal"][-1]
        repeated[episode] = _repeats([raw[OBS + key] for key in data.spec.obs])
        choices[episode] = _choices(raw)
        known = first_of.setdefault(_digest(data, raw), episode)
        if known != episode:
            copies.append((episode, known))
        for name, row in _misplaced(raw):
            misplaced.setdefault(name, (name, episode, row))
        done += len(raw["reward"])
        if progress is not None:
            progress(done, data.rows)
    return Survey(
        columns={name: _joined(found) for name, found in ranges.items()},
        taken=taken,
        lengths=data.lengths,
        returns=returns,
        terminal=terminal.astype(bool),
        repeated=repeated.astype(np.int64),
        choices=choices.astype(np.int64),
        copies=tuple(copies),
        misplaced=tuple(misplaced.values()),
    )


def _valued(data: Dataset) -> list[str]:
    """Name the columns that hold values, not flags."""
    return [name for name in data.schema.columns if name in (ACTION, "reward") or name.startswith((OBS, TRUTH))]


def _range(values: np.ndarray, episode: int, first_row: int) -> Range:
    low, high = values.min(0), values.max(0)
    if low.dtype.kind != "f" or (np.isfinite(low).all() and np.isfinite(high).all()):
        return Range(low=low, high=high, bad=None, bad_rows=0)
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    good = np.delete(values, bad, 0)
    if len(good):
        low, high = good.min(0), good.max(0)
    return Range(low=low, high=high, bad=(episode, int(bad[0]) + first_row), bad_rows=len(bad))


def _joined(found: list[Range]) -> Range:
    return Range(
        low=np.min([r.low for r in found], 0),
        high=np.max([r.high for r in found], 0),
        bad=next((r.bad for r in found if r.bad is not None), None),
        bad_rows=sum(r.bad_rows for r in found),
    )


def _no_counts(data: Dataset) -> tuple[np.ndarray, ...]:
    action = data.schema.spec.action
    return () if action is None else tuple(np.zeros(n, np.int64) for n in action.classes)


def _classes(data: Dataset, raw: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the class numbers [T] of every component of a discrete action; those outside are left out."""
    action = data.schema.spec.action
    if action is None or action.kind != "discrete":
        return []
    flat = raw[ACTION][1:].reshape(-1, len(action.classes)).astype(np.int64) - np.asarray(action.start)
    return [flat[(flat[:, i] >= 0) & (flat[:, i] < n), i] for i, n in enumerate(action.classes)]


def _repeats(columns: list[np.ndarray]) -> int:
    """Count rows that equal the row before in all columns."""
    rows, count = len(columns[0]), 0
    for start in range(0, rows - 1, CHUNK):
        same = np.ones(min(CHUNK, rows - 1 - start), bool)
        for column in columns:
            part = column[start : start + len(same) + 1]
            same &= (part[1:] == part[:-1]).reshape(len(same), -1).all(1)
        count += int(same.sum())
    return count


def _choices(raw: Mapping[str, np.ndarray]) -> int:
    steps = len(raw["reward"]) - 1
    if ACTION not in raw:
        return steps
    taken = raw[ACTION][1:].reshape(steps, -1)
    return 1 + int((taken[1:] != taken[:-1]).any(1).sum())


def _digest(data: Dataset, raw: Mapping[str, np.ndarray]) -> bytes:
    taken = hashlib.blake2b(digest_size=16)
    for name in [OBS + key for key in data.spec.obs] + [ACTION] * (data.spec.action is not None):
        taken.update(np.ascontiguousarray(raw[name]).data)
    return taken.digest()


def _misplaced(raw: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
    """Find the first row at which a flag, or the absent first action, is not as arrival rows have it."""
    at = np.arange(len(raw["reward"]))
    wrong = {
        "is_first": raw["is_first"] != (at == 0),
        "is_last": raw["is_last"] != (at == at[-1]),
        "is_terminal": raw["is_terminal"] & (at != at[-1]),
    }
    if ACTION in raw:
        wrong[ACTION] = (at == 0) & bool(raw[ACTION][0].any())
    return [(name, int(rows.argmax())) for name, rows in wrong.items() if rows.any()]
