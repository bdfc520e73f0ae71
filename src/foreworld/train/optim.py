"""The optimiser of DreamerV3: adaptive gradient clipping, then RMS scaling, then momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LaProp(Optimizer):
    """Scale by the gradient's root mean square first, and average the scaled gradients after.

    Unlike Adam, a sudden large gradient cannot be carried on by the momentum.

    Args:
        params: what to train.
        lr: learning rate after warm-up.
        betas: decay of the momentum and of the squared gradient.
        eps: added to the root mean square.
        agc: largest norm of a gradient, as a share of its parameter's norm; 0 turns it off.
        warmup: updates over which the learning rate rises linearly from 0.
        weight_decay: decoupled decay per update, times the learning rate.

    Reference:
        Ziyin et al., LaProp, 2020, arXiv 2002.04839; Brock et al., High-Performance
        Large-Scale Image Recognition Without Normalization, 2021, arXiv 2102.06171 (clipping);
        settings of Hafner et al. 2023, arXiv 2301.04104.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        warmup: int = 1000,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "agc": agc,
            "warmup": warmup,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the parameters that have a gradient; return what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self.state[p] for p in params]
        for param, slot in zip(params, states, strict=True):
            if not slot:
                slot.update(
                    count=torch.zeros((), dtype=torch.int64), rms=torch.zeros_like(param), mean=torch.zeros_like(param)
                )
            slot["count"] += 1
        count = int(states[0]["count"])
        lr = group["lr"] * min(1.0, count / max(1, group["warmup"]))
        beta1, beta2 = group["betas"]
        grads = clip_adaptive(params, group["agc"])
        rms, mean = [slot["rms"] for slot in states], [slot["mean"] for slot in states]
        torch._foreach_mul_(rms, beta2)
        torch._foreach_addcmul_(rms, grads, grads, 1 - beta2)
        scale = torch._foreach_div(rms, 1 - beta2**count)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_lerp_(mean, torch._foreach_div(grads, scale), 1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_add_(params, mean, alpha=-lr / (1 - beta1**count))


def clip_adaptive(params: list[Tensor], limit: float, least: float = 1e-3) -> list[Tensor]:
    """Shrink each gradient to at most `limit` times its parameter's norm.

    Args:
        params: with gradients.
        limit: share of the parameter norm; 0 leaves the gradients alone.
        least: a parameter's norm counts as at least this, so that zeros can grow.

    Returns:
        The gradients, clipped copies.
    """
    grads = [p.grad for p in params if p.grad is not None]
    if limit == 0:
        return [g.clone() for g in grads]
    norms = torch.stack(torch._foreach_norm(grads))
    bounds = torch.stack(torch._foreach_norm(params)).clamp(min=least) * limit
    factors = (bounds / norms.clamp(min=1e-20)).clamp(max=1.0)
    return list(torch._foreach_mul(grads, list(factors.unbind())))
