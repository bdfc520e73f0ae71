"""Observations to a latent of a given width, and latents that the data already holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Segment, Space, Spec
from foreworld.core.errors import ConfigError, SpecError
from foreworld.encoders.hybrid import split_spaces
from foreworld.encoders.pixel import LEAST_DEVIATION
from foreworld.encoders.principal import Principal
from foreworld.encoders.symbolic import SymbolicEncoder
from foreworld.encoders.vision import Impala, RotaryViT, ViT
from foreworld.nn.mlp import Hidden, Linear
from foreworld.nn.precision import at_least_single


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How pictures are read.

    Attributes:
        kind: `impala`, residual convolutions; `vit`, a vision transformer; `dino` and `vjepa`, one as DINOv2 and one as
            V-JEPA 2 has it, for weights that were trained elsewhere (`load_vit`).
        widths: `impala`: channels of its stages, each of which halves the picture.
        blocks: `impala`: residual blocks of a stage; transformers: their blocks.
        patch: `impala`: step of the first convolution; transformers: pixels of a patch's side.
        heads: transformers: of the attention.
        tokens: transformers: width of the tokens.
        hidden: transformers: width of the blocks' hidden layers; 0 for four times `tokens`.
        side: pixels that the pictures' sides are resized to first; 0 leaves them as they are.
        fields: transformers: n reads the means of n x n fields of the picture, side by side, which say where things
            are; 0 what stands for the whole: a token of its own, of `vjepa` the mean of all patches.
        out: what makes a latent of that: `layers`, or `principal` components found in training data, for a frozen
            encoder, whose layers would be as they were drawn.
    """

    kind: Literal["impala", "vit", "dino", "vjepa"] = "impala"
    widths: tuple[int, ...] = (16, 32, 32)
    blocks: int = 1
    patch: int = 2
    heads: int = 4
    tokens: int = 128
    hidden: int = 0
    side: int = 0
    fields: int = 0
    out: Literal["layers", "principal"] = "layers"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        least = {"blocks": 1, "patch": 1, "heads": 1, "tokens": 1, "hidden": 0, "side": 0, "fields": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"vision.{name} must be at least {value}, found {getattr(self, name)}")
        if self.fields and self.kind == "impala":
            raise ConfigError("vision.fields: convolutions keep places as they are; set vision.kind to a transformer")
        if not self.widths or min(self.widths) < 1:
            raise ConfigError(f"vision.widths: a stage has at least one channel, found {list(self.widths)}")

    def build(self, shape: tuple[int, int, int]) -> Impala | ViT | RotaryViT:
        """Build the network for pictures (C, H, W)."""
        if self.side:
            shape = (shape[0], self.side, self.side)
        if self.kind == "impala":
            return Impala(shape, self.widths, self.blocks, self.patch)
        if self.kind == "vjepa":
            return RotaryViT(shape, self.patch, self.tokens, self.blocks, self.heads, self.hidden, self.fields)
        scaled = self.kind == "dino"
        return ViT(shape, self.patch, self.tokens, self.blocks, self.heads, scaled, self.hidden, self.fields)


