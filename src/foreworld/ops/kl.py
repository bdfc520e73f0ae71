"""Kullback-Leibler divergences and free nats."""

from __future__ import annotations

import torch
from torch import Tensor


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p || q) of categoricals.

    Args:
        log_p: [.., K] log-probabilities.
        log_q: [.., K] log-probabilities.

    Returns:
        [..], nats.
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def gaussian_kl(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """Compute KL(p || q) of independent Gaussians.

    Args:
        mean_p: [.., D].
        std_p: [.., D], positive.
        mean_q: [.., D].
        std_q: [.., D], positive.

    Returns:
        [..], nats, summed over D.
    """
    ratio = std_p / std_q
    return (0.5 * (ratio.square() + ((mean_p - mean_q) / std_q).square() - 1) - torch.log(ratio)).sum(-1)


def free_nats(kl: Tensor, threshold: float) -> Tensor:
    """Stop pushing a divergence below a threshold: max(threshold, kl).

    Args:
        kl: [..], already summed over the latents.
        threshold: nats.

    Returns:
        [..]; the gradient is zero where the threshold holds.
    """
    return kl.clamp(min=threshold)
