"""The law of growth against systems whose law is known."""

from __future__ import annotations

import numpy as np
import pytest

from foreworld.core.errors import DataError, TooFewEpisodes
from foreworld.eval.compounding import Growth, measure_growth
from foreworld.eval.lyapunov import exponential_rate

STEPS = np.arange(1, 101)


def rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values**2).mean(-1))


def system(factor: float, noise: float, bias: float, start: float = 0.0, n: int = 400, dim: int = 4) -> np.ndarray:
    """Errors [n, 100] of a linear system that scales by a factor, with noise, and a bias of its own a trajectory."""
    rng = np.random.default_rng(7)
    gap, found = start * rng.normal(size=(n, dim)), []
    drift = bias * rng.normal(size=(n, dim))
    for _ in STEPS:
        gap = factor * gap + drift + noise * rng.normal(size=(n, dim))
        found.append(rms(gap))
    return np.stack(found, 1)


def value(growth: Growth, law: str, name: str) -> float:
    return float(growth.laws[law].parameters[name].value)


def test_independent_noise_grows_by_the_square_root_of_time() -> None:
    found = measure_growth(system(1.0, 0.01, 0.0, n=2000))
    assert found.name == "power"
    assert value(found, "power", "power") == pytest.approx(0.5, abs=0.03)
    assert found.in_words() == "Errors grow like the square root of time: independent noise."
    assert found.plateau is None and "has none" in str(found.no_plateau)
    assert found.rate.per_step is None and "20 are needed" in str(found.rate.reason)


def test_a_bias_grows_in_proportion_to_time() -> None:
    found = measure_growth(system(1.0, 0.0, 0.01))
    assert value(found, "power", "power") == pytest.approx(1.0, abs=1e-6)
    assert found.name == "linear"
    assert found.in_words() == "Errors grow in proportion to time: a bias."
    assert "a power of time fits better" in str(found.rate.reason)


@pytest.mark.parametrize("factor", [0.8, 0.95])
def test_a_contracting_system_tells_its_rate(factor: float) -> None:
    forgets = measure_growth(system(factor, 0.0, 0.0, start=1e-3), dt=0.1)
    assert forgets.name == "exponential" and forgets.contraction is not None
    assert float(forgets.contraction.value) == pytest.approx(factor, rel=1e-6)
    assert forgets.rate.per_step is not None and forgets.rate.per_second is not None
    assert float(forgets.rate.per_step.value) == pytest.approx(np.log(factor), rel=1e-6)
    assert float(forgets.rate.per_second.value) == pytest.approx(np.log(factor) / 0.1, rel=1e-6)
    assert forgets.rate.doubling is None and forgets.rate.no_doubling == "errors shrink"
    assert forgets.rate.in_words().startswith(f"Small errors change by {100 * (factor - 1):.0f} % a step")
    assert "contracting" in forgets.in_words()
    biased = measure_growth(system(factor, 0.0, 0.01))
    assert biased.name == "closed_form" and biased.contraction is not None
    assert float(biased.contraction.value) == pytest.approx(factor, rel=1e-6)
    assert biased.plateau is not None
    assert float(biased.plateau.value) == pytest.approx(float(biased.curve[-1]), rel=0.02)
    assert "a bias in a system that contracts" in biased.in_words()


def test_noise_in_a_contracting_system_tells_its_rate() -> None:
    found = measure_growth(system(0.95, 0.01, 0.0, n=4000))
    assert found.name == "root_closed_form" and found.contraction is not None
    assert float(found.contraction.value) == pytest.approx(0.95, rel=0.02)
    assert found.contraction.low < 0.95 < found.contraction.high
    assert "independent noise in a system that contracts" in found.in_words()


def test_where_bias_and_noise_look_alike_neither_is_claimed() -> None:
    found = measure_growth(system(0.3, 0.01, 0.0))
    assert found.adds_up is None and found.contraction is None
    assert "noise" not in found.in_words() and "bias" not in found.in_words()


def test_an_unstable_system_doubles() -> None:
    found = measure_growth(system(1.1, 1e-6, 0.0))
    assert found.rate.per_step is not None and found.rate.doubling is not None
    assert float(found.rate.per_step.value) == pytest.approx(np.log(1.1), rel=0.02)
    assert float(found.rate.doubling.value) == pytest.approx(7.27, rel=0.02)
    assert "chaotic or unstable" in found.in_words()


def test_growth_that_saturates_is_logistic() -> None:
    rng = np.random.default_rng(0)
    start = 1e-6 * rng.lognormal(size=(300, 1))
    errors = 1.4 / (1 + (1.4 / start - 1) * np.exp(-0.25 * STEPS))
    found = measure_growth(errors)
    assert found.name == "logistic"
    assert value(found, "logistic", "rate") == pytest.approx(0.25, rel=0.02)
    assert found.plateau is not None and float(found.plateau.value) == pytest.approx(1.4, rel=0.03)
    assert found.rate.per_step is not None
    assert float(found.rate.per_step.value) == pytest.approx(0.25, rel=0.02)
    assert found.in_words().startswith("Errors double every 2.79 steps at first and level off at 1.38")


