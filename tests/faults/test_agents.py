"""Agents in training: killed, struck, refused by the disk, damaged; a few times, and often with `-m train`."""

from __future__ import annotations

from typing import Any

import pytest
from campaigns import campaign

FEW = {"three environments": 2, "agents": 2, "hostile agents": 40, "damaged agents": 60, "strikes": 5}


@pytest.fixture(scope="module")
def few() -> dict[str, Any]:
    return campaign(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_a_few_faults_cost_an_agent_nothing(few: dict[str, Any], name: str) -> None:
    assert few[name]["lost"] == []
    done = sum(value for kind, value in few[name].items() if kind != "lost")
    assert done >= FEW[name]


@pytest.mark.train
@pytest.mark.parametrize(
    "name", ["one environment", "three environments", "a bundled world", "workers", "a replay that is full", "Atari"]
)
def test_a_kill_at_each_of_the_first_50_updates_leaves_no_trace(name: str) -> None:
    count = 45 if name == "Atari" else 50
    found = campaign({name: count})[name]
    assert (found["kills"], found["lost"]) == (count, [])


@pytest.mark.train
def test_kills_at_any_moment_cost_an_agent_nothing() -> None:
    found = campaign({"agents": 60})["agents"]
    assert (found["kills"], found["lost"]) == (60, [])
    assert found["kills_inside_saves"] >= 20


@pytest.mark.train
def test_whatever_the_disk_refuses_an_agent_is_trained_in_the_end() -> None:
    found = campaign({"agent errors": 9})["agent errors"]
    assert found["lost"] == []
    assert found["injected_errors"] > 200


@pytest.mark.train
def test_hostile_and_damaged_runs_of_agents_are_refused() -> None:
    found = campaign({"hostile agents": 2000, "damaged agents": 2000})
    assert found["hostile agents"]["hostile_files"] > 300
    assert found["damaged agents"]["flips"] == 2000
    assert [one["lost"] for one in found.values()] == [[], []]


@pytest.mark.train
def test_200_kills_and_50_hangs_of_workers_splice_nothing() -> None:
    found = campaign({"strikes": 250})["strikes"]
    assert (found["worker_kills"], found["hangs"], found["lost"]) == (200, 50, [])
