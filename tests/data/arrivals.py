"""Rows that say where they come from, a plain model of what a replay should hold, and what a batch must satisfy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import foreworld as fw
from foreworld.core import Space
from foreworld.data import Batch, Replay
from foreworld.envs import Rows

SPEC = fw.Spec(
    obs={"where": Space(kind="vector", shape=(3,), dtype="float32")},
    action=Space(kind="vector", shape=(2,), dtype="float32", low=(-1000.0, -1000.0), high=(1000.0, 1000.0)),
)
TRUTH = {"id": Space(kind="vector", shape=(), dtype="uint32")}
CARRY = 2


@dataclass(frozen=True)
class Row:
    """One row of one environment: which step of which episode it is, and what was carried after it."""

    episode: int
    step: int
    carry: tuple[float, ...]
    ends: bool = False
    terminal: bool = False


@dataclass
class Source:
    """N environments whose rows are numbered.

    `events` say for each what comes next: `step`, `last`, `terminal`, `absent`, or `cut`: the episode
    breaks off, and a first row comes at once. After an end, whatever comes is a first row.
    """

    envs: int
    episode: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.episode, self.step, self.ended = [-1] * self.envs, [0] * self.envs, [True] * self.envs

    def next(self, events: list[str]) -> Rows:
        flags = {name: np.zeros(self.envs, bool) for name in ("is_first", "is_terminal", "is_last", "arrived")}
        for i, event in enumerate(events):
            if event == "absent":
                continue
            flags["arrived"][i] = True
            if self.ended[i] or event == "cut":
                self.episode[i], self.step[i] = self.episode[i] + 1, 0
                flags["is_first"][i] = True
            else:
                self.step[i] += 1
            self.ended[i] = event in ("last", "terminal")
            flags["is_last"][i], flags["is_terminal"][i] = self.ended[i], event == "terminal"
        where = np.stack([np.arange(self.envs), self.episode, self.step], 1).astype(np.float32)
        begins = flags["is_first"]
        return Rows(
            obs={"where": where},
            prev_action=np.where(begins[:, None], 0, action_of(where)).astype(np.float32),
            reward=np.where(begins, 0, reward_of(where)).astype(np.float32),
            truth={"id": (where @ np.array([1, 100, 10_000])).astype(np.uint32)},
            **flags,
        )


def action_of(where: np.ndarray) -> np.ndarray:
    return np.stack([where[..., 1] - 7 * where[..., 0], where[..., 2]], -1)


def reward_of(where: np.ndarray) -> np.ndarray:
    return where[..., 0] + 2 * where[..., 1] + 4 * where[..., 2]


def check_rows(batch: Batch) -> None:
    """Check that every row of a batch is what its environment said, and follows the row before it."""
    segment = batch.segment
    where, first, last = segment.obs["where"].numpy(), segment.is_first.numpy(), segment.is_last.numpy()
    assert (where[..., 0] == batch.refs[:, :1]).all(), "a window is of one environment"
    assert (first == (where[..., 2] == 0)).all()
    action = np.where(first[..., None], 0, action_of(where) / 1000)
    assert np.allclose(segment.prev_action.numpy(), action, atol=1e-6)
    assert np.array_equal(segment.reward.numpy(), np.where(first, 0, reward_of(where)))
    before, after = where[:, :-1], where[:, 1:]
    goes_on = (after[..., 1] == before[..., 1]) & (after[..., 2] == before[..., 2] + 1)
    begins = (after[..., 2] == 0) & (after[..., 1] > before[..., 1]) & last[:, :-1]
    assert (goes_on & ~last[:, :-1] & ~first[:, 1:] | begins & first[:, 1:]).all(), "a transition was spliced"
    assert not (segment.is_terminal.numpy() & ~last).any()
    assert segment.mask is None


@dataclass
class Model:
    """What a replay should hold, kept in lists."""

    envs: int
    length: int
    capacity: int
    rows: list[list[Row]] = field(default_factory=list)
    head: list[int] = field(default_factory=list)
    held: list[Row | None] = field(default_factory=list)
    finished: list[tuple[int, int]] = field(default_factory=list)
    online: list[tuple[int, int]] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [[] for _ in range(self.envs)]
        self.head, self.queued = [0] * self.envs, [1] * self.envs
        self.held = [None] * self.envs

    @property
    def kept(self) -> int:
        return sum(len(rows) - head for rows, head in zip(self.rows, self.head, strict=True))

    @property
    def episodes(self) -> int:
        return sum(len({row.episode for row in rows[head:]}) for rows, head in zip(self.rows, self.head, strict=True))

    def add(self, came: Rows, carry: np.ndarray) -> None:
        arrived = np.flatnonzero(came.arrived)
        for i in arrived[came.is_first[arrived]]:
            if self.rows[i] and not self.rows[i][-1].ends:
                self._end(i, False)
            self.held[i] = None
        for i in arrived:
            _, episode, step = came.obs["where"][i].astype(int).tolist()
            row = Row(episode, step, tuple(carry[i].astype(np.float16).tolist()))
            if came.is_first[i]:
                self.held[i] = row
                continue
            if self.held[i] is not None:
                self.rows[i].append(self.held[i])
                self.held[i] = None
            self.rows[i].append(row)
        for i in arrived[came.is_last[arrived]]:
            if self.held[i] is not None:
                self.held[i] = None
            else:
                self._end(i, bool(came.is_terminal[i]))
        while self.kept > self.capacity and self.finished:
            stream, count = self.finished.pop(0)
            self.head[stream] += count
        for i in range(self.envs):
            while len(self.rows[i]) - self.queued[i] >= self.length:
                self.online.append((i, self.queued[i]))
                self.queued[i] += self.length

    def _end(self, i: int, terminal: bool) -> None:
        row = self.rows[i][-1]
        self.rows[i][-1] = Row(row.episode, row.step, row.carry, True, terminal)
        self.finished.append((i, sum(other.episode == row.episode for other in self.rows[i])))

    def starts(self) -> list[tuple[int, int]]:
        return [
            (i, first)
            for i, rows in enumerate(self.rows)
            for first in range(self.head[i] + 1, len(rows) - self.length + 1)
        ]

    def take_online(self, batch: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while self.online and len(taken) < batch:
            stream, first = self.online.pop(0)
            if first > self.head[stream]:
                taken.append((stream, first))
        return taken

    def check(self, batch: Batch) -> None:
        """Check a batch against the lists, field by field."""
        for w, (stream, first) in enumerate(batch.refs.tolist()):
            rows = self.rows[stream][first : first + self.length]
            where = [[stream, row.episode, row.step] for row in rows]
            assert batch.segment.obs["where"][w].tolist() == where
            assert batch.segment.is_last[w].tolist() == [row.ends for row in rows]
            assert batch.segment.is_terminal[w].tolist() == [row.terminal for row in rows]
            assert tuple(batch.carry[w].tolist()) == self.rows[stream][first - 1].carry

    def check_all(self, replay: Replay) -> None:
        """Check every row that is kept, and its carry."""
        tracks = replay._tracks
        assert tracks.head.tolist() == self.head
        assert tracks.stop.tolist() == [len(rows) for rows in self.rows]
        for i, rows in enumerate(self.rows):
            if kept := rows[self.head[i] :]:
                runs = list(tracks.streams[i].pieces(self.head[i], len(rows)))
                where = [part.columns["obs/where"][part.base + at :][:count] for part, at, count in runs]
                assert np.concatenate(where).tolist() == [[i, row.episode, row.step] for row in kept]
                carry = np.concatenate([part.carry[at : at + count] for part, at, count in runs])
                assert carry.tolist() == [list(row.carry) for row in kept]

    def write_back(self, refs: list[list[int]], carry: np.ndarray) -> None:
        for w, (stream, first) in enumerate(refs):
            for t in range(self.length):
                if first + t >= self.head[stream]:
                    row = self.rows[stream][first + t]
                    new = tuple(carry[w, t].astype(np.float16).tolist())
                    self.rows[stream][first + t] = Row(row.episode, row.step, new, row.ends, row.terminal)


def equal(a: Any, b: Any) -> bool:
    """Tell whether two batches are equal to the bit."""
    one, two = fw.tree.leaves(a.segment), fw.tree.leaves(b.segment)
    same = all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
    return same and torch.equal(a.carry, b.carry) and np.array_equal(a.refs, b.refs)
