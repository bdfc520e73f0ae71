"""Metrics: a file of JSON lines, always; and a progress display for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from foreworld.core.files import append_text, finite, write_atomic

METRICS = "metrics.jsonl"


class MetricsFile:
    """Append metrics to `metrics.jsonl`; lines after the step that a run resumes from are dropped.

    Args:
        folder: the run folder, or None to write nothing.
        step: the step that training starts from.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.path = None if folder is None else folder / METRICS
        if self.path is not None and self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, line: dict[str, float]) -> None:
        """Append one line."""
        if self.path is not None:
            append_text(self.path, json.dumps(finite(line)) + "\n")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the complete lines of a metrics file; a last line cut by a crash is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


class Display:
    """Show progress: a bar on a terminal, one plain line every so often elsewhere, on stderr.

    Args:
        title: what is going on.
        unit: what is counted.
        every: plain lines: one per this share of the work.
        quiet: show nothing.
    """

    def __init__(self, title: str, unit: str = "steps", every: float = 0.1, quiet: bool = False) -> None:
        self.title, self.unit, self.every, self.quiet = title, unit, every, quiet
        self.last = 0.0
        self.bar: Progress | None = None
        if sys.stderr.isatty() and not quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
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
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif not self.quiet and total and (done / total >= self.last + self.every or (done >= total and self.last < 1)):
            self.last = done / total
            print(f"{self.title}: {done}/{total} {self.unit} {note}".rstrip(), file=sys.stderr, flush=True)
