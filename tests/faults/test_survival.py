"""Nothing stored is lost or trusted when damaged: a few faults of each kind here, all of them when slow tests run."""

from __future__ import annotations

from typing import Any

import pytest
from campaigns import campaign

FEW = {"training": 1, "writing": 3, "collecting": 3, "replaying": 3, "errors": 20, "hostile": 40, "damage": 50}
KILLS = ("training", "writing", "collecting", "replaying")


@pytest.fixture(scope="module")
def few() -> dict[str, Any]:
    return campaign(FEW)


@pytest.mark.parametrize("name", FEW)
def test_a_few_faults_lose_nothing(few: dict[str, Any], name: str) -> None:
    assert few[name]["lost"] == []
    done = few[name]
    assert done["kills"] + done["injected_errors"] + done["hostile_files"] + done["flips"] >= FEW[name]


@pytest.mark.slow
def test_400_kills_half_of_them_inside_a_save_lose_nothing() -> None:
    found = campaign(dict.fromkeys(KILLS, 100))
    assert [entry["lost"] for entry in found.values()] == [[], [], [], []]
    assert sum(entry["kills"] for entry in found.values()) >= 400
    assert sum(entry["kills_inside_saves"] for entry in found.values()) >= 200


@pytest.mark.slow
def test_every_call_that_the_disk_refuses_is_survived_and_explained() -> None:
    found = campaign({"errors": 1})["errors"]
    assert found["lost"] == []
    assert found["injected_errors"] > 500


@pytest.mark.slow
def test_no_flipped_bit_no_cut_file_is_accepted() -> None:
    found = campaign({"damage": 5000})["damage"]
    assert (found["flips"], found["truncations"], found["lost"]) == (10_000, 500, [])


@pytest.mark.slow
def test_every_hostile_file_is_refused_within_256_mb_and_a_second() -> None:
    found = campaign({"hostile": 2000})["hostile"]
    assert found["hostile_files"] >= 500
    assert found["lost"] == []
