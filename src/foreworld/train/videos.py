"""Videos of a training: a clip beside every checkpoint, made without leaving a trace in the training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from foreworld.core import TrainableModel, seeded
from foreworld.core.disk import discard
from foreworld.core.files import make_folder, sweep_partial
from foreworld.train.log import complain
from foreworld.train.sinks import Sinks

VIDEOS = "videos"
NAME = "dream"
"""What trackers call the clip."""

Film = Callable[[TrainableModel[Any], Path], object]
"""Called with (model in evaluation mode, path); writes a video there, .mp4, whole or not at all."""

_STEP = re.compile(r"[0-9]{8,18}\.mp4")


class Videos:
    """Film the model into `<run>/videos/<step>.mp4`, and hand the finished file to the sinks.

    The training notices nothing: torch's random state and the training mode are put back. A film that fails is
    named once on stderr and tried again at the next checkpoint. Videos of steps after the one that a run resumes
    from are removed, as are unfinished ones. A kill between a checkpoint and its video loses that video.

    Args:
        film: makes the video; None for no videos.
        folder: the run folder, or None.
        step: the step that training starts from.
        sinks: where finished videos go.
    """

    def __init__(self, film: Film | None, folder: Path | None, step: int, sinks: Sinks) -> None:
        self._film, self._folder, self._sinks = film, None if folder is None else folder / VIDEOS, sinks
        self._complained = False
        if folder is not None and self._folder is not None:
            for path in list_videos(folder):
                if int(path.stem) > step:
                    discard(path)
                    discard(path.with_name(f"{path.stem}-episode{path.suffix}"))
            sweep_partial(self._folder)

    def make(self, model: TrainableModel[Any], step: int) -> None:
        """Film the model as it is after an update; what was filmed before stays as it is."""
        if self._film is None or self._folder is None:
            return
        path = self._folder / f"{step:08d}.mp4"
        if path.exists():
            return
        try:
            make_folder(self._folder)
            model.eval()
            with seeded(0), torch.no_grad():
                self._film(model, path)
        except Exception as fault:
            if not self._complained:
                complain(f"no video at update {step} ({type(fault).__name__}: {fault}); training goes on")
            self._complained = True
        finally:
            model.train()
        if path.is_file():
            self._sinks.video(NAME, path, step)


def list_videos(run: Path) -> list[Path]:
    """List the finished videos of a run, oldest first."""
    folder = run / VIDEOS
    if not folder.is_dir() or folder.is_symlink():
        return []
    return sorted((path for path in folder.iterdir() if _STEP.fullmatch(path.name)), key=lambda path: int(path.stem))
