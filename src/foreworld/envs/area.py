"""Resize images by area averaging: every output pixel is the mean of the input it covers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=32)
def area_weights(source: int, target: int) -> np.ndarray:
    """Return the matrix [target, source] that averages `source` pixels into `target`; its rows sum to 1."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, None) * (target / source)
    weights.flags.writeable = False
    return weights.astype(np.float32)


def resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize one image by two matrix products.

    Args:
        image: uint8 [H, W, C].
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8 [height, width, C], rounded to the nearest level.

    Example:
        >>> import numpy as np
        >>> resize_area(np.array([[[0], [10]], [[20], [30]]], np.uint8), 1, 1).item()
        15
    """
    rows, columns, channels = image.shape
    if (rows, columns) == (height, width):
        return image
    down = area_weights(rows, height) @ image.reshape(rows, columns * channels).astype(np.float32)
    # Channels first, so that the second product is one large matrix and not one small one per row.
    planes = down.reshape(height, columns, channels).transpose(2, 0, 1).reshape(channels * height, columns)
    small = planes @ area_weights(columns, width).T + np.float32(0.5)
    return np.ascontiguousarray(small.astype(np.uint8).reshape(channels, height, width).transpose(1, 2, 0))
