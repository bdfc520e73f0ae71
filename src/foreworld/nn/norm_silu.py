"""RMSNorm followed by SiLU as one operation with a backward by hand: half of the time of the two by themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from foreworld.nn.precision import as_given, at_least_single

EPS = 1e-4
"""Added to the mean square before its root."""


class NormSilu(NamedTuple):
    """SiLU(RMSNorm(x)) and what its backward needs."""

    out: Tensor
    hat: Tensor
    scaled: Tensor
    root: Tensor


def norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """Divide by the root mean square over the last axis, scale, and apply SiLU.

    Args:
        x: [.., D]; without a gradient it is overwritten where it is a fresh product, so do not use it afterwards.
        scale: [D].

    Returns:
        [.., D].
    """
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _NormSilu.apply(x, scale)
    with as_given(x):
        return forward(x, scale, taping=False).out


def forward(x: Tensor, scale: Tensor, taping: bool) -> NormSilu:
    """Compute it; without `taping` in the memory of `x`, which halves what passes through the cache.

    Half precision is that of input and output alone.
    """
    given, x = x, at_least_single(x)
    root = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(EPS).rsqrt_().unsqueeze(-1)
    if not taping:
        out = F.silu(x.mul_(root).mul_(scale), inplace=True)
        out = out.to(given.dtype)
        return NormSilu(out, out, out, root)
    hat = x * root
    scaled = hat * scale
    return NormSilu(F.silu(scaled).to(given.dtype), hat, scaled, root)


def backward(grad: Tensor, done: NormSilu, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the input, in the precision of `grad`, and that of the scale before it is summed."""
    given, grad = grad, at_least_single(grad)
    outer = torch.ops.aten.silu_backward(grad, done.scaled)
    inner = outer * scale
    common = torch.linalg.vecdot(inner, done.hat).div_(inner.shape[-1]).unsqueeze(-1)
    of_x = torch.addcmul(inner, done.hat, common, value=-1).mul_(done.root)
    return of_x.to(given.dtype), outer.mul_(done.hat)


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        with as_given(x):
            done = forward(x, scale, taping=True)
        ctx.save_for_backward(done.hat, done.scaled, done.root, scale)
        return done.out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        hat, scaled, root, scale = ctx.saved_tensors
        with as_given(hat):
            of_x, of_scale = backward(grad_outputs[0], NormSilu(scaled, hat, scaled, root), scale)
        return of_x, of_scale.reshape(-1, len(scale)).sum(0)
