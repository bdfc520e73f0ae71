"""Line plots with bands as SVG: a pure function from a description to markup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foreworld.core.errors import SpecError
from foreworld.report import colours
from foreworld.report.html import Html, join, tag
from foreworld.report.scale import Axis, Floats, Range, number, span, tick_labels

Style = Literal["model", "real", "baseline", "series"]

_STYLES = ("model", "real", "baseline", "series")
_DASHES = (None, "6 4", "1.5 4", "9 3 2 3")
_ROW = 22.0
_NOTE = 16.0
_MOST_POINTS = 2000


@dataclass(frozen=True, eq=False)
class Line:
    """One line, with an optional band around it.

    Attributes:
        x, y: [N]; where either is not finite the line has a gap.
        label: its name in the legend.
        low, high: [N] ends of the band, or None.
        style: "model" (thick, warm), "real" (ink), "baseline" (grey, dashed apart) or
            "series" (the next colour of the palette).
    """

    x: ArrayLike
    y: ArrayLike
    label: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    style: Style = "series"

    def __post_init__(self) -> None:
        """Check that the arrays have one length and come as a pair of ends, and that the style exists."""
        shapes = {np.shape(v) for v in (self.x, self.y, self.low, self.high) if v is not None}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise SpecError(f"line {self.label!r}: x, y, low and high must share one shape [N], found {sorted(shapes)}")
        if (self.low is None) != (self.high is None):
            raise SpecError(f"line {self.label!r}: a band needs both low and high")
        if self.style not in _STYLES:
            raise SpecError(f"line {self.label!r}: style {self.style!r} is not one of {', '.join(_STYLES)}")


@dataclass(frozen=True)
class Marker:
    """A vertical line at `x` with a word beside it."""

    x: float
    label: str = ""


@dataclass(frozen=True)
class Shade:
    """A tinted stretch of the x axis, such as the context that the model sees."""

    start: float
    stop: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What a line plot shows.

    Attributes:
        lines: drawn in order; the "model" ones on top.
        title: a short heading inside the picture, for small multiples.
        x_label, y_label: what the axes mean, with the unit.
        x_log, y_log: logarithmic axes.
        x_range, y_range: fixed ends; None where the data decide.
        markers, shades: what is marked along x.
        legend: whether to draw one (only lines with a label enter it).
    """

    lines: tuple[Line, ...]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    x_log: bool = False
    y_log: bool = False
    x_range: Range = (None, None)
    y_range: Range = (None, None)
    markers: tuple[Marker, ...] = ()
    shades: tuple[Shade, ...] = ()
    legend: bool = True


@dataclass(frozen=True)
class _Pen:
    role: str
    colour: str
    width: float
    dash: str | None = None


def draw(plot: Plot, width: int = 720, height: int = 340) -> Html:
    """Draw a plot.

    The picture stands alone; inside a page the stylesheet recolours it for light and dark.

    Args:
        plot: what to show.
        width: in CSS pixels.
        height: in CSS pixels, legend included.

    Returns:
        An `<svg>` element.

    Example:
        >>> draw(Plot(lines=(Line([1, 2, 3], [0.1, 0.2, 0.4], "RSSM", style="model"),)))[:4]
        '<svg'
    """
    pens = _pens(plot.lines)
    top, parts = 4.0, []
    if plot.title:
        parts.append(_text(plot.title, 0, top + 12, "title", font_weight=600))
        top += 20
    if plot.legend and any(line.label for line in plot.lines):
        keys, used = _legend(plot.lines, pens, width, top)
        parts.append(keys)
        top += used
    if plot.y_label:
        parts.append(_text(plot.y_label, 0, top + 12, "label"))
        top += 20
    noted = any(mark.label for mark in (*plot.markers, *plot.shades))
    frame = (top + 6 + _NOTE * noted, height - (42 if plot.x_label else 24))
    parts.extend(_area(plot, pens, width, *frame))
    said = plot.title or " by ".join(filter(None, (plot.y_label, plot.x_label))) or "line plot"
    return tag(
        "svg", *parts, xmlns="http://www.w3.org/2000/svg", class_="plot", viewBox=f"0 0 {width} {height}",
        width=width, height=height, role="img", aria_label=said, data_x=plot.x_label,
        font_family="system-ui, sans-serif", font_size=12,
    )  # fmt: skip


