"""How many directions features really use."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_rank(features: Tensor, *, centre: bool = True) -> float:
    """Return exp of the entropy of the normalised singular values.

    Features that have collapsed show a number far below D, although all their entries vary.

    Args:
        features: [N, D].
        centre: take off the mean of each column first: an offset that all rows share tells nothing apart.

    Returns:
        Between 1 and the smaller of N and D; 0 where nothing varies, NaN where an entry is not finite.

    Reference:
        Roy and Vetterli, The effective rank, EUSIPCO 2007, definition 1 (of the matrix as it is: `centre=False`).

    Example:
        >>> import torch
        >>> round(effective_rank(torch.eye(4), centre=False), 3)
        4.0
    """
    if not features.isfinite().all():
        return math.nan
    matrix = features.double()
    largest = matrix.abs().max()
    if centre:
        matrix = matrix - matrix.mean(0)
    values = torch.linalg.svdvals(matrix)
    total = values.sum()
    # what centring leaves of constant columns is rounding
    if total <= 1e-12 * largest * max(matrix.shape):
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())
