"""Episodes as `.npz` files, one episode a file, as `numpy.savez` writes them: the format for one's own recordings.

A file holds `obs/<key>` [T+1, ...] and `action` [T, ...], taken at the row before; and, where there are such, `reward`
[T], `is_terminal` (one flag) and `truth/<key>` [T+1, ...]. Instead of `action` and `reward`, a recording that is
aligned as foreworld stores it says `prev_action` and `prev_reward` with T+1 rows. Without either it is plain video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.disk import make_folder, writing
from foreworld.core.errors import DataError
from foreworld.core.files import read_json, write_json
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.dataset import Dataset
from foreworld.data.episode import Episode
from foreworld.data.formats.recording import (
    SCHEMA,
    Format,
    Progress,
    Recording,
    Selection,
    described,
    kept_keys,
    schema_from,
    transitions,
)
from foreworld.data.formats.spaces import space_of
from foreworld.data.npz import array_names, read_npz
from foreworld.data.schema import OBS, Schema, Source

ENDING = ".npz"
MOST_FILES = 10**6
NUMBERS = ("action", "reward", "prev_action", "prev_reward", "is_terminal")


def recognises(path: Path) -> bool:
    """Say whether this is an `.npz` file, or a folder of them."""
    if path.is_dir():
        return any(file.suffix == ENDING for file in path.iterdir())
    return path.suffix == ENDING and path.is_file()


@contextmanager
def opened(path: Path, selection: Selection) -> Iterator[Recording]:
    """Open one file, or a folder of files, which are read in the order of their names.

    Args:
        path: file or folder.
        selection: keys to read, and how an end is understood.

    Yields:
        The recording.

    Raises:
        DataError: no file, or one that is damaged or of another form; file and array are named.
    """
    if selection.subset is not None:
        raise DataError(f"{path}: .npz files have no named parts, so there is no {selection.subset!r}")
    files = sorted(file for file in path.iterdir() if file.suffix == ENDING) if path.is_dir() else [path]
    if not 0 < len(files) <= MOST_FILES:
        raise DataError(f"{path}: holds {len(files)} {ENDING} files")
    kept = path / SCHEMA if path.is_dir() else path.parent / SCHEMA
    schema = schema_from(str(kept), read_json(kept)) if kept.is_file() else _schema(files[0])
    obs = kept_keys(str(path), schema.spec.obs, selection.keys)
    spec = Spec(obs=obs, action=schema.spec.action, fps=schema.spec.fps, frame_skip=schema.spec.frame_skip)
    schema = Schema(spec=spec, truth=schema.truth, source=schema.source)

    def read() -> Iterator[tuple[str, Episode]]:
        for file in files:
            yield str(file), _episode(file, schema, selection.cut)

    yield Recording(spec=spec, truth=schema.truth, source=schema.source, count=len(files), read=read)


def _schema(file: Path) -> Schema:
    """Find out what the files hold from the first of them."""
    known = array_names(file)
    if odd := [name for name in known if not name.startswith((OBS, TRUTH)) and name not in NUMBERS]:
        said = f"obs/<key>, truth/<key>, {', '.join(NUMBERS)}"
        raise DataError(f"{file}: holds an array {odd[0]!r:.60}; the names of an episode are {said}")
    found = read_npz(file, known)
    spaces = {name: space_of(_rows(file, name, value)) for name, value in found.items() if "/" in name}
    taken = found.get("action", found.get("prev_action"))
    action = None if taken is None else space_of(_rows(file, "action", taken))
    source = Source(env=file.name, convention="transition", options={"format": "npz"})
    obs = {name.removeprefix(OBS): space for name, space in spaces.items() if name.startswith(OBS)}
    if not obs:
        raise DataError(f"{file}: holds no obs/<key>; an episode needs at least one observation")
    truth = {name.removeprefix(TRUTH): space for name, space in spaces.items() if name.startswith(TRUTH)}
    return Schema(spec=Spec(obs=obs, action=action), truth=truth, source=source)


def _rows(file: Path, name: str, value: np.ndarray) -> np.ndarray:
    if not value.ndim:
        raise DataError(f"{file}: {name} is one number, not one a row")
    return value


def _episode(file: Path, schema: Schema, cut: bool) -> Episode:
    spec = schema.spec
    columns = [*(OBS + key for key in spec.obs), *(TRUTH + key for key in schema.truth)]
    found = read_npz(file, columns, NUMBERS)
    rows = len(_rows(file, columns[0], found[columns[0]]))
    for name in columns:
        if len(_rows(file, name, found[name])) != rows:
            raise DataError(f"{file}: {name} has {len(found[name])} rows, {columns[0]} {rows}")
    flag = found.get("is_terminal", np.zeros(1, bool))
    return Episode(
        obs=_at_rest(found, OBS, spec.obs),
        prev_action=None if spec.action is None else _arrived(file, found, "action", rows),
        reward=_arrived(file, found, "reward", rows) if {"reward", "prev_reward"} & set(found) else None,
        is_terminal=bool(flag.reshape(-1)[-1:].any()) and not cut,
        truth=_at_rest(found, TRUTH, schema.truth),
    )


def _at_rest(found: Mapping[str, np.ndarray], prefix: str, spaces: Mapping[str, Space]) -> dict[str, np.ndarray]:
    return {key: space.to_rest(found[prefix + key]) for key, space in spaces.items()}


def _arrived(file: Path, found: Mapping[str, np.ndarray], name: str, rows: int) -> np.ndarray:
    """Return actions or rewards as arrival rows [T+1, ...], by whichever name they were stored."""
    names = [each for each in (name, f"prev_{name}") if each in found]
    if len(names) != 1:
        raise DataError(f"{file}: holds {'both' if names else 'neither'} {name} and prev_{name}; store one of them")
    values, moved = _rows(file, names[0], found[names[0]]), names[0] == name
    wanted = rows - 1 if moved else rows
    if len(values) != wanted:
        other = f"; stored where they arrived, they are called prev_{name}" if moved and len(values) == rows else ""
        raise DataError(f"{file}: {len(values)} rows of {names[0]} for {rows} observations, expected {wanted}{other}")
    return np.concatenate([np.zeros_like(values, shape=(1, *values.shape[1:])), values]) if moved else values


def write(data: Dataset, path: Path, progress: Progress | None = None) -> tuple[str, ...]:
    """Write a folder of files, one episode each, and the schema beside them.

    Args:
        data: the episodes.
        path: of the new folder.
        progress: called with (done, total), in episodes.

    Returns:
        Nothing: all of it is kept.

    Raises:
        WriteFailed: the disk refused.
    """
    make_folder(path)
    spec = data.schema.spec
    for number in range(data.episodes):
        found = transitions(data, number)
        arrays: dict[str, Any] = {OBS + key: spec.obs[key].from_rest(rows) for key, rows in found.obs.items()}
        arrays |= {TRUTH + key: rows for key, rows in found.truth.items()}
        arrays |= {"reward": found.reward, "is_terminal": np.array(found.is_terminal)}
        if found.action is not None:
            arrays["action"] = found.action
        file = path / f"episode-{number:06d}{ENDING}"
        with writing(file):
            np.savez_compressed(file, **arrays)
        if progress is not None:
            progress(number + 1, data.episodes)
    write_json(path / SCHEMA, described(data.schema))
    return ()


FORMAT = Format(
    name="npz",
    about="a file, or a folder of files, of numpy.savez",
    recognises=recognises,
    opened=opened,
    write=write,
)
