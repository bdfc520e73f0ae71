"""Frames for videos: panels with labels and coloured borders, and lines with a moving cursor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foreworld.core.errors import MissingExtra
from foreworld.report import clips, colours
from foreworld.report.clips import Clip
from foreworld.report.scale import Axis, Floats, span
from foreworld.report.traces import Trace, trace_plots

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    BaseFont = FreeTypeFont | ImageFont

Picture = NDArray[np.uint8]

# The dark variant of the page's colours: a video has no light mode.
PAPER, INK, QUIET, RULE, SEEN = "#14171a", "#e4e7ea", "#98a2ab", "#363d44", "#1d3244"
IMAGINED, CONTEXT = "#ff9147", "#5fb4f2"

_PANEL = 224
_MARGIN, _GAP, _BORDER = 24, 16, 4
_SMOOTH = 3


def clip_frames(clip: Clip, side: int = _PANEL) -> Iterator[Picture]:
    """Compose the frames of a video: real, dreamed and error with labels, borders, step and progress.

    Args:
        clip: what to show.
        side: about how many pixels the longer side of a panel takes; pixels are enlarged by a whole factor.

    Yields:
        [H', W', 3] uint8, both sizes even.

    Raises:
        MissingExtra: Pillow is not installed.
    """
    pil = _pillow()
    height, width = clip.real.shape[2:]
    scale = max(1, round(side / max(height, width)))
    across, down = width * scale + 2 * _BORDER, height * scale + 2 * _BORDER
    # Titles and steps need room even above the smallest frames.
    across = max(across, 150)
    head = 28 if clip.title else 0
    size = (2 * _MARGIN + 3 * across + 2 * _GAP, _MARGIN + head + 24 + down + 60)
    size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for t, pictures in enumerate(clips.panels(clip)):
        step = t - clip.context + 1
        tint, phase = (IMAGINED, clips.IMAGINED) if step > 0 else (CONTEXT, clips.CONTEXT)
        image = pil.Image.new("RGB", size, PAPER)
        pen = pil.ImageDraw.Draw(image)
        pen.text((_MARGIN, _MARGIN - 6), clip.title, INK, _font(17))
        top = _MARGIN + head + 20
        for k, (name, pixels) in enumerate(zip(clips.PANELS, pictures, strict=True)):
            left = _MARGIN + k * (across + _GAP)
            pen.text((left, top - 22), name, QUIET, _font(14))
            edge = RULE if name == "real" and step > 0 else tint
            box = (left, top, left + width * scale + 2 * _BORDER - 1, top + down - 1)
            pen.rounded_rectangle(box, 5, outline=edge, width=_BORDER)
            enlarged = pixels.repeat(scale, 0).repeat(scale, 1)
            image.paste(pil.Image.fromarray(enlarged), (left + _BORDER, top + _BORDER))
        where = f"step {step} of {len(clip.real) - clip.context}" if step > 0 else f"frame {t + 1} of {clip.context}"
        _footer(pen, top + down + 12, size[0], (phase, where, tint), t / max(1, len(clip.real) - 1), clip)
        yield np.asarray(image)


@dataclass(frozen=True, eq=False)
class Scene:
    """Pictures side by side, of which some move.

    Attributes:
        panels: name to [T, H, W, 3] uint8, or [H, W, 3] for one that stands still; all of one size.
        notes: T sentences, one below each frame.
        title: a few words.
    """

    panels: Mapping[str, Picture]
    notes: Sequence[str]
    title: str = ""


def moments(scene: Scene, count: int) -> Scene:
    """Leave of a scene only so many frames, evenly spaced, the first and the last among them.

    Args:
        scene: T frames.
        count: how many; fewer where T is less.
    """
    at = np.unique(np.linspace(0, len(scene.notes) - 1, count).round().astype(int))
    panels = {name: pictures if pictures.ndim == 3 else pictures[at] for name, pictures in scene.panels.items()}
    return Scene(panels=panels, notes=[scene.notes[t] for t in at], title=scene.title)


def scene_frames(scene: Scene, side: int = _PANEL) -> Iterator[Picture]:
    """Compose the frames of a video from panels with labels.

    Args:
        scene: what to show.
        side: about how many pixels the longer side of a panel takes; pixels are enlarged by a whole factor.

    Yields:
        [H', W', 3] uint8, both sizes even.

    Raises:
        MissingExtra: Pillow is not installed.
    """
    pil = _pillow()
    height, width = next(iter(scene.panels.values())).shape[-3:-1]
    scale = max(1, round(side / max(height, width)))
    across, down = max(width * scale + 2 * _BORDER, 150), height * scale + 2 * _BORDER
    top = _MARGIN + (28 if scene.title else 0) + 20
    size = (2 * _MARGIN + len(scene.panels) * (across + _GAP) - _GAP, top + down + 44)
    size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for t, note in enumerate(scene.notes):
        image = pil.Image.new("RGB", size, PAPER)
        pen = pil.ImageDraw.Draw(image)
        pen.text((_MARGIN, _MARGIN - 6), scene.title, INK, _font(17))
        for k, (name, pictures) in enumerate(scene.panels.items()):
            left = _MARGIN + k * (across + _GAP)
            pen.text((left, top - 22), name, QUIET, _font(14))
            box = (left, top, left + width * scale + 2 * _BORDER - 1, top + down - 1)
            pen.rounded_rectangle(box, 5, outline=RULE if pictures.ndim == 3 else CONTEXT, width=_BORDER)
            enlarged = (pictures if pictures.ndim == 3 else pictures[t]).repeat(scale, 0).repeat(scale, 1)
            image.paste(pil.Image.fromarray(enlarged), (left + _BORDER, top + _BORDER))
        pen.text((_MARGIN, top + down + 12), note, QUIET, _font(14))
        yield np.asarray(image)


def trace_frames(trace: Trace, width: int = 960, columns: int = 2) -> Iterator[Picture]:
    """Compose the frames of a video: a plot for every dimension, the dream revealed by a moving cursor.

    Args:
        trace: what to show.
        width: of the video in pixels.
        columns: of plots.

    Yields:
        [H', width, 3] uint8, both sizes even.

    Raises:
        MissingExtra: Pillow is not installed.
    """
    pil = _pillow()
    dimensions = np.shape(trace.real)[1]
    columns = min(columns, dimensions)
    cell = ((width - 2 * _MARGIN - (columns - 1) * _GAP) // columns, 170)
    head = 58 if trace.title else 34
    total = (width + width % 2, _MARGIN + head + -(-dimensions // columns) * (cell[1] + _GAP))
    still = pil.Image.new("RGB", total, PAPER)
    pen = pil.ImageDraw.Draw(still)
    pen.text((_MARGIN, _MARGIN - 6), trace.title, INK, _font(17))
    left, y = float(_MARGIN), _MARGIN + head - 24
    for name, tint, thick in (("real", INK, 2), ("dreamed", IMAGINED, 3), ("context", SEEN, 14)):
        pen.line((left, y, left + 22, y), tint, thick)
        pen.text((left + 30, y), name, QUIET, _font(14), anchor="lm")
        left += 30 + pen.textlength(name, _font(14)) + 28
    before, after = np.array(still), np.array(still)
    areas = []
    for k, plot in enumerate(trace_plots(trace)):
        left, top = _MARGIN + k % columns * (cell[0] + _GAP), _MARGIN + head + k // columns * (cell[1] + _GAP)
        axis = Axis(*(span(trace.steps) or (0.0, 1.0)), 0, cell[0] - 56)
        for canvas, dreamed in ((before, False), (after, True)):
            canvas[top : top + cell[1], left : left + cell[0]] = _line_plot(trace, k, plot.title, cell, axis, dreamed)
        areas.append((left + 50, top + 26, top + cell[1] - 8, axis))
    cursor = np.array(colours.rgb(QUIET), np.uint8)
    for step in trace.steps.tolist():
        frame = before.copy()
        for left, top, bottom, axis in areas:
            here = left + round(float(axis(step)))
            frame[top:bottom, left - 2 : here] = after[top:bottom, left - 2 : here]
            frame[top:bottom, here : here + 2] = cursor
        yield frame[: total[1] - total[1] % 2]


def _line_plot(trace: Trace, k: int, title: str, cell: tuple[int, int], axis: Axis, dreamed: bool) -> Picture:
    """Draw one dimension, enlarged and then shrunk so that the lines are smooth."""
    pil = _pillow()
    image = pil.Image.new("RGB", (cell[0] * _SMOOTH, cell[1] * _SMOOTH), PAPER)
    pen = pil.ImageDraw.Draw(image)
    both = np.stack([np.asarray(trace.real, float)[:, k], np.asarray(trace.dreamed, float)[:, k]])
    top, bottom, left, right = 26 * _SMOOTH, (cell[1] - 8) * _SMOOTH, 50 * _SMOOTH, (cell[0] - 6) * _SMOOTH
    y_axis = Axis(*(span(both, pad=0.08) or (0.0, 1.0)), bottom, top)
    if trace.context:
        edge = left + float(axis(0.0)) * _SMOOTH
        pen.rectangle((left, top, max(edge, left), bottom), SEEN)
    ticks = y_axis.ticks(3)
    for tick in ticks:
        y = float(y_axis(tick))
        pen.line((left, y, right, y), RULE, _SMOOTH)
        pen.text((left - 8 * _SMOOTH, y), f"{tick:.3g}", QUIET, _font(12 * _SMOOTH), anchor="rm")
    pen.text((0, 2 * _SMOOTH), title, INK, _font(14 * _SMOOTH))
    x = left + axis(trace.steps) * _SMOOTH
    _polyline(pen, x, y_axis(both[0]), INK, 2 * _SMOOTH)
    if dreamed:
        _polyline(pen, x, y_axis(both[1]), IMAGINED, round(2.75 * _SMOOTH))
    return np.asarray(image.resize(cell, pil.Image.Resampling.LANCZOS))


def _polyline(pen: ImageDraw, x: Floats, y: Floats, tint: str, width: int) -> None:
    """Draw a line with gaps where it is not finite."""
    shown = np.isfinite(y)
    for run in np.split(np.arange(len(y)), np.flatnonzero(np.diff(shown)) + 1):
        points = [(float(x[i]), float(y[i])) for i in run if shown[i]]
        if len(points) == 1:
            _dot(pen, points[0], width, tint)
        elif points:
            pen.line(points, tint, width, joint="curve")


def _footer(pen: ImageDraw, top: int, width: int, words: tuple[str, str, str], done: float, clip: Clip) -> None:
    """Write the phase and the step above a bar of progress in the colours of the phases."""
    phase, where, tint = words
    pen.text((_MARGIN, top), phase, tint, _font(15))
    # Narrow panels leave no room for both on one line; the phase matters more.
    if pen.textlength(phase, _font(15)) + pen.textlength(where, _font(14)) + 2 * _MARGIN + _GAP < width:
        pen.text((width - _MARGIN, top), where, QUIET, _font(14), anchor="ra")
    y, span_ = top + 30, width - 2 * _MARGIN
    split = _MARGIN + span_ * min(1.0, max(0.0, (clip.context - 0.5) / max(1, len(clip.real) - 1)))
    pen.rectangle((_MARGIN, y, split, y + 2), CONTEXT)
    pen.rectangle((split, y, _MARGIN + span_, y + 2), IMAGINED)
    _dot(pen, (_MARGIN + span_ * done, y + 1), 6, tint)


def _dot(pen: ImageDraw, at: tuple[float, float], radius: float, tint: str) -> None:
    pen.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=tint)


@cache
def _font(size: int) -> BaseFont:
    from PIL.ImageFont import load_default

    return load_default(size)


def _pillow() -> ModuleType:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageDraw
    except ImportError:
        raise MissingExtra("drawing videos needs Pillow: pip install 'foreworld[video]'") from None
    return PIL
