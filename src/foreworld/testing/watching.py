"""Kill, hang and corrupt environments while they are collected, and check every row that was stored."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ForeworldError
from foreworld.data.dataset import Dataset
from foreworld.envs.episodes import OpenEpisode
from foreworld.envs.fleet import Local
from foreworld.envs.vector import Rows, Vector
from foreworld.envs.workers import Workers
from foreworld.rollout.collect import collect

STEP_SECONDS = 3e-4
"""What a step of the environment takes, so that a kill often falls into one."""

KILLS_BEFORE_A_STEP = 2
"""So often at most is one environment killed without a good step between; five losses in a row are a real fault."""


class Trouble(IntEnum):
    """Actions that make the environment misbehave; those below only count."""

    HANG = 5
    EXIT = 6
    NAN = 7
    SHAPE = 8
    DTYPE = 9
    OUTSIDE = 10
    REWARD = 11
    KEY = 12
    RAISE = 13


BAD_TRANSITIONS = tuple(trouble for trouble in Trouble if trouble >= Trouble.NAN)


class TroubledEnv(gym.Env[Any, Any]):
    """Count steps, show the action that was taken, and misbehave when told to by an action of `Trouble`.

    An episode has 5 to 40 steps; with an odd number it ends in a terminal state, else it is cut off.
    `truth/episode` is a random number that no two episodes share.

    Example:
        >>> env = TroubledEnv()
        >>> _ = env.reset(seed=0)
        >>> env.step(3)[0]["count"][:2]
        array([1., 3.], dtype=float32)
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.action_space = spaces.Discrete(max(Trouble) + 1)
        self.observation_space = spaces.Dict(
            {
                "count": spaces.Box(0, 99, (3,), np.float32),
                "truth/episode": spaces.Box(0, 2**62, (), np.int64),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a number and a length."""
        super().reset(seed=seed)
        self.at, self.length = 0, int(self.np_random.integers(5, 41))
        self.episode = self.np_random.integers(2**62)
        return self._show(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count one on."""
        time.sleep(self.seconds)
        self.at += 1
        obs, reward = self._show(int(action)), float(self.at)
        match int(action):
            case Trouble.HANG:
                while True:
                    time.sleep(60)
            case Trouble.EXIT:
                os._exit(3)
            case Trouble.NAN:
                obs["count"][1] = np.nan
            case Trouble.SHAPE:
                obs["count"] = obs["count"][:2]
            case Trouble.DTYPE:
                obs["truth/episode"] = 0.5
            case Trouble.OUTSIDE:
                obs["count"][1] = 100
            case Trouble.REWARD:
                reward = float("nan")
            case Trouble.KEY:
                del obs["truth/episode"]
            case Trouble.RAISE:
                raise RuntimeError("told to")
        over = self.at == self.length
        return obs, reward, over and self.length % 2 == 1, over and self.length % 2 == 0, {}

    def _show(self, action: int) -> dict[str, Any]:
        return {"count": np.array([self.at, action, self.length], np.float32), "truth/episode": self.episode}


class MarkedEnv(TroubledEnv):
    """Count as `TroubledEnv` does, whatever action is taken, and let others in this machine strike its process.

    After its first good step a process leaves an empty file in `folder`, named by its number. When `<number>.hang`
    appears there, it sleeps for ever.

    Args:
        folder: for the files.
        seconds: what a step takes.
    """

    def __init__(self, folder: str, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.action_space = spaces.Discrete(int(Trouble.HANG))
        self._mark, self._marked = Path(folder) / str(os.getpid()), False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count one on, or hang."""
        if self._marked and self._mark.with_suffix(".hang").exists():
            action = Trouble.HANG
        found = super().step(action)
        if not self._marked:
            self._mark.touch()
            self._marked = True
        return found


def troubled(seconds: float = 0.0) -> gym.Env:
    """Build the environment as `make` would, with steps that take so long."""
    return TroubledEnv(seconds)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was done to the environments, what was noticed, and what is stored.

    Attributes:
        kills: SIGKILLs that were sent.
        hangs: environments that were told to sleep for ever.
        faults: bad transitions and exceptions that were asked for.
        noticed: how many of each kind were counted by the library.
        restarts: worker processes that were started again.
        episodes: stored episodes.
        cut_off: those among them that end before their own end.
        rows: stored rows, each checked against its neighbours.
        spliced: rows that do not follow from the row before, or carry a wrong flag; must be 0.
        lost: rows that arrived and are not stored; must be 0.
        leftover: worker processes that still live; must be 0.
        seconds: how long it took.
    """

    kills: int
    hangs: int
    faults: int
    noticed: Mapping[str, int]
    restarts: int
    episodes: int
    cut_off: int
    rows: int
    spliced: int
    lost: int
    leftover: int
    seconds: float


def watch_environment(
    kills: int, hangs: int, faults: int = 0, *, num_envs: int = 4, timeout: float = 1.0, seed: int = 0
) -> Watched:
    """Collect from environments that are killed, hang and misbehave at random moments, and check what is stored.

    Args:
        kills: worker processes to kill.
        hangs: how often an environment sleeps for ever.
        faults: transitions that break the contract, of every kind in turn.
        num_envs: environments side by side; in this process when there are no kills and hangs.
        timeout: seconds until the watchdog kills a worker.
        seed: of environments, actions and moments.

    Example:
        >>> found = watch_environment(kills=0, hangs=0, faults=8)
        >>> found.spliced, found.lost, found.noticed["refused"], found.noticed["failed"]
        (0, 0, 7, 1)
    """
    began = time.monotonic()
    fleet = (
        Workers([partial(troubled, STEP_SECONDS)] * num_envs, "Troubled", timeout=timeout, fault_rate=1.0)
        if kills or hangs
        else Local([troubled] * num_envs, "Troubled", fault_rate=1.0)
    )
    witness = Witness(fleet, "Troubled")
    chaos = Chaos(witness, fleet, kills, hangs, faults, seed)
    killer = threading.Thread(target=chaos.kill, daemon=True)
    with tempfile.TemporaryDirectory() as folder:
        killer.start()
        try:
            data = collect(witness, chaos, steps=10**9, seed=seed, out=Path(folder) / "data", stop=chaos.over)
        finally:
            chaos.kills = 0
            killer.join()
            witness.close()
        stored, spliced, cut_off = check_stored(data)
        return Watched(
            kills=kills,
            hangs=hangs,
            faults=faults,
            noticed=witness.tally.faults,
            restarts=witness.tally.restarts,
            episodes=data.episodes,
            cut_off=cut_off,
            rows=data.rows,
            spliced=spliced,
            lost=len(witness.worth_storing() - stored),
            leftover=sum(_alive(pid) for pid in chaos.pids),
            seconds=time.monotonic() - began,
        )


class Witness(Vector):
    """Remember every row that arrived: the number of its episode and its place there."""

    def __init__(self, fleet: Workers | Local, env_id: str) -> None:
        super().__init__(fleet, env_id)
        self.seen: set[tuple[int, int]] = set()
        self.good = np.zeros(self.num_envs, int)

    def reset(self, seed: int | None = None, episodes: Sequence[OpenEpisode] | None = None) -> Rows:
        """Reset and remember."""
        return self._remember(super().reset(seed, episodes))

    def step(self, actions: np.ndarray) -> Rows:
        """Step and remember."""
        return self._remember(super().step(actions))

    def worth_storing(self) -> set[tuple[int, int]]:
        """Leave out the first rows that nothing followed."""
        return {(episode, at) for episode, at in self.seen if at > 0 or (episode, 1) in self.seen}

    def _remember(self, rows: Rows) -> Rows:
        for index in np.flatnonzero(rows.arrived):
            self.seen.add((int(rows.truth["episode"][index]), int(rows.obs["count"][index, 0])))
        self.good += rows.arrived & ~rows.is_first
        return rows


@dataclass(eq=False)
class Chaos:
    """The policy that asks for trouble, and the thread that kills; each process is struck once."""

    witness: Witness
    fleet: Workers | Local
    kills: int
    hangs: int
    faults: int
    seed: int
    pids: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._struck: set[int] = set()
        self._lock = threading.Lock()
        self._random = np.random.default_rng(self.seed)
        self._kinds = list(BAD_TRANSITIONS)
        self._settled: np.ndarray | None = None

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose harmless actions, and now and then, for one environment, trouble."""
        actions = self._random.integers(0, int(Trouble.HANG), len(rows.is_first))
        index = int(self._random.integers(len(actions)))
        pids = self._pids()
        self.pids.update(pids)
        if not rows.arrived[index] or rows.is_last[index] or self._random.random() > 0.2:
            return actions
        with self._lock:
            struck = bool(pids) and pids[index] in self._struck
            if self.faults and not struck:
                actions[index] = BAD_TRANSITIONS[self.faults % len(BAD_TRANSITIONS)]
                self.faults -= 1
            elif self.hangs and not struck and not rows.is_first[index]:  # so that a good step came before
                actions[index] = Trouble.HANG
                self._struck.add(pids[index])
                self.hangs -= 1
        return actions

    def kill(self) -> None:
        """Kill workers at random moments, never one that is struck already."""
        random = np.random.default_rng([self.seed, 1])
        counts, good = np.zeros(self.witness.num_envs, int), self.witness.good.copy()
        while self.kills:
            time.sleep(random.uniform(0, 0.1))
            now = self.witness.good.copy()
            counts[now > good] = 0
            good = now
            index = int(random.integers(len(now)))
            with self._lock:
                pids = self._pids()
                if not pids or pids[index] in self._struck or counts[index] >= KILLS_BEFORE_A_STEP:
                    continue
                os.kill(pids[index], signal.SIGKILL)
                self._struck.add(pids[index])
                self.pids.add(pids[index])
                counts[index] += 1
                self.kills -= 1

    def over(self) -> bool:
        """Say whether all trouble is made and every environment has taken good steps since."""
        if self.kills or self.hangs or self.faults:
            return False
        if self._settled is None:
            self._settled = self.witness.good + 3
        return bool((self.witness.good >= self._settled).all())

    def _pids(self) -> list[int]:
        try:
            return self.fleet.pids if isinstance(self.fleet, Workers) else []
        except ValueError:  # one of them is being replaced at this moment
            return []


def check_stored(data: Dataset) -> tuple[set[tuple[int, int]], int, int]:
    """Return the stored rows, how many of them do not follow from the row before, and the episodes cut off."""
    stored: set[tuple[int, int]] = set()
    spliced = cut_off = 0
    for number in range(data.episodes):
        raw = data.raw(number)
        count, episode, at = raw["obs/count"], raw["truth/episode"], np.arange(len(raw["reward"]))
        whole = at[-1] == count[0, 2]
        good = (count[:, 0] == at) & (count[:, 1] == raw["prev_action"]) & (raw["reward"] == at)
        good &= (count[:, 2] == count[0, 2]) & (episode == episode[0]) & (raw["prev_action"] < Trouble.HANG)
        good &= (raw["is_first"] == (at == 0)) & (raw["is_last"] == (at == at[-1]))
        good &= raw["is_terminal"] == (raw["is_last"] & bool(whole and at[-1] % 2 == 1))
        rows = {(int(episode[0]), int(step)) for step in at}
        if stored & rows:
            raise ForeworldError(f"{data.path}: episode {number} is stored twice, or was played twice")
        stored |= rows
        spliced += int((~good).sum())
        cut_off += not whole
    return stored, spliced, cut_off


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