def test_exact_match_gives_the_closed_form_of_the_article() -> None:
    wrong = np.random.default_rng(0).random((3000, 60)) < 0.02
    found = measure_growth((wrong.cumsum(1) > 0).astype(float))
    assert not found.typical
    assert value(found, "closed_form", "step") == pytest.approx(0.02, abs=0.002)
    assert value(found, "closed_form", "factor") == pytest.approx(0.98, abs=0.005)


def test_errors_that_stay_do_not_grow() -> None:
    rng = np.random.default_rng(0)
    found = measure_growth(0.3 * np.exp(0.01 * rng.normal(size=(50, 40))))
    assert found.in_words() == "Errors stay at 0.3: they do not grow."
    assert found.rate.per_step is None


@pytest.mark.slow
def test_intervals_cover_what_is_true() -> None:
    """95 % intervals of the power over 100 studies of 60 episodes; 5 deviations below would be 84."""
    covered = 0
    for study in range(100):
        walk = np.random.default_rng(study).normal(size=(60, 30, 3)).cumsum(1)
        power = measure_growth(rms(walk), repeats=300, seed=study).laws["power"].parameters["power"]
        covered += bool(power.low < 0.5 < power.high)
    assert 88 <= covered <= 99


def test_trajectories_of_one_episode_do_not_count_as_many() -> None:
    errors = system(1.0, 0.01, 0.0, n=40)
    alone = measure_growth(errors).law.parameters["power"]
    copied = measure_growth(np.repeat(errors, 10, 0), np.repeat(np.arange(40), 10)).law.parameters["power"]
    assert float(copied.value) == pytest.approx(float(alone.value), rel=1e-9)
    assert (copied.high - copied.low) == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.slow
def test_the_unit_and_the_order_of_episodes_do_not_matter() -> None:
    errors = system(0.9, 0.01, 0.002, n=60)
    first, scaled = measure_growth(errors), measure_growth(1000 * errors)
    assert scaled.name == first.name
    for name, miss in ((name, law.heldout) for name, law in first.laws.items()):
        assert scaled.laws[name].heldout == pytest.approx(miss, rel=1e-6)
    turned = measure_growth(errors[::-1])
    assert turned.curve == pytest.approx(first.curve, rel=1e-12)


def test_steps_that_few_reach_or_after_divergence_are_left_aside() -> None:
    errors = system(1.0, 0.01, 0.0, n=50)
    errors[4:, 60:] = np.nan
    assert len(measure_growth(errors).curve) == 60
    errors[7, 41] = np.inf
    errors[7, 42:] = np.nan
    assert len(measure_growth(errors).curve) == 41


def test_trajectories_that_end_do_not_bend_the_rate() -> None:
    start = 1e-8 * np.random.default_rng(0).lognormal(sigma=2, size=(200, 1))
    errors = start * 1.3 ** STEPS[:60]
    errors[errors > 0.3] = np.nan  # the fast ones leave first
    errors[:, 45:] = np.nan
    found = exponential_rate(errors)
    assert found.per_step is not None
    assert float(found.per_step.value) == pytest.approx(np.log(1.3), rel=1e-9)


@pytest.mark.parametrize(
    ("errors", "kind", "words"),
    [
        (np.ones((4, 20)), TooFewEpisodes, "4 episodes"),
        (np.ones((9, 4)), DataError, "4 steps"),
        (np.zeros((9, 20)), DataError, "errors are 0"),
        (np.ones(5), DataError, "trajectories, steps"),
        (-np.ones((9, 20)), DataError, "not negative"),
        (np.where(np.arange(20) == 3, np.nan, np.ones((9, 20))), DataError, "NaN before its end"),
        (np.full((9, 20), np.nan), DataError, "NaN before its end"),
    ],
)
def test_what_has_no_law_is_refused(errors: np.ndarray, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        measure_growth(errors)


def test_episodes_must_fit() -> None:
    with pytest.raises(DataError, match="one number for each of 9"):
        measure_growth(np.ones((9, 20)), np.arange(8))


def test_json_is_plain_and_says_why_something_is_missing() -> None:
    found = measure_growth(system(1.0, 0.01, 0.0, n=60)).to_json()
    assert found["growth_rate"] is None and found["growth_rate_reason"]
    assert found["doubling_time"] is None and found["doubling_time_reason"]
    assert found["plateau"] is None and found["plateau_reason"]
    assert set(found["growth_parameters"]["power"]) == {"value", "low", "high"}
