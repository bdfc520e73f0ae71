"""Does what is stored survive? Trainings and writers are killed, disks refuse; then all is verified and goes on."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from foreworld.core import Space, Spec
from foreworld.core.errors import ForeworldError
from foreworld.core.files import holds_nothing, read_json, sha256, verify_folder
from foreworld.data import Dataset, Episode, Writer, load
from foreworld.envs.vector import Vector
from foreworld.rollout import collect
from foreworld.testing.counting import CountingEnv
from foreworld.testing.faults import CHANGING, Tally, dying, failing, in_child, leftovers, watch_calls
from foreworld.train import FitConfig, fit, load_run
from foreworld.train.checkpoint import TRAINING, WEIGHTS, list_checkpoints

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")},
    action=Space(kind="discrete", shape=(), dtype="int64", classes=(2,), start=(0,)),
)
ROWS = 6
STEPS = 8
EPISODES = 24
TO_COLLECT = 8
ERRORS = (errno.ENOSPC, errno.EIO)

Model = Callable[[], Any]
"""Builds a small model for `SPEC`, the same every time."""


def episode(number: int, rows: int = ROWS) -> Episode:
    """Make the episode of a number: a point that moves left or right."""
    draw = np.random.default_rng(number)
    action = draw.integers(2, size=rows)
    action[0] = 0
    position = np.cumsum(np.where(np.arange(rows) == 0, 0.0, 0.2 * action - 0.1))
    obs = np.stack([position, np.full(rows, number)], 1).astype(np.float32)
    return Episode(obs={"obs": obs}, prev_action=action, reward=position.astype(np.float32))


def write_store(path: Path, until: int, shard_rows: int = 2 * ROWS) -> None:
    """Append to a store the episodes that it lacks."""
    with Writer(path, SPEC, shard_rows=shard_rows) as writer:
        for number in range(_stored(path), until):
            writer.add(episode(number))


def train(run: Path, data: Dataset, make: Model, steps: int = STEPS) -> None:
    """Train a run, or go on with it."""
    config = FitConfig(steps=steps, batch=2, length=4, lr=1e-3, warmup=2, save_every=1, log_every=1, calibration=2)
    fit(make(), data, config, out=run, resume=bool(list_checkpoints(run / "checkpoints")))


def collect_counting(path: Path) -> None:
    """Collect episodes of the counting environment, in place of what is there."""
    env = Vector(gym.vector.SyncVectorEnv([CountingEnv]))
    collect(env, out=path, episodes=TO_COLLECT, overwrite=True)


@dataclass(frozen=True)
class Subject:
    """Something that is killed again and again.

    Attributes:
        folder: where it writes.
        work: starts it, or goes on with it, until it is finished.
        check: verifies what is stored, and returns how far it has come.
        finish: what to check when it is finished.
    """

    folder: Path
    work: Callable[[], None]
    check: Callable[[], int]
    finish: Callable[[], None]


def kill(subject: Subject, count: int, seed: int, limit: float = 2.0) -> Tally:
    """Kill a subject at random moments, most of them inside a save, and let it go on every time.

    Args:
        subject: what is killed; when it gets to its end it begins anew.
        count: kills that must hit.
        seed: of the moments.
        limit: longest time in seconds until a kill by the clock.
    """
    draw = np.random.default_rng(seed)
    home = subject.folder.parent
    kills = inside = 0
    lost: list[str] = []
    calls, seconds = _measured(subject)
    done = 0
    while kills < count:
        if kills % 3 == 2:
            code, _ = in_child(subject.work, float(draw.uniform(0, min(limit, seconds))))
        else:
            at, after = int(draw.integers(1, calls + 1)), bool(draw.random() < 0.3)
            code, _ = in_child(_dying(subject.work, at, after))
        kills += code == -9
        inside += code == -9 and bool(leftovers(subject.folder))
        try:
            before, done = done, subject.check()
            if done < before:
                raise AssertionError(f"only {done} of {before} are left")
            if code == 0:
                subject.finish()
                if left := leftovers(home):
                    raise AssertionError(f"{left[0].name} is left over")
            elif code != -9:
                raise AssertionError(f"the next start failed with exit code {code}")
        except Exception as fault:
            lost.append(f"{subject.folder.name}, kill {kills}: {type(fault).__name__}: {fault}")
            code = 0
        if code == 0:
            shutil.rmtree(home)
            home.mkdir()
            done = 0
    return Tally(kills=kills, kills_inside_saves=inside, losses=tuple(lost))


def whole_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, each of which must agree with its hashes."""
    found = list_checkpoints(run / "checkpoints")
    for checkpoint in found:
        verify_folder(checkpoint)
    return found


