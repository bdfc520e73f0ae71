"""What every adapter gives: `Format`, how a format is told, read and written, and `Recording`, a source being read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from foreworld.core.config import from_json, to_json
from foreworld.core.errors import ConfigError, DataError
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.dataset import Dataset
from foreworld.data.episode import Episode
from foreworld.data.schema import ACTION, OBS, Schema, Source

V = TypeVar("V")

SCHEMA = "foreworld.json"
"""Where a format of several files keeps the schema of what was exported."""

Progress = Callable[[int, int], None]
"""Called with how many episodes are done and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of a source is wanted, and how its ends are understood.

    Attributes:
        keys: observation keys to keep; None keeps all. Simulator state is always kept.
        subset: a named part of the source, such as `train` of robomimic's filter keys; None for all of it.
        cut: take every end as a truncation, whatever the source says of it.
        states: keep simulator states that lack the one of the last observation, and drop the last action for it.
    """

    keys: tuple[str, ...] | None = None
    subset: str | None = None
    cut: bool = False
    states: bool = False


class Notes:
    """What was left out or understood in one way of several, with the episodes it was so in.

    Example:
        >>> notes = Notes()
        >>> notes.add("the last action has no outcome and was dropped", "demo_0")
        >>> notes.add("the last action has no outcome and was dropped", "demo_1")
        >>> notes.lines()
        ('the last action has no outcome and was dropped (2 episodes, the first demo_0)',)
    """

    def __init__(self) -> None:
        """Begin with nothing to say."""
        self._found: dict[str, list[str]] = {}

    def add(self, text: str, episode: str = "") -> None:
        """Note something, of one episode or of all."""
        self._found.setdefault(text, []).extend([episode] if episode else [])

    def lines(self) -> tuple[str, ...]:
        """Return one sentence for each thing noted."""
        return tuple(text + _where(episodes) for text, episodes in self._found.items())


def _where(episodes: list[str]) -> str:
    if not episodes:
        return ""
    return f" ({len(episodes)} episode{'s' if len(episodes) > 1 else ''}, the first {episodes[0]})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A source whose head was read and checked.

    Attributes:
        spec: what a model is told of it.
        truth: spaces of the simulator state by name.
        source: where the rows come from.
        count: how many episodes it holds.
        read: gives them one by one, each with its name for messages.
        notes: what was left out; complete when all episodes were read.
    """

    spec: Spec
    truth: Mapping[str, Space]
    source: Source
    count: int
    read: Callable[[], Iterator[tuple[str, Episode]]]
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True, kw_only=True)
class Format:
    """How episodes of one format are read and written; an outside package registers one as `foreworld.formats`.

    Attributes:
        name: as `--format` takes it.
        about: what it is, in a few words.
        recognises: whether a file or folder looks like it; it opens no more than the head, and raises nothing but
            `MissingExtra`.
        opened: opens a source, which is read while the block lasts.
        write: writes episodes under a name that is free, and returns what could not be kept.
    """

    name: str
    about: str
    recognises: Callable[[Path], bool]
    opened: Callable[[Path, Selection], AbstractContextManager[Recording]]
    write: Callable[[Dataset, Path, Progress | None], tuple[str, ...]]


def kept_keys(where: str, known: Mapping[str, V], keys: tuple[str, ...] | None) -> dict[str, V]:
    """Return the observations that are kept.

    Args:
        where: the source, for the message.
        known: what belongs to each, by name.
        keys: what to keep; None for all.

    Raises:
        DataError: a key that is not there, or none is left.
    """
    for key in keys or ():
        if key not in known:
            raise DataError(f"{where}: {unknown('observation key', key, list(known))}")
    kept = {key: value for key, value in known.items() if keys is None or key in keys}
    if not kept:
        raise DataError(f"{where}: no observation is left; keep at least one of {', '.join(known) or 'none'}")
    return kept


def described(schema: Schema) -> dict[str, Any]:
    """Return a schema as plain JSON values, to be kept beside episodes in a format that says less of them."""
    return to_json(schema)


def schema_from(where: str, values: Any) -> Schema:
    """Return the schema that `described` gave.

    Args:
        where: the file, for the message.
        values: plain JSON values.

    Raises:
        DataError: they are something else.
    """
    try:
        return from_json(Schema, values, "schema")
    except (ConfigError, DataError, AttributeError, TypeError, ValueError, OverflowError) as fault:
        raise DataError(
            f"{where}: holds no valid schema of foreworld ({fault}); remove it, or restore a copy"
        ) from fault


@dataclass(frozen=True, kw_only=True, eq=False)
class Transitions:
    """One stored episode as most formats hold it: what was done at a row, and what that earned.

    Attributes:
        obs: name to [T+1, ...], images uint8 [T+1, C, H, W].
        action: [T, ...], taken at the row before; None for plain video.
        reward: [T], earned by it.
        is_terminal: whether the last row has no future.
        truth: name to [T+1, ...], simulator state.
    """

    obs: Mapping[str, np.ndarray]
    action: np.ndarray | None
    reward: np.ndarray
    is_terminal: bool
    truth: Mapping[str, np.ndarray]


def transitions(data: Dataset, episode: int) -> Transitions:
    """Return one episode of a dataset as transitions.

    Args:
        data: the dataset.
        episode: its number there.
    """
    raw = data.raw(episode)
    return Transitions(
        obs={key: raw[OBS + key] for key in data.schema.spec.obs},
        action=None if data.schema.spec.action is None else raw[ACTION][1:],
        reward=raw["reward"][1:],
        is_terminal=bool(raw["is_terminal"][-1]),
        truth={key: raw[TRUTH + key] for key in data.schema.truth},
    )
