from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.data import Episode
from foreworld.envs import Rows
from foreworld.rollout import tape
from foreworld.rollout.recorder import Budget, Recorder
from foreworld.rollout.tape import Tape

ENVS = 3


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "PAGE", 4)


def rows_of(at: int, first: Any = None, last: Any = None, arrived: Any = None, terminal: Any = None) -> Rows:
    """Return rows whose every value says when and where they arrived."""
    none, where = np.zeros(ENVS, bool), 100 * at + np.arange(ENVS)
    return Rows(
        obs={"a": np.stack([where, where + 0.5], 1)},
        truth={"b": where.astype(np.int32)},
        prev_action=where,
        reward=where.astype(np.float32),
        is_first=none if first is None else first,
        is_terminal=none if terminal is None else terminal,
        is_last=none if last is None else last,
        arrived=~none if arrived is None else arrived,
    )


def times(episode: Episode | None, index: int) -> list[int]:
    """Say when the rows of an episode arrived, after a look at every column."""
    assert episode is not None
    at = (np.asarray(episode.reward) - index) / 100
    where = 100 * at + index
    assert np.array_equal(episode.obs["a"], np.stack([where, where + 0.5], 1))
    assert np.array_equal(episode.truth["b"], where) and np.array_equal(episode.prev_action, where)
    return at.astype(int).tolist()


def filled(rows: int, begun: dict[int, int], kept: Any = True) -> Tape:
    """Return a tape with so many rows, on which environments begin an episode at a row each."""
    found = Tape(ENVS)
    for at in range(rows):
        found.add(rows_of(at), np.array([True, kept is True or kept(at), True]))
        for index, start in begun.items():
            if start == at:
                found.begin(index)
    return found


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (3, 5), (2, 11), (4, 8), (9, 10)])
def test_an_episode_is_cut_out_of_as_many_pages_as_it_lies_in(start: int, stop: int) -> None:
    found = filled(11, {1: start})
    episode = found.cut(1, stop, is_terminal=True)
    assert times(episode, 1) == list(range(start, stop)) and episode.is_terminal
    assert episode.truth["b"].dtype == np.int32
    assert found.cut(1, stop) is None, "it is closed now"
    assert found.cut(0, stop) is None, "it never began"


def test_rows_that_are_not_kept_are_left_out_of_their_own_episode_only() -> None:
    found = filled(9, {1: 0, 2: 0}, kept=lambda at: at % 3 != 1)
    assert times(found.cut(1, 9), 1) == [0, 2, 3, 5, 6, 8]
    assert times(found.cut(2, 9), 2) == list(range(9))


def test_what_no_open_episode_needs_is_dropped() -> None:
    assert sorted(filled(40, {})._pages) == [9]
    assert sorted(filled(40, {0: 34})._pages) == [8, 9]
    assert sorted(filled(40, {0: 34, 2: 21})._pages) == [5, 6, 7, 8, 9]


def test_a_cut_episode_is_a_copy() -> None:
    found = filled(7, {0: 1})
    pages = list(found._pages.values())
    episode = found.cut(0, 7)
    for page in pages:
        page.obs["a"][:] = page.reward[:] = page.prev_action[:] = page.truth["b"][:] = -1
    assert times(episode, 0) == list(range(1, 7))


class Shelf:
    """Keep what is added: which rows of which environment, and whether the last has no future."""

    def __init__(self) -> None:
        self.episodes: list[tuple[int, list[int], bool]] = []

    def add(self, episode: Episode) -> None:
        index = int(np.asarray(episode.reward)[0]) % 100
        self.episodes.append((index, times(episode, index), episode.is_terminal))


@st.composite
def histories(draw: st.DrawFn) -> list[Rows]:
    """Return rows of environments that end, fail and wait at random."""
    found, fresh = [rows_of(0, first=np.ones(ENVS, bool))], np.zeros(ENVS, bool)
    for at in range(1, draw(st.integers(1, 40))):
        fate = np.array([draw(st.sampled_from(["go", "go", "go", "end", "stop", "fail", "wait"])) for _ in range(ENVS)])
        arrived = fate != "wait"
        first = arrived & (fresh | (fate == "fail"))
        last = arrived & ~first & ((fate == "end") | (fate == "stop"))
        found.append(rows_of(at, first, last, arrived, last & (fate == "end")))
        fresh = np.where(arrived, last, fresh)
    return found


def one_by_one(history: list[Rows], total: int, of_episodes: bool) -> Iterator[tuple[int, list[int], bool]]:
    """Do what the recorder does, row by row and with lists; the count of what is done comes last."""
    open_: list[list[int]] = [[] for _ in range(ENVS)]
    stored, done = [0] * ENVS, 0
    shares = [total // ENVS + (index < total % ENVS) if of_episodes else 10**9 for index in range(ENVS)]
    for at, rows in enumerate(history):
        for index in np.flatnonzero(rows.arrived):
            if rows.is_first[index]:
                if len(open_[index]) > 1:
                    yield index, open_[index], False
                    stored[index] += 1
                    done += of_episodes
                open_[index] = []
            step = not of_episodes and not rows.is_first[index]
            if stored[index] == shares[index] or (step and done == total):
                continue
            open_[index] = [*open_[index], at]
            done += step
            if rows.is_last[index]:
                yield index, open_[index], bool(rows.is_terminal[index])
                stored[index] += 1
                done += of_episodes
                open_[index] = []
        if done >= total:
            break
    yield from ((index, rows, False) for index, rows in enumerate(open_) if len(rows) > 1)
    yield -1, [done], False


@given(history=histories(), total=st.integers(1, 60), of_episodes=st.booleans())
def test_the_recorder_stores_what_a_row_by_row_account_stores(
    history: list[Rows], total: int, of_episodes: bool
) -> None:
    shelf = Shelf()
    recorder = Recorder(shelf, Budget(total, of_episodes), ENVS)
    for rows in history:
        recorder.add(rows)
        if recorder.done >= total:
            break
    done = recorder.done
    recorder.finish()
    assert [*shelf.episodes, (-1, [done], False)] == list(one_by_one(history, total, of_episodes))