def training(home: Path, make: Model) -> Subject:
    """Train a small model; the end must be bit for bit that of a training nobody touched.

    Args:
        home: a folder for it.
        make: builds the model.
    """
    write_store(home / "data", 8)
    data = load(home / "data")
    train(home / "whole", data, make)  # here, so that no child has to warm torch up again
    expected = _hashes(home / "whole")
    run = home / "trained" / "run"
    run.parent.mkdir()

    def check() -> int:
        found = whole_checkpoints(run)
        return load_run(run).step if found else 0

    def finish() -> None:
        if _hashes(run) != expected:
            raise AssertionError("the weights differ from those of the uninterrupted run")
        lines = (run / "metrics.jsonl").read_text().splitlines()
        if len(lines) != STEPS:
            raise AssertionError(f"{len(lines)} lines of metrics after {STEPS} updates")

    return Subject(run, lambda: train(run, data, make), check, finish)


def writing(home: Path) -> Subject:
    """Write a store; what is there must be the first episodes, to the bit."""
    path = home / "written" / "store"
    path.parent.mkdir(parents=True)

    def check() -> int:
        stored = _stored(path)
        if stored:
            _same(load(path), stored)
        return stored

    def finish() -> None:
        if _stored(path) != EPISODES:
            raise AssertionError(f"{_stored(path)} episodes of {EPISODES}")

    return Subject(path, lambda: write_store(path, EPISODES), check, finish)


def collecting(home: Path) -> Subject:
    """Collect over an earlier dataset; what is there must open, or be nothing."""
    path = home / "collected" / "store"
    path.parent.mkdir(parents=True)

    def work() -> None:
        collect_counting(path)
        collect_counting(path)

    def check() -> int:
        _stored(path)
        return 0

    def finish() -> None:
        if _stored(path) != TO_COLLECT:
            raise AssertionError(f"{_stored(path)} episodes of {TO_COLLECT}")

    return Subject(path, work, check, finish)


@dataclass(frozen=True)
class Chore:
    """Something that writes or reads, and can be done again after a failure.

    Attributes:
        name: what it does.
        before: what lies there first.
        work: does it.
        whole: raises unless at least what lay there first is intact.
    """

    name: str
    before: Callable[[Path], object]
    work: Callable[[Path], object]
    whole: Callable[[Path], object]


def refuse_disk(home: Path, make: Model, every: int = 1) -> Tally:
    """Make every call that reaches the disk fail, one after another, in each kind of write and read.

    After each failure what was there must be intact, and the same work must succeed and leave nothing over.

    Args:
        home: an empty folder.
        make: builds a small model.
        every: only every so many calls, to be quick.
    """
    write_store(home / "data", 4)
    data = load(home / "data")

    def trained(run: Path, least: int) -> None:
        whole_checkpoints(run)
        if least and load_run(run).step < least:
            raise AssertionError("the newest checkpoint is lost")

    def stored(path: Path, least: int) -> None:
        if (count := _stored(path)) < least:
            raise AssertionError(f"{count} of {least} episodes are left")
        if count:
            _same(load(path), count)

    def open_first(path: Path) -> None:
        (path / "verified.json").unlink(missing_ok=True)
        load(path)

    chores = (
        Chore("begin a run", lambda at: None, lambda at: train(at, data, make, 1), lambda at: trained(at, 0)),
        Chore(
            "go on with a run",
            lambda at: train(at, data, make, 2),
            lambda at: train(at, data, make, 3),
            lambda at: trained(at, 2),
        ),
        Chore("begin a store", lambda at: None, lambda at: write_store(at, 2), lambda at: stored(at, 0)),
        Chore("append", lambda at: write_store(at, 4), lambda at: write_store(at, 6), lambda at: stored(at, 4)),
        Chore("open a store", lambda at: write_store(at, 4), open_first, lambda at: stored(at, 4)),
    )
    tally = Tally()
    for number, chore in enumerate(chores):
        base = home / f"chore-{number}"
        chore.before(base)
        for code in ERRORS:
            for for_good in (False, True):
                tally += fail_every_call(chore, base, code, for_good, every)
    return tally


