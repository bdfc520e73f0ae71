"""`Learning`: one update after another from a replay."""

from __future__ import annotations

import time
from typing import Any, cast

import torch

from foreworld.agents import DreamerLearner
from foreworld.core import Calibrates, tree
from foreworld.data import Replay
from foreworld.train.checkpoint import Progress
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

    def update(self) -> Outcome:
        """Do one update."""
        config, replay, model = self._config, self.replay, self.learner.model
        asked = time.monotonic()
        batch = replay.sample(config.batch, step=self.updates)
        segment = tree.to(batch.segment, self._device)
        self.waited += time.monotonic() - asked
        state = None
        if replay.carry:
            state = tree.from_vector(model.initial(config.batch), batch.carry.to(self._device))
        if not self._calibrated and "calibrate" in model.provides:
            cast(Calibrates, model).calibrate(lambda: iter([segment]))
        self._calibrated = True
        set_rate(self._optimizer, config.lr * self.guard.rate)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            outcome = update(self.learner, self._optimizer, segment, state=state)
        self.guard.add(outcome)
        self.updates += 1
        if replay.carry and bool(outcome.sound):
            replay.write_back(batch, tree.to_vector(outcome.states, 2).cpu())
        return outcome

    def gone_back(self, progress: Progress) -> None:
        """Note that weights and optimiser are those of an earlier checkpoint again; updates are counted on."""
        self._calibrated = progress.step > 0
