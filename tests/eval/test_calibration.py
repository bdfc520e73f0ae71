"""Calibration on ensembles whose errors and spread are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from foreworld.core.errors import MissingCapability
from foreworld.eval.calibration import (
    Calibration,
    calibrate,
    quantile,
    share_below,
    spread_when_exceeded,
    steps_below,
    stop_rule,
    student_quantile,
)
from foreworld.eval.horizon import horizons
from foreworld.eval.spread import BINS, HIGHEST, LOWEST, SpreadSums

W, M, H, D = 2000, 5, 4, 3


def gathered(samples: torch.Tensor, actual: torch.Tensor) -> tuple[SpreadSums, np.ndarray, np.ndarray]:
    """Sums over all windows, one per episode, and the error of the mean."""
    count, steps = actual.shape[:2]
    sums = SpreadSums.empty((count, steps))
    valid = torch.ones_like(actual, dtype=torch.bool)
    for part in np.array_split(np.arange(count), 7):
        sums.add(part, part, samples[part], actual[part], torch.ones(()), valid[part])
    errors = (samples.mean(1) - actual).square().mean(-1).sqrt().numpy()
    return sums, errors, np.arange(count)


def judged(correlation: float, own: float = 1.0) -> Calibration:
    """Members around the truth's own distribution; `own` scales how far they think they may be off."""
    rng = torch.Generator().manual_seed(0)
    scale = torch.rand(W, 1, H, 1, generator=rng) + 0.5
    shared, actual = (torch.randn(W, 1, H, D, generator=rng) for _ in range(2))
    members = torch.randn(W, M, H, D, generator=rng)
    samples = scale * (correlation**0.5 * shared + (1 - correlation) ** 0.5 * own * members)
    truth = (scale * actual)[:, 0] if own else torch.zeros(W, H, D)
    return calibrate(*gathered(samples, truth), limit=1.0)


def test_a_perfect_ensemble_reads_one_and_covers_what_it_says() -> None:
    found = judged(0.0)
    assert np.allclose(found.spread_skill.value, 1, atol=0.05)
    for level, share in {**found.coverage}.items():
        assert np.allclose(share, level, atol=0.02), level
    assert all(np.allclose(share, level, atol=0.03) for level, share in found.recalibrated.items())
    assert all(np.allclose(scale, 1, atol=0.08) for scale in found.recalibration.values())
    # whose scale is larger errs more, and spreads more
    assert found.auroc is not None and 0.6 < found.auroc.value < 0.9


def test_without_the_correction_for_the_number_of_members_it_would_read_0_91() -> None:
    assert judged(0.0).spread_skill.value.mean() * np.sqrt(M / (M + 1)) == pytest.approx(0.913, abs=0.03)


def test_an_over_confident_ensemble_is_found_and_recalibrated() -> None:
    found = judged(0.0, own=0.5)
    assert (found.spread_skill.high < 0.7).all()
    assert (found.coverage[0.9] < 0.75).all()
    assert (found.recalibration[0.9] > 1.5).all()
    assert np.allclose(found.recalibrated[0.9], 0.9, atol=0.03)


def test_factor_correlation_and_effective_members_are_those_of_the_construction() -> None:
    rng = torch.Generator().manual_seed(1)
    errors = 0.4**0.5 * torch.randn(W, 1, H, D, generator=rng) + 0.6**0.5 * torch.randn(W, M, H, D, generator=rng)
    found = calibrate(*gathered(errors, torch.zeros(W, H, D)), limit=1.0)
    assert np.allclose(found.correlation, 0.4, atol=0.03)
    assert np.allclose(found.effective, M / (1 + (M - 1) * 0.4), atol=0.1)
    assert np.allclose(found.factor.value, np.sqrt((1 + (M - 1) * 0.4) / M), atol=0.02)
    assert ((found.factor.low < found.factor.value) & (found.factor.value < found.factor.high)).all()


def test_one_prediction_has_no_spread() -> None:
    with pytest.raises(MissingCapability, match="--samples"):
        calibrate(*gathered(torch.zeros(40, 1, H, D), torch.zeros(40, H, D)), limit=1.0)
    with pytest.raises(MissingCapability, match="deterministic"):
        calibrate(*gathered(torch.zeros(40, 5, H, D), torch.ones(40, H, D)), limit=1.0)


@pytest.mark.parametrize("degrees", [1, 4, 7, 100])
def test_quantiles_of_students_distribution(degrees: int) -> None:
    for level in (0.75, 0.9, 0.95, 0.975):
        assert student_quantile(level, degrees) == pytest.approx(stats.t.ppf(level, degrees), rel=1e-3)


def test_shares_and_quantiles_of_a_histogram_agree_with_those_of_the_values() -> None:
    values = np.random.default_rng(0).lognormal(size=20_000)
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    counts = np.histogram(np.log10(values), edges)[0][None]
    for level in (0.1, 0.5, 0.9):
        assert quantile(counts, level)[0] == pytest.approx(np.quantile(values, level), rel=0.02)
    assert share_below(counts, 1.0)[0] == pytest.approx((values < 1).mean(), abs=0.005)


def test_a_roll_out_stops_where_its_spread_says() -> None:
    errors = np.array([[0.1, 0.3, 0.1], [0.1, 0.1, np.nan], [0.4, 0.1, 0.1]])
    spread = np.array([[0.2, 0.1, 0.5], [0.3, 0.6, np.nan], [0.7, 0.1, 0.1]])
    exceeds = np.array([1, 3, 0])
    assert np.minimum(horizons(errors, 0.2), 3).tolist() == exceeds.tolist()
    assert spread_when_exceeded(spread, exceeds).tolist() == [0.2, np.inf, 0.7]
    assert steps_below(spread, 0.4).tolist() == [2, 1, 0]
    assert steps_below(spread, 0.15).tolist() == [0, 0, 0]


def test_per_start_horizons_keep_their_promise_and_go_further_than_one_for_all() -> None:
    kept, longer = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scale = rng.lognormal(sigma=1, size=(400, 1))  # some starts are far more predictable than others, and show it
        steps = np.arange(1, 31)
        errors = 0.02 * scale * steps * rng.lognormal(sigma=0.2, size=(400, 30))
        spread = 0.02 * scale * steps * rng.lognormal(sigma=0.2, size=(400, 30))
        rule, reason = stop_rule(spread, errors, np.arange(400), 0.2, violation_rate=0.1, confidence=0.95)
        assert rule is not None and not reason
        kept.append(rule.violations <= 0.1 + 0.04)  # the other half is a sample too
        longer.append(rule.steps / max(rule.fixed_steps, 1e-9))
    assert np.mean(kept) > 0.95
    assert np.median(longer) > 2


def test_too_few_episodes_give_no_rule_and_say_so() -> None:
    rule, reason = stop_rule(
        np.ones((40, 3)), np.ones((40, 3)), np.arange(40), 0.2, violation_rate=0.1, confidence=0.95
    )
    assert rule is None and reason.startswith("20 episodes calibrate it, too few")
