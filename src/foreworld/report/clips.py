"""What was real beside what was dreamed: clips to play and filmstrips to print."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from foreworld.core.errors import SpecError
from foreworld.report import colours
from foreworld.report.html import Html, escape, join, tag
from foreworld.report.png import data_uri
from foreworld.report.scale import number

Frames = NDArray[np.uint8]

STEPS = (1, 5, 10, 20, 50)
PANELS = ("real", "dreamed", "error")
CONTEXT = "context: the model sees the frames"
IMAGINED = "imagined: it sees only the actions"
BEYOND = "beyond the safe horizon: not to be trusted"
PHASES = {"context": CONTEXT, "imagined": IMAGINED, "beyond": BEYOND}
# Errors of half the range and more are the brightest: one fixed scale, so that clips compare.
BRIGHTEST = 0.5


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of frames and the model's account of it.

    Row `context - 1` is the last frame that the model saw; row `context - 1 + k` is
    step k of its imagination.

    Attributes:
        real: [T, C, H, W] uint8, C 1 or 3.
        dreamed: [T, C, H, W] uint8; in the context what the model reconstructs, or the real frames.
        context: number of rows that the model saw, 0 <= context <= T.
        title: a few words.
        caption: a sentence.
        fps: frames a second at normal speed.
        trusted: the safe horizon, in imagined steps; None where none was measured.
    """

    real: Frames
    dreamed: Frames
    context: int
    title: str = ""
    caption: str = ""
    fps: float = 10.0
    trusted: int | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        for name, frames in (("real", self.real), ("dreamed", self.dreamed)):
            fits = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4
            if not fits or frames.shape[1] not in (1, 3) or frames.size == 0:
                found = f"{getattr(frames, 'dtype', type(frames).__name__)} {np.shape(frames)}"
                raise SpecError(f"clip {self.title!r}: {name} must be uint8 [T, 1 or 3, H, W], found {found}")
        if self.real.shape != self.dreamed.shape:
            shapes = f"{self.real.shape} and {self.dreamed.shape}"
            raise SpecError(f"clip {self.title!r}: real and dreamed must have one shape, found {shapes}")
        if not 0 <= self.context <= len(self.real):
            raise SpecError(f"clip {self.title!r}: context {self.context} is outside 0..{len(self.real)}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise SpecError(f"clip {self.title!r}: fps must be positive, found {self.fps}")
        if self.trusted is not None and self.trusted < 0:
            raise SpecError(f"clip {self.title!r}: trusted counts steps, found {self.trusted}")

    def phase(self, step: int) -> str:
        """Return `context`, `imagined` or `beyond` the safe horizon, for an imagined step from 1."""
        if step <= 0:
            return "context"
        return "imagined" if self.trusted is None or step <= self.trusted else "beyond"


def differences(clip: Clip) -> NDArray[np.float64]:
    """Measure the absolute difference, averaged over channels: [T, H, W] in 0..1 of the full range."""
    apart = np.abs(clip.real.astype(np.int16) - clip.dreamed.astype(np.int16))
    return apart.mean(1) / 255


def panels(clip: Clip) -> Frames:
    """Picture the three panels of every frame.

    Returns:
        [T, 3, H, W, 3]: real, dreamed, error.
    """
    shades = (differences(clip) / BRIGHTEST * 255).round().clip(0, 255).astype(np.uint8)
    real, dreamed = (np.broadcast_to(f.transpose(0, 2, 3, 1), (*shades.shape, 3)) for f in (clip.real, clip.dreamed))
    return np.stack([real, dreamed, colours.magma()[shades]], 1)


def filmstrip(clip: Clip, steps: Sequence[int] = STEPS, scale: int = 2, gap: int = 4) -> Frames:
    """Lay chosen steps out in one picture.

    Args:
        clip: what to show.
        steps: imagined steps, from 1; 0 and below are context frames. Those outside the clip are left out.
        scale: how many pixels each side of a pixel becomes.
        gap: white pixels between pictures.

    Returns:
        [H', W', 3]: a row each for real, dreamed and error, a column for every step.

    Raises:
        SpecError: no step lies inside the clip.
    """
    chosen = panels(clip)[[index for _, index in _within(clip, steps)]]
    cells = chosen.repeat(scale, 2).repeat(scale, 3).transpose(1, 0, 2, 3, 4)
    edge = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
    framed = np.pad(cells, edge, constant_values=255)
    sheet = rearrange(framed, "row column h w c -> (row h) (column w) c")
    return np.ascontiguousarray(sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap])


def strip(clip: Clip, steps: Sequence[int] = (0, *STEPS)) -> Html:
    """Build a filmstrip for the page, which needs no script.

    Args:
        clip: what to show.
        steps: as for `filmstrip`; by default also 0, the last frame that the model saw.

    Returns:
        A `<figure>`: columns of steps, rows of real, dreamed and error, with the mean error below each.
    """
    shown = _within(clip, steps)
    pictures, errors = panels(clip), differences(clip).mean((1, 2))
    heads = [tag("th", _head(step), scope="col", class_=clip.phase(step)) for step, _ in shown]
    rows = [tag("tr", tag("td"), *heads)]
    for panel, name in enumerate(PANELS):
        cells = [
            tag("td", _image(pictures[i, panel], f"{name}, {_step(step)}"), class_=clip.phase(step))
            for step, i in shown
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), *cells, class_=name))
    below = [tag("td", _mean(errors[i]), class_="mean") for _, i in shown]
    rows.append(tag("tr", tag("th", "mean error", scope="row"), *below))
    body = tag("div", tag("table", *rows), class_="scroll")
    return tag("figure", _heading(clip), body, class_="strip")


