"""Losses against collapse: against independent computation, and on embeddings that have collapsed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.ops.collapse import (
    barlow_twins,
    covariance_penalty,
    random_directions,
    sigreg,
    variance_hinge,
)


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def directions(d: int, p: int = 128, seed: int = 9) -> torch.Tensor:
    return random_directions(d, p, torch.zeros(1), torch.Generator().manual_seed(seed))


def test_sigreg_is_the_weighted_distance_of_characteristic_functions() -> None:
    z, along = normal(40, 3).double(), directions(3, 5).double()
    knots = np.linspace(0, 3, 17)
    found = []
    for p in range(5):
        x = z.numpy() @ along[:, p].numpy()
        empirical = np.exp(1j * np.outer(knots, x)).mean(1)
        apart = np.abs(empirical - np.exp(-(knots**2) / 2)) ** 2 * np.exp(-(knots**2) / 2)
        found.append(2 * np.trapezoid(apart, knots) * 40)
    assert float(sigreg(z, along)) == pytest.approx(np.mean(found), rel=1e-6)


def test_sigreg_of_normal_points_does_not_depend_on_their_number() -> None:
    """E |ecf - cf|^2 is (1 - cf^2) / N, so that N times the integral is the same for every N."""
    knots = np.linspace(0, 3, 17)
    expected = 2 * np.trapezoid((1 - np.exp(-(knots**2))) * np.exp(-(knots**2) / 2), knots)
    for n in (32, 512):
        mean = np.mean([float(sigreg(normal(n, 6, seed), directions(6))) for seed in range(30)])
        assert mean == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("collapse", ["point", "plane", "small", "shifted"])
def test_sigreg_sees_every_collapse(collapse: str) -> None:
    z = normal(512, 8)
    bad = {
        "point": torch.zeros_like(z),
        "plane": z * torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0]),
        "small": 0.3 * z,
        "shifted": z + 1.0,
    }[collapse]
    assert sigreg(bad, directions(8)) > 10 * sigreg(z, directions(8))


def test_descent_on_sigreg_makes_a_normal_of_a_plane() -> None:
    torch.manual_seed(0)
    z = (normal(256, 4) @ torch.diag(torch.tensor([2.0, 1.0, 0.01, 0.01]))).requires_grad_()
    adam = torch.optim.Adam([z], lr=0.05)
    for _ in range(300):
        adam.zero_grad()
        sigreg(z, random_directions(4, 64, z)).backward()
        adam.step()
    spread = torch.linalg.eigvalsh(torch.cov(z.detach().T))
    assert spread[0] > 0.7 and spread[-1] < 1.6  # they began at 0.0001 and 4
    assert z.detach().mean(0).abs().max() < 0.2


def test_sigreg_averages_leading_axes_and_leaves_out_what_does_not_count() -> None:
    z, along = normal(60, 3).view(2, 30, 3), directions(3)
    apart = (sigreg(z[0], along) + sigreg(z[1], along)) / 2
    assert torch.allclose(sigreg(z, along), apart)
    weight = torch.ones(2, 30)
    weight[1, 20:] = 0
    partly = (sigreg(z[0], along) + sigreg(z[1, :20], along)) / 2
    assert torch.allclose(sigreg(z, along, weight), partly, rtol=1e-5)
    assert float(sigreg(z, along, torch.zeros(2, 30))) == 0.0


def test_directions_are_unit_vectors_in_all_directions() -> None:
    found = directions(3, 20_000)
    assert torch.allclose(found.square().sum(0), torch.ones(20_000), atol=1e-5)
    assert torch.allclose(found @ found.T / 20_000, torch.eye(3) / 3, atol=0.01)


def test_vicreg_against_numpy() -> None:
    z = normal(50, 4) @ torch.tensor(np.diag([0.2, 1.0, 3.0, 0.5]), dtype=torch.float32) + 2.0
    z[:, 1] += z[:, 2]
    matrix = np.cov(z.numpy().T)
    hinge = np.maximum(0, 1 - np.sqrt(np.diag(matrix) + 1e-4)).mean()
    assert float(variance_hinge(z)) == pytest.approx(hinge, rel=1e-4)
    off = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert float(covariance_penalty(z)) == pytest.approx(off / 4, rel=1e-4)


def test_barlow_twins_against_numpy() -> None:
    a, b = normal(200, 3), normal(200, 3, 1)
    b = 0.5 * a + b
    matrix = np.corrcoef(a.numpy().T, b.numpy().T)[:3, 3:]
    wanted = ((1 - np.diag(matrix)) ** 2).sum() + 0.1 * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum())
    assert float(barlow_twins(a, b, redundancy=0.1)) == pytest.approx(wanted / 3, rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_rows_that_do_not_count_change_nothing(seed: int, extra: int) -> None:
    z, other = normal(20, 3, seed), normal(20, 3, seed + 1)
    weight = torch.cat([torch.ones(20), torch.zeros(extra)])
    longer = torch.cat([z, 1e3 * normal(extra, 3, seed + 2)])
    longer_other = torch.cat([other, 1e3 * normal(extra, 3, seed + 3)])
    assert torch.allclose(variance_hinge(longer, weight), variance_hinge(z), atol=1e-5)
    assert torch.allclose(covariance_penalty(longer, weight), covariance_penalty(z), rtol=1e-4, atol=1e-5)
    assert torch.allclose(barlow_twins(longer, longer_other, weight), barlow_twins(z, other), rtol=1e-4)
    assert torch.allclose(sigreg(longer, directions(3), weight), sigreg(z, directions(3)), rtol=1e-3)


@pytest.mark.parametrize("loss", [variance_hinge, covariance_penalty, lambda z: sigreg(z, directions(3))])
def test_gradients_are_finite_at_a_point(loss: object) -> None:
    z = torch.zeros(10, 3, requires_grad=True)
    found = loss(z)  # type: ignore[operator]
    found.backward()
    assert z.grad is not None and bool(z.grad.isfinite().all())
    assert math.isfinite(found.item())
