from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foreworld.core.errors import SpecError
from foreworld.report import (
    Clip,
    Html,
    Line,
    Page,
    Plot,
    Trace,
    details,
    figure,
    gallery,
    grid,
    moving_picture,
    paragraph,
    picture,
    section,
    strip,
    table,
    trace_plots,
)

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "input", "line", "path", "rect", "circle", "br"}


class Strict(HTMLParser):
    """Checks that every element is closed in order; keeps what it saw."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        place = self.open[-1] if self.open else ""
        self.text[place] = self.text.get(place, "") + data


@pytest.fixture(scope="module")
def page() -> Page:
    rng = np.random.default_rng(0)
    real, dreamed = rng.integers(0, 256, (2, 12, 3, 6, 7), dtype=np.uint8)
    clip = Clip(real, dreamed, 3, EVIL, EVIL)
    trace = Trace(rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), 3, title=EVIL)
    plot = Plot(lines=(Line([1, 2], [3, 4], EVIL, [2, 3], [4, 5], "model"),), x_label=EVIL)
    blocks = (
        table(["what", EVIL], [[EVIL, 1], ["b", 0.25]], EVIL, strong=[1]),
        EVIL,
        section(EVIL, EVIL, paragraph(EVIL, quiet=True), gallery([clip, clip]), strip(clip)),
        figure(plot, EVIL),
        grid(trace_plots(trace), EVIL),
        picture(real[0, 0], EVIL, EVIL),
        details(EVIL, {EVIL: EVIL, "seed": 0}),
    )
    return Page(EVIL, EVIL, blocks, footer=EVIL)


def test_the_page_is_well_formed_and_has_its_parts(page: Page) -> None:
    markup = page.html()
    assert markup.startswith("<!doctype html>\n<html lang=")
    parsed = Strict(markup)
    tags = [tag for tag, _ in parsed.seen]
    assert {"h1", "h2", "table", "figure", "canvas", "svg", "details", "footer"} <= set(tags)
    assert tags.count("script") == 1 and tags.count("style") == 1


def test_text_never_becomes_markup(page: Page) -> None:
    parsed = Strict(page.html())
    assert "alert(1)" not in parsed.text["script"] + parsed.text["style"]
    assert parsed.text["h1"] == EVIL and parsed.text["title"] == EVIL
    assert not any(name.startswith("on") or name == "style" for _, attrs in parsed.seen for name in attrs)


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    markup = page.html()
    for tag, attrs in Strict(markup).seen:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "a", "use"}
        assert (attrs.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in attrs
        assert "href" not in attrs and "srcset" not in attrs
    addresses = set(re.findall(r"\w+://[^\s\"'<>]+", markup))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "url(" not in markup and "@import" not in markup and "fetch(" not in markup


def test_the_policy_allows_exactly_the_style_and_script_of_the_page(page: Page) -> None:
    parsed = Strict(page.html())
    (policy,) = (a["content"] for tag, a in parsed.seen if tag == "meta" and a.get("http-equiv"))
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.text[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in (policy or "")
    assert (policy or "").startswith("default-src 'none'; img-src data:; media-src data:;")


def test_a_moving_picture_travels_inside_the_page() -> None:
    content = bytes(range(256))
    (attrs,) = (a for tag, a in Strict(moving_picture(content, EVIL, EVIL)).seen if tag == "video")
    kind, _, encoded = (attrs["src"] or "").partition(",")
    assert (kind, base64.b64decode(encoded)) == ("data:video/mp4;base64", content)
    assert attrs["aria-label"] == EVIL and "controls" in attrs and "autoplay" not in attrs


def test_a_long_cell_claims_room() -> None:
    html = table(["steps", "skill"], [["1", "0.2"], ["50", "2 held-out episodes reach step 50; 5 are needed"]])
    assert html.count('<td class="num long">') == 1 and html.count("long") == 1


def test_light_dark_paper_and_phone_are_provided_for(page: Page) -> None:
    style = Strict(page.html()).text["style"]
    for query in ("prefers-color-scheme: dark", "@media print", "max-width: 36rem"):
        assert query in style


def test_every_colour_of_a_plot_is_restyled_for_the_dark(page: Page) -> None:
    style = Strict(page.html()).text["style"]
    for role in ("model", "real", "baseline", *(f"series-{k}" for k in range(6))):
        assert f".line.{role}" in style and f":is(.band, .dot).{role}" in style


def test_write_makes_the_folder_and_the_whole_file(page: Page, tmp_path: Path) -> None:
    path = page.write(tmp_path / "runs" / "report.html")
    assert path.read_text(encoding="utf-8") == page.html()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_unprintable_text_is_written_all_the_same(tmp_path: Path) -> None:
    path = Page("a\x00b\ud800c", "h").write(tmp_path / "r.html")
    assert "a\ufffdb\ufffdc" in path.read_text(encoding="utf-8")


def test_plain_text_becomes_a_paragraph_and_markup_stays() -> None:
    assert section("t", "a & b", Html("<hr/>")) == "<section><h2>t</h2><p>a &amp; b</p><hr/></section>"


def test_tables_align_numbers_and_share_decimals() -> None:
    markup = table(["name", "error", "steps", "note"], [["a", 0.051, 18, "x"], ["b", 1.0, None, "7 of 9"]])
    rows = re.findall(r"<tr>(?!<th)(.*?)</tr>", markup)
    assert [re.sub(r"</?td>", "|", row.replace(' class="num"', "#")) for row in rows] == [
        "|a|<td#>0.051|<td#>18||x|", "|b|<td#>1.000|<td#>–||7 of 9|"
    ]  # fmt: skip


def test_counts_are_kept_whole() -> None:
    assert ">1234567<" in table(["steps"], [[1234567]])


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(SpecError, match="1 cells for 2 columns"):
        table(["a", "b"], [["x"]])


def test_figures_come_for_wide_and_narrow_screens() -> None:
    markup = figure(Plot(lines=(Line([0, 1], [0, 1]),)))
    assert re.findall(r'viewBox="0 0 (\d+) ', markup) == ["720", "360"]


def test_small_multiples_share_one_legend() -> None:
    markup = grid(trace_plots(Trace(np.zeros((4, 3)), np.ones((4, 3)), 1)))
    assert markup.count('class="legend"') == 1
    assert len(re.findall(r'class="plot"', markup)) == 3
    assert markup.count(">dreamed<") == 1
    assert "<figure" in grid([])
