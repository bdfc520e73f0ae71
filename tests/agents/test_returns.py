"""The range of returns: percentiles as numpy has them, followed slowly, never below the least."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreworld.agents import ReturnRange


def test_it_follows_the_percentiles_from_zero_without_correction() -> None:
    rng, kept = np.random.default_rng(0), np.zeros(2)
    tracker = ReturnRange(rate=0.1, low=0.05, high=0.95, least=1.0)
    for _ in range(30):
        returns = rng.normal(3, 7, size=(5, 4, 15)).astype(np.float32)
        kept += 0.1 * (np.quantile(returns, [0.05, 0.95]) - kept)
        found = tracker.update(torch.from_numpy(returns))
        assert float(found) == pytest.approx(max(1.0, kept[1] - kept[0]), rel=1e-5)
    assert float(found) > 15


def test_small_ranges_are_not_blown_up() -> None:
    tracker = ReturnRange(rate=1.0, least=1.0)
    assert float(tracker.update(torch.linspace(0, 0.1, 100))) == 1.0
    assert float(ReturnRange(rate=1.0, least=0.01).update(torch.linspace(0, 0.1, 101))) == pytest.approx(0.09)


def test_a_few_outliers_do_not_matter() -> None:
    returns = torch.cat([torch.linspace(0, 10, 1000), torch.tensor([1e6] * 20)])
    assert 8 < float(ReturnRange(rate=1.0).update(returns)) < 11


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_returns_that_are_not_finite_leave_no_trace(bad: float) -> None:
    tracker = ReturnRange(rate=0.5)
    before = float(tracker.update(torch.linspace(0, 100, 101)))
    tracker.update(torch.full((10,), bad))
    assert float(tracker.update(torch.linspace(0, 100, 101))) == pytest.approx(1.5 * before)


@pytest.mark.parametrize("sound", [True, False])
def test_returns_of_an_update_that_was_skipped_leave_no_trace(sound: bool) -> None:
    tracker, other = ReturnRange(rate=0.5), ReturnRange(rate=0.5)
    for one in (tracker, other):
        one.keep_where(torch.tensor(False))  # nothing to forget yet
        one.update(torch.linspace(0, 100, 101))
        one.keep_where(torch.tensor(True))
    tracker.update(torch.linspace(-1e30, 1e30, 101))
    tracker.keep_where(torch.tensor(sound))
    assert all(torch.equal(a, b) for a, b in zip(tracker.buffers(), other.buffers(), strict=True)) is not sound


def test_it_is_saved_with_the_agent() -> None:
    tracker, fresh = ReturnRange(rate=0.5), ReturnRange(rate=0.5)
    tracker.update(torch.linspace(0, 100, 101))
    fresh.load_state_dict(tracker.state_dict())
    one, other = (float(t.update(torch.linspace(0, 100, 101))) for t in (tracker, fresh))
    assert one == other
