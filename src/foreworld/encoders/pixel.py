"""Pictures to tokens and back: the official convolutions and a form a seventh as costly on a CPU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Space
from foreworld.core.errors import SpecError
from foreworld.nn.conv import (
    ChannelLayerNorm,
    ChannelNorm,
    DoubleStrided,
    DoubleUpsampled,
    HalvePooled,
    HalveStrided,
    channels_last,
)
from foreworld.nn.mlp import MLP, Linear
from foreworld.nn.recurrent import BlockLinear

Form = Literal["official", "strided"]
PixelLoss = Literal["plain", "normalised"]

WIDTHS: dict[str, tuple[int, ...]] = {"official": (2, 3, 4, 4, 4), "strided": (1, 2, 4, 8, 8)}
"""Channels after each halving, as multiples of the depth."""

LEAST_DEVIATION = 0.03
"""Floor of a pixel's deviation (about 8 of 255 levels): constant pixels must not weigh infinitely."""


class Picture:
    """The joint geometry of the image observations: they are stacked on channels.

    Args:
        spaces: image spaces by name.

    Raises:
        SpecError: sizes that differ, or that cannot be halved to between 3 and 7 pixels; names the key.
    """

    def __init__(self, spaces: dict[str, Space]) -> None:
        self.keys = sorted(spaces)
        self.channels = [spaces[k].shape[0] for k in self.keys]
        sizes = {k: spaces[k].shape[1:] for k in self.keys}
        self.height, self.width = sizes[self.keys[0]]
        for key, size in sizes.items():
            if size != (self.height, self.width):
                raise SpecError(f"{key!r}: images must share one size, found {sizes}; resize them (image_size=64)")
        self.halvings = 0
        height, width = self.height, self.width
        while min(height, width) > 7 and height % 2 == 0 and width % 2 == 0:
            height, width, self.halvings = height // 2, width // 2, self.halvings + 1
        if not (3 <= min(height, width) <= 7 and max(height, width) <= 16 and 1 <= self.halvings <= 5):
            raise SpecError(
                f"{self.keys[0]!r}: {self.height}x{self.width} pixels cannot be halved evenly to between 3 and 7; "
                f"resize to 32, 64, 96 or 128 (image_size=64)"
            )
        self.small = (height, width)

    def join(self, obs: dict[str, Tensor]) -> Tensor:
        """Stack the images [.., C, H, W] of all keys on channels."""
        return torch.cat([obs[k] for k in self.keys], -3) if len(self.keys) > 1 else obs[self.keys[0]]

    def split(self, pixels: Tensor) -> dict[str, Tensor]:
        """Undo `join`."""
        return dict(zip(self.keys, pixels.split(self.channels, -3), strict=True))


class PixelScale(nn.Module):
    """Map uint8 pixels to network units and back, by their own mean and deviation or by a constant.

    With per-pixel statistics of the training frames, a small moving thing weighs as much
    as a large one, and the static background nothing.

    Args:
        shape: (C, H, W).
        loss: `plain` is x / 255 - 0.5; `normalised` uses the statistics set by `fit`.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor

    def __init__(self, shape: tuple[int, int, int], loss: PixelLoss) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("mean", torch.full(shape, 0.5))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("weight", torch.ones(shape))

    def fit(self, total: Tensor, squares: Tensor, count: int) -> None:
        """Set mean and deviation from sums over `count` frames in [0, 1]; sums are [C, H, W]."""
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_DEVIATION))

    def stress(self, explained: Tensor, strength: float) -> None:
        """Weigh pixels more whose change the actions explain.

        Without this, a small player among many moving things is learned last, if at all.

        Args:
            explained: [C, H, W], share of the variance of a pixel's change that the actions explain.
            strength: extra weight of the pixel that they explain best.
        """
        self.weight.copy_(1 + strength * explained / explained.max().clamp(min=1e-6))

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn uint8 [.., C, H, W] into network units."""
        gain = 1 / (255 * self.std)
        x = pixels.float()
        # one pass, in place: pictures are the largest tensors of an update
        return torch.addcmul(-self.mean / self.std, x, gain, out=x)

    def invert(self, units: Tensor) -> Tensor:
        """Turn decoder output into intensities in [0, 1]."""
        if self.loss == "plain":
            return torch.sigmoid(units)
        return (units * self.std + self.mean).clamp(0, 1)

    def distance(self, units: Tensor, pixels: Tensor) -> Tensor:
        """Sum the squared error of decoder output over pixels: [.., C, H, W] to [..].

        `plain`: of intensities, as in DreamerV3. `normalised`: half, in units of each
        pixel's deviation, the negative log-likelihood of a unit Gaussian.
        """
        if self.loss == "plain":
            return (self.weight * (torch.sigmoid(units) - pixels.float() / 255).square()).sum((-3, -2, -1))
        return 0.5 * (self.weight * (units - self(pixels)).square()).sum((-3, -2, -1))


