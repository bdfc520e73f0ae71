"""Arrays of numbers out of an `.npz` file of unknown origin: what it promises is checked before anything is read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from foreworld.core.disk import open_regular
from foreworld.core.errors import DataError
from foreworld.core.registry import unknown
from foreworld.data.npy import LARGEST_HEADER, read_header

LARGEST = 2**30
"""Bytes of one array."""

SUSPECT = 2**26
"""Bytes above which an array that was compressed to a small part of itself is refused."""

MOST_SHRUNK = 200
"""Numbers that were measured shrink to a half or a tenth; zeros shrink to a thousandth."""

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, RuntimeError)


def read_npz(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read some arrays of numbers from an `.npz` file, as `numpy.savez` writes them; nothing is ever unpickled.

    Args:
        path: the file.
        needed: names of arrays that must be there.
        optional: names of arrays that may be there; others are not looked at.

    Returns:
        Array by name.

    Raises:
        DataError: no such file, an array is missing, holds anything but numbers, is too large, promises more than it
            holds, or is damaged.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez_compressed(f"{folder}/a.npz", x=np.arange(3.0))
        ...     found = read_npz(Path(folder) / "a.npz", ["x"])
        >>> found["x"]
        array([0., 1., 2.])
    """
    with _archive(path) as (archive, members):
        if absent := [name for name in needed if name not in members]:
            raise DataError(f"{path}: {unknown('array', absent[0], sorted(members))}; it is needed")
        wanted = [name for name in (*needed, *optional) if name in members]
        return {name: _read(f"{path}: {name}", archive, members[name]) for name in wanted}


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an `.npz` file.

    Args:
        path: the file.

    Raises:
        DataError: no such file, or it is damaged.
    """
    with _archive(path) as (_, members):
        return list(members)


@contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open a file, and say in one sentence what is wrong with it."""
    with open_regular(path) as file:
        if not file.read(4).startswith(b"PK"):
            raise DataError(f"{path}: is no .npz file; write it with numpy.savez")
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive, _members(path, archive)
        except _FAULTS as fault:
            raise DataError(f"{path}: not readable as .npz ({fault}); it is damaged, restore it from a copy") from fault


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise DataError(f"{path}: holds {name!r:.80} twice; write it with numpy.savez")
        found[name] = member
    return found


def _read(where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    size = member.file_size
    if member.flag_bits & 1 or member.compress_type not in _PLAIN:
        raise DataError(f"{where}: is encrypted or compressed in a way that numpy.savez does not write")
    if size > LARGEST:
        raise DataError(f"{where}: {size / 2**20:.0f} MiB, at most {LARGEST >> 20} are read; use fewer episodes")
    if size > SUSPECT and size > MOST_SHRUNK * member.compress_size:
        raise DataError(
            f"{where}: {size >> 20} MiB out of {member.compress_size >> 10} KiB; no measured numbers shrink so far, "
            "write it with numpy.savez"
        )
    with archive.open(member) as stream:
        head = stream.read(LARGEST_HEADER)
        if b"'|O'" in head[:LARGEST_HEADER]:
            raise DataError(f"{where}: holds Python objects, which only a pickle could read; store plain numbers")
        header = read_header(where, head)
        try:
            dtype = np.dtype(header.descr)
        except TypeError:
            raise DataError(f"{where}: holds {header.descr}, which is no type of numbers") from None
        count = math.prod(header.shape)
        if dtype.kind not in "fiub":
            raise DataError(f"{where}: holds {header.descr}; store plain numbers")
        if size != header.offset + count * dtype.itemsize:
            raise DataError(f"{where}: {size} bytes, its header promises {header.offset + count * dtype.itemsize}")
        data = bytearray(head[header.offset :])
        while part := stream.read(2**20):
            data += part
    if len(data) != count * dtype.itemsize:
        raise DataError(f"{where}: ends early; it is damaged, restore it from a copy")
    values = np.frombuffer(data, dtype)
    return values.reshape(header.shape, order="F" if header.fortran else "C")
