"""The online loop: collect, learn, keep; and what it counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from foreworld.core.interrupt import graceful
from foreworld.data import Ratio
from foreworld.train.checkpoint import Progress
from foreworld.train.collecting import Collector
from foreworld.train.guard import Checkpoints
from foreworld.train.learning import Learning
from foreworld.train.log import MetricsFile, complain
from foreworld.train.online_config import OnlineConfig
from foreworld.train.sinks import Sinks
from foreworld.train.update import Outcome
from foreworld.train.videos import Videos

Report = Callable[[int, int, dict[str, float]], None]
"""Called with (actions taken, actions to take, metrics) after every step; metrics are empty between logged ones."""


@dataclass(frozen=True)
class OnlineResult:
    """What an online training did.

    Attributes:
        steps: actions taken in all, those before a resume counted in.
        updates: updates done in all.
        episodes: finished in all.
        seconds: training time in all.
        history: one entry per line of metrics.
        interrupted: the signal that ended it early, SIGINT or SIGTERM; None when it ran to its end.
        faults: what went wrong in the environments in all, by kind: `refused` transitions, steps that `failed`, worker
            processes that `died` or `hung`.
    """

    steps: int
    updates: int
    episodes: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    interrupted: int | None = None
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Audience:
    """Who is told of a training.

    Attributes:
        logs: take lines of metrics.
        videos: take the model at every checkpoint.
        report: called after every step in the environments.
        history: the lines so far.
    """

    logs: tuple[MetricsFile | Sinks, ...]
    videos: Videos
    report: Report | None
    history: list[dict[str, float]] = field(default_factory=list)

    def write(self, line: dict[str, float]) -> None:
        """Tell a line of metrics."""
        self.history.append(line)
        for log in self.logs:
            log.write(line)


class Loop:
    """Collect and learn in turn, or at the same time, as far as the train ratio allows.

    Args:
        config: how long, and how often to log and to save.
        collector: takes the steps.
        ratio: says how many updates are owed for them.
        learning: does the updates.
        checkpoints: keep weights and optimiser.
        audience: is told.
        seconds: training time of the run so far.
    """

    def __init__(
        self,
        config: OnlineConfig,
        collector: Collector,
        ratio: Ratio,
        learning: Learning,
        checkpoints: Checkpoints,
        audience: Audience,
        seconds: float,
    ) -> None:
        self.config, self.collector, self.ratio, self.learning = config, collector, ratio, learning
        self.checkpoints, self.audience = checkpoints, audience
        self._tried = learning.updates // config.save_every  # which checkpoint was written last, or refused
        self._saved: tuple[int, int] | None = None  # the updates and steps of what was saved last
        self._started = time.monotonic() - seconds

    def run(self, fresh: bool) -> OnlineResult:
        """Collect and learn until the steps are taken or the time is over; `fresh` if nothing was done before."""
        config, collector, learning = self.config, self.collector, self.learning
        learning.learner.train()
        with graceful() as interruption, collector:
            if fresh:  # something to go back to, should the first updates go bad, and to resume from
                self.save()
            while collector.steps < config.steps and not self._late() and not interruption.requested:
                taken = collector.step()
                line: dict[str, float] = {}
                # once begun it goes on: a full replay may hold fewer rows for a while, as it forgets whole episodes
                if (learning.updates or collector.replay.rows >= config.prefill) and collector.replay.ready():
                    line = self._learn(self.ratio.due(taken))
                    self._keep()
                if self.audience.report is not None:
                    self.audience.report(collector.steps, config.steps, line)
            learning.guard.finish(learning.updates)
            self.save()
            if not interruption.requested:  # who asks for the end does not wait for a video
                self._film()
        return OnlineResult(
            steps=collector.steps,
            updates=learning.updates,
            episodes=collector.episodes,
            seconds=time.monotonic() - self._started,
            history=self.audience.history,
            interrupted=interruption.signal,
            faults=collector.faults,
        )

    def save(self) -> None:
        """Write a checkpoint: all that a resumed run needs to go on.

        Raises:
            WriteFailed: the disk refused; the checkpoints before it are intact.
        """
        learning, collector, guard = self.learning, self.collector, self.learning.guard
        if self._saved == (learning.updates, collector.steps):
            return
        progress = Progress(
            step=learning.updates,
            seconds=time.monotonic() - self._started,
            rollbacks=guard.rollbacks,
            skips=dict(guard.skips),
            env_steps=collector.steps,
        )
        learning.settle()
        with collector.still():
            extra: dict[str, dict[str, Tensor]] = {}
            if self.checkpoints.folder is not None:  # a copy in memory is for going back, which leaves the replay alone
                extra = {"replay": collector.replay.save(), "collector": collector.save(), "ratio": self.ratio.save()}
            self.checkpoints.save(progress, extra)
        collector.replay.confirm()
        self._saved = learning.updates, collector.steps

    def _learn(self, owed: int) -> dict[str, float]:
        """Do the updates that are owed; return the last line of metrics, if it was time for one."""
        line: dict[str, float] = {}
        for _ in range(owed):
            outcome, guard, updates = self.learning.update(), self.learning.guard, self.learning.updates
            if guard.lost or updates % self.config.log_every == 0:
                guard.look()
                line = self._line(outcome)
                self.audience.write(line)
            if guard.lost:
                guard.go_back(updates)
                self.learning.gone_back(self.checkpoints.restore())
        if owed:
            self.collector.policy.refresh()
        return line

    def _line(self, outcome: Outcome) -> dict[str, float]:
        learning, config = self.learning, self.config
        times = {"seconds": round(time.monotonic() - self._started, 2), "data_wait": round(learning.waited, 2)}
        # what was really replayed, which lags behind the setting while the replay fills
        ratio = learning.updates * config.batch * config.length / max(1, self.collector.steps)
        counts = {"train_ratio": round(ratio, 1), **self.collector.numbers()}
        return {"step": learning.updates, **times, **counts, **learning.guard.numbers(), **outcome.numbers()}

    def _keep(self) -> None:
        """Write a checkpoint when it is time for one."""
        updates, guard = self.learning.updates, self.learning.guard
        due = updates // self.config.save_every
        if due == self._tried:
            return
        guard.look()
        if not guard.sound:
            return
        self._tried = due
        try:
            self.save()
        except OSError as fault:
            complain(f"no checkpoint at update {updates} ({fault}); training goes on, the next try comes later")
        else:
            guard.kept()
            self._film()

    def _film(self) -> None:
        with self.collector.still():  # a film puts torch's random state back as it was, for all threads
            self.audience.videos.make(self.learning.learner.model, self.learning.updates)

    def _late(self) -> bool:
        return 0 < 60 * self.config.minutes < time.monotonic() - self._started
