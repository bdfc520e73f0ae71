"""Pure functions against hand computation and independent implementations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal, kl_divergence

from foreworld.ops import (
    categorical_kl,
    discounted_return,
    free_nats,
    gaussian_kl,
    lambda_return,
    symexp,
    symexp_bins,
    symlog,
    twohot,
    twohot_cross_entropy,
    twohot_loss,
    twohot_mean,
)
from foreworld.ops.regress import merge, moments, residual, ridge


@given(st.floats(-1e6, 1e6))
def test_symexp_inverts_symlog(x: float) -> None:
    there = symlog(torch.tensor(x, dtype=torch.float64))
    assert float(there) == pytest.approx(math.copysign(math.log1p(abs(x)), x), abs=1e-12)
    assert float(symexp(there)) == pytest.approx(x, rel=1e-9, abs=1e-9)


def test_bins_mirror_each_other_exactly() -> None:
    bins = symexp_bins()
    assert len(bins) == 255
    assert bins[127] == 0
    assert torch.equal(bins, -bins.flip(0))
    assert float(bins[-1]) == pytest.approx(math.exp(20) - 1, rel=1e-5)


@given(st.floats(-1e5, 1e5, width=32))
def test_twohot_has_the_mean_it_encodes(x: float) -> None:
    bins = symexp_bins().double()
    target = twohot(torch.tensor([x], dtype=torch.float64), bins)
    assert float(target.sum()) == pytest.approx(1)
    assert int((target > 0).sum()) <= 2
    assert float((target * bins).sum()) == pytest.approx(x, rel=1e-6, abs=1e-6)


def test_twohot_by_hand() -> None:
    bins = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    found = twohot(torch.tensor([0.25, -1.0, 9.0, -9.0]), bins)
    expected = torch.tensor(
        [[0, 0, 0.75, 0.25, 0], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 1.0], [1.0, 0, 0, 0, 0]], dtype=torch.float32
    )
    assert torch.allclose(found, expected)


def test_uniform_logits_mean_exactly_zero_although_outer_bins_are_huge() -> None:
    assert float(twohot_mean(torch.zeros(255), symexp_bins())) == 0.0


def test_twohot_loss_is_least_at_the_target() -> None:
    bins = symexp_bins()
    x = torch.tensor([3.7])
    best = twohot(x, bins).clamp(min=1e-12).log()
    assert float(twohot_loss(best, x, bins)) < float(twohot_loss(best.roll(1, -1), x, bins))
    assert float(twohot_mean(best, bins)) == pytest.approx(3.7, rel=1e-4)


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=4), st.floats(0.1, 20))
def test_cross_entropy_is_that_of_the_dense_target(x: list[float], spread: float) -> None:
    bins = symexp_bins().double()
    logits = spread * torch.randn(2, len(x), 255, generator=torch.Generator().manual_seed(0)).double()
    target = torch.tensor([x, [-one for one in x]], dtype=torch.float64)
    wanted = -(twohot(target, bins) * logits.log_softmax(-1)).sum(-1)
    found = twohot_cross_entropy(logits.log_softmax(-1), target, bins)
    assert found.shape == (2, len(x))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twohot_loss(logits, target, bins), wanted, rtol=1e-9, atol=1e-9)


def test_cross_entropy_to_two_targets_at_once_is_the_weighted_sum() -> None:
    bins = symexp_bins()
    x, other = torch.tensor([0.5, -20.0, 3e4]), torch.tensor([0.5, 7.0, -1e30])
    logits = torch.randn(3, 255, generator=torch.Generator().manual_seed(0), requires_grad=True)
    both = twohot_cross_entropy(logits.log_softmax(-1), x, bins, other, 0.3)
    apart = twohot_loss(logits, x, bins) + 0.3 * twohot_loss(logits, other, bins)
    torch.testing.assert_close(both, apart)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), logits)[0] for y in (both, apart)))


def test_cross_entropy_has_the_gradient_of_the_dense_form() -> None:
    bins, target = symexp_bins(), torch.tensor([0.0, -3.3, 1e12])
    logits = torch.randn(3, 255, requires_grad=True)
    dense = -(twohot(target, bins) * logits.log_softmax(-1)).sum(-1)
    found, wanted = (torch.autograd.grad(y.sum(), logits)[0] for y in (twohot_loss(logits, target, bins), dense))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found, logits.detach().softmax(-1) - twohot(target, bins))


def test_discounted_return_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0]])
    # the second state is terminal: its own reward counts, the third one's does not
    assert float(discounted_return(reward, torch.tensor([[1.0, 0.0, 1.0]]), 0.5)) == pytest.approx(1 + 0.5 * 2)
    assert float(discounted_return(reward, torch.tensor([[0.5, 1.0, 1.0]]), 0.5)) == pytest.approx(
        1 + 0.5 * 0.5 * 2 + 0.5 * 0.5 * 0.5 * 4
    )


def test_lambda_return_against_an_independent_sum_over_n_step_returns() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 6, generator=generator).double(), torch.randn(2, 6, generator=generator).double()
    cont = torch.rand(2, 6, generator=generator).double()
    discount, lam = 0.9, 0.7
    found = lambda_return(reward, cont, value, discount, lam)
    for b in range(2):
        for t in range(6):
            total = 0.0
            for n in range(1, 6 - t + 1):
                ret, weight = 0.0, 1.0
                for k in range(n):
                    ret += weight * float(reward[b, t + k])
                    weight *= discount * float(cont[b, t + k])
                ret += weight * float(value[b, t + n - 1])
                share = lam ** (n - 1) * (1 - lam) if n < 6 - t else lam ** (n - 1)
                total += share * ret
            assert float(found[b, t]) == pytest.approx(total, abs=1e-12)


def test_divergences_agree_with_torch() -> None:
    p, q = torch.randn(5, 7).log_softmax(-1), torch.randn(5, 7).log_softmax(-1)
    assert torch.allclose(categorical_kl(p, q), kl_divergence(Categorical(logits=p), Categorical(logits=q)), atol=1e-6)
    mp, mq, sp, sq = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4, 3) + 0.1, torch.rand(4, 3) + 0.1
    expected = kl_divergence(Normal(mp, sp), Normal(mq, sq)).sum(-1)
    assert torch.allclose(gaussian_kl(mp, sp, mq, sq), expected, atol=1e-5)


def test_free_nats_stop_the_gradient_below_the_threshold() -> None:
    kl = torch.tensor([0.5, 2.0], requires_grad=True)
    free_nats(kl, 1.0).sum().backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [0.0, 1.0]


def test_ridge_recovers_a_linear_map_and_agrees_with_least_squares() -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(300, 4, generator=rng).double() + 3
    weight, bias = torch.randn(2, 4, generator=rng).double(), torch.tensor([5.0, -1.0]).double()
    y = x @ weight.T + bias + 0.1 * torch.randn(300, 2, generator=rng).double()
    whole = moments(x, y)
    found, offset = ridge(whole, 0.0)
    design = torch.cat([x, torch.ones(300, 1).double()], 1)
    solution = torch.linalg.lstsq(design, y).solution
    assert torch.allclose(found, solution[:4].T, atol=1e-6)
    assert torch.allclose(offset, solution[4], atol=1e-5)
    error = (x @ found.T + offset - y).square().mean(0)
    assert torch.allclose(residual(whole, found, offset), error, atol=1e-9)


def test_moments_merge_as_if_gathered_at_once() -> None:
    rng = torch.Generator().manual_seed(2)
    x, y = torch.randn(50, 3, generator=rng), torch.randn(50, 2, generator=rng)
    parts = merge(moments(x[:17], y[:17]), moments(x[17:], y[17:]))
    whole = moments(x, y)
    for name in ("x", "y", "xx", "xy", "yy"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), atol=1e-12)
