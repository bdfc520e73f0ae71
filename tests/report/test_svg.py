from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.core.errors import SpecError
from foreworld.report import svg
from foreworld.report.svg import Line, Marker, Plot, Shade

NAMESPACE = "{http://www.w3.org/2000/svg}"


def parsed(plot: Plot, width: int = 400, height: int = 134) -> Element:
    return ElementTree.fromstring(svg.draw(plot, width, height))


def area(root: Element) -> Element:
    found = root.find(f"{NAMESPACE}svg")
    assert found is not None
    return found


def paths(root: Element, kind: str) -> list[Element]:
    return [p for p in root.iter(f"{NAMESPACE}path") if kind in p.attrib["class"].split()]


def texts(root: Element) -> list[str]:
    return [t.text or "" for t in root.iter(f"{NAMESPACE}text")]


def test_points_are_where_the_axes_say() -> None:
    # Labels 0.0 to 1.0 take 18 pixels and 10 of room: the area is 28..388 wide, and 10..110 high.
    root = parsed(Plot(lines=(Line([0, 1, 2], [0, 0.25, 1]),), y_range=(0, 1)))
    assert {k: area(root).attrib[k] for k in ("x", "y", "width", "height")} == {
        "x": "28", "y": "10", "width": "360", "height": "100"
    }  # fmt: skip
    (path,) = paths(root, "line")
    assert path.attrib["d"] == "M0.00,100.00L180.00,75.00L360.00,0.00"
    assert path.attrib["data-values"] == "0:0 1:0.25 2:1"


def test_logarithmic_axes_place_decades_evenly_and_leave_gaps_at_zero() -> None:
    line = Line([1, 10, 100, 1000, 1e4], [1, 10, 0, 1000, 1e4])
    root = parsed(Plot(lines=(line,), x_log=True, y_log=True, y_range=(1, 1e4)))
    width = float(area(root).attrib["width"])
    (path,) = paths(root, "line")
    expected = [(0, 100), (width / 4, 75), (width * 3 / 4, 25), (width, 0)]
    points = [tuple(map(float, p.split(","))) for p in path.attrib["d"].replace("M", "L").split("L")[1:]]
    np.testing.assert_allclose(points, expected, atol=0.01)
    assert path.attrib["d"].count("M") == 2


def test_nan_makes_a_gap_and_a_lone_point_a_dot() -> None:
    root = parsed(Plot(lines=(Line(range(6), [0, 1, np.nan, 1, np.nan, 0]),), y_range=(0, 1)))
    (path,) = paths(root, "line")
    assert path.attrib["d"].count("M") == 3
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{NAMESPACE}circle")]
    assert dots == [(pytest.approx(360 * 3 / 5), 0), (360, 100)]
    assert path.attrib["data-values"].split() == ["0:0", "1:1", "3:1", "5:0"]


def test_bands_enclose_low_and_high() -> None:
    line = Line([0, 1], [0.5, 0.5], low=[0.25, 0], high=[0.75, 1], style="model")
    root = parsed(Plot(lines=(line,), y_range=(0, 1)))
    (band,) = paths(root, "band")
    assert band.attrib["d"] == "M0.00,25.00L360.00,0.00L360.00,100.00L0.00,75.00Z"
    assert paths(root, "line")[0].attrib["data-values"] == "0:0.5:0.25:0.75 1:0.5:0:1"


def test_a_band_down_to_zero_reaches_the_floor_of_a_logarithmic_axis() -> None:
    line = Line([0, 1], [1, 1], low=[0, 0.1], high=[10, 10])
    root = parsed(Plot(lines=(line,), y_log=True, y_range=(0.1, 10)))
    (band,) = paths(root, "band")
    assert band.attrib["d"].endswith("100.00L0.00,100.00Z")


@pytest.mark.parametrize("plot", [Plot(lines=()), Plot(lines=(Line([], []),)), Plot(lines=(Line([1], [np.nan]),))])
def test_nothing_to_show_is_said(plot: Plot) -> None:
    assert "no data" in texts(parsed(plot))


def test_a_single_point_and_a_constant_stand_in_the_middle() -> None:
    (dot,) = parsed(Plot(lines=(Line([3], [5]),))).iter(f"{NAMESPACE}circle")
    assert float(dot.attrib["cy"]) == pytest.approx(50)
    (path,) = paths(parsed(Plot(lines=(Line([0, 1], [5, 5]),))), "line")
    assert [p.split(",")[1] for p in path.attrib["d"][1:].split("L")] == ["50.00", "50.00"]


