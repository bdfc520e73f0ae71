"""Vector observations, real beside dreamed: one small plot for every dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import SpecError
from foreworld.report.scale import Floats
from foreworld.report.svg import Line, Plot, Shade


@dataclass(frozen=True, eq=False)
class Trace:
    """A stretch of vectors and the model's account of it.

    Row `context - 1` is the last one that the model saw; row `context - 1 + k` is step k
    of its imagination.

    Attributes:
        real: [T, D].
        dreamed: [T, D]; NaN where the model says nothing.
        context: number of rows that the model saw, 0 <= context <= T.
        names: D names with units; empty for numbers.
        title: a few words.
    """

    real: Floats
    dreamed: Floats
    context: int
    names: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        if np.ndim(self.real) != 2 or np.shape(self.real) != np.shape(self.dreamed) or np.size(self.real) == 0:
            shapes = f"{np.shape(self.real)} and {np.shape(self.dreamed)}"
            raise SpecError(f"trace {self.title!r}: real and dreamed must have one shape [T, D], found {shapes}")
        if not 0 <= self.context <= len(self.real):
            raise SpecError(f"trace {self.title!r}: context {self.context} is outside 0..{len(self.real)}")
        if self.names and len(self.names) != np.shape(self.real)[1]:
            count = np.shape(self.real)[1]
            raise SpecError(f"trace {self.title!r}: {len(self.names)} names for {count} dimensions")

    @property
    def steps(self) -> Floats:
        """[T], 0 at the last row that the model saw."""
        return np.arange(len(self.real), dtype=float) - (self.context - 1)


def trace_plots(trace: Trace) -> tuple[Plot, ...]:
    """Describe one plot for every dimension, with the context shaded.

    Returns:
        D plots that share their legend; show them with `page.grid`.
    """
    steps = trace.steps
    shades = (Shade(float(steps[0]), 0.0, "context"),) if trace.context else ()
    names = trace.names or tuple(f"dimension {k}" for k in range(np.shape(trace.real)[1]))
    return tuple(
        Plot(
            lines=(
                Line(steps, np.asarray(trace.real, float)[:, k], "real", style="real"),
                Line(steps, np.asarray(trace.dreamed, float)[:, k], "dreamed", style="model"),
            ),
            title=name,
            x_label="imagined step",
            shades=shades,
        )
        for k, name in enumerate(names)
    )
