from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from foreworld.core.errors import MissingExtra, SpecError
from foreworld.report import colours
from foreworld.report.clips import Clip, panels
from foreworld.report.traces import Trace
from foreworld.report.video import as_gif, write_video


def moving(frames: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """A light square that moves 4 pixels a frame over dark ground."""
    video = np.full((frames, height, width, 3), 30, np.uint8)
    for t in range(frames):
        video[t, 16:32, 4 * t : 4 * t + 16] = (220, 180, 40)
    return video


def decoded(path: Path) -> tuple[np.ndarray, float]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)]), float(stream.average_rate)


@pytest.mark.parametrize(("suffix", "tolerance"), [("mp4", 6.0), ("gif", 0.0)])
def test_what_was_written_is_read_back(tmp_path: Path, suffix: str, tolerance: float) -> None:
    pytest.importorskip("av")
    video = moving()
    back, rate = decoded(write_video(tmp_path / "new" / f"a.{suffix}", iter(video), fps=10))
    assert back.shape == video.shape
    assert rate == pytest.approx(10)
    # Colour subsampling blurs the edges of the square: compare where it is flat.
    flat = np.abs(back.astype(int) - video)[:, 2:-2, 2:-2]
    assert np.quantile(flat, 0.9) <= tolerance
    if suffix == "gif":
        np.testing.assert_array_equal(back, video)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"a.{suffix}"]


def test_mp4_is_h264_in_yuv420p_and_odd_sizes_grow_to_even(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_video(tmp_path / "a.mp4", moving(3, 33, 47), fps=12.5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 48, 34)
        assert float(container.streams.video[0].average_rate) == pytest.approx(12.5)
    back, _ = decoded(path)
    assert back.shape == (3, 34, 48, 3)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for suffix in ("mp4", "gif"):
        assert len(decoded(write_video(tmp_path / f"a.{suffix}", moving(1)))[0]) == 1


def test_a_gif_of_a_video_is_half_as_large_and_as_long(tmp_path: Path) -> None:
    pytest.importorskip("av")
    pil = pytest.importorskip("PIL.Image")
    video = moving(9, 48, 64)
    content, width, height = as_gif(write_video(tmp_path / "a.mp4", video, fps=20))
    with pil.open(io.BytesIO(content)) as picture:
        assert (picture.size, (width, height), picture.n_frames) == ((32, 24), (32, 24), 9)
        assert (picture.info["duration"], picture.info["loop"]) == (50, 0)
        for t in (0, 8):
            picture.seek(t)
            apart = np.asarray(picture.convert("RGB"), int) - video[t, ::2, ::2]
            assert np.quantile(np.abs(apart), 0.9) <= 6


def test_unknown_suffixes_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.mp4 or \.gif, not \.avi"):
        write_video(tmp_path / "a.avi", moving())


def test_bad_frames_leave_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("av")
    good = moving(2)
    for frames, words in (
        ([], "no frames"),
        ([*good, good[0, :10]], "frame 2 has shape"),
        (good.astype(float), "frame 0 must be uint8"),
        (good[..., 0], "frame 0 must be uint8"),
    ):
        with pytest.raises(SpecError, match=words):
            write_video(tmp_path / "a.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = write_video(tmp_path / "a.gif", moving(2))
    before = path.read_bytes()
    with pytest.raises(SpecError):
        write_video(path, [moving(1)[0], np.zeros((2, 2, 3), np.uint8)])
    assert path.read_bytes() == before


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foreworld.report.draw import clip_frames

    for name in ("av", "PIL", "PIL.Image", "PIL.ImageDraw"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"foreworld\[video\]"):
        write_video(tmp_path / "a.mp4", moving())
    with pytest.raises(MissingExtra, match=r"foreworld\[video\]"):
        as_gif(tmp_path / "a.mp4")
    frames = np.zeros((2, 1, 4, 4), np.uint8)
    with pytest.raises(MissingExtra, match=r"foreworld\[video\]"):
        next(clip_frames(Clip(frames, frames, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_clip_frames_hold_the_panels_inside_coloured_borders(channels: int) -> None:
    pytest.importorskip("PIL")
    from foreworld.report import draw

    real, dreamed = np.random.default_rng(0).integers(0, 256, (2, 4, channels, 16, 20), dtype=np.uint8)
    clip = Clip(real, dreamed, 2, "title")
    frames = list(draw.clip_frames(clip, side=200))
    assert len(frames) == 4 and all(f.shape == frames[0].shape and f.dtype == np.uint8 for f in frames)
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    top, pictures = 24 + 28 + 20, panels(clip)
    for t, frame in enumerate(frames):
        for panel in range(3):
            left = 24 + panel * (200 + 8 + 16)
            inside = frame[top + 4 : top + 164, left + 4 : left + 204]
            np.testing.assert_array_equal(inside[::10, ::10], pictures[t, panel])
            tint = draw.CONTEXT if t < 2 else (draw.RULE if panel == 0 else draw.IMAGINED)
            assert tuple(frame[top + 80, left + 1]) == colours.rgb(tint)


def test_trace_frames_reveal_the_dream_up_to_the_cursor() -> None:
    pytest.importorskip("PIL")
    from foreworld.report import draw

    real = np.zeros((11, 3))
    dreamed = np.where(np.arange(11)[:, None] < 4, np.nan, 1.0) * np.ones(3)
    frames = list(draw.trace_frames(Trace(real, dreamed, 3), width=600))
    assert len(frames) == 11 and frames[0].shape[1] == 600 and frames[0].shape[0] % 2 == 0
    warm = np.array(colours.rgb(draw.IMAGINED))

    def furthest(frame: np.ndarray) -> int:
        plot = frame[70:, :300]
        columns = np.flatnonzero((np.abs(plot.astype(int) - warm) < 12).all(-1).any(0))
        return int(columns.max()) if columns.size else -1

    reach = [furthest(frame) for frame in frames]
    assert reach[:4] == [-1] * 4
    assert all(b > a for a, b in pairwise(reach[4:]))
