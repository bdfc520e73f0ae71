from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.core.errors import ConfigError
from foreworld.data import Ratio


@given(
    st.sampled_from([0.0, 0.1, 1.0, 32.0, 256.0, 512.0, 1024.0, 5000.5]),
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(0, 60),
)
def test_what_is_owed_adds_up_to_the_ratio_also_across_a_resume(train: float, added: list[int], cut: int) -> None:
    ratio = Ratio(train, 1024)
    owed = [ratio.due(steps) for steps in added[:cut]]
    ratio = Ratio(train, 1024, state=ratio.save())
    owed += [ratio.due(steps) for steps in added[cut:]]
    assert sum(owed) == floor(sum(added) * Fraction(train) / 1024)
    assert min(owed, default=0) >= 0


def test_a_ratio_of_512_with_batches_of_1024_rows_is_an_update_every_second_step() -> None:
    ratio = Ratio(512, 1024)
    assert [ratio.due(1) for _ in range(6)] == [0, 1, 0, 1, 0, 1]
    assert ratio.due(16) == 8
    assert (ratio.steps, ratio.updates) == (22, 11)


@pytest.mark.parametrize(("train", "replayed"), [(-1.0, 4), (float("nan"), 4), (float("inf"), 4), (1.0, 0)])
def test_a_ratio_that_means_nothing_is_refused(train: float, replayed: int) -> None:
    with pytest.raises(ConfigError, match="train ratio"):
        Ratio(train, replayed)
