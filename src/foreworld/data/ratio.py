"""`Ratio`: how many updates are owed for the steps that an agent took."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from foreworld.core.errors import ConfigError


class Ratio:
    """Keep updates in step with an agent: so many replayed steps for every step it took, to the fraction.

    Args:
        train_ratio: replayed steps per agent step.
        replayed: rows that one update replays, B * T.
        steps: agent steps counted so far, when a run is resumed.
        updates: updates owed for those. Where another ratio owes another number, counting begins afresh: a new ratio
            holds from now on, and owes nothing for what was before.

    Attributes:
        steps: agent steps counted.
        updates: updates that were due for them.

    Raises:
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

    def __init__(self, train_ratio: float, replayed: int, *, steps: int = 0, updates: int = 0) -> None:
        """Begin, or go on, counting."""
        if not 0 <= train_ratio < float("inf") or replayed < 1:
            raise ConfigError(f"a train ratio is >= 0 and an update replays rows, found {train_ratio} and {replayed}")
        self._per_step = Fraction(train_ratio) / replayed
        same = updates == floor(steps * self._per_step)
        self.steps, self.updates = (steps, updates) if same else (0, 0)

    def due(self, steps: int) -> int:
        """Count `steps` more agent steps and return how many more updates are owed for them."""
        self.steps += steps
        owed = floor(self.steps * self._per_step) - self.updates
        self.updates += owed
        return owed
