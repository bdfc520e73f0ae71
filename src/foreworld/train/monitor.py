"""Monitors: a look at the model at every checkpoint, which leaves no trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from foreworld.core import TrainableModel, seeded
from foreworld.train.log import complain

Monitor = Callable[[TrainableModel[Any]], dict[str, float]]
"""Called with the model in evaluation mode; returns further metrics."""


class Log(Protocol):
    """What takes a line of metrics."""

    def write(self, line: dict[str, float]) -> None:
        """Take one line: numbers by name, `step` among them."""
        ...


class Monitoring:
    """Let a monitor look, and log what it finds.

    The training notices nothing: torch's random state and the training mode are put back. A monitor that fails is
    named once on stderr and tried again at the next checkpoint.

    Args:
        monitor: looks; None for nobody.
        logs: where its metrics go.
    """

    def __init__(self, monitor: Monitor | None, logs: Sequence[Log]) -> None:
        self._monitor, self._logs = monitor, logs
        self._complained, self._looked = False, -1

    def look(self, model: TrainableModel[Any], step: int) -> None:
        """Look at the model as it is after an update; once, if that is also the last."""
        if self._monitor is None or step == self._looked:
            return
        self._looked = step
        try:
            model.eval()
            with seeded(0), torch.no_grad():
                found = self._monitor(model)
        except Exception as fault:  # whatever a monitor stumbles over, the training is worth more
            if not self._complained:
                complain(f"the monitor failed at update {step} ({type(fault).__name__}: {fault}); training goes on")
            self._complained = True
        else:
            for log in self._logs:
                log.write({"step": step, **found})
        finally:
            model.train()
