"""PNG from arrays, by zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from foreworld.core.errors import SpecError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def encode(image: NDArray[np.uint8]) -> bytes:
    r"""Encode a picture losslessly.

    Args:
        image: [H, W] grey or [H, W, 3] RGB, uint8.

    Returns:
        The bytes of a PNG file.

    Raises:
        SpecError: another shape or type, or an empty picture.

    Example:
        >>> encode(np.zeros((2, 3), np.uint8))[:4]
        b'\x89PNG'
    """
    image = np.asarray(image)
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or image.shape[2:] == (3,)) or image.size == 0:
        raise SpecError(f"a picture must be uint8 [H, W] or [H, W, 3] and not empty, found {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if grey else _RGB, 0, 0, 0)
    # Flat drawings pack best unfiltered, natural images as differences: try both, keep the smaller.
    rows = image.reshape(height, width, -1)
    packed = min((zlib.compress(_filtered(rows, kind), 9) for kind in (0, 1, 2)), key=len)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def data_uri(image: NDArray[np.uint8]) -> str:
    """Encode a picture [H, W] or [H, W, 3] as a `data:` address that a page can carry inside itself."""
    return "data:image/png;base64," + base64.b64encode(encode(image)).decode()


def _filtered(rows: NDArray[np.uint8], kind: int) -> bytes:
    """Subtract nothing (0), the left neighbour (1) or the upper one (2); uint8 wraps, as PNG wants it."""
    before = np.zeros_like(rows)
    if kind == 1:
        before[:, 1:] = rows[:, :-1]
    elif kind == 2:
        before[1:] = rows[:-1]
    lines = (rows - before).reshape(len(rows), -1)
    return np.pad(lines, ((0, 0), (1, 0)), constant_values=kind).tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
