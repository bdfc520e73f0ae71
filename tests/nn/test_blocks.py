"""Layers against independent computations."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import OneHotCategorical, kl_divergence

from foreworld.nn import BlockGRU, BlockLinear, CategoricalLatent, GaussianLatent, Linear, RMSNorm, TwoHotHead, sample
from foreworld.nn.conv import Conv, HalveStrided, UpConv


def test_block_linear_is_a_dense_layer_with_a_block_diagonal_weight() -> None:
    layer = BlockLinear(6, 4, 2)
    dense = torch.block_diag(*layer.weight)
    x = torch.randn(3, 5, 6)
    assert torch.allclose(layer(x), x @ dense + layer.bias, atol=1e-6)
    with pytest.raises(ValueError, match="not divisible"):
        BlockLinear(6, 4, 4)


def test_initial_weights_have_the_stated_variance() -> None:
    torch.manual_seed(0)
    weight = Linear(400, 300).weight.detach()
    assert float(weight.std()) == pytest.approx(1 / 20, rel=0.03)
    assert float(weight.abs().max()) <= 2 * 1.1368 / 20 + 1e-6
    # a block sees 50 of 400 inputs, but the fan-in counts them all
    assert float(BlockLinear(400, 400, 8).weight.detach().std()) == pytest.approx(1 / 20, rel=0.03)


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0]])
    assert torch.allclose(RMSNorm(2)(x), x / (12.5 + 1e-4) ** 0.5)


def test_block_gru_stays_bounded_and_keeps_its_state_when_the_gate_is_shut() -> None:
    torch.manual_seed(0)
    cell = BlockGRU(32, 8, 3, 16, 4)
    deter, stoch = torch.rand(5, 32) * 2 - 1, torch.randn(5, 8)
    action = cell.embed_action(torch.randn(5, 3) * 100)
    assert float(cell(deter, stoch, action).detach().abs().max()) <= 1
    with torch.no_grad():
        cell.gates.bias.view(4, 3, 8)[:, 2].fill_(-50)
        cell.gates.weight.zero_()
    assert torch.allclose(cell(deter, stoch, action), deter, atol=1e-6)


def test_actions_beyond_one_are_scaled_back() -> None:
    cell = BlockGRU(32, 8, 2, 16, 4)
    far, near = torch.tensor([[50.0, -0.5]]), torch.tensor([[1.0, -0.5]])
    first, second = cell.embed_action(far), cell.embed_action(near)
    assert first is not None and second is not None
    assert torch.allclose(first, second)


def test_strided_stages_halve_and_double_exactly() -> None:
    x = torch.randn(2, 3, 32, 48)
    assert HalveStrided(3, 5)(x).shape == (2, 5, 16, 24)
    assert UpConv(3, 5)(x).shape == (2, 5, 64, 96)
    assert Conv(3, 5, 5)(x).shape == (2, 5, 32, 48)


def test_a_fresh_reward_head_predicts_zero_exactly() -> None:
    assert torch.equal(TwoHotHead(4, 8, 1)(torch.randn(7, 4)), torch.zeros(7))


def test_gaussian_samples_have_their_mean_and_deviation() -> None:
    latent = GaussianLatent(1, least=0.1)
    params = torch.tensor([2.0, 0.5]).expand(50_000, 2)
    torch.manual_seed(0)
    drawn = sample(latent, params)
    mean, std = latent.split(params[:1])
    assert float(drawn.mean()) == pytest.approx(float(mean), abs=0.03)
    assert float(drawn.std()) == pytest.approx(float(std), rel=0.03)


@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_the_divergence_of_certain_latents_is_finite_and_torchs(unimix: float) -> None:
    latent = CategoricalLatent(2, 3, unimix)
    post = torch.tensor([[300.0, 0, -300, 1, 2, 3]], dtype=torch.float64, requires_grad=True)
    prior = torch.tensor([[-300.0, 0, 300, 3, 2, 1]], dtype=torch.float64, requires_grad=True)
    one, other = (
        OneHotCategorical(probs=(1 - unimix) * x.view(1, 2, 3).softmax(-1) + unimix / 3, validate_args=False)
        if unimix
        else OneHotCategorical(logits=x.view(1, 2, 3))
        for x in (post, prior)
    )
    kl, entropy = latent.kl(post, prior), latent.entropy(post)
    torch.testing.assert_close(kl, kl_divergence(one, other).sum(-1))
    torch.testing.assert_close(entropy, one.entropy().sum(-1))
    for gradient in torch.autograd.grad((kl + entropy).sum(), (post, prior)):
        assert bool(gradient.isfinite().all())
