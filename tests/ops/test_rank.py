"""The effective rank by hand, and of features that have collapsed."""

from __future__ import annotations

import math

import pytest
import torch

from foreworld.ops import effective_rank


def test_by_hand() -> None:
    matrix = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    expected = math.exp(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert effective_rank(matrix, centre=False) == pytest.approx(expected)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert effective_rank(1000 * matrix.double() @ turn, centre=False) == pytest.approx(expected)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_independent_directions_are_counted(rank: int) -> None:
    features = torch.randn(20_000, rank) @ torch.linalg.qr(torch.randn(16, rank))[0].T
    assert effective_rank(features) == pytest.approx(rank, rel=0.01)
    assert effective_rank(features + 100) == pytest.approx(rank, rel=0.01)
    assert effective_rank(features + 100, centre=False) < 1.5 * rank


def test_collapse_is_seen() -> None:
    features = torch.randn(500, 1) @ torch.randn(1, 32) + 0.01 * torch.randn(500, 32)
    assert effective_rank(features) < 3
    assert bool((features.std(0) > 0.01).all())


def test_what_does_not_vary_has_none() -> None:
    assert effective_rank(torch.full((100, 5), 0.1)) == 0
    assert effective_rank(torch.zeros(4, 4), centre=False) == 0
    assert effective_rank(torch.ones(4, 4), centre=False) == pytest.approx(1)
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [2.0, 3.0]])))
