"""The header of a `.npy` file, read by its grammar: nothing in it is evaluated, and nothing is allocated for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from foreworld.core.errors import DataError

LARGEST_HEADER = 4096

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{'descr': '([<>|=][A-Za-z][0-9]{1,4})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,400})\), \} *\n"
)


class Header(NamedTuple):
    """What a `.npy` header says.

    Attributes:
        offset: where the values begin.
        descr: their type, as NumPy writes it.
        fortran: whether the first index moves fastest.
        shape: of the array.
    """

    offset: int
    descr: str
    fortran: bool
    shape: tuple[int, ...]


def read_header(path: Path | str, head: bytes) -> Header:
    """Read a `.npy` header.

    Args:
        path: how to call the file in an error.
        head: its first bytes, `LARGEST_HEADER` of them or all.

    Returns:
        Where the values begin, their type, order and shape.

    Raises:
        DataError: no header of an array of numbers.
    """
    width = {b"\x01\x00": 2, b"\x02\x00": 4}.get(head[6:8])
    if not head.startswith(_MAGIC) or width is None:
        raise DataError(f"{path}: not readable as a .npy column (unknown version of the format, or no .npy file)")
    start = 8 + width
    offset = start + int.from_bytes(head[8:start], "little")
    text = head[start:offset].decode("latin-1")
    match = _HEADER.fullmatch(text)
    if match is None or offset > len(head):
        raise DataError(f"{path}: not readable as a .npy column of numbers (its header is not one); it is damaged")
    descr, fortran, shape = match.groups()
    sides = [side.strip() for side in shape.split(",")]
    if shape and not all(side.isdigit() for side in sides[:-1] or sides):
        raise DataError(f"{path}: not readable as a .npy column (shape ({shape:.80})); it is damaged")
    return Header(offset, descr, fortran == "True", tuple(int(side) for side in sides if side))
