"""Shards: sealed folders of whole episodes, one standard `.npy` file per column, memory-mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from foreworld.core.errors import DataError
from foreworld.core.files import MANIFEST, read_json, sealed_folder, verify_folder, write_json
from foreworld.data.schema import Column, Schema

SHARDS = "shards"
EPISODES_FILE = "episodes.json"
VERIFIED_FILE = "verified.json"


@dataclass(frozen=True, eq=False)
class Shard:
    """An open shard: rows per episode [E], and its columns [rows, ...], read-only and not yet in memory."""

    path: Path
    lengths: np.ndarray
    columns: Mapping[str, np.ndarray]


def shard_paths(store: Path) -> list[Path]:
    """List the sealed shards of a store in order.

    Raises:
        DataError: a shard between two others is missing.
    """
    folder = store / SHARDS
    paths = sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
    for before, after in pairwise(paths):
        if int(after.name) != int(before.name) + 1:
            raise DataError(f"{folder}: shard {int(before.name) + 1:06d} is missing; restore it from a copy")
    return paths


def write_shard(path: Path, columns: Mapping[str, Column], episodes: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write whole episodes as one sealed shard; it appears under its name only when it is complete."""
    lengths = [len(next(iter(episode.values()))) for episode in episodes]
    with sealed_folder(path) as folder:
        for name, column in columns.items():
            file = column_file(folder, name)
            file.parent.mkdir(exist_ok=True, parents=True)
            with file.open("wb") as out:
                shape = (sum(lengths), *column.shape)
                descr = npy.dtype_to_descr(np.dtype(column.dtype))
                npy.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
                for episode in episodes:
                    out.write(episode[name].data)
        write_json(folder / EPISODES_FILE, {"lengths": lengths})


def open_shard(path: Path, schema: Schema) -> Shard:
    """Map the columns of a shard; every header is checked before anything is mapped.

    Raises:
        DataError: names the file at fault.
    """
    lengths = _lengths(path / EPISODES_FILE)
    rows = sum(lengths.tolist())  # exact: a hostile index could overflow int64
    columns = {name: open_column(column_file(path, name), rows, col) for name, col in schema.columns.items()}
    return Shard(path, lengths, columns)


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
    if not path.is_file():
        raise DataError(f"{path}: missing; restore it from a copy")
    try:
        with path.open("rb") as file:
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
            if read is None:
                raise ValueError("unknown version of the format")
            found_shape, fortran, found_dtype = read(file)
            offset, size = file.tell(), path.stat().st_size
    except Exception as fault:  # on hostile text NumPy's parser raises whatever its tokenizer does
        raise DataError(f"{path}: not readable as a .npy column ({fault})") from fault
    if found_dtype != dtype:
        raise DataError(f"{path}: holds {found_dtype}, the schema says {dtype}; it is damaged or was replaced")
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: is in Fortran order, columns are stored row by row; write it again in C order")
    if found_shape != shape:
        raise DataError(f"{path}: shape {found_shape}, schema and index say {shape}; it is damaged or was replaced")
    if size - offset != rows * column.bytes_per_row:
        raise DataError(f"{path}: {size} bytes, its header promises {offset + rows * column.bytes_per_row}; damaged")
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def verify_shards(store: Path, paths: Sequence[Path]) -> None:
    """Check shards against their hashes at first sight, then remember them by size and time.

    Raises:
        DataError: a file is missing, added or changed; it is named.
    """
    known = _remembered(store / VERIFIED_FILE)
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
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not (path / MANIFEST).is_file():
        raise DataError(f"{path}: has no {MANIFEST}; it is not a complete shard")
    stats = {str(file.relative_to(path)): file.stat() for file in files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _remembered(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except DataError:
        return {}
    return values if isinstance(values, dict) else {}
