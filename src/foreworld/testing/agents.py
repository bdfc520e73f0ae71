"""Agents in training that are killed: at every update, at any call to the disk, at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreworld.agents import Dreamer
from foreworld.core.files import sha256
from foreworld.data import Batch, Replay
from foreworld.envs import make
from foreworld.models.rssm import RSSM
from foreworld.testing.faults import Tally, in_child, leftovers
from foreworld.testing.survival import ERRORS, Chore, Subject, fail_every_call, whole_checkpoints
from foreworld.train import load_agent, state_hash, train_agent
from foreworld.train.checkpoint import TRAINING, WEIGHTS, list_checkpoints
from foreworld.train.log import METRICS, read_metrics
from foreworld.train.run import AGENT

SETTINGS: dict[str, Any] = {"prefill": 20, "batch": 2, "length": 8, "train_ratio": 16, "log_every": 5, "save_every": 7}
"""One update for every action, from the twentieth on."""
TIMES = ("seconds", "data_wait")
"""What no two runs have in common."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A small agent, and what it is trained in.

    Attributes:
        env: what `make` opens.
        env_options: further arguments of `make`.
        settings: of the training; those of `SETTINGS` where not given.
    """

    env: str
    env_options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def train(self, run: Path) -> None:
        """Train in a run folder, or go on there."""
        probe = make(self.env, **self.env_options)
        probe.close()
        torch.manual_seed(5)
        model = RSSM(probe.spec, deter=16, units=8, latents=2, classes=3, layers=1, depth=2)
        agent = Dreamer(model, units=8, layers=1, horizon=3)
        options: dict[str, Any] = {"env_options": self.env_options, "out": run, **SETTINGS, **self.settings}
        train_agent(self.env, model, agent, resume=bool(list_checkpoints(run / "checkpoints")), **options)


def trainees() -> dict[str, Trainee]:
    """Return small agents by what is special about them; each does 50 updates or a few more."""
    return {
        "one environment": Trainee(env="CartPole-v1", settings={"steps": 72}),
        "three environments": Trainee(env="CartPole-v1", settings={"steps": 171, "num_envs": 3, "train_ratio": 5.5}),
        "a bundled world": Trainee(
            env="foreworld/Pendulum-v0", env_options={"max_steps": 33}, settings={"steps": 72, "save_every": 1}
        ),
        "workers": Trainee(
            env="CartPole-v1", settings={"steps": 116, "num_envs": 2, "train_ratio": 9, "workers": True}
        ),
        "a replay that is full": Trainee(env="CartPole-v1", settings={"steps": 200, "train_ratio": 5, "capacity": 70}),
        "Atari": Trainee(
            env="ALE/Pong-v5", settings={"steps": 32, "prefill": 10, "length": 4, "train_ratio": 16, "save_every": 5}
        ),
    }


def state_of(run: Path) -> tuple[str, list[dict[str, float]]]:
    """Return what a resumed run must share with the uninterrupted one: the hash of all state, and the metrics."""
    lines = read_metrics(run / METRICS)
    return state_hash(run), [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def kill_at_updates(home: Path, trainee: Trainee, updates: Iterable[int], in_a_row: bool = False) -> Tally:
    """Kill a training at each of some updates and resume it; the end must be bit for bit that of one nobody touched.

    At even updates it dies before the batch is drawn, at odd ones after the weights have changed, before the replay
    has taken the new states.

    Args:
        home: an empty folder.
        trainee: what is trained.
        updates: numbers of the updates, from 0.
        in_a_row: kill one and the same run again and again; otherwise each kill has a run of its own.
    """
    whole, lost, kills = home / "whole", [], 0
    code, _ = in_child(lambda: trainee.train(whole))
    if code:
        raise AssertionError(f"{trainee.env}: cannot even be trained in peace (exit code {code})")
    wanted = state_of(whole)
    run = home / "killed"
    for update in updates:
        run = run if in_a_row else home / f"killed-{update}"
        code, _ = in_child(_dying(trainee, run, update))
        kills += code == -signal.SIGKILL
        if code != -signal.SIGKILL:
            lost.append(f"{trainee.env}, update {update}: ended with exit code {code} before it was killed")
        if not in_a_row:
            lost += _resumed(trainee, run, wanted, f"{trainee.env}, killed at update {update}")
    if in_a_row:
        lost += _resumed(trainee, run, wanted, f"{trainee.env}, killed {kills} times")
    return Tally(kills=kills, losses=tuple(lost))


def training_agent(home: Path, trainee: Trainee) -> Subject:
    """Train an agent; whenever it is killed, its newest checkpoint must be whole, and the end as if nobody had.

    Args:
        home: a folder for it.
        trainee: what is trained.
    """
    trainee.train(home / "whole")  # here, so that no child has to warm torch up again
    expected = state_of(home / "whole")
    run = home / "trained" / "run"
    run.parent.mkdir()

    def check() -> int:
        found = whole_checkpoints(run)
        return load_agent(run).run.step if found else 0

    def finish() -> None:
        if state_of(run) != expected:
            raise AssertionError("state or metrics differ from those of the uninterrupted run")

    return Subject(run, lambda: trainee.train(run), check, finish)


def refuse_agent(home: Path, every: int = 1) -> Tally:
    """Make every call that reaches the disk fail, one after another, while an agent is trained, and while it goes on.

    In the meantime episodes are sealed and evicted. Whether the training ends or goes on: checkpoints must be whole,
    and once the disk works again the weights must become those of a training without failures.

    Args:
        home: an empty folder.
        every: only every so many calls, to be quick.
    """
    settings = {"prefill": 50, "capacity": 55, "train_ratio": 4, "save_every": 4, "log_every": 4}
    first, all_of_it = (Trainee(env="CartPole-v1", settings={**settings, "steps": steps}).train for steps in (92, 110))
    all_of_it(home / "whole")
    expected = _weights(home / "whole")

    def whole(run: Path, least: int) -> None:
        whole_checkpoints(run)
        if least and load_agent(run).run.step < least:
            raise AssertionError("the newest checkpoint is lost")

    def work(run: Path) -> None:
        all_of_it(run)
        if _weights(run) != expected:
            raise AssertionError("the weights differ from those of a training without failures")

    chores = (
        Chore("begin an agent", lambda run: None, work, lambda run: whole(run, 0)),
        Chore("go on with an agent", first, work, lambda run: whole(run, 10)),
    )
    tally = Tally()
    for number, chore in enumerate(chores):
        base = home / f"agent-{number}"
        chore.before(base)
        for code in ERRORS:
            for for_good in (False, True):
                tally += fail_every_call(chore, base, code, for_good, every)
    return tally


def _weights(run: Path) -> list[str]:
    newest = list_checkpoints(run / "checkpoints")[-1]
    return [newest.name, *(sha256(newest / name) for name in (WEIGHTS, TRAINING, AGENT))]


def _resumed(trainee: Trainee, run: Path, wanted: tuple[str, list[dict[str, float]]], what: str) -> list[str]:
    """Let a killed run go on to its end, and return what is wrong then."""
    code, _ = in_child(lambda: trainee.train(run))
    if code:
        return [f"{what}: cannot go on (exit code {code})"]
    found = state_of(run)
    wrong = [name for name, a, b in zip(("state", "metrics"), found, wanted, strict=True) if a != b]
    if left := leftovers(run.parent):
        wrong.append(f"{left[0].name} is left over")
    return [f"{what}: {', '.join(wrong)} differ"] if wrong else []


def _dying(trainee: Trainee, run: Path, update: int) -> Callable[[], None]:
    def train() -> None:
        with _death_at(update):
            trainee.train(run)

    return train


@contextmanager
def _death_at(update: int) -> Iterator[None]:
    """Kill this process at an update."""
    sample, write_back, now = Replay.sample, Replay.write_back, [-1]

    def dying_sample(self: Replay, batch: int, step: int, out: Batch | None = None) -> Batch:
        now[0] = step
        if step == update and update % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(self, batch, step, out)

    def dying_write_back(self: Replay, batch: Batch, carry: Tensor) -> None:
        if now[0] == update:
            os.kill(os.getpid(), signal.SIGKILL)
        write_back(self, batch, carry)

    Replay.sample, Replay.write_back = dying_sample, dying_write_back  # type: ignore[method-assign]
    try:
        yield
    finally:
        Replay.sample, Replay.write_back = sample, write_back  # type: ignore[method-assign]
