from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from foreworld.core.errors import ConfigError
from foreworld.plan import Warm
from foreworld.rollout.replan import Replanning

EVERYWHERE, NOWHERE = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)


@dataclass
class Numbered:
    """A plan whose actions say which search it is of, for which environment, and their place: 100 s + 10 e + h."""

    actions: Tensor

    def after(self, steps: int) -> Warm:
        return Warm(actions=torch.cat([self.actions[:, steps:], 0 * self.actions[:, :steps]], 1))


class Searching:
    """Makes numbered plans, and remembers what it was asked."""

    def __init__(self, horizon: int = 4) -> None:
        self.horizon = horizon
        self.asked: list[tuple[list[int], list[int], Any]] = []

    def __call__(self, which: Tensor, state: Tensor, left: Any) -> Numbered:
        self.asked.append((which.tolist(), state.tolist(), None if left is None else left.actions[..., 0].tolist()))
        place = torch.arange(self.horizon)[None, :, None] + 10 * which[:, None, None]
        return Numbered((100 * len(self.asked) + place).float())


def test_plans_are_carried_out_for_so_many_steps_and_what_is_left_is_shifted() -> None:
    search, replanning = Searching(), Replanning(3, execute=2)
    state, done = torch.tensor([7, 8, 9]), []
    for step in range(5):
        action, found = replanning(state + step, EVERYWHERE if step == 0 else NOWHERE, EVERYWHERE, search)
        assert (found is not None) == (step % 2 == 0)
        done.append(action[:, 0].tolist())
    assert done == [[100, 110, 120], [101, 111, 121], [200, 210, 220], [201, 211, 221], [300, 310, 320]]
    assert [asked[:2] for asked in search.asked] == [
        ([0, 1, 2], [7, 8, 9]),
        ([0, 1, 2], [9, 10, 11]),
        ([0, 1, 2], [11, 12, 13]),
    ]
    assert [asked[2] for asked in search.asked[:2]] == [
        None,
        [[102, 103, 0, 0], [112, 113, 0, 0], [122, 123, 0, 0]],
    ]


def test_who_begins_an_episode_is_planned_for_at_once_alone_and_from_nothing() -> None:
    search, replanning = Searching(), Replanning(3, execute=3)
    state = torch.tensor([7, 8, 9])
    replanning(state, EVERYWHERE, EVERYWHERE, search)
    began = torch.tensor([False, True, False])
    action, _ = replanning(state, began, EVERYWHERE, search)
    assert action[:, 0].tolist() == [101, 210, 121]
    assert search.asked[1] == ([1], [8], None)
    action, found = replanning(state, NOWHERE, EVERYWHERE, search)
    assert action[:, 0].tolist() == [102, 211, 122] and found is None
    action, _ = replanning(state, torch.tensor([False, False, True]), EVERYWHERE, search)  # 0 is due, 2 begins
    assert action[:, 0].tolist() == [300, 212, 320]
    assert search.asked[2] == ([0, 2], [7, 9], [[103, 0, 0, 0], [0, 0, 0, 0]])


def test_where_nothing_arrives_a_plan_waits() -> None:
    search, replanning = Searching(), Replanning(3, execute=2)
    state, without_1 = torch.tensor([7, 8, 9]), torch.tensor([True, False, True])
    replanning(state, EVERYWHERE, EVERYWHERE, search)
    replanning(state, NOWHERE, without_1, search)
    action, found = replanning(state, NOWHERE, EVERYWHERE, search)
    assert action[:, 0].tolist() == [200, 111, 220]
    assert found is not None and found[0].tolist() == [0, 2]


def test_who_never_arrived_has_no_plan_and_does_nothing() -> None:
    search, replanning = Searching(), Replanning(3)
    action, _ = replanning(torch.tensor([7, 8, 9]), NOWHERE, torch.tensor([True, False, True]), search)
    assert action[:, 0].tolist() == [100, 0, 120]
    with pytest.raises(ConfigError, match="nothing has arrived"):
        Replanning(3)(torch.tensor([7, 8, 9]), NOWHERE, NOWHERE, search)


def test_more_actions_than_are_planned_cannot_be_carried_out() -> None:
    with pytest.raises(ConfigError, match="at least 1 action"):
        Replanning(3, execute=0)
    with pytest.raises(ConfigError, match="5 actions shall be carried out of plans of 4"):
        Replanning(3, execute=5)(torch.tensor([7, 8, 9]), EVERYWHERE, EVERYWHERE, Searching())
