"""The colours of every report: imagined is warm, context is blue, real is ink, baselines are grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMAGINED = "#c94f0a"
CONTEXT = "#0b6bb0"
REAL = "#24292f"
BASELINE = "#8a939b"
# After Okabe and Ito (2008): told apart by readers with any kind of colour blindness.
SERIES = (IMAGINED, CONTEXT, "#009e73", "#b8609a", "#b8860b", "#3f9fd8")

# Nine anchors of matplotlib's magma (van der Walt and Smith, 2015, CC0): even steps look even.
_MAGMA = ("000004", "1d1147", "51127c", "822681", "b63679", "e65164", "fb8861", "fec287", "fcfdbf")


def rgb(code: str) -> tuple[int, int, int]:
    """Read a colour such as "#c94f0a"."""
    red, green, blue = bytes.fromhex(code.lstrip("#"))
    return red, green, blue


def magma() -> NDArray[np.uint8]:
    """Return the table of colours for errors, [256, 3], from black (none) to pale yellow (large)."""
    anchors = np.array([rgb(code) for code in _MAGMA], dtype=float)
    at = np.linspace(0, len(anchors) - 1, 256)
    return np.stack([np.interp(at, range(len(anchors)), channel) for channel in anchors.T], 1).round().astype(np.uint8)