class LatentEncoder(nn.Module):
    """Observations by name to one latent: pictures by a network for pictures, all else by an MLP.

    Args:
        spec: names the observations.
        latent: width E.
        units: width of the hidden layers.
        vision: how pictures are read.

    Raises:
        SpecError: pictures of different sizes.
    """

    def __init__(self, spec: Spec, latent: int, units: int, vision: Vision) -> None:
        super().__init__()
        pictures, symbols = split_spaces(spec)
        self.keys = sorted(pictures)
        self.shape = _joint_shape(pictures) if pictures else None
        self.scale = ChannelScale(self.shape[0]) if self.shape else None
        self.pixels, self.side = vision.build(self.shape) if self.shape else None, vision.side
        self.symbols = SymbolicEncoder(symbols, units, 2) if symbols else None
        width = (self.pixels.width if self.pixels else 0) + (units if self.symbols else 0)
        layered = vision.out == "layers"
        self.out = nn.Sequential(Hidden(width, units), Linear(units, latent)) if layered else Principal(width, latent)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [.., *shape] to latents [.., E]."""
        return at_least_single(self.out(self.features(obs)))

    def features(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [.., *shape] to what the latent is made of, [.., D]."""
        parts: list[Tensor] = []
        if self.pixels is not None and self.scale is not None:
            pictures = self._join(obs)
            units = self.scale(pictures.flatten(0, -4))
            if self.side:
                units = F.interpolate(units, (self.side, self.side), mode="bilinear", antialias=True)
            parts.append(self.pixels(units).unflatten(0, pictures.shape[:-3]))
        if self.symbols is not None:
            parts.append(self.symbols(obs))
        return torch.cat(parts, -1)

    def fit(self, segments: Iterator[Segment]) -> None:
        """Set the scale of pictures from training data."""
        if self.scale is not None:
            self.scale.fit(self._join(segment.obs).flatten(0, -4) for segment in segments)

    @torch.no_grad()
    def fit_out(self, segments: Iterator[Segment]) -> None:
        """Find the principal components of the features of training data, unless they are known or not asked for."""
        if isinstance(self.out, Principal) and not self.out.known:
            self.out.fit(torch.cat([self.features(segment.obs).flatten(0, -2) for segment in segments]))

    def _join(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.cat([obs[key] for key in self.keys], -3) if len(self.keys) > 1 else obs[self.keys[0]]


class ChannelScale(nn.Module):
    """Centre every channel of pictures, and scale all by one deviation.

    With a scale for every channel one that is empty but for a dot would outweigh whatever the others show: in two
    rooms a JEPA did not find the door then.

    Args:
        channels: C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((channels, 1, 1), 0.25))

    def forward(self, pictures: Tensor) -> Tensor:
        """Map uint8 [N, C, H, W] to network units."""
        gain = 1 / (255 * self.std)
        x = pictures.float()
        return torch.addcmul(-self.mean / self.std, x, gain, out=x)

    def fit(self, batches: Iterator[Tensor]) -> None:
        """Take means and the deviation from uint8 batches [N, C, H, W]."""
        total = torch.zeros(2, len(self.mean), dtype=torch.float64)
        count = 0
        for batch in batches:
            pixels = batch.cpu().float() / 255
            total += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))]).double()
            count += pixels.numel() // pixels.shape[1]
        mean, square = total / max(count, 1)
        self.mean.copy_(mean[:, None, None])
        self.std.fill_((square - mean.square()).clamp(min=0).mean().sqrt().clamp(min=LEAST_DEVIATION))


class GivenLatents(nn.Module):
    """Take the observations themselves as the latent, such as features of a frozen encoder: centred and scaled.

    Args:
        spec: its observations are vectors.

    Raises:
        SpecError: an observation that is no vector; names it.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.keys = sorted(spec.obs)
        for key in self.keys:
            if spec.obs[key].kind != "vector":
                raise SpecError(f"{key!r}: latents that the data holds are vectors, found {spec.obs[key].kind}")
        self.width = sum(spec.obs[key].width for key in self.keys)
        self.dims = {key: len(spec.obs[key].shape) for key in self.keys}
        self.register_buffer("shift", torch.zeros(self.width))
        self.register_buffer("spread", torch.ones(self.width))

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [.., *shape] to latents [.., E]."""
        return (self._join(obs) - self.shift) / self.spread

    def fit(self, segments: Iterator[Segment]) -> None:
        """Take mean and deviation of every number from training data."""
        rows = torch.cat([self._join(segment.obs).flatten(0, -2) for segment in segments])
        self.shift.copy_(rows.mean(0))
        spread = rows.std(0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def _join(self, obs: dict[str, Tensor]) -> Tensor:
        flat = [obs[key].float().flatten(obs[key].dim() - self.dims[key]) for key in self.keys]
        return torch.cat(flat, -1)


def _joint_shape(pictures: dict[str, Space]) -> tuple[int, int, int]:
    """Return (C, H, W) of all pictures stacked on channels."""
    sizes = {key: space.shape[1:] for key, space in pictures.items()}
    if len(set(sizes.values())) > 1:
        raise SpecError(f"images must share one size, found {sizes}; resize them (image_size=64)")
    height, width = next(iter(sizes.values()))
    return sum(space.shape[0] for space in pictures.values()), height, width