def fail_every_call(chore: Chore, base: Path, code: int, for_good: bool, every: int) -> Tally:
    """Do a chore with its n-th call to the disk failing, n = 1, 1 + every, ..., until none fails.

    Args:
        chore: what is done.
        base: what lies there first.
        code: the `errno` of the failure.
        for_good: all later calls fail too.
        every: only every so many calls.
    """
    place = base.parent / "place" / base.name
    injected, lost = 0, []
    for at in range(1, 2000, every):
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir()
        if base.exists():
            shutil.copytree(base, place)
        seen: list[str] = []
        try:
            with failing(at, code, for_good=for_good) as seen:
                problem = _failure_of(chore.work, place)
            if len(seen) < at:
                break
            chore.whole(place)
            chore.work(place)
            chore.whole(place)
            if left := leftovers(place.parent):
                raise AssertionError(f"{left[0].name} is left over")
        except Exception as fault:
            problem = f"{type(fault).__name__} afterwards: {fault}"
        injected += 1
        if problem:
            lost.append(f"{chore.name}: call {at} ({seen[at - 1 : at]}), {errno.errorcode[code]}: {problem}")
    return Tally(injected_errors=injected, losses=tuple(lost))


def _failure_of(work: Callable[[Path], object], place: Path) -> str:
    """Return what is wrong with how work fails; nothing if it succeeds, or says where and what to do."""
    try:
        work(place)
    except (ForeworldError, OSError) as fault:
        return "" if "/" in str(fault) and ";" in str(fault) else f"does not say where and what to do: {fault}"
    except Exception as fault:
        return f"{type(fault).__name__}: {fault}"
    return ""


def _stored(path: Path) -> int:
    """Count the episodes of a store that may not have been begun."""
    if not path.exists() or holds_nothing(path):
        return 0
    try:
        return load(path).episodes
    except ForeworldError as fault:
        if "no finished episode" in str(fault):
            return 0
        raise


def _same(data: Dataset, count: int) -> None:
    for number in range(count):
        found, wanted = data.raw(number), episode(number)
        assert wanted.prev_action is not None
        same = np.array_equal(found["obs/obs"], wanted.obs["obs"])
        if not same or not np.array_equal(found["prev_action"], wanted.prev_action):
            raise AssertionError(f"episode {number} is not what was written")


def _hashes(run: Path) -> tuple[int, str, str]:
    newest = list_checkpoints(run / "checkpoints")[-1]
    step = read_json(newest / "state.json")["step"]
    return step, sha256(newest / WEIGHTS), sha256(newest / TRAINING)


def _dying(work: Callable[[], None], at: int, after: bool) -> Callable[[], None]:
    def run() -> None:
        with dying(at, after=after):
            work()

    return run


def _measured(subject: Subject) -> tuple[int, float]:
    """Let a subject work in peace once, and return how many changing calls and seconds it took."""

    def count() -> tuple[int, float]:
        started = time.monotonic()
        with watch_calls(CHANGING, lambda number, name, call, arguments: call()) as seen:
            subject.work()
        return len(seen), time.monotonic() - started

    code, answer = in_child(count)
    if code:
        raise AssertionError(f"{subject.folder}: does not even work in peace")
    shutil.rmtree(subject.folder.parent)
    subject.folder.parent.mkdir()
    return answer[0], answer[1]
