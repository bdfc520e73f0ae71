"""Pictures side by side, and pictures from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreworld.core.errors import DataError
from foreworld.report.draw import Scene, scene_frames
from foreworld.report.picture_file import read_picture
from foreworld.report.png import encode

STILL = np.full((8, 8, 3), 40, np.uint8)
MOVING = np.stack([np.full((8, 8, 3), 60 + 50 * t, np.uint8) for t in range(3)])


def test_what_stands_still_stays_and_what_moves_moves() -> None:
    scene = Scene(panels={"start": STILL, "now": MOVING}, notes=["first", "second", "third"], title="a title")
    frames = list(scene_frames(scene))
    assert len(frames) == 3 and len({frame.shape for frame in frames}) == 1
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    left, right = (np.array([(frame == value).all(-1).sum() for frame in frames]) for value in (40, 60))
    assert (left == left[0]).all() and left[0] >= 8 * 8  # enlarged
    assert right[0] >= 8 * 8 and (right[1:] == 0).all()
    untitled = next(scene_frames(Scene(panels={"now": MOVING}, notes=["first"])))
    assert untitled.shape[0] < frames[0].shape[0] and untitled.shape[1] < frames[0].shape[1]


def test_pictures_are_read_as_they_were_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(encode(pixels))
    assert np.array_equal(read_picture(path), pixels)
    assert read_picture(path, channels=1).shape == (5, 7, 1)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such picture"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(encode(np.zeros((40, 40, 3), np.uint8))[:60])
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(tmp_path / "cut.png")
