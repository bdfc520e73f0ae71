"""Error curves from anybody's predictions, and one clear sentence for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.core.errors import DataError
from foreworld.eval.trajectories import load_trajectories, trajectory_errors

RNG = np.random.default_rng(0)
TRUE = RNG.normal(size=(40, 12, 3)) * (1.0, 10.0, 0.01)
PREDICTED = TRUE + 0.1 * RNG.normal(size=TRUE.shape) * (1.0, 10.0, 0.01)


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "x.npz", **{"true": TRUE, "predicted": PREDICTED, **arrays})
    return path / "x.npz"


def test_errors_are_root_mean_squares_in_deviations() -> None:
    true = np.array([[[0.0, 0.0], [2.0, 10.0]]])  # deviations 1 and 5
    predicted = np.array([[[1.0, 0.0], [2.0, 20.0]]])
    errors, deviation = trajectory_errors(true, predicted)
    assert deviation.tolist() == [1.0, 5.0]
    assert errors[0] == pytest.approx([np.sqrt(1 / 2), np.sqrt(4 / 2)])


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_units_do_not_matter(scale: float, shift: float) -> None:
    errors, _ = trajectory_errors(TRUE, PREDICTED)
    moved, _ = trajectory_errors(scale * TRUE + shift, scale * PREDICTED + shift)
    assert moved == pytest.approx(errors, rel=1e-4)


def test_the_end_is_told_by_nan_or_by_lengths(tmp_path: Path) -> None:
    lengths = RNG.integers(1, 13, size=40)
    padded = TRUE.copy()
    padded[np.arange(12) >= lengths[:, None]] = np.nan
    by_nan = load_trajectories(saved(tmp_path, true=padded))
    by_lengths = load_trajectories(saved(tmp_path, lengths=lengths))
    both = load_trajectories(saved(tmp_path, true=padded, lengths=lengths))
    assert (~np.isnan(by_nan.errors)).sum(1).tolist() == lengths.tolist()
    np.testing.assert_array_equal(by_nan.errors, by_lengths.errors)
    np.testing.assert_array_equal(by_nan.errors, both.errors)


def test_what_is_optional_is_read(tmp_path: Path) -> None:
    plain = load_trajectories(saved(tmp_path))
    assert (plain.dt, plain.cut, plain.episode.tolist()) == (None, None, list(range(40)))
    found = load_trajectories(saved(tmp_path, dt=0.05, episode=np.arange(40) // 2, cut=np.arange(40) < 3, extra="x"))
    assert found.dt == 0.05 and found.cut is not None and found.cut.sum() == 3
    assert found.episode.tolist() == [n // 2 for n in range(40)]


def test_half_precision_and_whole_numbers_are_numbers(tmp_path: Path) -> None:
    exact = load_trajectories(saved(tmp_path)).errors
    half = load_trajectories(saved(tmp_path, true=TRUE.astype("f2"), predicted=PREDICTED.astype(">f4"))).errors
    assert half == pytest.approx(exact, abs=0.01)
    whole = load_trajectories(saved(tmp_path, true=np.arange(24).reshape(2, 4, 3), predicted=np.zeros((2, 4, 3), "i1")))
    assert np.isfinite(whole.errors).all()


def test_a_prediction_that_diverged_is_infinitely_wrong() -> None:
    predicted = PREDICTED.copy()
    predicted[3, 5:] = np.inf
    predicted[4, 5:] = 1e300  # whose square overflows
    errors, _ = trajectory_errors(TRUE, predicted)
    assert np.isinf(errors[3:5, 5:]).all() and np.isfinite(errors[:, :5]).all()


def replaced(at: tuple[Any, ...], value: float, array: np.ndarray = TRUE) -> np.ndarray:
    found = array.copy()
    found[at] = value
    return found


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "two axes": ({"true": TRUE[0]}, r"true: expected numbers \[episodes, steps, dimensions\], found float64 \(12, 3\)"),
    "no steps": ({"predicted": TRUE[:, :0]}, "predicted: expected numbers"),
    "complex": ({"true": TRUE.astype(complex)}, "store plain numbers"),
    "truth values": ({"true": TRUE > 0}, "true: expected numbers"),
    "other shapes": ({"predicted": TRUE[:, :5]}, r"true \(40, 12, 3\) and predicted \(40, 5, 3\) differ in shape"),
    "NaN in the middle": ({"true": replaced((2, 4), np.nan)}, "true: episode 2, step 5, dimension 0 is not finite"),
    "NaN in a part": ({"true": replaced((2, slice(4, None), 1), np.nan)}, "true: episode 2, step 5, dimension 1"),
    "infinite truth": ({"true": replaced((2, 4, 2), -np.inf)}, "true: episode 2, step 5, dimension 2 is not finite"),
    "NaN predicted": ({"predicted": replaced((7, slice(9, None)), np.nan)}, "predicted: episode 7, step 10.*write inf"),
    "an empty episode": ({"true": replaced((6,), np.nan)}, "true: episode 6 has no step"),
    "constant": ({"true": replaced((slice(None), slice(None), 1), 3.3)}, "dimension 1 never changes"),
    "too large": ({"true": 1e300 * TRUE}, "dimension 0 has values of up to .*too large to square"),
    "lengths of another count": ({"lengths": np.ones(39, int)}, "lengths: expected 40 whole numbers from 1 to 12"),
    "lengths of no step": ({"lengths": np.zeros(40, int)}, "from 0 to 0"),
    "lengths beyond": ({"lengths": np.full(40, 13)}, "from 13 to 13"),
    "broken lengths": ({"lengths": np.ones(40)}, "lengths: expected 40 whole numbers"),
    "NaN within a length": ({"true": replaced((2, 4), np.nan), "lengths": np.full(40, 12)}, "true: episode 2, step 5"),
    "episodes of another count": ({"episode": np.arange(39)}, "episode: expected 40 whole numbers"),
    "episodes as numbers": ({"episode": np.arange(40.0)}, "episode: expected 40 whole numbers"),
    "cut of another count": ({"cut": np.zeros(39, bool)}, "cut: expected 40 times true or false"),
    "cut of something else": ({"cut": np.full(40, 2)}, "cut: expected 40 times true or false"),
    "no time": ({"dt": 0.0}, "dt: expected one number of seconds above 0"),
    "many times": ({"dt": np.ones(3)}, "dt: expected one number of seconds above 0"),
    "endless time": ({"dt": np.inf}, "dt: expected one number of seconds above 0"),
    "objects": ({"true": np.array([{}, 1], object)}, "only a pickle could read"),
    "text": ({"dt": "0.05"}, "dt: holds <U4; store plain numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_sentence(name: str, tmp_path: Path) -> None:
    arrays, words = BAD[name]
    with pytest.raises(DataError, match=words) as caught:
        load_trajectories(saved(tmp_path, **arrays))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'x.npz'}: ") and "\n" not in said
