"""Symmetric logarithm: compress large magnitudes, keep the sign."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """Compress: sign(x) * ln(1 + |x|).

    Args:
        x: any shape.

    Returns:
        The same shape.

    Reference:
        Hafner et al., Mastering Diverse Domains through World Models, 2023, arXiv 2301.04104, eq. 9.

    Example:
        >>> import torch
        >>> symlog(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.6931,  0.0000,  0.6931])
    """
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Invert `symlog`: sign(x) * (exp(|x|) - 1).

    Args:
        x: any shape.

    Returns:
        The same shape.
    """
    return torch.sign(x) * torch.expm1(x.abs())
