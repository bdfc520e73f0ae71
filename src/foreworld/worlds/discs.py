"""Anti-aliased pictures of discs and rectangles, as batches of NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


def disc_cover(centre: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
    """Say how much of every pixel lies in a disc: exact in the mean, off by a few percent of a pixel at the rim.

    Args:
        centre: [..., 2] x from the left and y from the bottom, as shares of the picture's side.
        radius: [...], the same.
        size: H = W, pixels of a side; row 0 is at the top.

    Returns:
        [..., H, W] from 0 to 1.
    """
    middle = np.arange(size) + 0.5
    across = middle - size * centre[..., 0, None]
    down = middle - size * (1 - centre[..., 1, None])
    distance = np.sqrt(down[..., :, None] ** 2 + across[..., None, :] ** 2)
    return np.clip(size * radius[..., None, None] - distance + 0.5, 0, 1)


def box_cover(left: float, bottom: float, right: float, top: float, size: int) -> np.ndarray:
    """Say how much of every pixel lies in a rectangle, exactly.

    Args:
        left: its edges, as shares of the picture's side.
        bottom: from below.
        right: from the left.
        top: from below.
        size: H = W, pixels of a side; row 0 is at the top.

    Returns:
        [H, W] from 0 to 1.
    """
    return span_cover(1 - top, 1 - bottom, size)[:, None] * span_cover(left, right, size)[None, :]


def span_cover(low: float | np.ndarray, high: float | np.ndarray, size: int) -> np.ndarray:
    """Say how much of every pixel of a row lies between two places, exactly.

    Args:
        low: [...] where it begins, as shares of the row.
        high: [...] where it ends.
        size: pixels of the row.

    Returns:
        [..., size] from 0 to 1.
    """
    edges = np.arange(size)
    first, last = size * np.asarray(low, float)[..., None], size * np.asarray(high, float)[..., None]
    return np.clip(np.minimum(last, edges + 1) - np.maximum(first, edges), 0, 1)


def paint(ground: np.ndarray, covers: Sequence[np.ndarray], colours: Sequence[Colour]) -> np.ndarray:
    """Lay colours over a picture, one after the other.

    Args:
        ground: [..., 3, H, W], the picture below, 0 to 255.
        covers: of each layer [..., H, W], 0 to 1.
        colours: of each layer.

    Returns:
        uint8 [..., 3, H, W].
    """
    for cover, colour in zip(covers, colours, strict=True):
        ground = ground + cover[..., None, :, :] * (np.array(colour, float)[:, None, None] - ground)
    return np.round(ground).astype(np.uint8)
