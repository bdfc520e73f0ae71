"""Heads that read features: scalars by two-hot bins, and probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.nn.mlp import MLP, Linear
from foreworld.nn.precision import at_least_single
from foreworld.ops import symexp_bins, twohot_cross_entropy, twohot_mean


class TwoHotHead(nn.Module):
    """Predict a scalar of any magnitude as a distribution over 255 exponentially spaced bins.

    Args:
        inputs: width of the features.
        units: width of the layers.
        layers: how many.
    """

    bins: Tensor

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.body = MLP(inputs, units, layers)
        self.register_buffer("bins", symexp_bins(), persistent=False)
        # zero weights: the first prediction is exactly zero, not a random huge number
        self.out = Linear(units, len(self.bins), outscale=0.0)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the expected value [..] for features [.., D]."""
        return self.mean(self._logits(feat))

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy [..] for raw targets [..]."""
        return self.cross_entropy(self.log_probs(feat), target)

    def log_probs(self, feat: Tensor) -> Tensor:
        """Return the log-probabilities [.., K] of the bins, for who needs more than one of what follows."""
        return torch.log_softmax(self._logits(feat), -1)

    def _logits(self, feat: Tensor) -> Tensor:
        # losses and distributions are float32 whatever autocast computes in
        return at_least_single(self.out(self.body(feat)))

    def mean(self, log_probs: Tensor) -> Tensor:
        """Return the expected value [..] of log-probabilities [.., K]."""
        return twohot_mean(log_probs, self.bins)

    def cross_entropy(
        self, log_probs: Tensor, target: Tensor, other: Tensor | None = None, weight: float = 1.0
    ) -> Tensor:
        """Return the cross-entropy [..] of log-probabilities [.., K] for raw targets, plus weight times for others."""
        return twohot_cross_entropy(log_probs, target, self.bins, other, weight)


class BernoulliHead(nn.Module):
    """Predict a probability.

    Args:
        inputs: width of the features.
        units: width of the layers.
        layers: how many.
    """

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.body = MLP(inputs, units, layers)
        self.out = Linear(units, 1)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the probability [..] for features [.., D]."""
        return torch.sigmoid(self._logit(feat))

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy [..] for targets [..] in [0, 1]."""
        return F.binary_cross_entropy_with_logits(self._logit(feat), target, reduction="none")

    def _logit(self, feat: Tensor) -> Tensor:
        return at_least_single(self.out(self.body(feat))).squeeze(-1)
