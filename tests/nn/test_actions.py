"""Action distributions against torch's, and samples against their probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, OneHotCategorical

from foreworld.core import Space, deterministic
from foreworld.nn.actions import BoundedNormal, OneHots, actions_of

KINDS = [OneHots((3, 2, 4), unimix=0.1), OneHots((5,), unimix=0.0), BoundedNormal(3)]
DRAWS = 40_000


def said(kind: OneHots | BoundedNormal, params: Tensor) -> list[tuple[slice, torch.distributions.Distribution]]:
    """Return torch's distribution of every part of an action."""
    if isinstance(kind, BoundedNormal):
        std = 0.9 / (1 + torch.exp(-(params[..., kind.width :] + 2))) + 0.1
        return [(slice(None), Independent(Normal(params[..., : kind.width].tanh(), std), 1))]
    found, start = [], 0
    for count in kind.classes:
        part = slice(start, start + count)
        probs = (1 - kind.unimix) * params[..., part].softmax(-1) + kind.unimix / count
        found.append((part, OneHotCategorical(probs=probs)))
        start += count
    return found


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_log_probability_entropy_and_their_gradients_are_torchs(kind: OneHots | BoundedNormal) -> None:
    params = (2 * torch.randn(4, 6, kind.params).double()).requires_grad_()
    action = kind.sample(params)
    parts = said(kind, params)
    wanted = sum(one.log_prob(action[..., part]) + 0.3 * one.entropy() for part, one in parts)
    found = kind.log_prob(params, action) + 0.3 * kind.entropy(params)
    assert found.shape == (4, 6)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn(4, 6).double()
    right = torch.autograd.grad((weight * wanted).sum(), params)[0]
    torch.testing.assert_close(torch.autograd.grad((weight * found).sum(), params)[0], right)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_sample_has_no_gradient_and_a_mode_is_what_deterministic_gives(kind: OneHots | BoundedNormal) -> None:
    params = torch.randn(7, kind.params, requires_grad=True)
    drawn = kind.sample(params)
    assert drawn.shape == (7, kind.width)
    assert not drawn.requires_grad
    with deterministic():
        assert torch.equal(kind.sample(params), kind.mode(params))


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_one_hots_are_drawn_with_their_probabilities(kind: OneHots) -> None:
    params = 2 * torch.randn(kind.params)
    drawn = kind.sample(params.expand(DRAWS, -1))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    for part, one in said(kind, params):
        assert torch.equal(drawn[:, part].sum(-1), torch.ones(DRAWS))
        # five deviations of a share
        assert bool(((drawn[:, part].mean(0) - one.mean).abs() < 5 * (one.variance / DRAWS).sqrt() + 1e-6).all())
    pairs = drawn.T @ drawn / DRAWS
    if len(kind.classes) > 1:  # choices are independent of each other
        one, other = drawn[:, :3].mean(0), drawn[:, 3:5].mean(0)
        torch.testing.assert_close(pairs[:3, 3:5], one[:, None] * other, atol=0.01, rtol=0)


def test_normals_are_drawn_with_their_mean_and_deviation_and_not_clipped() -> None:
    kind, params = BoundedNormal(2), torch.tensor([0.9, -3.0, 3.0, -50.0])
    drawn, (mean, std) = kind.sample(params.expand(DRAWS, -1)), kind.split(params)
    assert bool(((drawn.mean(0) - mean).abs() < 5 * std / DRAWS**0.5).all())
    torch.testing.assert_close(drawn.std(0), std, rtol=0.03, atol=0)
    assert float(drawn[:, 0].max()) > 2, "numbers beyond the bounds are for others to clip"
    assert float(std[1]) == pytest.approx(0.1) and float(std[0]) < 1


def test_unimix_keeps_every_choice_possible() -> None:
    kind = OneHots((4,), unimix=0.2)
    extreme = torch.tensor([90.0, -90.0, -90.0, -90.0])
    assert kind.probs(extreme)[0].tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05])
    share = kind.sample(extreme.expand(DRAWS, -1)).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.85, 0.05, 0.05, 0.05]), atol=0.006, rtol=0)
    never = torch.nn.functional.one_hot(torch.tensor(2), 4).float()
    assert float(kind.log_prob(extreme, never)) == pytest.approx(torch.tensor(0.05).log().item())


def test_without_unimix_a_certain_choice_has_finite_entropy_and_gradient() -> None:
    kind = OneHots((3,), unimix=0.0)
    params = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    action = kind.mode(params)
    value = kind.entropy(params) + kind.log_prob(params, action)
    value.sum().backward()
    assert params.grad is not None
    assert value.tolist() == [0.0] and bool(params.grad.isfinite().all())


def test_one_uniform_number_at_either_end_still_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, params = OneHots((7,), unimix=0.0), 20 * torch.randn(500, 7)
    for end in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand_like", lambda like, end=end: torch.full_like(like, end))
        drawn = kind.sample(params)
        assert torch.equal(drawn.sum(-1), torch.ones(500))
        assert bool((kind.probs(params)[0][drawn.bool()] > 0).all())


def test_the_kind_follows_from_the_space() -> None:
    discrete = Space(kind="discrete", shape=(2,), dtype="int64", classes=(2, 3), start=(0, 0))
    box = Space(kind="vector", shape=(2, 2), dtype="float32", low=(-1.0,) * 4, high=(1.0,) * 4)
    assert actions_of(discrete, 0.3) == OneHots((2, 3), 0.3)
    assert (actions_of(discrete).width, actions_of(discrete).params) == (5, 5)
    assert (actions_of(box).width, actions_of(box).params) == (4, 8)
