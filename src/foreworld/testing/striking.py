"""Train an agent while the processes of its environments are killed and hang, and check every row it learns from."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import torch

from foreworld.agents import Dreamer
from foreworld.data import Batch, Replay, load
from foreworld.data.page import Arrived
from foreworld.envs import make
from foreworld.models.rssm import RSSM
from foreworld.testing.watching import STEP_SECONDS, MarkedEnv, check_stored
from foreworld.train import OnlineResult, online, train_agent

MARKED = "foreworld-marked-v0"
AFTERWARDS = 60
"""Steps in every environment after the last strike."""


@dataclass(frozen=True, kw_only=True)
class Struck:
    """What was done to the environments of an agent in training, what was noticed, and what it learned from.

    Attributes:
        kills: worker processes that were killed.
        hangs: worker processes that were made to sleep for ever.
        noticed: faults that the training reported, by kind.
        steps: actions that were taken.
        updates: how many were done.
        rows: rows in the store of the replay, each checked against its neighbours.
        cut_off: episodes there that end before their own end.
        spliced: rows there that do not follow from the row before; must be 0.
        windows: windows that were learned from, each checked row by row.
        spliced_windows: those in which a row does not follow from the row before; must be 0.
        lost: rows of finished episodes that arrived and are not in the store; must be 0.
        seconds: how long it took.
    """

    kills: int
    hangs: int
    noticed: dict[str, int]
    steps: int
    updates: int
    rows: int
    cut_off: int
    spliced: int
    windows: int
    spliced_windows: int
    lost: int
    seconds: float


def strike_training(
    kills: int, hangs: int, *, num_envs: int = 4, timeout: float = 1.0, seed: int = 0, collector: str = "sync"
) -> Struck:
    """Train an agent while workers are killed and hang at random moments, resume it, and check what it learned from.

    Call it in the main thread, as the training is ended by a signal.

    Args:
        kills: worker processes to kill.
        hangs: worker processes to put to sleep.
        num_envs: environments side by side.
        timeout: seconds until the watchdog kills a worker that sleeps.
        seed: of the training and of the strikes.
        collector: as in `OnlineConfig`.
    """
    if MARKED not in gym.registry:
        gym.register(MARKED, f"{MarkedEnv.__module__}:{MarkedEnv.__name__}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        marks, run = Path(home) / "marks", Path(home) / "run"
        marks.mkdir()
        striker, watch = Striker(marks, kills, hangs, seed), Watch()
        settings: dict[str, Any] = {"num_envs": num_envs, "workers": True, "timeout": timeout, "seed": seed}
        settings["collector"] = collector
        thread = threading.Thread(target=striker.strike, daemon=True)
        with mock.patch.object(online, "Replay", watched(watch)):
            thread.start()
            try:
                _train(run, marks, resume=False, over=striker.done.is_set, settings=settings)
            finally:
                striker.done.set()
                thread.join()
            found = _train(run, marks, resume=True, over=lambda: True, settings=settings)
        data = load(run / "replay")
        stored, spliced, cut_off = check_stored(data)
        return Struck(
            kills=striker.killed,
            hangs=striker.hung,
            noticed=found.faults,
            steps=found.steps,
            updates=found.updates,
            rows=data.rows,
            cut_off=cut_off,
            spliced=spliced,
            windows=watch.windows,
            spliced_windows=watch.spliced,
            lost=len(watch.finished() - stored),
            seconds=time.monotonic() - began,
        )


def _train(run: Path, marks: Path, resume: bool, over: Callable[[], bool], settings: dict[str, Any]) -> OnlineResult:
    """Train until a while after `over` says so."""
    options = {"folder": str(marks), "seconds": STEP_SECONDS}
    probe = make(MARKED, **options)
    probe.close()
    torch.manual_seed(0)
    model = RSSM(probe.spec, deter=16, units=8, latents=2, classes=3, layers=1)
    agent, calls = Dreamer(model, units=8, layers=1, horizon=2), 0

    def report(steps: int, total: int, line: dict[str, float]) -> None:
        nonlocal calls
        calls += over()
        if calls == AFTERWARDS:
            signal.raise_signal(signal.SIGTERM)

    settings |= {"steps": 10**9, "prefill": 100, "batch": 4, "length": 8, "train_ratio": 2, "save_every": 50}
    return train_agent(MARKED, model, agent, env_options=options, out=run, resume=resume, report=report, **settings)


@dataclass(eq=False)
class Striker:
    """Kills processes and puts them to sleep, each at most once, and none before its first good step.

    Attributes:
        marks: folder in which `MarkedEnv` leaves the numbers of processes.
        kills: how many to kill.
        hangs: how many to put to sleep.
        seed: of the moments.
        killed: how many were killed.
        hung: how many were put to sleep.
        done: set when all is done, or when it should end.
    """

    marks: Path
    kills: int
    hangs: int
    seed: int
    killed: int = 0
    hung: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def strike(self) -> None:
        """Strike at random moments until enough was done."""
        random, struck = np.random.default_rng(self.seed), set[int]()
        while self.killed + self.hung < self.kills + self.hangs and not self.done.is_set():
            time.sleep(random.uniform(0, 0.1))
            known = {int(path.name) for path in self.marks.iterdir() if path.name.isdigit()}
            if not (fresh := sorted(known - struck)):
                continue
            pid = int(random.choice(fresh))
            struck.add(pid)
            left = self.kills - self.killed, self.hangs - self.hung
            with suppress(ProcessLookupError):  # the watchdog thought that it was too slow
                if random.random() * sum(left) < left[0]:
                    os.kill(pid, signal.SIGKILL)
                    self.killed += 1
                else:
                    os.kill(pid, 0)
                    (self.marks / f"{pid}.hang").touch()
                    self.hung += 1
        self.done.set()


@dataclass(eq=False)
class Watch:
    """Every row that went into a replay, and every window that came out of it.

    Attributes:
        seen: episode and step of every row that arrived.
        open: number of the environment to the episode that has not ended there.
        windows: how many were drawn.
        spliced: those in which a row does not follow from the row before.
    """

    seen: set[tuple[int, int]] = field(default_factory=set)
    open: dict[int, int] = field(default_factory=dict)
    windows: int = 0
    spliced: int = 0

    def added(self, rows: Arrived) -> None:
        """Remember the rows that arrived."""
        for index in np.flatnonzero(rows.arrived).tolist():
            self.open[index] = int(rows.truth["episode"][index])
            self.seen.add((self.open[index], int(rows.obs["count"][index, 0])))
            if rows.is_last[index]:
                del self.open[index]

    def drawn(self, batch: Batch) -> None:
        """Check that every row of every window follows from the one before it, or begins an episode."""
        rows = batch.segment
        at, action, length = rows.obs["count"].unbind(-1)
        assert rows.prev_action is not None
        taken = torch.where(rows.is_first, 0, rows.prev_action.argmax(-1))
        good = (action == taken) & ((at == 0) == rows.is_first) & (rows.reward == at)
        follows = (at[:, 1:] == at[:, :-1] + 1) & (length[:, 1:] == length[:, :-1]) & ~rows.is_last[:, :-1]
        good[:, 1:] &= torch.where(rows.is_first[:, 1:], rows.is_last[:, :-1], follows)
        self.windows += len(good)
        self.spliced += int((~good.all(1)).sum())

    def finished(self) -> set[tuple[int, int]]:
        """Return the rows of finished episodes, without first rows that nothing followed."""
        going_on = set(self.open.values())
        return {
            (episode, at)
            for episode, at in self.seen
            if episode not in going_on and (at > 0 or (episode, 1) in self.seen)
        }


def watched(watch: Watch) -> type[Replay]:
    """Return a class of replays that tell all to `watch`."""

    class WatchedReplay(Replay):
        def add(self, rows: Arrived, carry: np.ndarray | None = None) -> None:
            watch.added(rows)
            super().add(rows, carry)

        def sample(self, batch: int, step: int, out: Batch | None = None) -> Batch:
            found = super().sample(batch, step, out)
            watch.drawn(found)
            return found

    return WatchedReplay
