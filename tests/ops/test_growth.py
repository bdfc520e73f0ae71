"""Laws of growth: fits that find what made a curve, also beside an independent implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.ops.growth import (
    CLOSED_FORM,
    EXPONENTIAL,
    LAWS,
    LINEAR,
    LOGISTIC,
    POWER,
    ROOT_CLOSED_FORM,
    SOURCED_LOGISTIC,
    Law,
    fit_law,
)

STEPS = np.arange(1.0, 101)


def fit(law: Law, curve: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Fit one curve and return its parameters."""
    weights = np.ones((1, len(curve))) if weights is None else weights[None]
    found = fit_law(law, np.log(curve)[None], weights, STEPS[: len(curve)])
    return {name: float(value[0]) for name, value in found.parameters.items()}


def summed(step: float, factor: float, power: int) -> np.ndarray:
    """Add an error at every step, carry the old one on; as a loop."""
    total, found = 0.0, []
    for _ in STEPS:
        total = (step**power + (factor * total) ** power) ** (1 / power)
        found.append(total)
    return np.array(found)


def integrated(rate: float, source: float, start: float, plateau: float) -> np.ndarray:
    """Integrate dE/dT = (l E + s) (1 - E / Einf) in small steps."""
    error, found = start, []
    for _ in STEPS:
        for _ in range(2000):
            middle = error + (rate * error + source) * (1 - error / plateau) / 4000
            error += (rate * middle + source) * (1 - middle / plateau) / 2000
        found.append(error)
    return np.array(found)


MADE: list[tuple[Law, np.ndarray, dict[str, float]]] = [
    (LINEAR, 0.02 + 0.003 * STEPS, {"offset": 0.02, "slope": 0.003}),
    (POWER, 0.01 * STEPS**0.5, {"factor": 0.01, "power": 0.5}),
    (EXPONENTIAL, 1e-7 * 1.15**STEPS, {"factor": 1e-7, "growth": 1.15}),
    (EXPONENTIAL, 0.3 * 0.7**STEPS, {"factor": 0.3, "growth": 0.7}),
    (CLOSED_FORM, summed(0.02, 0.9, 1), {"step": 0.02, "factor": 0.9, "plateau": 0.2}),
    (CLOSED_FORM, 1 - 0.99**STEPS, {"step": 0.01, "factor": 0.99, "plateau": 1.0}),
    (CLOSED_FORM, summed(1e-4, 1.08, 1), {"step": 1e-4, "factor": 1.08, "plateau": np.inf}),
    (ROOT_CLOSED_FORM, summed(0.03, 0.8, 2), {"step": 0.03, "factor": 0.8, "plateau": 0.05}),
    (ROOT_CLOSED_FORM, summed(1e-3, 1.05, 2), {"step": 1e-3, "factor": 1.05, "plateau": np.inf}),
    (LOGISTIC, integrated(0.3, 0.0, 1e-5, 1.4), {"plateau": 1.4, "rate": 0.3, "start": 1e-5}),
    (SOURCED_LOGISTIC, integrated(0.1, 2e-3, 0.0, 1.3), {"plateau": 1.3, "rate": 0.1, "source": 2e-3}),
]


@pytest.mark.parametrize(("law", "curve", "expected"), MADE, ids=[law.name for law, _, _ in MADE])
def test_a_fit_finds_what_made_the_curve(law: Law, curve: np.ndarray, expected: dict[str, float]) -> None:
    assert fit(law, curve) == pytest.approx(expected, rel=1e-5)


def test_many_curves_are_fitted_as_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    curves = np.log(np.stack([curve for _, curve, _ in MADE])) + rng.normal(scale=0.1, size=(len(MADE), len(STEPS)))
    weights = rng.uniform(size=curves.shape)
    for law in LAWS:
        together = fit_law(law, curves, weights, STEPS)
        alone = [fit_law(law, curves[i : i + 1], weights[i : i + 1], STEPS).loss[0] for i in range(len(curves))]
        assert together.loss == pytest.approx(alone, rel=1e-9)


def test_no_better_fit_is_found_by_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(1)
    for made, curve, _ in MADE:
        noisy = np.log(curve) + rng.normal(scale=0.2, size=len(curve))
        for law in (made, POWER, SOURCED_LOGISTIC):
            found = fit_law(law, noisy[None], np.ones((1, len(STEPS))), STEPS)

            def miss(shape: np.ndarray, law: Law = law, noisy: np.ndarray = noisy) -> np.ndarray:
                residual = noisy - law.log_shape(np.clip(shape, law.low, law.high), STEPS)
                return residual - residual.mean()

            start = found.shape[0] + rng.normal(scale=0.3, size=found.shape.shape[1])
            other = optimize.least_squares(miss, start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
            assert found.loss[0] <= 2 * other.cost / len(STEPS) + 1e-9


def test_steps_without_weight_do_not_count() -> None:
    curve = 0.01 * STEPS
    curve[50:] = 7.0
    assert fit(POWER, curve, (STEPS <= 50).astype(float)) == pytest.approx({"factor": 0.01, "power": 1.0})


def test_a_curve_without_any_weight_has_no_parameters() -> None:
    found = fit_law(LOGISTIC, np.zeros((2, 100)), np.stack([np.zeros(100), np.ones(100)]), STEPS)
    assert np.isnan(found.loss[0]) and found.loss[1] == pytest.approx(0, abs=1e-6)
    assert all(np.isnan(value[0]) for value in found.parameters.values())


@settings(max_examples=60)
@given(
    law=st.sampled_from(LAWS),
    values=st.lists(st.floats(1e-12, 1e6), min_size=5, max_size=40),
    unit=st.floats(1e-6, 1e6),
)
def test_any_curve_is_fitted_and_its_unit_does_not_matter(law: Law, values: list[float], unit: float) -> None:
    logs, steps = np.log(np.array(values))[None], np.arange(1.0, len(values) + 1)
    weights = np.ones_like(logs)
    found, scaled = fit_law(law, logs, weights, steps), fit_law(law, logs + np.log(unit), weights, steps)
    assert np.isfinite(found.loss).all() and np.isfinite(found.log_curve(steps)).all()
    # the best constant is never better by more than what the edge of the search allows
    assert found.loss[0] <= logs.var() * (1 + 1e-6) + 1e-4
    assert scaled.loss == pytest.approx(found.loss, rel=1e-3, abs=1e-6)


def shapes(law: Law) -> np.ndarray:
    return law.grid(STEPS)


@pytest.mark.parametrize("law", LAWS, ids=[law.name for law in LAWS])
def test_every_start_lies_within_the_bounds_and_gives_a_finite_curve(law: Law) -> None:
    grid = shapes(law)
    assert grid.min() >= law.low and grid.max() <= law.high
    assert grid.shape[1] == law.free - 1
    assert np.isfinite(law.log_shape(grid, STEPS)).all()


@pytest.mark.parametrize("make", [lambda f: summed(0.01, f, 1), lambda f: summed(0.01, f, 2)])
def test_sums_pass_smoothly_through_factor_one(make: Callable[[float], np.ndarray]) -> None:
    for factor in (1 - 1e-7, 1.0, 1 + 1e-7):
        law = CLOSED_FORM if make(1.0)[-1] > 0.5 else ROOT_CLOSED_FORM
        assert fit(law, make(factor))["factor"] == pytest.approx(factor, abs=1e-5)
