"""Shards: sealed folders of whole episodes, one standard `.npy` file per column, memory-mapped."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from foreworld.core.disk import create, list_files, open_regular, remove_folder, writing
from foreworld.core.errors import DataError
from foreworld.core.files import MANIFEST, read_json, sealed_folder, verify_folder, write_json
from foreworld.data.dropped import Dropped
from foreworld.data.npy import LARGEST_HEADER, read_header
from foreworld.data.schema import Column, Schema

SHARDS = "shards"
EPISODES_FILE = "episodes.json"
VERIFIED_FILE = "verified.json"
SPARE_FILES = 256
"""Files that the rest of the process may have open beside the columns of a store."""

_NUMBER = re.compile(r"[0-9]{6,12}")


@dataclass(frozen=True, eq=False)
class Shard:
    """An open shard: rows per episode [E], and its columns [rows, ...], read-only and not yet in memory."""

    path: Path
    lengths: np.ndarray
    columns: Mapping[str, np.ndarray]


def shard_paths(store: Path) -> list[Path]:
    """List the sealed shards of a store in order, without those that it dropped.

    Raises:
        DataError: a shard between two others is missing.
    """
    folder = store / SHARDS
    if folder.is_symlink():
        raise DataError(f"{folder}: is a link; copy the dataset with `cp -rL` and use the copy")
    found = [path for path in folder.iterdir() if _NUMBER.fullmatch(path.name)] if folder.is_dir() else []
    first = Dropped.read(store).shards
    paths = sorted((path for path in found if int(path.name) >= first), key=lambda path: int(path.name))
    for before, after in pairwise([first - 1, *(int(path.name) for path in paths)]):
        if after != before + 1:
            raise DataError(f"{folder}: shard {before + 1:06d} is missing; restore it from a copy")
    return paths


def shards_from(store: Path, episode: int, stop: int) -> list[Path]:
    """List the shards before number `stop` that hold an episode of this number or a later one; all are checked.

    Raises:
        DataError: one is missing or damaged.
    """
    paths, after, found = shard_paths(store), Dropped.read(store).episodes, []
    verify_shards(store, paths)
    for path in paths:
        after += len(_lengths(path / EPISODES_FILE))  # number of the first episode after this shard
        if after > episode and int(path.name) < stop:
            found.append(path)
    return found


def shard_path(store: Path, number: int) -> Path:
    """Return the folder of a shard."""
    return store / SHARDS / f"{number:06d}"


def sweep_dropped(store: Path, first: int) -> None:
    """Remove the shards that a store dropped, those before number `first`, as far as they are still there."""
    with writing(store / SHARDS):
        found = sorted((store / SHARDS).iterdir())
    for path in found:
        if _NUMBER.fullmatch(path.name) and int(path.name) < first:
            remove_folder(path)


def write_shard(path: Path, columns: Mapping[str, Column], episodes: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write whole episodes as one sealed shard; it appears under its name only when it is complete."""
    lengths = [len(next(iter(episode.values()))) for episode in episodes]
    with sealed_folder(path) as folder:
        for name, column in columns.items():
            file = column_file(folder, name)
            file.parent.mkdir(exist_ok=True, parents=True)
            with create(file) as out:
                shape = (sum(lengths), *column.shape)
                descr = npy.dtype_to_descr(np.dtype(column.dtype))
                npy.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
                for episode in episodes:
                    out.write(episode[name].data)
        write_json(folder / EPISODES_FILE, {"lengths": lengths}, durable=False)


def open_shard(path: Path, schema: Schema) -> Shard:
    """Map the columns of a shard; every header is checked before anything is mapped.

    Raises:
        DataError: names the file at fault.
    """
    lengths = _lengths(path / EPISODES_FILE)
    rows = sum(lengths.tolist())  # exact: a hostile index could overflow int64
    return Shard(path, lengths, {n: open_column(column_file(path, n), rows, c) for n, c in schema.columns.items()})


def open_shards(paths: Sequence[Path], schema: Schema) -> tuple[Shard, ...]:
    """Map the columns of all shards.

    Raises:
        DataError: names the file at fault.
    """
    allow_files(len(paths) * len(schema.columns))
    return tuple(open_shard(path, schema) for path in paths)


def allow_files(columns: int) -> None:
    """Raise the limit of open files where it is too low: each mapped column keeps one open."""
    needed = columns + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and needed > soft:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))


def column_file(folder: Path, name: str) -> Path:
    """Return the file of a column: `obs/image` is `obs/image.npy`."""
    return folder / f"{name}.npy"


def open_column(path: Path, rows: int, column: Column) -> np.ndarray:
    """Map one `.npy` file read-only, if its header says exactly what the schema says.

    Args:
        path: the file.
        rows: rows that the episode index counts.
        column: type and shape that the schema states.

    Returns:
        [rows, ...], a plain array over the mapped file.

    Raises:
        DataError: no `.npy` header, another type, order or shape, or a file of another size.
    """
    shape, dtype = (rows, *column.shape), np.dtype(column.dtype)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        offset, descr, fortran, found = read_header(path, file.read(LARGEST_HEADER))
        if descr != npy.dtype_to_descr(dtype):
            raise DataError(f"{path}: holds {descr}, the schema says {dtype}; it is damaged or was replaced")
        if fortran and len(shape) > 1:
            raise DataError(f"{path}: is in Fortran order, columns are stored row by row; write it again in C order")
        if found != shape:
            raise DataError(f"{path}: shape {found}, schema and index say {shape}; it is damaged or was replaced")
        if size - offset != rows * column.bytes_per_row:
            raise DataError(
                f"{path}: {size} bytes, its header promises {offset + rows * column.bytes_per_row}; damaged"
            )
        return np.asarray(np.memmap(file, dtype, "r", offset, shape))


def verify_shards(store: Path, paths: Sequence[Path]) -> None:
    """Check shards against their hashes at first sight, then remember them by size and times.

    `verified.json` beside the schema remembers, per file, the size and when content and metadata
    were last changed (mtime and ctime). A file that differs in any of these is hashed again; what
    changes none of them, as a failing disk may, is found when `verified.json` is removed, or in a
    copy of the store.

    Raises:
        DataError: a file is missing, added or changed; it is named.
    """
    known = _remembered(store / VERIFIED_FILE) if os.path.lexists(store / VERIFIED_FILE) else {}
    seen = {path.name: _stamp(path) for path in paths}
    fresh = [path for path in paths if known.get(path.name) != seen[path.name]]
    for path in fresh:
        verify_folder(path)
    if fresh:
        try:
            write_json(store / VERIFIED_FILE, seen)
        except OSError:  # a read-only store is verified again at every opening
            return


def _lengths(path: Path) -> np.ndarray:
    values = read_json(path)
    lengths = values.get("lengths") if isinstance(values, dict) else None
    valid = isinstance(lengths, list) and lengths and all(type(n) is int and 2 <= n < 2**40 for n in lengths)
    if not valid:
        raise DataError(f"{path}: has no valid list of episode lengths; it is damaged")
    return np.asarray(lengths, np.int64)


def _stamp(path: Path) -> dict[str, list[int]]:
    files = list_files(path)
    if MANIFEST not in files:
        raise DataError(f"{path}: has no {MANIFEST}; it is not a complete shard, restore it from a copy")
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in files.items()}


def _remembered(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except DataError:
        return {}
    return values if isinstance(values, dict) else {}
