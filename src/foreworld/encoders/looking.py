"""Latents back to observations, for eyes only: nothing is judged by it, and no latent is shaped by it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Spec
from foreworld.encoders.hybrid import split_spaces
from foreworld.encoders.symbolic import SymbolicDecoder
from foreworld.nn.conv import ChannelLayerNorm, DoubleStrided
from foreworld.nn.mlp import MLP, Linear
from foreworld.nn.precision import at_least_single

WIDTHS = (64, 32, 16)
"""Channels before each doubling of a picture."""
HALVINGS = len(WIDTHS)


class LookingDecoder(nn.Module):
    """Show what lies in a latent: pictures of any size by transposed convolutions, all else by an MLP.

    Args:
        spec: names the observations.
        latent: width E.
        units: width of the hidden layers.
    """

    def __init__(self, spec: Spec, latent: int, units: int) -> None:
        super().__init__()
        pictures, symbols = split_spaces(spec)
        self.pictures = nn.ModuleDict(
            {key: _PictureDecoder(space.shape, latent, units) for key, space in sorted(pictures.items())}
        )
        self.symbols = SymbolicDecoder(symbols, latent, units, 2) if symbols else None

    def forward(self, latents: Tensor) -> dict[str, Tensor]:
        """Map latents [.., E] to observations: intensities in [0, 1], vectors in source units, probabilities."""
        found: dict[str, Tensor] = {key: torch.sigmoid(picture(latents)) for key, picture in self.pictures.items()}
        if self.symbols is not None:
            found |= self.symbols.observations(self.symbols(latents))
        return found

    def loss(self, latents: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """Return how wrong it shows observations [..], summed over keys.

        Pictures: Kullback-Leibler divergence from intensities, mean over pixels times 100, as a dot is few pixels of
        many; others as in `SymbolicDecoder`. Cross-entropy would have the same gradient, but what is grey would hide
        whether anything is learned.
        """
        total = latents.new_zeros(latents.shape[:-1])
        for key, picture in self.pictures.items():
            true = obs[key].float() / 255
            wrong = F.binary_cross_entropy_with_logits(picture(latents), true, reduction="none")
            wrong = wrong + torch.xlogy(true, true) + torch.xlogy(1 - true, 1 - true)
            total = total + 100 * wrong.flatten(-3).mean(-1)
        if self.symbols is not None:
            total = total + sum(self.symbols.losses(self.symbols(latents), obs).values())
        return total


class _PictureDecoder(nn.Module):
    """Latents to pictures before the sigmoid; what a doubling draws beyond the edges is cut off."""

    def __init__(self, shape: tuple[int, ...], latent: int, units: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.small = (WIDTHS[0], *(-(-side // 2**HALVINGS) for side in (self.height, self.width)))
        flat = self.small[0] * self.small[1] * self.small[2]
        self.inward = nn.Sequential(MLP(latent, units, 1), Linear(units, flat))
        self.norms = nn.ModuleList(ChannelLayerNorm(width) for width in WIDTHS)
        pairs = zip(WIDTHS, (*WIDTHS[1:], channels), strict=True)
        self.stages = nn.ModuleList(DoubleStrided(a, b) for a, b in pairs)

    def forward(self, latents: Tensor) -> Tensor:
        """Map [.., E] to [.., C, H, W]."""
        x = self.inward(latents.flatten(0, -2)).unflatten(-1, self.small)
        for norm, stage in zip(self.norms, self.stages, strict=True):
            x = stage(F.silu(norm(x)))
        return at_least_single(x)[..., : self.height, : self.width].unflatten(0, latents.shape[:-1])
