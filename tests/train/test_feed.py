"""Batches on their way to the device, and states on their way back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import Segment
from foreworld.data import Batch, Replay
from foreworld.train.feed import Fed, Feed
from foreworld.train.update import Outcome

CARRY = 2


class Shelf:
    """A replay whose batches say which they are, and which remembers what happened in what order."""

    carry = CARRY

    def __init__(self) -> None:
        self.events: list[str] = []
        self.written: dict[int, Tensor] = {}

    def sample(self, batch: int, step: int) -> Batch:
        self.events.append(f"sample {step}")
        flags = torch.zeros(batch, 3, dtype=torch.bool)
        numbers = torch.full((batch, 3), float(step))
        segment = Segment(
            obs={"obs": numbers.unsqueeze(-1)},
            prev_action=None,
            reward=numbers,
            is_first=flags,
            is_last=flags,
            is_terminal=flags,
        )
        return Batch(segment=segment, carry=torch.full((batch, CARRY), float(step)), refs=np.full((batch, 2), step))

    def write_back(self, batch: Batch, carry: Tensor) -> None:
        step = int(batch.refs[0, 0])
        self.events.append(f"write {step}")
        self.written[step] = carry


def feed(ahead: bool) -> tuple[Shelf, Feed]:
    shelf = Shelf()
    return shelf, Feed(cast(Replay, shelf), 2, torch.device("cpu"), ahead)


def outcome(fed: Fed, sound: bool = True) -> Outcome:
    states = torch.full((2, 3, CARRY), 10.0 * fed.step)
    return cast(Outcome, SimpleNamespace(states=states, sound=torch.tensor(sound)))


def run(ahead: bool, steps: int, **bad: Any) -> Shelf:
    shelf, line = feed(ahead)
    for step in range(steps):
        fed = line.take(step)
        assert float(fed.segment.reward[0, 0]) == fed.step == step
        assert fed.carry is not None and float(fed.carry[0, 0]) == step
        line.give(fed, outcome(fed, sound=step not in bad.get("bad", ())))
    line.settle()
    return shelf


def test_in_turn_every_batch_is_drawn_after_the_states_before_it_are_written() -> None:
    assert run(ahead=False, steps=3).events == ["sample 0", "write 0", "sample 1", "write 1", "sample 2", "write 2"]


def test_ahead_the_next_batch_is_drawn_first_and_states_come_one_update_later() -> None:
    found = run(ahead=True, steps=3).events
    assert found == ["sample 0", "sample 1", "sample 2", "write 0", "sample 3", "write 1", "write 2"]


@pytest.mark.parametrize("ahead", [False, True])
def test_all_states_are_written_to_the_rows_they_belong_to(ahead: bool) -> None:
    written = run(ahead, steps=4).written
    assert {step: float(carry.mean()) for step, carry in written.items()} == {0: 0.0, 1: 10.0, 2: 20.0, 3: 30.0}


@pytest.mark.parametrize("ahead", [False, True])
def test_states_of_an_update_that_was_skipped_are_not_written(ahead: bool) -> None:
    assert sorted(run(ahead, steps=4, bad={1, 3}).written) == [0, 2]


def test_a_batch_drawn_ahead_for_another_step_is_not_used() -> None:
    shelf, line = feed(ahead=True)
    fed = line.take(0)
    line.give(fed, outcome(fed))
    assert line.take(7).step == 7 and shelf.events[-1] == "sample 7"


def test_settling_twice_writes_once() -> None:
    shelf, line = feed(ahead=True)
    fed = line.take(0)
    line.give(fed, outcome(fed))
    line.settle()
    line.settle()
    assert shelf.events.count("write 0") == 1
