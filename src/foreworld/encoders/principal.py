"""Many features to the few numbers in which they differ most."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreworld.core.errors import ConfigError

ROUNDS, MORE = 4, 16
"""Power iterations of the randomised decomposition, and directions beside those asked for."""


class Principal(nn.Module):
    """Features along the directions in which those of training data vary most, all in one unit.

    The unit is the root of the mean variance of what is kept, so that distances are those between the features. All is
    zero until `fit`.

    Args:
        features: their number D.
        kept: directions E.

    Raises:
        ConfigError: more directions than features.

    Reference:
        Halko, Martinsson and Tropp, Finding Structure with Randomness, 2011, arXiv 0909.4061, algorithm 5.1.

    Example:
        >>> import torch
        >>> from foreworld.encoders.principal import Principal
        >>> places = torch.randn(500, 2) * torch.tensor([3.0, 1.0])
        >>> features = places @ torch.randn(2, 40) + 7
        >>> reduce = Principal(40, 2)
        >>> reduce.fit(features)
        >>> reduce(features).shape, round(float(reduce(features).square().mean()), 3)
        (torch.Size([500, 2]), 1.0)
    """

    mean: Tensor
    axes: Tensor
    known: Tensor

    def __init__(self, features: int, kept: int) -> None:
        super().__init__()
        if kept > features:
            raise ConfigError(f"principal components: asked for {kept} of {features} features; take a smaller latent")
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("axes", torch.zeros(features, kept))
        self.register_buffer("known", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [.., D] to [.., E]."""
        return (features - self.mean) @ self.axes

    def fit(self, features: Tensor) -> None:
        """Take the directions from features [N, D].

        Raises:
            ConfigError: fewer rows than directions, or the same in all rows.
        """
        rows, kept = len(features), self.axes.shape[1]
        if rows <= kept:
            raise ConfigError(f"principal components: {kept} need more rows than {rows}; raise fit.calibration")
        mean = features.mean(0)
        centred = features - mean
        _, values, directions = torch.svd_lowrank(centred, min(kept + MORE, *centred.shape), ROUNDS)
        unit = values[:kept].square().mean().div(rows).sqrt()
        if not unit > 0:
            raise ConfigError("principal components: the features of all training data are the same")
        self.mean.copy_(mean)
        self.axes.copy_(directions[:, :kept] / unit)
        self.known.fill_(True)
