"""Sinks: fed, dropped when they fail, absent unless asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foreworld.core import registry
from foreworld.core.errors import ConfigError, MissingExtra, UnknownName
from foreworld.data import Dataset
from foreworld.report.video import write_video
from foreworld.train import fit
from foreworld.train.sinks import Sink, Sinks, Tracker

Make = Callable[..., Any]
TRACKERS = ("tensorboard", "trackio", "wandb")
SETTINGS: dict[str, Any] = {"steps": 6, "batch": 4, "length": 6, "lr": 1e-2, "log_every": 2}


class Memory:
    """Remembers what it is fed, and fails when told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.lines, self.videos, self.closed = fails, [], [], 0

    def write(self, line: dict[str, float]) -> None:
        if self.fails == "write" and self.lines:
            raise ConnectionError("no route to host")
        self.lines.append(line)

    def video(self, name: str, path: Path, step: int) -> None:
        self.videos.append((name, path, step))

    def close(self) -> None:
        self.closed += 1
        if self.fails == "close":
            raise TimeoutError("the server does not answer")


def test_sinks_get_the_finite_numbers_of_every_line_and_are_closed(toy: Make, data: Dataset) -> None:
    sink = Memory()
    result = fit(toy(lambda call: "nan" if call == 3 else None), data, sinks=[sink], **SETTINGS)
    assert [line["step"] for line in sink.lines] == [2, 4, 6]
    assert "loss/reward" not in sink.lines[1] and sink.lines[1]["skipped"] == 1
    assert sink.lines[2] == result.history[2]
    assert sink.closed == 1


@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_sink_that_fails_is_named_once_and_training_goes_on(
    toy: Make, data: Dataset, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    bad, good = Memory(fails), Memory()
    assert fit(toy(), data, sinks=[bad, good], **SETTINGS).steps == 6
    said = capsys.readouterr().err
    assert said.count("sink Memory") == 1 and "training goes on" in said
    assert (len(bad.lines), len(good.lines)) == (1 if fails == "write" else 3, 3)
    assert good.closed == 1


def test_sinks_are_closed_when_training_fails(toy: Make, data: Dataset) -> None:
    sink = Memory()

    def report(step: int, steps: int, line: dict[str, float]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(toy(), data, sinks=[sink], report=report, **SETTINGS)
    assert sink.closed == 1


def test_videos_are_handed_on(tmp_path: Path) -> None:
    sink = Memory()
    with Sinks([sink], None, {}) as sinks:
        sinks.video("dream", tmp_path / "dream.mp4", 7)
    assert sink.videos == [("dream", tmp_path / "dream.mp4", 7)]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_before_anything_is_written(
    toy: Make, data: Dataset, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"{name}.*pip install 'foreworld\[{name}\]'"):
        fit(toy(), data, out=tmp_path / "run", sinks=[name], **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_an_unknown_sink_lists_near_names(toy: Make, data: Dataset, tmp_path: Path) -> None:
    assert set(TRACKERS) <= set(registry.names("sinks"))
    with pytest.raises(UnknownName, match="unknown sink 'tensorbord'; did you mean 'tensorboard'"):
        fit(toy(), data, out=tmp_path / "run", sinks=["tensorbord"], **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_no_tracker_is_imported_unless_asked_for() -> None:
    code = (
        "import sys, foreworld.train.sinks, foreworld.cli.train; "
        "print(sorted({'tensorboard', 'trackio', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_resumed_run_goes_where_the_run_went_and_is_known_again(
    toy: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []

    def init(**options: Any) -> Any:
        opened.append(options)
        return SimpleNamespace(log=lambda line, step: logged.append((step, line)))

    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=init, finish=lambda: None, Video=lambda path, format: (path, format))
    )
    run = tmp_path / "run"
    fit(toy(), data, out=run, sinks=["wandb"], **SETTINGS)
    assert json.loads((run / "config.json").read_text())["sinks"] == ["wandb"]
    fit(toy(), data, out=run, resume=True, steps=8)
    fit(toy(), data, out=run, resume=True, steps=10, sinks=[])
    assert [step for step, _ in logged] == [2, 4, 6, 8]
    assert [options["id"] for options in opened] == [(run / "run-id").read_text()] * 2
    assert opened[0]["resume"] == "allow" and opened[0]["config"]["steps"] == 6
    tracker = Tracker(sys.modules["wandb"], None, lambda identity: {})
    tracker.video("dream", Path("dream.mp4"), 9)
    assert logged[-1] == (9, {"dream": ("dream.mp4", "mp4")})


def test_tensorboard_needs_a_run_folder() -> None:
    with pytest.raises(ConfigError, match="give out"):
        registry.load("sinks", "tensorboard")(None, {})


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{' and '.join(absent)} not installed")


@needs("tensorboard", "av")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_tensorboard_itself_reads_back_what_was_written(
    toy: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(toy(), data, out=tmp_path / "run", sinks=["tensorboard"], **SETTINGS)
    fit(toy(), data, out=tmp_path / "run", resume=True, steps=8)
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    scalars = found.Scalars("loss/obs")
    assert [event.step for event in scalars] == [2, 4, 6, 8]
    assert scalars[0].value == pytest.approx(result.history[0]["loss/obs"])
    sink: Sink = registry.load("sinks", "tensorboard")(tmp_path, {})
    path = write_video(tmp_path / "dream.mp4", np.zeros((3, 32, 48, 3), np.uint8))
    sink.video("dream", path, 5)
    monkeypatch.setitem(sys.modules, "av", None)
    sink.video("path", path, 6)
    sink.close()
    written = EventAccumulator(str(tmp_path / "tensorboard"))
    written.Reload()
    (picture,) = written.Images("dream")
    assert (picture.step, picture.width, picture.height) == (5, 24, 16)
    assert picture.encoded_image_string.startswith(b"GIF89a")
    assert "path/text_summary" in written.Tags()["tensors"]


@needs("wandb", "av")
@pytest.mark.slow
def test_wandb_itself_takes_a_run_offline(tmp_path: Path) -> None:
    assert outcome_of("wandb", tmp_path, {"WANDB_MODE": "offline"}) == "True"
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    (copy,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media/videos/*.mp4")
    assert copy.read_bytes() == (tmp_path / "run" / "dream.mp4").read_bytes()


@needs("trackio", "av")
@pytest.mark.slow
def test_trackio_itself_takes_a_run(tmp_path: Path) -> None:
    assert outcome_of("trackio", tmp_path, {"TRACKIO_DIR": str(tmp_path / "trackio")}) == "True"
    assert list((tmp_path / "trackio").glob("*.db"))
    (copy,) = (tmp_path / "trackio").rglob("*.mp4")
    assert copy.read_bytes() == (tmp_path / "run" / "dream.mp4").read_bytes()


ALONE = """
import sys
from pathlib import Path
import numpy as np
from foreworld.report.video import write_video
from foreworld.train.sinks import Sinks
folder = Path(sys.argv[2]) / "run"
folder.mkdir()
with Sinks([sys.argv[1]], folder, {"lr": 0.1}) as sinks:
    for step in (5, 10):
        sinks.write({"step": step, "loss/obs": 1 / step})
    sinks.video("dream", write_video(folder / "dream.mp4", np.zeros((3, 32, 48, 3), np.uint8)), 10)
    alive = bool(sinks._live)
print(alive)
"""


def outcome_of(name: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a tracker in a process of its own, as it starts threads and writes to the home folder."""
    env = os.environ | variables | {"HOME": str(folder)}
    command = [sys.executable, "-c", ALONE, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=True)
    assert "is dropped" not in done.stderr
    return done.stdout.strip()