def test_markers_and_shades_stand_at_their_x() -> None:
    plot = Plot(
        lines=(Line([-10, 10], [0, 1]),),
        markers=(Marker(5, "safe horizon"), Marker(99, "outside")),
        shades=(Shade(-10, 0, "context"),),
        y_range=(0, 1),
    )
    root = parsed(plot)
    width = float(area(root).attrib["width"])
    (rect,) = root.iter(f"{NAMESPACE}rect")
    assert (float(rect.attrib["x"]), float(rect.attrib["width"])) == (0, width / 2)
    (marker,) = (line for line in root.iter(f"{NAMESPACE}line") if line.attrib["class"] == "marker")
    assert float(marker.attrib["x1"]) == width * 3 / 4
    assert {"safe horizon", "context"} <= set(texts(root))
    assert "outside" not in texts(root)


def test_the_model_is_drawn_last_and_baselines_differ_by_dash() -> None:
    lines = (Line([0, 1], [0, 1], "m", style="model"), *(Line([0, 1], [1, 0], str(k), style="baseline") for k in "ab"))
    drawn = paths(parsed(Plot(lines=lines)), "line")
    assert [p.attrib["data-label"] for p in drawn] == ["a", "b", "m"]
    assert drawn[0].attrib.get("stroke-dasharray") != drawn[1].attrib.get("stroke-dasharray")
    assert float(drawn[2].attrib["stroke-width"]) > float(drawn[0].attrib["stroke-width"])


def test_series_take_the_colours_in_turn_then_dashes() -> None:
    drawn = paths(parsed(Plot(lines=tuple(Line([0, 1], [k, k]) for k in range(8)))), "line")
    looks = [(p.attrib["stroke"], p.attrib.get("stroke-dasharray")) for p in drawn]
    assert len(set(looks)) == 8
    assert len({colour for colour, _ in looks}) == 6


def test_a_series_beside_the_model_has_another_colour() -> None:
    lines = (Line([0, 1], [0, 1], "all", style="model"), Line([0, 1], [1, 0], "some"))
    assert len({path.attrib["stroke"] for path in paths(parsed(Plot(lines=lines)), "line")}) == 2


def test_long_lines_are_thinned_but_keep_their_extremes_and_gaps() -> None:
    y = np.sin(np.arange(50_000) / 500)
    y[12_345], y[40_000], y[30_000:30_200] = 9, -9, np.nan
    (path,) = paths(parsed(Plot(lines=(Line(np.arange(50_000), y),), y_range=(-9, 9))), "line")
    heights = [float(p.split(",")[1]) for p in path.attrib["d"].replace("M", "L").split("L")[1:]]
    assert len(heights) <= 2000
    assert (min(heights), max(heights)) == (0, 100)
    assert path.attrib["d"].count("M") == 2


def test_text_is_escaped_everywhere() -> None:
    bad = "<script>alert('x')</script>\"&"
    plot = Plot(
        lines=(Line([0, 1], [0, 1], bad),), title=bad, x_label=bad, y_label=bad, markers=(Marker(0, bad),),
        shades=(Shade(0, 1, bad),),
    )  # fmt: skip
    assert "<script" not in svg.draw(plot)
    assert texts(parsed(plot)).count(bad) == 6


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(), st.floats(), st.floats(), st.floats()), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_numbers_the_picture_is_well_formed(
    rows: list[tuple[float, float, float, float]], x_log: bool, y_log: bool
) -> None:
    x, y, low, high = np.array(rows, float).reshape(-1, 4).T
    plot = Plot(lines=(Line(x, y, "a", low, high),), x_log=x_log, y_log=y_log, markers=(Marker(0.0, "m"),))
    root = parsed(plot)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
                assert "nan" not in value and "inf" not in value


def test_the_legend_wraps() -> None:
    lines = tuple(Line([0], [0], f"a rather long label {k}") for k in range(6))
    one, many = (ElementTree.fromstring(svg.legend(lines, width)) for width in (2000, 300))
    assert float(one.attrib["height"]) < float(many.attrib["height"])
    assert all(float(t.attrib["x"]) + 120 < 300 for t in many.iter(f"{NAMESPACE}text"))


def test_bad_lines_are_refused() -> None:
    with pytest.raises(SpecError, match="share one shape"):
        Line([1, 2], [1])
    with pytest.raises(SpecError, match="both low and high"):
        Line([1], [1], low=[0])
    with pytest.raises(SpecError, match="style 'loud'"):
        Line([1], [1], style="loud")  # type: ignore[arg-type]
