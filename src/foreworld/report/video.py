"""Videos and moving pictures: .mp4 and .gif through PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foreworld.core.errors import MissingExtra, SpecError
from foreworld.core.files import write_atomic

if TYPE_CHECKING:
    from av.container import OutputContainer

SUFFIXES = (".mp4", ".gif")


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float = 10.0) -> Path:
    """Write frames as a video that is whole or absent.

    Args:
        path: ends in .mp4 (H.264, plays everywhere) or .gif.
        frames: [T, H, W, 3] uint8, or any iterable of [H, W, 3]; all of one size. For .mp4 an odd
            height or width grows by repeating its last row or column, as the codec wants even sizes.
        fps: frames a second.

    Returns:
        The path.

    Raises:
        MissingExtra: PyAV is not installed.
        SpecError: an unknown suffix, no frames, or frames of other shapes; nothing is written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(
            f"{path}: videos are written as {' or '.join(SUFFIXES)}, not {path.suffix or 'without a suffix'}"
        )
    if not 0 < fps <= 1000:
        raise SpecError(f"{path}: fps must lie in (0, 1000], found {fps}")
    try:
        import av
    except ImportError:
        raise MissingExtra("writing videos needs PyAV: pip install 'foreworld[video]'") from None
    checked = _checked(frames, path)
    first = next(checked, None)
    if first is None:
        raise SpecError(f"{path}: there are no frames to write")
    # Encoded in memory: clips are small, and the file then appears in one rename.
    buffer, kind = io.BytesIO(), path.suffix.lower()[1:]
    with av.open(buffer, "w", format=kind) as container:
        rate = Fraction(fps).limit_denominator(1000)
        (_mp4 if kind == "mp4" else _gif)(container, chain([first], checked), rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
    return path


def as_gif(path: Path, shrink: int = 2) -> tuple[bytes, int, int]:
    """Turn a video into a .gif small enough for a tracker's log: shrunk, and with one palette for all frames.

    Args:
        path: a video that PyAV can read.
        shrink: by how much width and height are divided.

    Returns:
        The content of the .gif, its width and its height.

    Raises:
        MissingExtra: PyAV or Pillow is not installed.
        SpecError: there is no frame in it.
    """
    try:
        import av
        from PIL import Image
    except ImportError:
        raise MissingExtra("reading videos needs PyAV and Pillow: pip install 'foreworld[video]'") from None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 10)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    if not frames:
        raise SpecError(f"{path}: there are no frames in it")
    size = max(1, frames[0].shape[1] // shrink), max(1, frames[0].shape[0] // shrink)
    small = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    # the last frame of a clip has all that its others have
    palette = small[-1].quantize(256)
    first, *rest = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in small)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)
    return buffer.getvalue(), *size


def _checked(frames: Iterable[NDArray[np.uint8]], path: Path) -> Iterator[NDArray[np.uint8]]:
    size = None
    for index, frame in enumerate(frames):
        frame = np.asarray(frame)
        size = size or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise SpecError(f"{path}: frame {index} must be uint8 [H, W, 3], found {frame.dtype} {frame.shape}")
        if frame.shape != size:
            raise SpecError(f"{path}: frame {index} has shape {frame.shape} where the first has {size}")
        yield np.ascontiguousarray(frame)


def _mp4(container: OutputContainer, frames: Iterator[NDArray[np.uint8]], rate: Fraction) -> None:
    import av

    stream: Any = None
    for frame in frames:
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if stream is None:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "medium"})
            stream.height, stream.width, stream.pix_fmt = *even.shape[:2], "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
    container.mux(stream.encode())


def _gif(container: OutputContainer, frames: Iterator[NDArray[np.uint8]], rate: Fraction) -> None:
    """Encode with a palette of each frame's own 256 colours."""
    import av

    first = next(frames)
    height, width = first.shape[:2]
    stream: Any = container.add_stream("gif", rate=rate)
    stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / rate)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=none")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, frame in enumerate(chain([first], frames)):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = index, 1 / rate
        graph.push(picture)
        _drain(graph, container, stream)
    graph.push(None)
    _drain(graph, container, stream)
    container.mux(stream.encode())


def _drain(graph: Any, container: OutputContainer, stream: Any) -> None:
    """Move what a filter graph has ready into the file."""
    import av

    while True:
        try:
            container.mux(stream.encode(graph.pull()))
        except (av.error.BlockingIOError, av.error.EOFError):
            return
