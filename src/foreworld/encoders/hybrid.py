"""Encoders and decoders that build themselves from a Spec: any mix of pictures, vectors and integers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from foreworld.core import Segment, Space, Spec
from foreworld.encoders.pixel import Form, Picture, PixelDecoder, PixelEncoder, PixelLoss, PixelScale
from foreworld.encoders.symbolic import SymbolicDecoder, SymbolicEncoder
from foreworld.ops.regress import Moments, merge, moments, residual, ridge

STILL = 1e-6
"""A pixel whose change has less variance than this (a quarter of one of 255 levels) stands still."""


class ObsEncoder(nn.Module):
    """Observations by name to tokens.

    Args:
        spec: names the observations.
        depth: base channels of the convolutions.
        units: width of the symbolic layers.
        layers: number of symbolic layers.
        form: form of the convolutions.
        scale: how pixels become network units; shared with the decoder. None without images.
    """

    def __init__(self, spec: Spec, depth: int, units: int, layers: int, form: Form, scale: PixelScale | None) -> None:
        super().__init__()
        pictures, symbols = split_spaces(spec)
        self.picture = Picture(pictures) if pictures else None
        self.scale = scale
        self.pixels = PixelEncoder(self.picture, depth, form) if self.picture else None
        self.symbols = SymbolicEncoder(symbols, units, layers) if symbols else None
        self.width = (self.pixels.width if self.pixels else 0) + (self.symbols.width if self.symbols else 0)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [.., *shape] to tokens [.., width]."""
        parts = []
        if self.picture is not None and self.pixels is not None and self.scale is not None:
            parts.append(self.pixels(self.scale(self.picture.join(obs))))
        if self.symbols is not None:
            parts.append(self.symbols(obs))
        return torch.cat(parts, -1)


class ObsDecoder(nn.Module):
    """State to observations by name, with their losses.

    Args:
        spec: names the observations.
        deter: width D of the deterministic state.
        stoch: width Z of the stochastic state.
        depth: base channels of the convolutions.
        units: width of the layers.
        layers: number of symbolic layers.
        blocks: blocks of the official pixel decoder.
        form: form of the convolutions.
        scale: how pixels become network units; shared with the encoder. None without images.
    """

    def __init__(
        self,
        spec: Spec,
        deter: int,
        stoch: int,
        depth: int,
        units: int,
        layers: int,
        blocks: int,
        form: Form,
        scale: PixelScale | None,
    ) -> None:
        super().__init__()
        pictures, symbols = split_spaces(spec)
        self.picture = Picture(pictures) if pictures else None
        self.scale = scale
        self.pixels = PixelDecoder(self.picture, deter, stoch, depth, units, blocks, form) if self.picture else None
        self.symbols = SymbolicDecoder(symbols, deter + stoch, units, layers) if symbols else None

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        """Map [.., D] and [.., Z] to expected observations: intensities in [0, 1], source units, probabilities."""
        found: dict[str, Tensor] = {}
        if self.picture is not None and self.pixels is not None and self.scale is not None:
            found |= self.picture.split(self.scale.invert(self.pixels(deter, stoch)))
        if self.symbols is not None:
            found |= self.symbols.observations(self.symbols(torch.cat([deter, stoch], -1)))
        return found

    def losses(self, deter: Tensor, stoch: Tensor, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute reconstruction losses [..]: `pixels` for all images together, and one per symbolic key."""
        terms: dict[str, Tensor] = {}
        if self.picture is not None and self.pixels is not None and self.scale is not None:
            terms["pixels"] = self.scale.distance(self.pixels(deter, stoch), self.picture.join(obs))
        if self.symbols is not None:
            terms |= self.symbols.losses(self.symbols(torch.cat([deter, stoch], -1)), obs)
        return terms


def pixel_scale(spec: Spec, loss: PixelLoss) -> PixelScale | None:
    """Build the pixel scale that encoder and decoder share; None without images."""
    pictures, _ = split_spaces(spec)
    if not pictures:
        return None
    picture = Picture(pictures)
    return PixelScale((sum(picture.channels), picture.height, picture.width), loss)


def fit_pixel_scale(scale: PixelScale, spec: Spec, segments: Iterator[Segment]) -> None:
    """Set the per-pixel mean and deviation from training segments."""
    picture = Picture(split_spaces(spec)[0])
    total, squares, count = torch.zeros(scale.mean.shape), torch.zeros(scale.mean.shape), 0
    for segment in segments:
        pixels = picture.join(segment.obs).flatten(0, 1).float().cpu() / 255
        total += pixels.sum(0)
        squares += pixels.square().sum(0)
        count += len(pixels)
    scale.fit(total, squares, count)


def fit_control_weight(scale: PixelScale, spec: Spec, segments: Iterator[Segment], strength: float) -> None:
    """Weigh pixels by how much of the size of their change a linear function of the action explains."""
    picture = Picture(split_spaces(spec)[0])
    total: Moments | None = None
    for segment in segments:
        if segment.prev_action is None:
            return
        pixels = picture.join(segment.obs).float().cpu() / 255
        change = (pixels[:, 1:] - pixels[:, :-1]).abs()
        action = segment.prev_action[:, 1:].cpu()
        moved = ~segment.is_first[:, 1:].cpu()
        found = moments(torch.cat([action, action.abs()], -1)[moved], change[moved].flatten(1))
        total = found if total is None else merge(total, found)
    if total is not None:
        left = residual(total, *ridge(total, 1e-3))
        # a pixel that never changes is explained by nothing
        explained = torch.where(total.yy > STILL, 1 - left / total.yy.clamp(min=STILL), 0.0)
        scale.stress(explained.clamp(min=0).float().reshape(scale.mean.shape), strength)


def split_spaces(spec: Spec) -> tuple[dict[str, Space], dict[str, Space]]:
    """Separate the image spaces from the symbolic ones."""
    pictures = {key: space for key, space in spec.obs.items() if space.kind == "image"}
    return pictures, {key: space for key, space in spec.obs.items() if key not in pictures}
