"""RMSNorm and SiLU in one against the two by themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.nn.norm_silu import EPS, norm_silu

D = 5


def plainly(x: Tensor, scale: Tensor) -> Tensor:
    return F.silu(F.rms_norm(x, (D,), scale, EPS))


def layouts() -> dict[str, Tensor]:
    """Return [.., 5] in one piece, cut out of more, and with its axes in another order."""
    torch.manual_seed(0)
    return {
        "contiguous": torch.randn(4, 3, D),
        "one_row": torch.randn(D),
        "cut": torch.randn(4, 3, 2 * D)[..., ::2],
        "transposed": torch.randn(3, D, 4).permute(2, 0, 1),
        "empty": torch.randn(0, D),
    }


@pytest.mark.parametrize("name", layouts())
def test_values_and_gradients_are_those_of_the_two_layers(name: str) -> None:
    x, scale = layouts()[name].double().requires_grad_(), torch.randn(D).double().requires_grad_()
    weight = torch.randn(x.shape).double()
    kept = x.detach().clone()
    found, wanted = norm_silu(x, scale), plainly(x, scale)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(x, kept), "with a gradient, the input is left as it is"
    for a, b in zip(*(torch.autograd.grad((weight * y).sum(), (x, scale)) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_those_of_finite_differences() -> None:
    x, scale = layouts()["cut"].double(), torch.randn(D).double()
    assert torch.autograd.gradcheck(norm_silu, (x.requires_grad_(), scale.requires_grad_()))
    tiny = torch.full((2, D), 1e-3).double().requires_grad_()  # where the root is all epsilon
    assert torch.autograd.gradcheck(norm_silu, (tiny, scale), eps=1e-7)


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_gradient_the_values_are_the_same(name: str, dtype: torch.dtype) -> None:
    x, scale = layouts()[name].to(dtype), torch.randn(D, dtype=dtype)
    wanted = plainly(x, scale)
    with torch.no_grad():
        torch.testing.assert_close(norm_silu(x.clone(), scale), wanted)
        torch.testing.assert_close(norm_silu(x[...], scale), wanted, msg="of a view")


def test_it_works_where_only_one_of_both_has_a_gradient() -> None:
    x, scale = torch.randn(3, D), torch.randn(D)
    for which in (0, 1):
        pair = [x.clone(), scale.clone()]
        pair[which].requires_grad_()
        found = torch.autograd.grad(norm_silu(*pair).sum(), pair[which])[0]
        torch.testing.assert_close(found, torch.autograd.grad(plainly(*pair).sum(), pair[which])[0])


def test_half_precision_input_stays_near() -> None:
    x, scale = torch.randn(64, D), torch.randn(D)
    found = norm_silu(x.bfloat16(), scale)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), plainly(x, scale), atol=0.05, rtol=0.05)