class PixelEncoder(nn.Module):
    """Pictures in network units to flat tokens.

    Args:
        picture: the geometry.
        depth: base number of channels.
        form: `official` (5x5, stride 1, max-pool) or `strided` (4x4, stride 2).
    """

    def __init__(self, picture: Picture, depth: int, form: Form) -> None:
        super().__init__()
        widths = [depth * m for m in WIDTHS[form][: picture.halvings]]
        stage = HalvePooled if form == "official" else HalveStrided
        inputs = [sum(picture.channels), *widths[:-1]]
        self.stages = nn.Sequential(*(stage(a, b) for a, b in zip(inputs, widths, strict=True)))
        self.width = widths[-1] * picture.small[0] * picture.small[1]

    def forward(self, units: Tensor) -> Tensor:
        """Map [.., C, H, W] to [.., width]."""
        lead = units.shape[:-3]
        return self.stages(channels_last(units.flatten(0, -4))).flatten(1).unflatten(0, lead)


class PixelDecoder(nn.Module):
    """Deterministic and stochastic state to pictures in network units.

    Args:
        picture: the geometry.
        deter: width D.
        stoch: width Z.
        depth: base number of channels.
        units: half the width of the hidden layer.
        blocks: blocks of the deterministic path; official form only.
        form: `official` (nearest doubling and 5x5) or `strided` (transposed 4x4).
    """

    def __init__(
        self, picture: Picture, deter: int, stoch: int, depth: int, units: int, blocks: int, form: Form
    ) -> None:
        super().__init__()
        widths = [depth * m for m in WIDTHS[form][: picture.halvings]][::-1]
        self.small = (widths[0], *picture.small)
        flat = widths[0] * picture.small[0] * picture.small[1]
        self.official = form == "official"
        if self.official:
            self.from_deter: nn.Module = BlockLinear(deter, flat, blocks)
            self.from_stoch = nn.Sequential(MLP(stoch, 2 * units, 1), Linear(2 * units, flat))
        else:
            # a hidden layer before the map: the pixel loss fell faster with it (docs/log.md)
            self.from_both = nn.Sequential(MLP(deter + stoch, 2 * units, 1), Linear(2 * units, flat))
        stage, norm = (DoubleUpsampled, ChannelNorm) if self.official else (DoubleStrided, ChannelLayerNorm)
        self.norm = norm(widths[0])
        outputs = [*widths[1:], sum(picture.channels)]
        self.stages = nn.ModuleList(stage(a, b) for a, b in zip(widths, outputs, strict=True))
        self.norms = nn.ModuleList(norm(width) for width in outputs[:-1])

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Map [.., D] and [.., Z] to [.., C, H, W]."""
        lead = deter.shape[:-1]
        if self.official:
            x = self.from_deter(deter) + self.from_stoch(stoch)
        else:
            x = self.from_both(torch.cat([deter, stoch], -1))
        x = x.flatten(0, -2).unflatten(-1, self.small)
        x = F.silu(self.norm(channels_last(x)))
        for stage, norm in zip(self.stages, self.norms, strict=False):
            x = F.silu(norm(stage(x)))
        return self.stages[-1](x).unflatten(0, lead)
