"""`Ratio`: how many updates are owed for the steps that an agent took."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import floor

import torch
from torch import Tensor

from foreworld.core.errors import CheckpointError, ConfigError


class Ratio:
    """Keep updates in step with an agent: so many replayed steps for every step it took, to the fraction.

    Args:
        train_ratio: replayed steps per agent step.
        replayed: rows that one update replays, B * T.
        state: what `save` returned, when a run is resumed. Where another ratio owes another number of updates, counting
            begins afresh: a new ratio holds from now on, and owes nothing for what was before.

    Attributes:
        steps: agent steps counted.
        updates: updates that were due for them.

    Raises:
        CheckpointError: the state is of something else.
        ConfigError: a ratio below zero or not finite, or an update that replays nothing.

    Reference:
        Hafner et al., Mastering diverse control tasks through world models (Nature 2025), the train
        ratio of the methods: replayed steps per environment step, counted after action repeat.

    Example:
        >>> from foreworld.data import Ratio
        >>> ratio = Ratio(512, 16 * 64)
        >>> [ratio.due(1) for _ in range(4)]
        [0, 1, 0, 1]
    """

    def __init__(self, train_ratio: float, replayed: int, *, state: Mapping[str, Tensor] | None = None) -> None:
        """Begin, or go on, counting."""
        if not 0 <= train_ratio < float("inf") or replayed < 1:
            raise ConfigError(f"a train ratio is >= 0 and an update replays rows, found {train_ratio} and {replayed}")
        self._per_step = Fraction(train_ratio) / replayed
        steps, updates = (0, 0) if state is None else _counts(state)
        same = updates == floor(steps * self._per_step)
        self.steps, self.updates = (steps, updates) if same else (0, 0)

    def due(self, steps: int) -> int:
        """Count `steps` more agent steps and return how many more updates are owed for them."""
        self.steps += steps
        owed = floor(self.steps * self._per_step) - self.updates
        self.updates += owed
        return owed

    def save(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, as `state` takes it."""
        return {"counts": torch.tensor([self.steps, self.updates])}


def _counts(state: Mapping[str, Tensor]) -> tuple[int, int]:
    counts = state.get("counts")
    if len(state) != 1 or counts is None or counts.dtype != torch.int64 or counts.shape != (2,) or counts.min() < 0:
        raise CheckpointError(
            "the state of the train ratio is not one: two counts are expected; restore it from a copy"
        )
    steps, updates = counts.tolist()
    return steps, updates
