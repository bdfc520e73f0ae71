"""Sinks: where metrics go besides the run folder; each needs a package of its own, imported when asked for."""

from __future__ import annotations

import math
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from foreworld.core import registry
from foreworld.core.errors import ConfigError, MissingExtra
from foreworld.core.files import write_atomic
from foreworld.report.video import as_gif
from foreworld.train.log import complain

IDENTITY = "run-id"
"""File in the run folder by which a tracker knows a resumed run again."""


class Sink(Protocol):
    """What takes metrics. An outside package adds one by the entry point group `foreworld.sinks`.

    What is registered is called with (run folder or None, config as JSON values) before training starts, and
    should do no more than import its package; what may fail later is done in `write`.
    """

    def write(self, line: dict[str, float]) -> None:
        """Take one line of metrics: finite numbers by name, `step` among them."""
        ...

    def video(self, name: str, path: Path, step: int) -> None:
        """Take a finished .mp4 file, made after update `step`."""
        ...

    def close(self) -> None:
        """Send what is left, and end."""
        ...


class Sinks:
    """Feed several sinks; one that fails is named once on stderr and dropped, and training goes on.

    Args:
        wanted: registered names, or sinks.
        folder: the run folder, or None.
        config: training settings as JSON values, for a tracker to show.

    Raises:
        MissingExtra: a sink's package is not installed.
        UnknownName: nothing has that name.
        ConfigError: a sink cannot work without a run folder.
    """

    def __init__(self, wanted: Sequence[str | Sink], folder: Path | None, config: dict[str, Any]) -> None:
        self._live: dict[str, Sink] = {}
        for one in wanted:
            if isinstance(one, str):
                self._live[one] = registry.load("sinks", one)(folder, config)
            else:
                self._live[f"{type(one).__name__} {len(self._live)}"] = one

    def __enter__(self) -> Self:
        """Begin; nothing is opened before the first line."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close all."""
        self.close()

    def write(self, line: dict[str, float]) -> None:
        """Hand on the numbers of a line that are finite."""
        numbers = {name: value for name, value in line.items() if math.isfinite(value)}
        self._each(lambda sink: sink.write(numbers))

    def video(self, name: str, path: Path, step: int) -> None:
        """Hand on a finished video."""
        self._each(lambda sink: sink.video(name, path, step))

    def close(self) -> None:
        """Close all that still live."""
        self._each(lambda sink: sink.close())
        self._live.clear()

    def _each(self, act: Callable[[Sink], None]) -> None:
        for name, sink in list(self._live.items()):
            try:
                # stdout is for results; some trackers greet people there
                with redirect_stdout(sys.stderr):
                    act(sink)
            except Exception as fault:
                del self._live[name]
                complain(f"sink {name} failed and is dropped ({type(fault).__name__}: {fault}); training goes on")


class TensorBoard:
    """Event files in `<run>/tensorboard`; a video becomes a small .gif, under the tab of images.

    Args:
        folder: the run folder.
        config: not used, since TensorBoard has no place for it.
    """

    def __init__(self, folder: Path | None, config: dict[str, Any]) -> None:
        if folder is None:
            raise ConfigError("the sink 'tensorboard' writes into the run folder; give out (--out)")
        _package("tensorboard")
        self._folder, self._step = folder / "tensorboard", 0

    @cached_property
    def _writer(self) -> Any:
        # what an interrupted run had written after its last checkpoint is hidden
        return import_module("torch.utils.tensorboard").SummaryWriter(str(self._folder), purge_step=self._step)

    def write(self, line: dict[str, float]) -> None:
        """Write one scalar per metric."""
        step = self._step = int(line["step"])
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def video(self, name: str, path: Path, step: int) -> None:
        """Write a video as a moving picture; without what decodes it, its path."""
        self._step = step
        try:
            picture, width, height = as_gif(path)
        except MissingExtra:
            self._writer.add_text(name, str(path), step)
            return
        kinds = import_module("tensorboard.compat.proto.summary_pb2")
        # torch's own add_video wants moviepy, to make just this
        image = kinds.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=picture)
        value = kinds.Summary.Value(tag=name, image=image)
        self._writer.file_writer.add_summary(kinds.Summary(value=[value]), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if "_writer" in self.__dict__:
            self._writer.close()


class Tracker:
    """A run of Weights & Biases, or of what speaks its language.

    Args:
        module: has `init`, `finish` and `Video`.
        folder: the run folder, or None.
        options: what to give to `init` for a run of that identity.
    """

    def __init__(self, module: Any, folder: Path | None, options: Callable[[str], dict[str, Any]]) -> None:
        self._module, self._folder, self._options = module, folder, options

    @cached_property
    def _run(self) -> Any:
        identity = _identity(self._folder)
        name = identity if self._folder is None else f"{self._folder.resolve().name}-{identity}"
        return self._module.init(name=name, resume="allow", **self._options(identity))

    def write(self, line: dict[str, float]) -> None:
        """Log one line."""
        step = int(line["step"])
        self._run.log({name: value for name, value in line.items() if name != "step"}, step=step)

    def video(self, name: str, path: Path, step: int) -> None:
        """Log a video."""
        self._run.log({name: self._module.Video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """End the run."""
        if "_run" in self.__dict__:
            self._module.finish()


def wandb(folder: Path | None, config: dict[str, Any]) -> Tracker:
    """Open Weights & Biases; its own variables (WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY) hold.

    Raises:
        MissingExtra: wandb is not installed.
    """
    project = os.environ.get("WANDB_PROJECT", "foreworld")
    where = None if folder is None else str(folder)
    return Tracker(
        _package("wandb"), folder, lambda identity: {"project": project, "config": config, "dir": where, "id": identity}
    )


def trackio(folder: Path | None, config: dict[str, Any]) -> Tracker:
    """Open trackio, which keeps runs in a local database; `trackio show` serves them.

    Raises:
        MissingExtra: trackio is not installed.
    """
    return Tracker(_package("trackio"), folder, lambda identity: {"project": "foreworld", "config": config})


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as fault:
        raise MissingExtra(f"the sink {name!r} needs {name}: pip install 'foreworld[{name}]' ({fault})") from None


def _identity(folder: Path | None) -> str:
    """Return the run's identity: from its folder if it has one, else a new one."""
    file = None if folder is None else folder / IDENTITY
    if file is not None and file.is_file():
        return file.read_text().strip()
    made = secrets.token_hex(4)
    if file is not None:
        write_atomic(file, made.encode())
    return made
