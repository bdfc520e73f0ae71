from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foreworld.core.errors import ForeworldError
from foreworld.envs import Rows
from foreworld.rollout.recorder import Recorder, Shelf
from foreworld.testing.watching import Watched, watch_environment


def check(found: Watched) -> None:
    """Check what must hold however busy the machine is: nothing spliced, nothing lost, nothing left."""
    assert (found.spliced, found.lost, found.leftover) == (0, 0, 0)
    assert found.noticed["died"] == found.kills
    assert found.noticed["hung"] >= found.hangs  # a busy machine may be taken for a hang
    assert found.restarts == found.noticed["died"] + found.noticed["hung"]
    assert found.rows > 10 * found.cut_off > 0


def test_killed_and_hanging_environments_lose_only_the_row_that_never_came() -> None:
    check(watch_environment(kills=3, hangs=2, faults=2))


@pytest.mark.slow
def test_two_hundred_kills_and_fifty_hangs_lose_only_the_rows_that_never_came() -> None:
    found = watch_environment(kills=200, hangs=50, faults=100)
    check(found)
    assert found.cut_off > 100 and found.noticed["refused"] + found.noticed["failed"] > 80


@pytest.mark.parametrize("faults", [70, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_bad_transition_is_stored(faults: int) -> None:
    found = watch_environment(kills=0, hangs=0, faults=faults)
    assert (found.spliced, found.lost) == (0, 0)
    assert found.noticed["refused"] == faults - faults // 7 - (faults % 7 > 6)
    assert found.noticed["refused"] + found.noticed["failed"] == faults


def test_a_collector_that_splices_episodes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Recorder.add

    def go_on(self: Recorder, rows: Rows) -> None:
        closed = np.array([start is None for start in self._tape._starts])
        real(self, replace(rows, is_first=rows.is_first & closed))

    monkeypatch.setattr(Recorder, "add", go_on)
    assert watch_environment(kills=0, hangs=0, faults=7).spliced > 0


def test_a_collector_that_loses_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Recorder.add

    def forget(self: Recorder, rows: Rows) -> None:
        for index in np.flatnonzero(rows.is_first):
            self._tape._starts[index] = None
        real(self, rows)

    monkeypatch.setattr(Recorder, "add", forget)
    assert watch_environment(kills=0, hangs=0, faults=7).lost > 0


def test_an_episode_stored_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Shelf.add
    monkeypatch.setattr(Shelf, "add", lambda self, episode: (real(self, episode), real(self, episode)))
    with pytest.raises(ForeworldError, match="stored twice"):
        watch_environment(kills=0, hangs=0, faults=1)
