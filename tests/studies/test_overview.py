"""Pages that show a dataset or a run."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import foreworld as fw
from foreworld.cli.main import main
from foreworld.core import Space
from foreworld.data import Episode, Writer
from foreworld.studies.overview import contact_sheet, data_page

ACTION = Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,))


def test_a_contact_sheet_goes_from_the_first_frame_to_the_last() -> None:
    frames = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1) * np.ones((1, 3, 4, 5), np.uint8)
    sheet = contact_sheet(frames)
    assert sheet.shape == (2 * 4, 10 * 5, 3)
    assert (sheet[0, 0, 0], sheet[-1, -1, 0]) == (0, 49)
    assert contact_sheet(frames[:3, :1]).shape == (4, 3 * 5, 3)
    assert contact_sheet(np.repeat(frames, 2, 1)).shape == (8, 50, 3)  # stacked frames: the last channel


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with pictures and numbers, and a run trained on it."""
    folder = tmp_path_factory.mktemp("overview")
    rng = np.random.default_rng(0)
    image = Space(kind="image", shape=(3, 32, 32), dtype="uint8")
    spec = fw.Spec(obs={"image": image, "speed": Space(kind="vector", shape=(2,), dtype="float32")}, action=ACTION)
    with Writer(folder / "data", spec) as writer:
        for length in (8, 12, 30):
            obs = {"image": rng.integers(256, size=(length, 3, 32, 32), dtype=np.uint8)}
            obs["speed"] = rng.normal(size=(length, 2)).astype(np.float32)
            action = np.array([0, *[1] * (length - 2), 2])
            writer.add(Episode(obs=obs, prev_action=action, reward=np.ones(length, np.float32)))
    data = fw.load(folder / "data")
    model = fw.Linear(data.spec, window=1, fit="gradient")
    fw.fit(model, data, steps=4, batch=2, length=4, log_every=1, out=folder / "run")
    return folder


def test_a_dataset_page_shows_episodes_frames_numbers_and_actions(world: Path) -> None:
    html = data_page(fw.load(world / "data"), {"env": "none"}).html()
    assert "3 episodes, 47 steps" in html
    assert html.count("frames of episode") >= 3
    assert "speed[1]" in html
    assert "93.6%" in html  # action 1 of 47
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(("folder", "words"), [("data", "What was seen"), ("run", "after 4 updates")])
def test_inspect_writes_a_page(
    folder: str, words: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", str(world / folder), "--out", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(page)
    assert words in page.read_text()
    assert main(["inspect", str(world / folder), "--out", str(page)]) == 2
    assert "overwrite" in capsys.readouterr().err


def test_inspect_lists_the_videos_and_its_page_shows_the_last(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = tmp_path / "run", tmp_path / "page.html"
    shutil.copytree(world / "run", run)
    (run / "videos").mkdir()
    for step in range(1, 11):
        (run / "videos" / f"{step:08d}.mp4").write_bytes(b"video %d" % step)
    assert main(["inspect", str(run), "--out", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == [f"videos/{step:08d}.mp4" for step in range(1, 11)]
    shown = page.read_text()
    assert base64.b64encode(b"video 10").decode() in shown and base64.b64encode(b"video 9").decode() not in shown
    assert "A dream after 10 updates, on rows held out. 9 earlier" in shown
    assert main(["inspect", str(run)]) == 0
    said = capsys.readouterr().out
    assert "(2 earlier), videos/00000003.mp4" in said and "00000010.mp4" in said and "00000002" not in said
    (run / "videos" / "00000011.mp4").symlink_to(world / "data" / "schema.json")
    assert main(["inspect", str(run), "--out", str(page), "--overwrite"]) == 2
    assert "00000011.mp4: is a link" in capsys.readouterr().err
