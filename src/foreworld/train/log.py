"""Metrics: a file of JSON lines, always; and a progress display for people."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from foreworld.core.errors import DataError
from foreworld.core.files import append_text, finite, write_atomic

METRICS = "metrics.jsonl"


class MetricsFile:
    """Append metrics to `metrics.jsonl`; lines after the step that a run resumes from are dropped.

    A line that the disk refuses is lost; this is said once, and training goes on.

    Args:
        folder: the run folder, or None to write nothing.
        step: the step that training starts from.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.path = None if folder is None else folder / METRICS
        self._complained = False
        if self.path is not None and self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, line: dict[str, float]) -> None:
        """Append one line."""
        if self.path is None:
            return
        try:
            append_text(self.path, json.dumps(finite(line)) + "\n")
        except OSError as fault:
            if not self._complained:
                complain(f"{self.path}: metrics are not written ({fault}); training goes on")
            self._complained = True


def complain(message: str) -> None:
    """Say on stderr what went wrong but does not end the training."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the complete lines of a metrics file; a last line cut by a crash is left out.

    Raises:
        DataError: a line is damaged; it is named.
    """
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").split("\n")
    return [_line(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def _line(path: Path, number: int, text: str) -> dict[str, float]:
    try:
        found = json.loads(text)
        if isinstance(found["step"], int):
            return found
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise DataError(f"{path}: line {number} is damaged; remove it, and go on")


class Display:
    """Show progress, pace and time left: a bar on a terminal, a plain line every so often elsewhere, on stderr.

    Plain lines come every few seconds at first and every minute in the end, so that a log stays short and a
    watchdog that waits for output is content.

    Args:
        title: what is going on.
        unit: what is counted.
        quiet: show nothing.
        limit: seconds after which the work ends even if it is not done; 0 for none.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        title: str,
        unit: str = "steps",
        quiet: bool = False,
        limit: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.unit, self.quiet, self.limit, self.clock = title, unit, quiet, limit, clock
        self.bar: Progress | None = None
        self._started = self._shown = clock()
        self._first: int | None = None
        if sys.stderr.isatty() and not quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        """Start the bar."""
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop the bar."""
        if self.bar is not None:
            self.bar.stop()

    def show(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` is reached."""
        if self.quiet:
            return
        now = self.clock()
        if self._first is None:
            # the first call comes after some work: of that, only the end is known
            self._first, self._started = done, now
        words = ", ".join(part for part in (*self.pace(done, total, now), note) if part)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, note=words)
        elif done >= total or now - self._shown >= min(60.0, max(5.0, (now - self._started) / 20)):
            self._shown = now
            print(f"{self.title}: {done}/{total} {self.unit}{words and ', '}{words}", file=sys.stderr, flush=True)

    def pace(self, done: int, total: int, now: float) -> tuple[str, ...]:
        """Return the pace and the time left in words; nothing until they are known."""
        passed, counted = now - self._started, done - (self._first or 0)
        if counted <= 0 or passed <= 0:
            return ()
        left = (total - done) * passed / counted
        if self.limit:
            left = min(left, self.limit - passed)
        rate = f"{counted / passed:.3g} {self.unit}/s"
        return (rate, f"{in_words(left)} left") if left > 0 else (rate,)


def in_words(seconds: float) -> str:
    """Return a duration as people say it.

    Example:
        >>> in_words(42.4), in_words(200), in_words(9000)
        ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
