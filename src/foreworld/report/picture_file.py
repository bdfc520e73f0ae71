"""Reading a picture file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreworld.core.errors import DataError, MissingExtra


def read_picture(path: Path, channels: int = 3) -> NDArray[np.uint8]:
    """Read a picture.

    Args:
        path: any file that Pillow reads.
        channels: 3 for RGB, 1 for grey.

    Returns:
        [H, W, channels] uint8.

    Raises:
        MissingExtra: Pillow is not installed.
        DataError: there is no such file, or it is no picture.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("reading pictures needs Pillow: pip install 'foreworld[video]'") from None
    try:
        with Image.open(path) as found:
            pixels = np.asarray(found.convert("RGB" if channels == 3 else "L"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as fault:
        raise DataError(f"{path}: cannot be read as a picture ({fault!s:.100})") from fault
    return pixels if channels == 3 else pixels[..., None]