def sheet(clip: Clip) -> tuple[Frames, int]:
    """Pack all panels of all frames into one picture.

    Frame t lies at row t // columns and column t % columns of cells [H, 3 W]: real,
    dreamed and error side by side.

    Returns:
        The picture [rows * H, columns * 3 * W, 3], and the number of columns.
    """
    pictures = panels(clip)
    count, _, height, width, _ = pictures.shape
    columns = max(1, min(count, round(math.sqrt(count * height / (3 * width)))))
    rows = math.ceil(count / columns)
    filled = np.zeros((rows * columns, 3, height, width, 3), np.uint8)
    filled[:count] = pictures
    return rearrange(filled, "(row column) panel h w c -> (row h) (column panel w) c", row=rows), columns


def player(clip: Clip) -> Html:
    """Build a player: three panels, play, single steps, a slider and the speed.

    The frames travel inside the page; `Page` adds the script that draws them. A `strip`
    shows the same where scripts are off or the page is printed.
    """
    picture, columns = sheet(clip)
    count, _, height, width = clip.real.shape
    facts = {
        "frames": count, "context": clip.context, "width": width, "height": height, "columns": columns,
        "fps": clip.fps, "trusted": clip.trusted, "phases": PHASES,
        "errors": [_mean(e) for e in differences(clip).mean((1, 2))],
    }  # fmt: skip
    views = [tag("div", tag("span", name), tag("canvas", width=width, height=height), class_=name) for name in PANELS]
    return tag(
        "figure", _heading(clip), tag("div", *views, class_="panels"), _controls(count),
        tag("img", src=data_uri(picture), alt="", hidden=True),
        tag("noscript", tag("p", "This player needs JavaScript.", class_="quiet")),
        class_="clip", tabindex=0, data_clip=json.dumps(facts), data_phase=clip.phase(1 - clip.context),
    )  # fmt: skip


def gallery(clips: Sequence[Clip]) -> Html:
    """Build players side by side, under a key to their borders and to the colours of errors."""
    ramp = tag("img", src=data_uri(colours.magma()[None]), alt="from black to pale yellow", class_="ramp")
    key = tag(
        "p",
        tag("span", CONTEXT, class_="phase context"),
        tag("span", IMAGINED, class_="phase imagined"),
        *[tag("span", BEYOND, class_="phase beyond")] * any(clip.trusted is not None for clip in clips),
        tag("span", "error 0 ", ramp, f" {number(BRIGHTEST)} of full range and more"),
        class_="clip-key",
    )
    return join([key, tag("div", *map(player, clips), class_="clips")])


def _within(clip: Clip, steps: Sequence[int]) -> list[tuple[int, int]]:
    """Pair every step that lies inside the clip with its row."""
    pairs = [(step, clip.context - 1 + step) for step in steps]
    inside = [(step, index) for step, index in pairs if 0 <= index < len(clip.real)]
    if not inside:
        raise SpecError(f"clip {clip.title!r}: none of the steps {list(steps)} lies inside its {len(clip.real)} frames")
    return inside


def _step(step: int) -> str:
    return f"step {step}" if step > 0 else ("last seen" if step == 0 else f"{-step} before")


def _head(step: int) -> Html:
    """Name a step so that a phone can leave the word out and keep the number."""
    return join([tag("span", "step "), str(step)]) if step > 0 else escape(_step(step))


def _mean(error: float) -> str:
    return f"{error:.3f}"


def _heading(clip: Clip) -> Html:
    parts = [tag("strong", clip.title)] * bool(clip.title) + [tag("span", clip.caption)] * bool(clip.caption)
    return tag("figcaption", join(parts, " ")) if parts else Html("")


def _image(picture: Frames, alt: str) -> Html:
    height, width = picture.shape[:2]
    return tag("img", src=data_uri(picture), alt=alt, width=width, height=height, class_="pixels")


def _controls(count: int) -> Html:
    def button(action: str, label: str, *shapes: str) -> Html:
        icon = tag(
            "svg", *(tag("path", d=d) for d in shapes), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true"
        )
        return tag("button", icon, type="button", data_do=action, aria_label=label, title=label)

    speeds = [
        tag("option", f"{text}×", value=v, selected=v == "1")
        for v, text in (("0.25", "¼"), ("0.5", "½"), ("1", "1"), ("2", "2"), ("4", "4"))
    ]
    slider = tag("input", type="range", min=0, max=count - 1, value=0, step=1, aria_label="frame")
    keys = (
        button("play", "play or pause (space)", "M4 2.5 13 8l-9 5.5z", "M4 2.5h3v11H4zM9.5 2.5h3v11h-3z"),
        button("back", "one frame back (left arrow)", "M11 3 5.5 8l5.5 5zM3.5 3H5v10H3.5z"),
        button("on", "one frame on (right arrow)", "M5 3l5.5 5L5 13zM11 3h1.5v10H11z"),
    )
    speed = tag("select", *speeds, aria_label="speed")
    return tag(
        "div",
        tag("p", class_="phase", aria_live="off"),
        slider,
        tag("div", *keys, speed, tag("output"), class_="buttons"),
        class_="controls",
    )
