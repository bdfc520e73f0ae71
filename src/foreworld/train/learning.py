"""`Learning`: one update after another from a replay."""

from __future__ import annotations

import time
from typing import Any, cast

from torch import Tensor

from foreworld.agents import DreamerLearner
from foreworld.core import Calibrates, Segment, tree
from foreworld.data import Replay
from foreworld.nn.precision import lowered
from foreworld.train.captured import Captured
from foreworld.train.checkpoint import Progress
from foreworld.train.feed import Feed
from foreworld.train.guard import Guard
from foreworld.train.online_config import OnlineConfig
from foreworld.train.optim import set_rate
from foreworld.train.update import Outcome, device_of, update


class Learning:
    """Learn from what a replay holds, and write back the states that the model found.

    Args:
        learner: model and agent.
        optimizer: over their parameters.
        config: sizes, rates, precision and patience.
        replay: what is learned from.
        progress: where the training starts.

    Attributes:
        updates: how many were done, skipped ones counted in.
        guard: what it knows of updates that were skipped.
        waited: seconds spent waiting for batches.
    """

    def __init__(
        self, learner: DreamerLearner, optimizer: Any, config: OnlineConfig, replay: Replay, progress: Progress
    ) -> None:
        self.learner, self.replay = learner, replay
        self._optimizer, self._config, self._device = optimizer, config, device_of(learner.model)
        # on a GPU every look would stop the host until the device has caught up
        every = 1 if self._device.type == "cpu" else config.max_skips
        self.guard = Guard(learner, progress, config.max_skips, every)
        self.updates, self.waited = progress.step, 0.0
        self._calibrated = progress.step > 0
        on_gpu = self._device.type == "cuda"
        self._feed = Feed(replay, config.batch, self._device, ahead=on_gpu)
        self._captured = Captured(self._compute, self._device) if on_gpu and config.graph else None

    def update(self) -> Outcome:
        """Do one update."""
        config, model = self._config, self.learner.model
        asked = time.monotonic()
        fed = self._feed.take(self.updates)
        self.waited += time.monotonic() - asked
        state = None if fed.carry is None else tree.from_vector(model.initial(config.batch), fed.carry)
        if not self._calibrated and "calibrate" in model.provides:
            cast(Calibrates, model).calibrate(lambda: iter([fed.segment]))
        self._calibrated = True
        rate = config.lr * self.guard.rate
        outcome = (self._captured or self._compute)(fed.segment, state, rate)
        set_rate(self._optimizer, rate)  # a number again, for checkpoints
        self.guard.add(outcome)
        self.updates += 1
        self._feed.give(fed, outcome)
        return outcome

    def settle(self) -> None:
        """Let the replay have all states that were found, before it is saved."""
        self._feed.settle()

    def gone_back(self, progress: Progress) -> None:
        """Note that weights and optimiser are those of an earlier checkpoint again; updates are counted on."""
        self._calibrated = progress.step > 0
        if self._captured is not None:
            self._captured.forget()

    def _compute(self, segment: Segment, state: Any, rate: float | Tensor) -> Outcome:
        set_rate(self._optimizer, rate)
        with lowered(self._device, self._config.precision):
            return update(self.learner, self._optimizer, segment, state=state)
