"""One self-contained page: no network, no other file, light and dark, on paper and on a phone."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreworld.core.errors import SpecError
from foreworld.core.files import write_atomic
from foreworld.report import svg
from foreworld.report.html import Html, escape, join, tag
from foreworld.report.png import data_uri
from foreworld.report.scale import aligned, number
from foreworld.report.svg import Plot

Cell = str | int | float | None

_WIDE = (720, 340)
_NARROW = (360, 300)
_SMALL = (330, 190)
_LONG = 24
"""Characters of a cell above which it claims room for a line of them."""


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: what this is about, in a few words; also the name of the browser tab.
        headline: the finding, in one sentence.
        blocks: the content in order: markup from the functions below; plain text becomes a paragraph.
        footer: a closing line.
    """

    title: str
    headline: str
    blocks: tuple[str, ...] = ()
    footer: str = ""

    def html(self) -> Html:
        """Return the whole document."""
        style, script = _asset("page.css"), _asset("page.js")
        # The page may run its one script and load nothing at all: even a hole in escaping would stay silent.
        loads = f"img-src data:; media-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=f"default-src 'none'; {loads}"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", self.title),
            tag("style", style),
        )
        header = tag("header", tag("p", self.title, class_="eyebrow"), tag("h1", self.headline))
        footer = tag("footer", self.footer) if self.footer else Html("")
        body = tag("body", tag("main", header, *map(_block, self.blocks), footer), tag("script", script))
        return join([Html("<!doctype html>\n"), tag("html", head, body, lang="en"), Html("\n")])

    def write(self, path: Path) -> Path:
        """Write the page atomically, making its folder if need be; return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.html().encode())
        return path


def section(title: str, *blocks: str) -> Html:
    """Build a section with a heading; plain text becomes a paragraph."""
    return tag("section", tag("h2", title), *map(_block, blocks))


def paragraph(*parts: str, quiet: bool = False) -> Html:
    """Build a paragraph; `quiet` for remarks."""
    return tag("p", *parts, class_="quiet" if quiet else None)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "", strong: Sequence[int] = ()
) -> Html:
    """Build a table; columns of numbers are aligned at the right.

    Args:
        columns: the headings.
        rows: cells; numbers are written with three digits, None as a dash, text as it is.
        caption: a sentence below.
        strong: rows to set in bold, from 0.

    Raises:
        SpecError: a row has more or fewer cells than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise SpecError(f"table {caption or columns[0]!r}: a row has {len(row)} cells for {len(columns)} columns")
    numeric = ["num" if rows and all(_is_number(row[k]) for row in rows) else None for k in range(len(columns))]
    heads = [tag("th", column, scope="col", class_=kind) for column, kind in zip(columns, numeric, strict=True)]
    lines = [
        tag(
            "tr",
            *(tag("td", c, class_=_kind(c, k)) for c, k in zip(row, numeric, strict=True)),
            class_="strong" if i in strong else None,
        )
        for i, row in enumerate(zip(*map(_column, zip(*rows, strict=True)), strict=True))
    ]
    inner = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    return _figure(tag("div", inner, class_="scroll"), caption, "table")


def figure(plot: Plot, caption: str = "") -> Html:
    """Build a figure from a plot, drawn once for wide screens and paper and once for phones."""
    wide = tag("div", svg.draw(plot, *_WIDE), class_="wide")
    return _figure(join([wide, tag("div", svg.draw(plot, *_NARROW), class_="narrow")]), caption, "plot-figure")


def grid(plots: Sequence[Plot], caption: str = "") -> Html:
    """Build small multiples under one legend, which is that of the first plot."""
    cells = [svg.draw(replace(plot, legend=False), *_SMALL) for plot in plots]
    shared = Html("")
    if plots and plots[0].legend:
        shared = svg.legend(plots[0].lines, _SMALL[0])
    return _figure(join([shared, tag("div", *cells, class_="grid")]), caption, "plot-figure")


def picture(image: NDArray[np.uint8], alt: str, caption: str = "") -> Html:
    """Build a figure from pixels [H, W] or [H, W, 3], shown crisp; `alt` says what they show."""
    height, width = np.shape(image)[:2]
    return _figure(tag("img", src=data_uri(image), alt=alt, width=width, height=height, class_="pixels"), caption)


def moving_picture(content: bytes, alt: str, caption: str = "") -> Html:
    """Build a figure that plays an .mp4, which travels inside the page; `alt` says what it shows."""
    source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
    player = tag("video", src=source, aria_label=alt, controls=True, loop=True, muted=True, playsinline=True)
    return _figure(player, caption)


def details(summary: str, facts: Mapping[str, Cell]) -> Html:
    """Build a block to fold out, such as the exact command, the seed and the versions."""
    pairs = [join([tag("dt", name), tag("dd", tag("code", _cell(value)))]) for name, value in facts.items()]
    return tag("details", tag("summary", summary), tag("dl", *pairs))


def _block(block: str) -> Html:
    return block if isinstance(block, Html) else tag("p", block)


def _figure(body: Html, caption: str, kind: str | None = None) -> Html:
    below = tag("figcaption", caption) if caption else Html("")
    return tag("figure", body, below, class_=kind)


def _cell(value: Cell) -> Html:
    if value is None:
        return Html("–")
    if isinstance(value, str):
        return escape(value)
    # Counts are kept whole; only measured numbers are rounded.
    return escape(str(value) if isinstance(value, int) else number(float(value)))


def _column(cells: tuple[Cell, ...]) -> list[Html]:
    """Write the cells of a column; its measured numbers share their count of decimals."""
    written = [_cell(cell) for cell in cells]
    measured = [k for k, cell in enumerate(cells) if isinstance(cell, float) and math.isfinite(cell)]
    for k, text in zip(measured, aligned([written[k] for k in measured]), strict=True):
        written[k] = escape(text)
    return written


def _kind(cell: Html, column: str | None) -> str | None:
    """Mark a cell that would be broken into single words where the table is wider than the screen."""
    return " ".join(filter(None, (column, "long" if len(cell) > _LONG else None))) or None


def _is_number(value: Cell) -> bool:
    return value is None or not isinstance(value, str) or value[:1].isdigit() or value[:1] in ("−", "–", "+", "±")


def _asset(name: str) -> Html:
    return Html(resources.files("foreworld.report").joinpath(name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