def legend(lines: tuple[Line, ...], width: int = 720) -> Html:
    """Draw only the legend, to stand once above several plots of the same lines."""
    keys, used = _legend(lines, _pens(lines), width, 0)
    return tag(
        "svg", keys, xmlns="http://www.w3.org/2000/svg", class_="legend", viewBox=f"0 0 {width} {used:g}", width=width,
        height=used, role="img", aria_label="legend", font_family="system-ui, sans-serif", font_size=12,
    )  # fmt: skip


def _pens(lines: tuple[Line, ...]) -> list[_Pen]:
    """Give every line its pen; colours and dashes advance separately per style, in the order of the lines."""
    pens, seen = [], dict.fromkeys(_STYLES, 0)
    seen["series"] = int(any(line.style == "model" for line in lines))  # the first colour is the model's
    for line in lines:
        turn = seen[line.style]
        seen[line.style] += 1
        dash = _DASHES[turn % len(_DASHES)]
        if line.style == "series":
            colour = turn % len(colours.SERIES)
            dash = _DASHES[turn // len(colours.SERIES) % len(_DASHES)]
            pens.append(_Pen(f"series-{colour}", colours.SERIES[colour], 2, dash))
        elif line.style == "baseline":
            pens.append(_Pen("baseline", colours.BASELINE, 1.5, dash))
        else:
            tint = colours.IMAGINED if line.style == "model" else colours.REAL
            pens.append(_Pen(line.style, tint, 2.75 if line.style == "model" else 2, dash))
    return pens


def _legend(lines: tuple[Line, ...], pens: list[_Pen], width: float, top: float) -> tuple[Html, float]:
    """Lay the keys out in rows; return them and the height used."""
    parts, x, y = [], 0.0, top + _ROW / 2
    for line, pen in zip(lines, pens, strict=True):
        if not line.label:
            continue
        room = 26 + _width(line.label) + 18
        if x and x + room - 18 > width:
            x, y = 0.0, y + _ROW
        stroke = {"stroke": pen.colour, "stroke_width": pen.width, "stroke_dasharray": pen.dash}
        parts.append(tag("line", x1=x, x2=x + 20, y1=y, y2=y, class_=f"line {pen.role}", **stroke))
        parts.append(_text(line.label, x + 26, y + 4, "key"))
        x += room
    return tag("g", *parts, class_="keys"), y + _ROW / 2 - top + 4


def _area(plot: Plot, pens: list[_Pen], width: float, top: float, bottom: float) -> list[Html]:
    """Draw axes and data between two heights."""
    xs = np.concatenate([np.asarray(line.x, float) for line in plot.lines] or [np.zeros(0)])
    ys = [np.asarray(v, float) for line in plot.lines for v in (line.y, line.low, line.high) if v is not None]
    x_span = span(xs, plot.x_range, plot.x_log)
    y_span = span(np.concatenate(ys or [np.zeros(0)]), plot.y_range, plot.y_log, pad=0.05)
    if x_span is None or y_span is None:
        middle = (top + bottom) / 2
        return [_text("no data", width / 2, middle, "empty", text_anchor="middle")]
    y_axis = Axis(*y_span, bottom - top, 0, plot.y_log)
    y_ticks = y_axis.ticks(max(3, round((bottom - top) / 45)))
    y_texts = tick_labels(y_ticks, plot.y_log)
    left = 10 + max(map(_width, y_texts), default=0)
    across = width - left - 12
    x_axis = Axis(*x_span, 0, across, plot.x_log)
    parts = []
    for tick, text in zip(y_ticks, y_texts, strict=True):
        y = top + float(y_axis(tick))
        parts.append(tag("line", x1=left, x2=left + across, y1=y, y2=y, class_="grid", stroke="#e4e7ea"))
        parts.append(_text(text, left - 8, y + 4, "tick", text_anchor="end"))
    parts.append(tag("line", x1=left, x2=left + across, y1=bottom, y2=bottom, class_="axis", stroke="#aab2b9"))
    parts.extend(_x_ticks(x_axis, left, bottom))
    if plot.x_label:
        parts.append(_text(plot.x_label, left + across / 2, bottom + 36, "label", text_anchor="middle"))
    # An inner svg clips what lies outside fixed ranges, without an id that must be unique in the page.
    marks, notes = _along(plot, x_axis, left, top, bottom)
    content = join([*marks, *_curves(plot.lines, pens, x_axis, y_axis)])
    parts.append(tag("svg", content, x=left, y=top, width=across, height=bottom - top, class_="data"))
    return parts + notes


def _x_ticks(axis: Axis, left: float, bottom: float) -> list[Html]:
    parts, end = [], -np.inf
    ticks = axis.ticks(max(2, round(axis.stop / 100)))
    for tick, text in zip(ticks, tick_labels(ticks, axis.log), strict=True):
        x, half = left + float(axis(tick)), _width(text) / 2
        if x - half < end:
            continue
        end = x + half + 6
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis", stroke="#aab2b9"))
        parts.append(_text(text, min(x, left + axis.stop + 12 - half), bottom + 18, "tick", text_anchor="middle"))
    return parts


def _along(plot: Plot, axis: Axis, left: float, top: float, bottom: float) -> tuple[list[Html], list[Html]]:
    """Draw shades and markers, and above the data the words for them."""
    marks, notes, height = [], [], bottom - top
    for shade in plot.shades:
        start, stop = np.clip(np.nan_to_num(axis([shade.start, shade.stop])), axis.start, axis.stop).tolist()
        tint = {"fill": colours.CONTEXT, "fill_opacity": 0.1}
        marks.append(tag("rect", x=start, y=0, width=max(stop - start, 0), height=height, class_="shade", **tint))
        notes.append(_text(shade.label, left + start, top - 6, "note"))
    for marker in plot.markers:
        x = float(axis(marker.x))
        if not axis.start <= x <= axis.stop:
            continue
        dashes = {"stroke": "#5c6670", "stroke_dasharray": "3 3"}
        marks.append(tag("line", x1=x, x2=x, y1=0, y2=height, class_="marker", **dashes))
        half = _width(marker.label) / 2
        middle = min(max(left + x, half), left + axis.stop + 12 - half)
        notes.append(_text(marker.label, middle, top - 6, "note", text_anchor="middle"))
    return marks, [note for note in notes if note]


def _curves(lines: tuple[Line, ...], pens: list[_Pen], x_axis: Axis, y_axis: Axis) -> list[Html]:
    """Draw bands below all lines, and the model's lines last."""
    bands, curves = [], []
    order = sorted(zip(lines, pens, strict=True), key=lambda pair: pair[0].style == "model")
    for line, pen in ((_thinned(line), pen) for line, pen in order):
        x, y = x_axis(line.x), y_axis(line.y)
        if line.low is not None and line.high is not None:
            low = y_axis(line.low)
            # On a logarithmic axis a band that reaches zero reaches the floor.
            low = np.where(np.isnan(low) & (np.asarray(line.low, float) <= 0), y_axis.start, low)
            fill = {"fill": pen.colour, "fill_opacity": 0.16}
            if shape := _band(x, low, y_axis(line.high)):
                bands.append(tag("path", d=shape, class_=f"band {pen.role}", **fill))
        if curve := _curve(line, pen, x, y):
            curves.append(curve)
    return bands + curves


def _curve(line: Line, pen: _Pen, x: Floats, y: Floats) -> Html | None:
    runs = _runs(np.isfinite(x) & np.isfinite(y))
    if not runs:
        return None
    dots = [
        tag("circle", cx=x[i], cy=y[i], r=3, fill=pen.colour, class_=f"dot {pen.role}") for i, j in runs if j - i == 1
    ]
    path = "".join("M" + "L".join(_points(x[i:j], y[i:j])) for i, j in runs)
    stroke = {"stroke": pen.colour, "stroke_width": pen.width, "stroke_dasharray": pen.dash, "fill": "none"}
    round_ = {"stroke_linejoin": "round", "stroke_linecap": "butt" if pen.dash else "round"}
    return join([tag("path", d=path, class_=f"line {pen.role}", **stroke, **round_, **_read_out(line, runs)), *dots])


def _read_out(line: Line, runs: list[tuple[int, int]]) -> dict[str, str]:
    """Put the values beside the path, one per point of it, for the page to show under the pointer."""
    columns = [v for v in (line.x, line.y, line.low, line.high) if v is not None]
    rows = zip(*(np.asarray(v, float).tolist() for v in columns), strict=True)
    texts = [":".join(number(value) for value in row) for row in rows]
    return {"data_label": line.label, "data_values": " ".join(text for i, j in runs for text in texts[i:j])}


def _band(x: Floats, low: Floats, high: Floats) -> str:
    runs = _runs(np.isfinite(x) & np.isfinite(low) & np.isfinite(high))
    edges = ((_points(x[i:j], high[i:j]), _points(x[i:j], low[i:j])) for i, j in runs)
    return "".join("M" + "L".join(upper + lower[::-1]) + "Z" for upper, lower in edges)


def _points(x: Floats, y: Floats) -> list[str]:
    # Held near the picture: renderers lose precision on coordinates of many millions of pixels.
    return [f"{a:.2f},{b:.2f}" for a, b in zip(x.clip(-1e5, 1e5).tolist(), y.clip(-1e5, 1e5).tolist(), strict=True)]


def _runs(shown: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Find the stretches of true values, as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]])))
    return list(pairwise(edges.tolist()))[::2]


