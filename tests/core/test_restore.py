from __future__ import annotations

import numpy as np
import pytest

from foreworld.core.errors import DataError
from foreworld.core.restore import generator_from, generator_words, saved_fields


def test_a_generator_goes_on_where_it_was_also_within_a_number() -> None:
    for draws in range(4):
        rng = np.random.default_rng(7)
        rng.integers(0, 10, draws, dtype=np.uint32)  # an odd number leaves half of a 64-bit word over
        words = generator_words(rng)
        assert words.dtype == np.uint64 and words.shape == (6,)
        other = generator_from(words)
        assert np.array_equal(other.integers(0, 2**32, 5, dtype=np.uint32), rng.integers(0, 2**32, 5, dtype=np.uint32))
        assert np.array_equal(other.standard_normal(100), rng.standard_normal(100))


def test_saved_fields_must_be_those_expected() -> None:
    saved = {"a": np.zeros(2), "b": np.zeros((3, 1))}
    assert set(saved_fields(saved, {"a": (2,), "b": None})) == {"a", "b"}
    with pytest.raises(DataError, match=r"holds \['a', 'b'\], expected \['a'\]"):
        saved_fields(saved, {"a": None})
    with pytest.raises(DataError, match=r"'b' has shape \(3, 1\), expected \(3,\)"):
        saved_fields(saved, {"a": None, "b": (3,)})
    with pytest.raises(DataError, match="uint64"):
        generator_from(np.zeros(6))
