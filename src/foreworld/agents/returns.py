"""The range of returns, by which advantages are divided so that one entropy weight fits every task."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReturnRange(nn.Module):
    """Follow two percentiles of the returns; their distance is what a large difference is in this task.

    Args:
        rate: share by which the percentiles follow those of a batch; they start at 0.
        low: lower percentile, as a share.
        high: upper percentile, as a share.
        least: small ranges count as this, so that noise is not blown up where rewards are rare.

    Reference:
        Hafner et al. 2023, arXiv 2301.04104, eq. 7.

    Example:
        >>> import torch
        >>> found = ReturnRange(rate=1.0).update(torch.linspace(0, 100, 1001))
        >>> round(float(found), 1)
        90.0
    """

    lower: Tensor
    upper: Tensor
    shares: Tensor

    def __init__(self, rate: float = 0.01, low: float = 0.05, high: float = 0.95, least: float = 1.0) -> None:
        super().__init__()
        self.rate, self.least = rate, least
        self.register_buffer("shares", torch.tensor([low, high]), persistent=False)
        self.register_buffer("lower", torch.zeros(()))
        self.register_buffer("upper", torch.zeros(()))
        self._before: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take a batch of returns, of any shape, into account; return the range, a scalar.

        Returns that are not finite change nothing: the update that they belong to will be skipped.
        """
        self._before = self.lower.clone(), self.upper.clone()
        found = torch.quantile(returns.flatten().to(self.shares.dtype), self.shares)
        sound = found.isfinite().all()
        for held, now in zip((self.lower, self.upper), found.unbind(), strict=True):
            held.copy_(torch.where(sound, held + self.rate * (now - held), held))
        return (self.upper - self.lower).clamp(min=self.least)

    @torch.no_grad()
    def keep_where(self, sound: Tensor) -> None:
        """Forget the returns of the last `update` unless `sound`, a scalar bool, is true.

        An update of the weights that is skipped for whatever reason may have come with returns that are finite but
        absurd; the range would take thousands of updates to forget them.
        """
        for held, before in zip((self.lower, self.upper), self._before or (), strict=False):
            held.copy_(torch.where(sound, held, before))
