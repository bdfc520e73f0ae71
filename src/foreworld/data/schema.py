"""The schema of a native store: which columns it has, of what type, and where they came from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.config import from_json, to_json
from foreworld.core.errors import ConfigError, DataError
from foreworld.core.files import read_sealed, write_json
from foreworld.core.spaces import TRUTH, Space, Spec

FORMAT = 1
CONVENTION = "arrival"
SCHEMA_FILE = "schema.json"
FIELDS = {"format", "convention", "columns", "spec", "truth", "source"}
OBS = "obs/"
ACTION = "prev_action"
MOST_CLASSES = 2**20

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]*")
_STORABLE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One stored array: the NumPy name of its type, and its shape without the rows."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes_per_row(self) -> int:
        """Bytes that one row takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a dataset came from.

    Attributes:
        env: environment id, or the file or folder that was imported.
        policy: what chose the actions: `random`, or the name of a run.
        seed: the seed of the collection, when there was one.
        convention: how the source aligned actions before they were stored as arrival rows.
        options: what is needed to make the environment again, as plain JSON values.
    """

    env: str = ""
    policy: str = ""
    seed: int | None = None
    convention: str = CONVENTION
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a store holds; written as `schema.json`.

    Attributes:
        spec: what a model is told; an unbounded action has no range here yet.
        truth: spaces of the simulator state, by name without the `truth/` prefix.
        source: where the rows came from.
    """

    spec: Spec
    truth: Mapping[str, Space] = field(default_factory=dict)
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        """Refuse names and types that cannot be stored."""
        if self.spec.condition:
            raise DataError("a conditioning vector cannot be stored yet; use a spec with condition=0")
        if self.spec.frame_skip < 1 or (self.spec.fps is not None and not 0 < self.spec.fps < math.inf):
            raise DataError(
                f"fps {self.spec.fps} and frame_skip {self.spec.frame_skip} must be positive; correct the spec"
            )
        spaces = {OBS + k: v for k, v in self.spec.obs.items()} | {TRUTH + k: v for k, v in self.truth.items()}
        for name, space in (spaces | ({ACTION: self.spec.action} if self.spec.action else {})).items():
            _check_space(name, space)
        for name, column in self.columns.items():
            if not all(_PART.fullmatch(part) for part in name.split("/")):
                raise DataError(f"column {name!r}: use letters, digits, and any of '_.+-' in names; rename the key")
            if not _STORABLE.fullmatch(column.dtype) or any(n < 1 for n in column.shape):
                raise DataError(f"column {name!r}: {column.dtype} of shape {column.shape} cannot be stored")

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Every column by name, in the order in which they are written."""
        found = {OBS + key: _column(space) for key, space in self.spec.obs.items()}
        if self.spec.action is not None:
            found[ACTION] = _column(self.spec.action)
        found["reward"] = Column(dtype="float32", shape=())
        found |= {flag: Column(dtype="bool", shape=()) for flag in ("is_first", "is_terminal", "is_last")}
        return found | {TRUTH + key: _column(space) for key, space in self.truth.items()}

    @property
    def bytes_per_row(self) -> int:
        """Bytes that one row of all columns takes."""
        return sum(column.bytes_per_row for column in self.columns.values())

    def write(self, folder: Path) -> None:
        """Write `schema.json` into a folder."""
        columns = {name: to_json(column) for name, column in self.columns.items()}
        head = {"format": FORMAT, "convention": CONVENTION, "columns": columns}
        write_json(folder / SCHEMA_FILE, head | to_json(self), sealed=True)

    @classmethod
    def read(cls, folder: Path) -> Schema:
        """Read and check `schema.json` of a store.

        Raises:
            DataError: missing, of another format or convention, or not consistent with itself.
        """
        path = folder / SCHEMA_FILE
        if not path.is_file():
            raise DataError(f"{folder}: not a foreworld dataset (no {SCHEMA_FILE}); `foreworld import` converts others")
        values = read_sealed(path, FIELDS, form=FORMAT)
        if values.get("convention") != CONVENTION:
            raise DataError(f"{path}: convention {values.get('convention')!r}, only {CONVENTION!r} is stored natively")
        try:
            schema = from_json(cls, {name: values.get(name, {}) for name in ("spec", "truth", "source")}, path.name)
            columns = {name: to_json(column) for name, column in schema.columns.items()}
        except (ConfigError, DataError, AttributeError, TypeError, ValueError) as fault:
            raise DataError(f"{path}: not a valid schema ({fault})") from fault
        if _as_lists(columns) != values.get("columns"):
            raise DataError(f"{path}: its columns do not follow from its spec; it was edited or damaged")
        return schema


def _check_space(name: str, space: Space) -> None:
    if any(n < 1 for n in space.shape):
        raise DataError(f"column {name!r}: shape {space.shape} has no elements")
    size = math.prod(space.shape)
    if space.kind == "image":
        consistent = space.dtype == "uint8" and len(space.shape) == 3 and not space.low
    elif space.kind == "discrete":
        counts = len(space.classes) == len(space.start) == size
        consistent = counts and all(n >= 1 for n in space.classes) and sum(space.classes) <= MOST_CLASSES
        limit = np.iinfo(space.dtype) if re.fullmatch(r"u?int(8|16|32|64)", space.dtype) else None
        ranges = zip(space.start, space.classes, strict=True) if consistent else ()
        consistent &= limit is not None and all(limit.min <= s and s + n - 1 <= limit.max for s, n in ranges)
    else:
        consistent = len(space.low) == len(space.high) and len(space.low) in (0, size)
        consistent &= all(low <= high for low, high in zip(space.low, space.high, strict=consistent))
    if not consistent or (space.kind != "discrete" and (space.classes or space.start)):
        raise DataError(f"column {name!r}: its {space.kind} space contradicts itself or is too large")


def _column(space: Space) -> Column:
    return Column(dtype=space.dtype, shape=space.shape)


def _as_lists(columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"dtype": c["dtype"], "shape": list(c["shape"])} for name, c in columns.items()}
