"""Two-hot regression: a scalar as a categorical distribution over exponentially spaced bins."""

from __future__ import annotations

import torch
from torch import Tensor

from foreworld.ops.symlog import symexp


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """Return the bin centres, symmetric around zero.

    Args:
        count: number of bins; odd, so that zero is one of them.
        limit: the outermost bins are at plus and minus exp(limit) - 1.

    Returns:
        [count], ascending. The negative half mirrors the positive one to the bit.

    Raises:
        ValueError: an even count, or fewer than 3.
    """
    if count % 2 == 0 or count < 3:
        raise ValueError(f"bins: count must be odd and at least 3, found {count}")
    half = symexp(torch.linspace(-limit, 0, count // 2 + 1))
    return torch.cat([half, -half[:-1].flip(0)])


def twohot(x: Tensor, bins: Tensor) -> Tensor:
    """Split each scalar between its two neighbouring bins by distance.

    Args:
        x: [..], values beyond the outer bins go to the outer bin.
        bins: [K] ascending.

    Returns:
        [.., K], rows sum to one, and their mean over the bins is `x`.

    Reference:
        Hafner et al. 2023, arXiv 2301.04104, eq. 10; the distance is taken in raw space, as in the code.
    """
    below, share = _neighbours(x, bins)
    target = torch.zeros(*x.shape, len(bins), device=x.device, dtype=x.dtype)
    target.scatter_(-1, below.unsqueeze(-1), (1 - share).unsqueeze(-1))
    return target.scatter_(-1, below.unsqueeze(-1) + 1, share.unsqueeze(-1))


def twohot_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Compute the cross-entropy between two-hot targets and predicted bins.

    Args:
        logits: [.., K].
        x: [..] targets in raw units.
        bins: [K].

    Returns:
        [..], nats.
    """
    return twohot_cross_entropy(torch.log_softmax(logits, -1), x, bins)


def twohot_cross_entropy(
    log_probs: Tensor, x: Tensor, bins: Tensor, other: Tensor | None = None, weight: float = 1.0
) -> Tensor:
    """Compute the same from log-probabilities, of which only the two bins of each target are read.

    Args:
        log_probs: [.., K].
        x: [..] targets in raw units.
        bins: [K].
        other: [..] further targets; both at once have one backward pass over all bins, not two.
        weight: of the cross-entropy to `other`, which is added.

    Returns:
        [..], nats.
    """
    places, shares = _places(x, bins)
    if other is not None:
        found = _places(other, bins)
        places, shares = torch.cat([places, found[0]], -1), torch.cat([shares, weight * found[1]], -1)
    return (log_probs.gather(-1, places) * shares).sum(-1).neg()


def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Return the expected value of a categorical over bins.

    The sum pairs every bin with its mirror image, so that uniform logits give exactly
    zero although the outer bins are huge.

    Args:
        logits: [.., K] with K odd; log-probabilities will do as well.
        bins: [K], symmetric around zero.

    Returns:
        [..], raw units.
    """
    probs = torch.softmax(logits, -1)
    middle = len(bins) // 2
    return (probs[..., middle + 1 :] - probs[..., :middle].flip(-1)) @ bins[middle + 1 :]


def _places(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two bins of each scalar, and their shares, [.., 2] each."""
    below, share = _neighbours(x, bins)
    return torch.stack([below, below + 1], -1), torch.stack([1 - share, share], -1)


def _neighbours(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each scalar the bin below it, and the share of the one above."""
    below = (torch.searchsorted(bins, x.contiguous(), right=True) - 1).clamp(0, len(bins) - 2)
    low, high = bins[below], bins[below + 1]
    return below, ((x - low) / (high - low)).clamp(0, 1)
