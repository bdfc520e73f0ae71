"""The unit of errors: variances gathered row by row, and what they are divided by."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SHARE = 1e-4
"""A number of a vector that varies less than this share of their mean variance is measured by that share."""


class Variance:
    """Gather the variance of every entry over rows, batch by batch, in float64.

    Example:
        >>> import torch
        >>> found = Variance()
        >>> for batch in torch.arange(6.0).view(3, 2, 1):
        ...     found.add(batch)
        >>> found.value()
        tensor([2.9167], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.count, self.total, self.squares = (torch.zeros((), dtype=torch.float64) for _ in range(3))

    def add(self, value: Tensor, counts: Tensor | None = None) -> None:
        """Add rows [N, ...]; entries where `counts` [N, ...] is false are left out."""
        weight = torch.ones_like(value, dtype=torch.float64) if counts is None else counts.double()
        row = value.double() * weight
        self.count = self.count + weight.sum(0)
        self.total, self.squares = self.total + row.sum(0), self.squares + row.square().sum(0)

    def value(self) -> Tensor:
        """Return the variance of every entry, [...]; 0 where nothing was added."""
        count = self.count.clamp(min=1)
        return (self.squares / count - (self.total / count).square()).clamp(min=0)


def error_unit(variance: Tensor, vector: bool) -> Tensor:
    """Return what squared errors of an observation are divided by.

    Args:
        variance: [...] of every entry.
        vector: whether each entry has a unit of its own; pixels and classes share one.

    Returns:
        [...] for a vector, none of them next to nothing; else one number.
    """
    pooled = variance.mean().clamp(min=1e-12)
    return variance.clamp(min=float(pooled) * LEAST_SHARE) if vector else pooled