def _thinned(line: Line) -> Line:
    """Keep the lowest and highest point of every bucket of a long line: it looks the same and weighs less."""
    y = np.asarray(line.y, float)
    if len(y) <= _MOST_POINTS:
        return line
    keep: set[int] = {0, len(y) - 1}
    for bucket in np.array_split(np.arange(len(y)), _MOST_POINTS // 4):
        values = y[bucket]
        keep |= {int(bucket[np.where(np.isnan(values), np.inf, values).argmin()])}
        keep |= {int(bucket[np.where(np.isnan(values), -np.inf, values).argmax()])}
        keep |= set(bucket[~np.isfinite(values)][:1].tolist())
    at = sorted(keep)

    def cut(values: ArrayLike | None) -> Floats | None:
        return None if values is None else np.asarray(values, float)[at]

    return replace(line, x=np.asarray(line.x, float)[at], y=y[at], low=cut(line.low), high=cut(line.high))


def _text(text: str, x: float, y: float, role: str, **attributes: str | int) -> Html:
    if not text:
        return Html("")
    return tag(
        "text", text, x=x, y=y, class_=role, fill="#24292f" if role in ("title", "key") else "#5c6670", **attributes
    )


def _width(text: str) -> float:
    """Estimate how wide a text is at 12 pixels in a common sans serif."""
    narrow = sum(letter in "iljtfrI.,:;'|()[] " for letter in text)
    wide = sum(letter in "mwMW%" or letter > "\u2e80" for letter in text)
    capital = sum(letter.isupper() for letter in text)
    return 6.9 * len(text) - 2.7 * narrow + 3.4 * wide + 1.2 * capital
