"""The optimisers; each can skip an update by a flag that stays on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


class LaProp(Optimizer):
    """Scale by the gradient's root mean square first, and average the scaled gradients after.

    The optimiser of DreamerV3: adaptive gradient clipping, then scaling, then momentum. Unlike with Adam, a
    sudden large gradient cannot be carried on by the momentum. A gradient that is not finite changes nothing.

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
        norms = gradient_norms(self)
        if len(norms):
            self.step_where(norms.isfinite().all(), norms)
        return loss

    @torch.no_grad()
    def step_where(self, sound: Tensor, norms: Tensor) -> None:
        """Update where `sound` is true, and leave weights and state as they are where it is not.

        The choice is a mask on the device: the host waits for nothing.

        Args:
            sound: scalar bool.
            norms: [P], of `gradient_norms`.
        """
        start = 0
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, sound, norms[start : start + len(params)])
            start += len(params)

    def _update(self, group: dict[str, Any], params: list[Tensor], sound: Tensor, norms: Tensor) -> None:
        states = [self.state[p] for p in params]
        for param, slot in zip(params, states, strict=True):
            if not slot:
                slot.update(
                    count=torch.zeros((), device=param.device),
                    rms=torch.zeros_like(param),
                    mean=torch.zeros_like(param),
                )
        keep, one = sound.float(), torch.ones((), device=sound.device)
        torch._foreach_add_([slot["count"] for slot in states], [keep] * len(states))
        count = states[0]["count"].clamp(min=1)
        lr = keep * group["lr"] * (count / max(1, group["warmup"])).clamp(max=1.0)
        beta1, beta2 = group["betas"]
        clip_adaptive_(params, norms, group["agc"])
        grads = [p.grad for p in params if p.grad is not None]
        # a factor of 0 would not do, as 0 times NaN is NaN
        for grad in grads:
            grad.masked_fill_(~sound, 0.0)
        rms, mean = [slot["rms"] for slot in states], [slot["mean"] for slot in states]
        torch._foreach_mul_(rms, torch.where(sound, beta2, one))
        torch._foreach_addcmul_(rms, grads, grads, 1 - beta2)
        scale = torch._foreach_div(rms, correction(beta2, count))
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_reciprocal_(scale)
        torch._foreach_mul_(scale, grads)
        torch._foreach_mul_(mean, torch.where(sound, beta1, one))
        torch._foreach_add_(mean, scale, alpha=1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        # in the memory of `scale`, which is no longer needed: new memory costs more than the arithmetic
        torch._foreach_copy_(scale, mean)
        torch._foreach_mul_(scale, lr / correction(beta1, count))
        torch._foreach_sub_(params, scale)


class AdamW(torch.optim.AdamW):
    """Torch's fused AdamW, which can skip an update by a flag on the device.

    Args:
        params: what to train.
        lr: learning rate.
        weight_decay: decoupled decay per update, times the learning rate.
        clip: largest norm of each parameter's gradient; 0 leaves the gradients alone.
        warmup: updates over which the learning rate rises linearly from 0.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, clip: float = 0.0, warmup: int = 0
    ) -> None:
        params = list(params)
        capturable = bool(params) and params[0].is_cuda  # that is, what a CUDA graph can record
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True, capturable=capturable)
        self.clip, self.warmup = clip, warmup
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None

    def step_where(self, sound: Tensor, norms: Tensor) -> None:
        """Update where `sound` is true, and leave weights and state as they are where it is not.

        Args:
            sound: scalar bool.
            norms: [P], of `gradient_norms`.
        """
        if self.clip:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(grads, list((self.clip / norms.clamp(min=1e-20)).clamp(max=1.0).unbind()))
        # the fused step reads this attribute, by which torch's own gradient scaler tells it of an overflow
        self.found_inf = (~sound).float()
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate * self._warm(group)
        self.step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate

    def _warm(self, group: dict[str, Any]) -> float | Tensor:
        """Return the share of the learning rate that the next update has: a tensor, so that the host need not wait."""
        if self.warmup <= 1:
            return 1.0
        counts = [self.state[p]["step"] for p in group["params"] if p.grad is not None and self.state[p]]
        return ((counts[0] + 1) / self.warmup).clamp(max=1.0) if counts else 1 / self.warmup


class OptimizerConfig(Protocol):
    """The settings of an optimiser, as those of a training hold them."""

    @property
    def optimizer(self) -> str:
        """`laprop` or `adamw`."""
        ...

    @property
    def lr(self) -> float:
        """Learning rate after warm-up."""
        ...

    @property
    def agc(self) -> float:
        """Share of a parameter's norm that a gradient may have; for `laprop`."""
        ...

    @property
    def clip(self) -> float:
        """Largest norm of a parameter's gradient; for `adamw`."""
        ...

    @property
    def warmup(self) -> int:
        """Updates of linear warm-up."""
        ...

    @property
    def weight_decay(self) -> float:
        """Decoupled decay, times the learning rate."""
        ...


class HasParameters(Protocol):
    """A module, as far as its parameters go."""

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Return what is trained."""
        ...


def make_optimizer(model: HasParameters, config: OptimizerConfig) -> LaProp | AdamW:
    """Build the optimiser that a config names, over all parameters that take a gradient."""
    params = [param for param in model.parameters() if param.requires_grad]
    if config.optimizer == "laprop":
        return LaProp(params, lr=config.lr, agc=config.agc, warmup=config.warmup, weight_decay=config.weight_decay)
    return AdamW(params, lr=config.lr, weight_decay=config.weight_decay, clip=config.clip, warmup=config.warmup)


def set_rate(optimizer: Optimizer, lr: float | Tensor) -> None:
    """Set the learning rate of all parameters; a scalar tensor is read when the update is done."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def correction(beta: float, count: Tensor) -> Tensor:
    """Return 1 - beta^count, exact also where float32 would cancel."""
    return -torch.expm1(count * math.log(beta))


def gradient_norms(optimizer: Optimizer) -> Tensor:
    """Return the norms [P] of the gradients, in the order of the optimiser's parameters that have one."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.stack(torch._foreach_norm(grads)) if grads else torch.zeros(0)


def clip_adaptive_(params: list[Tensor], norms: Tensor, limit: float, least: float = 1e-3) -> None:
    """Shrink each gradient, in place, to at most `limit` times its parameter's norm.

    Args:
        params: P of them, with gradients.
        norms: [P], of the gradients.
        limit: share of the parameter norm; 0 leaves the gradients alone.
        least: a parameter's norm counts as at least this, so that zeros can grow.
    """
    if limit == 0:
        return
    bounds = torch.stack(torch._foreach_norm(params)).clamp(min=least) * limit
    factors = (bounds / norms.clamp(min=1e-20)).clamp(max=1.0)
    torch._foreach_mul_([p.grad for p in params if p.grad is not None], list(factors.unbind()))
