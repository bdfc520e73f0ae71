"""Videos of a training: handed on when finished, without a trace in the training, whole or absent after a kill."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foreworld.core.disk import create, partial_name
from foreworld.core.errors import ConfigError
from foreworld.core.files import write_atomic
from foreworld.data import Dataset
from foreworld.testing.faults import in_child
from foreworld.train import fit
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.videos import list_videos

Make = Callable[..., Any]
SETTINGS: dict[str, Any] = {"batch": 4, "length": 6, "lr": 1e-2, "log_every": 2, "save_every": 3}

pytestmark = pytest.mark.usefixtures("plain_handlers")


class Memory:
    """A sink that remembers videos, and what was in them when it got them."""

    def __init__(self) -> None:
        self.videos: list[tuple[str, str, int, bytes]] = []

    def write(self, line: dict[str, float]) -> None:
        pass

    def video(self, name: str, path: Path, step: int) -> None:
        self.videos.append((name, path.name, step, path.read_bytes()))

    def close(self) -> None:
        pass


def film(model: Any, path: Path) -> None:
    """Write what the model is and what torch draws; disturb all that a film could disturb."""
    assert not model.training and not torch.is_grad_enabled()
    assert path.parent.is_dir() and not path.exists()
    write_atomic(path, f"{model.weight.flatten().tolist()} {torch.rand(2).tolist()}".encode())


def weights(run: Path) -> list[str]:
    """Hash both files of tensors of every checkpoint: weights, optimiser, random state."""
    files = [path / name for path in list_checkpoints(run / "checkpoints") for name in ("model", "training")]
    return [hashlib.sha256(file.with_suffix(".safetensors").read_bytes()).hexdigest() for file in files]


def videos(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "videos").iterdir()}


def test_a_video_lies_beside_every_checkpoint_and_goes_to_the_sinks(toy: Make, data: Dataset, tmp_path: Path) -> None:
    sink, run = Memory(), tmp_path / "run"
    fit(toy(), data, steps=7, out=run, film=film, sinks=[sink], **SETTINGS)
    assert [path.name for path in list_videos(run)] == ["00000003.mp4", "00000006.mp4", "00000007.mp4"]
    assert sink.videos == [("dream", name, int(name[:8]), videos(run)[name]) for name in sorted(videos(run))]
    fit(toy(), data, out=run, resume=True, film=film, sinks=[sink])
    assert len(sink.videos) == 3  # the run was at its end, and filmed


@pytest.mark.parametrize("fails", [False, True])
def test_weights_optimiser_and_random_state_are_those_without_videos(
    toy: Make, data: Dataset, tmp_path: Path, fails: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(model: Any, path: Path) -> None:
        film(model, path.with_name("else.mp4"))
        raise OSError("no room")

    model = toy()
    fit(toy(), data, steps=9, out=tmp_path / "plain", **SETTINGS)
    fit(model, data, steps=9, out=tmp_path / "filmed", film=failing if fails else film, **SETTINGS)
    assert weights(tmp_path / "plain") == weights(tmp_path / "filmed")
    assert model.training and not (tmp_path / "plain" / "videos").exists()
    said = capsys.readouterr().err
    assert said.count("no video at update 3 (OSError: no room); training goes on") == said.count("warning") == fails
    assert len(list_videos(tmp_path / "filmed")) == (0 if fails else 3)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_inside_a_film_leaves_nothing_and_the_resumed_run_has_the_same_videos(
    toy: Make, data: Dataset, tmp_path: Path
) -> None:
    fit(toy(), data, steps=12, out=tmp_path / "whole", film=film, **SETTINGS)

    def dying(model: Any, path: Path) -> None:
        if path.name == "00000009.mp4":
            with create(partial_name(path)) as file:
                file.write(b"half")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        film(model, path)

    cut = tmp_path / "cut"
    code, _ = in_child(lambda: fit(toy(), data, steps=12, out=cut, film=dying, **SETTINGS))
    assert code == -signal.SIGKILL
    assert sorted(name.startswith(".partial-") for name in videos(cut)) == [False, False, True]
    fit(toy(), data, out=cut, resume=True, film=film)
    whole = videos(tmp_path / "whole")
    del whole["00000009.mp4"]  # its checkpoint was written, so the resumed run begins after it
    assert videos(cut) == whole
    assert weights(cut) == weights(tmp_path / "whole")


def test_videos_of_what_never_was_are_removed_and_strangers_stay(toy: Make, data: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(toy(), data, steps=6, out=run, film=film, **SETTINGS)
    for name in ("00000009.mp4", "holiday.mp4"):
        (run / "videos" / name).write_bytes(b"x")
    fit(toy(), data, out=run, resume=True)
    assert set(videos(run)) == {"00000003.mp4", "00000006.mp4", "holiday.mp4"}


def test_who_asks_for_the_end_does_not_wait_for_a_video(toy: Make, data: Dataset, tmp_path: Path) -> None:
    def report(step: int, steps: int, line: dict[str, float]) -> None:
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    result = fit(toy(), data, steps=9, out=tmp_path / "run", film=film, report=report, **SETTINGS)
    assert (result.steps, result.interrupted) == (4, signal.SIGTERM)
    assert list(videos(tmp_path / "run")) == ["00000003.mp4"]


def test_videos_need_a_run_folder(toy: Make, data: Dataset) -> None:
    with pytest.raises(ConfigError, match="film needs out"):
        fit(toy(), data, film=film, **SETTINGS)
