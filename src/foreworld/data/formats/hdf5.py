"""HDF5 of unknown origin: nothing outside the file is followed, and what is promised is checked before it is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.disk import open_regular, writing
from foreworld.core.errors import DataError, ForeworldError, MissingExtra, WriteFailed
from foreworld.core.registry import unknown

LARGEST = 2**32
"""Bytes of one array of one episode."""

SUSPECT = 2**26
"""Bytes above which an array that takes a small part of them in the file is refused."""

MOST_SHRUNK = 1000
"""Zeros compressed by deflate shrink to a thousandth, and nothing shrinks further."""

LONGEST_TEXT = 2**20
"""Characters of a text attribute."""

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters that come with h5py; for any other the library would look for a plugin to load."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, UnicodeDecodeError)


def h5py(what: Path | str) -> Any:
    """Import h5py.

    Args:
        what: the file that needs it, for the message.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module("h5py")
    except ImportError as fault:
        raise MissingExtra(f"{what} needs h5py: pip install 'foreworld[hdf5]'") from fault


def is_hdf5(path: Path) -> bool:
    """Say whether a file begins like HDF5."""
    try:
        with open_regular(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except DataError:
        return False


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading, and say in one sentence what is wrong with it.

    Args:
        path: the file; no link.

    Yields:
        Its root group.

    Raises:
        DataError: missing, no HDF5 file, truncated or damaged.
        MissingExtra: h5py is not installed.
    """
    library = h5py(path)
    with open_regular(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DataError(f"{path}: is no HDF5 file")
    try:
        with library.File(path, "r") as opened:
            yield opened
    except ForeworldError:
        raise
    except _FAULTS as fault:
        raise DataError(f"{path}: not readable as HDF5 ({_first_line(fault)}); restore it from a copy") from fault


@contextmanager
def creating(path: Path) -> Iterator[Any]:
    """Write a new HDF5 file.

    Yields:
        Its root group.

    Raises:
        WriteFailed: the disk refused.
    """
    library = h5py(path)
    with writing(path):
        try:
            with library.File(path, "x") as opened:
                yield opened
        except RuntimeError as fault:  # what HDF5 says when it cannot flush
            raise WriteFailed(f"{path}: could not be written ({_first_line(fault)}); free space on its disk") from fault


def place(node: Any) -> str:
    """Say where in which file a group or array lies."""
    return f"{node.file.filename}: {node.name.strip('/') or 'its root'}"


def group(parent: Any, name: str) -> Any:
    """Return a group within a group.

    Raises:
        DataError: it is not there, is a link, or is an array.
    """
    found = _member(parent, name)
    if not hasattr(found, "keys"):
        raise DataError(f"{place(parent)}/{name}: is no group; this is another layout")
    return found


def array(parent: Any, name: str, rows: int | None = None) -> Any:
    """Return an array of numbers within a group, checked and not yet read.

    Args:
        parent: the group.
        name: of the array.
        rows: how many it must have.

    Raises:
        DataError: it is not there, lies outside the file, holds anything but numbers, is too large, was never written,
            or has another number of rows.
    """
    found = plain(parent, name)
    where = f"{place(parent)}/{name}"
    if found.dtype.kind not in "fiub":
        raise DataError(f"{where}: holds {found.dtype}; only plain numbers are read")
    _check_size(where, found)
    if rows is not None and found.shape[:1] != (rows,):
        raise DataError(
            f"{where}: {_rows(found)} where {rows} rows belong; the episode is damaged, or not of this form"
        )
    return found


def plain(parent: Any, name: str) -> Any:
    """Return an array of any type within a group that lies in the file itself and needs no plugin.

    Raises:
        DataError: it is not there, is a group, or its content lies outside the file.
    """
    found, where = _member(parent, name), f"{place(parent)}/{name}"
    if hasattr(found, "keys") or not hasattr(found, "dtype"):
        raise DataError(f"{where}: is no array; this is another layout")
    if found.is_virtual or found.external:
        raise DataError(f"{where}: its content lies in other files, which are not followed; copy it into one file")
    settings = found.id.get_create_plist()
    used = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if odd := [number for number in used if number not in FILTERS]:
        raise DataError(f"{where}: compressed by filter {odd[0]}, which needs a plugin; store it with gzip")
    return found


def text(node: Any, name: str) -> str | None:
    """Return a text attribute of a group; None where there is none.

    Raises:
        DataError: it is no text, or a very long one.
    """
    if name not in node.attrs:
        return None
    where = f"{place(node)}: attribute {name!r}"
    stored = node.attrs.get_id(name)
    if stored.shape not in ((), (1,)) or stored.dtype.kind not in "SO" or stored.dtype.itemsize > LONGEST_TEXT:
        raise DataError(f"{where}: is no text")
    value = node.attrs[name]
    value = value[0] if isinstance(value, np.ndarray) else value
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise DataError(f"{where}: is no text of at most {LONGEST_TEXT >> 10} KiB")
    return value


def parsed(where: str, value: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        DataError: it is something else.
    """
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{where}: is no JSON ({_first_line(fault)})") from fault
    if not isinstance(found, dict):
        raise DataError(f"{where}: is no JSON object")
    return found


def numbered(parent: Any, prefix: str) -> list[str]:
    """Return the names `<prefix><number>` within a group, by their number.

    Raises:
        DataError: another name, or none.
    """
    names = list(parent.keys())
    for name in names:
        if not re.fullmatch(re.escape(prefix) + "[0-9]{1,9}", name):
            raise DataError(f"{place(parent)}: holds {name!r:.60}, where only {prefix}<number> belongs")
    if not names:
        raise DataError(f"{place(parent)}: holds no episode")
    return sorted(names, key=lambda name: int(name.removeprefix(prefix)))


def has(parent: Any, name: str) -> bool:
    """Say whether a group has an entry of a name, without following it."""
    return parent.get(name, getlink=True) is not None


def _member(parent: Any, name: str) -> Any:
    *homes, name = name.split("/")
    for home in homes:
        parent = group(parent, home)
    where = place(parent)
    link = parent.get(name, getlink=True)
    if link is None:
        known = list(islice(parent.keys(), 50))
        raise DataError(f"{where}: {unknown('entry', name, known)}; it is needed")
    if type(link).__name__ != "HardLink":
        raise DataError(f"{where}/{name}: is a link, which is not followed; copy what it points to into the file")
    return parent[name]


def _check_size(where: str, found: Any) -> None:
    size = math.prod(found.shape) * found.dtype.itemsize
    held = found.id.get_storage_size()
    if size > LARGEST:
        raise DataError(f"{where}: promises {size / 2**30:.0f} GiB, at most {LARGEST >> 30} are read of one episode")
    if size and not held:
        raise DataError(f"{where}: promises {size} bytes and holds none; its writer was interrupted")
    if found.chunks is None:
        if size > held:
            raise DataError(f"{where}: promises {size} bytes and holds {held}; it is damaged")
        return
    piece = math.prod(found.chunks) * found.dtype.itemsize
    if max(size, piece) > SUSPECT and max(size, piece) > MOST_SHRUNK * held:
        raise DataError(f"{where}: promises {max(size, piece) >> 20} MiB and holds {held >> 10} KiB; it is damaged")
    whole = math.prod(-(-side // part) for side, part in zip(found.shape, found.chunks, strict=True))
    if (written := found.id.get_num_chunks()) < whole:
        raise DataError(f"{where}: {written} of its {whole} pieces are there; its writer was interrupted")


def _rows(found: Any) -> str:
    return f"{found.shape[0]} rows" if found.shape else "one number"


def _first_line(fault: Exception) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0][:200]
