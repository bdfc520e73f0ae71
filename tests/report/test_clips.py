from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from foreworld.core.errors import SpecError
from foreworld.report import clips, colours
from foreworld.report.clips import Clip, differences, filmstrip, panels, player, sheet, strip


def made(frames: int = 12, channels: int = 3, height: int = 5, width: int = 4, context: int = 3) -> Clip:
    rng = np.random.default_rng(0)
    real, dreamed = rng.integers(0, 256, (2, frames, channels, height, width), dtype=np.uint8)
    return Clip(real, dreamed, context, "a clip", "a caption")


def test_differences_are_of_the_full_range_and_averaged_over_channels() -> None:
    real, dreamed = np.zeros((2, 1, 3, 1, 1), np.uint8)
    real[0, :, 0, 0], dreamed[0, :, 0, 0] = (255, 0, 100), (0, 255, 100)
    assert differences(Clip(real, dreamed, 0)).tolist() == [[[pytest.approx(2 / 3)]]]


def test_error_colours_have_one_scale_and_saturate_at_half() -> None:
    real = np.array([0, 0, 0, 0], np.uint8).reshape(1, 1, 2, 2)
    dreamed = np.array([0, 64, 128, 255], np.uint8).reshape(1, 1, 2, 2)
    error = panels(Clip(real, dreamed, 0))[0, 2].reshape(4, 3)
    table = colours.magma()
    np.testing.assert_array_equal(error, table[[0, 128, 255, 255]])


def test_magma_goes_evenly_from_dark_to_light() -> None:
    table = colours.magma()
    assert table.shape == (256, 3)
    assert table[0].tolist() == [0, 0, 4] and table[255].tolist() == [252, 253, 191]
    assert table[32].tolist() == [29, 17, 71]  # as matplotlib has it
    brightness = table.astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > -0.5).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_panels_keep_pixels(channels: int) -> None:
    clip = made(channels=channels)
    pictures = panels(clip)
    assert pictures.shape == (12, 3, 5, 4, 3)
    np.testing.assert_array_equal(pictures[7, 0, 2, 3], np.broadcast_to(clip.real[7, :, 2, 3], 3))
    np.testing.assert_array_equal(pictures[7, 1, 2, 3], np.broadcast_to(clip.dreamed[7, :, 2, 3], 3))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 1, 1), (12, 5, 4), (7, 3, 30), (50, 40, 2)])
def test_sheet_holds_every_frame_in_its_cell(frames: int, height: int, width: int) -> None:
    clip = made(frames, 3, height, width, 1)
    picture, columns = sheet(clip)
    assert picture.shape == (-(-frames // columns) * height, columns * 3 * width, 3)
    pictures = panels(clip)
    for t in range(frames):
        for panel in range(3):
            y, x = t // columns * height, (t % columns * 3 + panel) * width
            np.testing.assert_array_equal(picture[y : y + height, x : x + width], pictures[t, panel])


def test_filmstrip_lays_steps_out_by_rows_and_columns() -> None:
    clip = made()
    picture = filmstrip(clip, steps=(1, 5, 9, 10), scale=2, gap=3)
    # Step 10 lies outside: 3 columns of 8 pixels and 3 rows of 10, with 2 gaps each.
    assert picture.shape == (3 * 10 + 2 * 3, 3 * 8 + 2 * 3, 3)
    pictures = panels(clip)
    for row in range(3):
        for column, t in enumerate((3, 7, 11)):
            cell = picture[row * 13 : row * 13 + 10, column * 11 : column * 11 + 8]
            np.testing.assert_array_equal(cell[::2, ::2], pictures[t, row])
            np.testing.assert_array_equal(cell[1::2, 1::2], pictures[t, row])
    assert (picture[10:13] == 255).all() and (picture[:, 8:11] == 255).all()


def test_a_strip_names_context_and_steps() -> None:
    markup = strip(made(), steps=(-1, 0, 1, 9))
    heads = re.findall(r'scope="col" class="(\w+)">(.*?)</th>', markup)
    assert [(phase, re.sub("<.*?>", "", head)) for phase, head in heads] == [
        ("context", "1 before"), ("context", "last seen"), ("imagined", "step 1"), ("imagined", "step 9")
    ]  # fmt: skip
    assert markup.count("<img") == 12
    assert 'alt="dreamed, step 9"' in markup


def test_a_strip_without_a_step_inside_is_refused() -> None:
    with pytest.raises(SpecError, match="none of the steps"):
        strip(made(), steps=(50,))


class Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_player_says_all_that_its_script_needs() -> None:
    clip = made()
    parser = Attributes()
    parser.feed(player(clip))
    (figure,) = (attrs for tag, attrs in parser.found if tag == "figure")
    facts = json.loads(figure["data-clip"] or "")
    means = [f"{m:.3f}" for m in differences(clip).mean((1, 2))]
    assert facts == {
        "frames": 12, "context": 3, "width": 4, "height": 5, "columns": sheet(clip)[1], "fps": 10.0,
        "trusted": None, "phases": clips.PHASES, "errors": means,
    }  # fmt: skip
    trusted = replace(clip, trusted=4)
    assert [trusted.phase(step) for step in (0, 1, 4, 5)] == ["context", "imagined", "imagined", "beyond"]
    assert clips.BEYOND in clips.gallery([trusted]) and clips.BEYOND not in clips.gallery([clip]).split("<figure")[0]
    assert sum(tag == "canvas" for tag, _ in parser.found) == 3
    (slider,) = (attrs for tag, attrs in parser.found if tag == "input")
    assert (slider["min"], slider["max"]) == ("0", "11")
    assert [attrs["data-do"] for tag, attrs in parser.found if tag == "button"] == ["play", "back", "on"]


def test_titles_are_escaped() -> None:
    clip = made()
    evil = Clip(clip.real, clip.dreamed, 3, "<script>1</script>", "<img src=x onerror=1>")
    for markup in (player(evil), strip(evil)):
        assert "<script" not in markup and "<img src=x" not in markup


def test_bad_clips_are_refused() -> None:
    frames = np.zeros((4, 3, 2, 2), np.uint8)
    with pytest.raises(SpecError, match="real must be uint8"):
        Clip(frames.astype(float), frames, 1)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="dreamed must be uint8"):
        Clip(frames, frames.transpose(0, 2, 3, 1), 1)
    with pytest.raises(SpecError, match="one shape"):
        Clip(frames, frames[:3], 1)
    with pytest.raises(SpecError, match=r"context 5 is outside 0\.\.4"):
        Clip(frames, frames, 5)
    with pytest.raises(SpecError, match="fps must be positive"):
        Clip(frames, frames, 1, fps=0)
