from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from foreworld.core.errors import EnvironmentFault
from foreworld.envs.contract import leaf
from foreworld.envs.slots import Slots, slot_fields

SPACE = spaces.Dict(
    {
        "a": spaces.Box(-1, 1, (2,), np.float32),
        "b": spaces.Dict({"c": spaces.Box(0, 9, (2, 2), np.uint8)}),
        "text": spaces.Text(5),
        "which": spaces.Discrete(3),
    }
)
GOOD: dict[str, Any] = {"a": np.ones(2, np.float32), "b": {"c": np.full((2, 2), 9, np.uint8)}, "text": "hi", "which": 2}


def slots(space: Any = SPACE, count: int = 3) -> Slots:
    fields = slot_fields(space, count)
    return Slots(space, {name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()})


def test_a_row_lies_where_it_belongs() -> None:
    rows = slots()
    rows.begin(2, GOOD)
    assert (rows.first.tolist(), rows.last.tolist()) == ([False, False, True], [False] * 3)
    rows.put(2, GOOD, np.array([7]), np.bool_(True), 0)
    assert rows.reward.tolist() == [0, 0, 7] and not rows.first.any()
    assert rows.terminal.tolist() == rows.last.tolist() == [False, False, True]
    found = {key: value[2].tolist() for key, value in rows.obs.items()}
    assert found == {"a": [1, 1], "b/c": [[9, 9], [9, 9]], "which": 2}
    assert not any(value[:2].any() for value in rows.obs.values())
    rows.begin(2, GOOD)
    assert rows.first[2] and not rows.terminal[2] and not rows.last[2] and rows.reward[2] == 0
    rows.put(2, GOOD, 0.0, False, True)
    assert rows.last[2] and not rows.terminal[2] and not rows.first[2]


def test_what_is_put_is_a_copy() -> None:
    rows, obs = slots(), {**GOOD, "a": np.ones(2, np.float32)}
    rows.put(0, obs, 0.0, False, False)
    obs["a"][:] = 0
    assert rows.obs["a"][0].tolist() == [1, 1]


WRONG = [
    ({"a": np.zeros(1, np.float32)}, r"'a' is float32 \(1,\), declared as float32 \(2,\)"),  # would be broadcast
    ({"a": np.float32(0)}, r"'a' is float32 \(\), declared"),
    ({"a": np.zeros((1, 2), np.float32)}, r"'a' is float32 \(1, 2\), declared"),
    ({"b": {"c": np.full((2, 2), 256, np.uint16)}}, "'b/c' is 256, outside"),  # would become 0
    ({"b": {"c": np.full((2, 2), -1)}}, "'b/c' is int64"),
    ({"b": {"c": np.full((2, 2), 0.5)}}, "'b/c' is float64"),  # would become 0
    ({"which": 1.5}, "'which' is float64"),
    ({"which": True + 2}, "'which' is 3, outside"),
    ({"a": np.array([0, 1e39])}, "'a' is NaN or infinite"),
    ({"a": np.array([0, 1 + 2e-4])}, "'a' is 1.0002, outside"),
    ({"more": 0}, "observed .*'more'.*, declared"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_a_copy_would_hide_is_refused_before_it_is_copied(change: dict[str, Any], message: str) -> None:
    rows = slots()
    for put in (lambda obs: rows.put(1, obs, 0.0, False, False), lambda obs: rows.begin(1, obs)):
        with pytest.raises(EnvironmentFault, match=message):
            put({**GOOD, **change})


def test_a_bad_reward_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match="its reward is nan"):
        slots().put(0, GOOD, float("nan"), False, False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.001, -5])
def test_one_bad_value_among_all_rows_is_found_and_blamed_on_its_own_row(value: float) -> None:
    rows = slots()
    for index in range(3):
        rows.put(index, GOOD, 0.0, False, False)
    assert rows.outside() == {}
    rows.put(1, {**GOOD, "a": np.array([0, value], np.float32)}, 0.0, False, False)
    found = rows.outside()
    assert list(found) == [1] and str(found[1]).startswith("'a' is ")


def test_the_first_key_is_named_and_every_bad_row() -> None:
    rows = slots()
    rows.put(0, {**GOOD, "b": {"c": np.full((2, 2), 10, np.uint8)}}, 0.0, False, False)
    both = {"a": np.full(2, 2, np.float32), "b": {"c": np.full((2, 2), 11, np.uint8)}}
    rows.put(2, {**GOOD, **both}, 0.0, False, False)
    assert {index: str(fault)[:9] for index, fault in rows.outside().items()} == {0: "'b/c' is ", 2: "'a' is 2."}


SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(0, np.inf, (3,), np.float64),
    spaces.Box(2, 5, (3,), np.int16),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Discrete(5),
]


@pytest.mark.parametrize("space", SPACES)
@given(data=st.data())
def test_all_rows_at_once_find_what_one_by_one_finds(space: spaces.Box, data: st.DataObject) -> None:
    promised = leaf(space)
    assert promised is not None
    rows = slots(space, 4)
    given_rows = data.draw(arrays.arrays(space.dtype, (4, *space.shape)))
    for index, obs in enumerate(given_rows):
        rows.put(index, obs, 0.0, False, False)
    assert set(rows.outside()) == {index for index, obs in enumerate(given_rows) if promised.fault(obs)}
