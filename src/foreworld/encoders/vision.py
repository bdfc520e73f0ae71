"""Pictures of any size to tokens: residual convolutions, and a vision transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core.errors import ConfigError, SpecError
from foreworld.nn.attention import EPS, Block
from foreworld.nn.conv import Conv, channels_last
from foreworld.nn.mlp import Linear


class Residual(nn.Module):
    """Two 3x3 convolutions whose sum is added to what they are given.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = Conv(channels, channels, 3), Conv(channels, channels, 3, outscale=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class Impala(nn.Module):
    """Stages of a convolution, a pooling that halves and residual blocks.

    Args:
        shape: (C, H, W) of the pictures.
        widths: channels of the stages.
        blocks: residual blocks of each.
        patch: pixels of the first convolution's step; 2 costs about a quarter of 1.

    Raises:
        SpecError: pictures too small for so many stages.

    Reference:
        Espeholt et al., IMPALA, 2018, figure 3, with SiLU for ReLU.
    """

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], blocks: int, patch: int = 1) -> None:
        super().__init__()
        inputs, height, width = shape
        stages: list[nn.Module] = []
        for i, channels in enumerate(widths):
            step = patch if i == 0 else 1
            if min(height, width) < 2 * step:
                raise SpecError(f"pictures of {shape[1]}x{shape[2]} are too small for {len(widths)} stages; use fewer")
            stages += [nn.Conv2d(inputs, channels, 3 + 2 * (step - 1), step, padding=step), nn.MaxPool2d(3, 2, 1)]
            stages += [Residual(channels) for _ in range(blocks)]
            height, width = (_halved(_stepped(size, step)) for size in (height, width))
            inputs = channels
        self.stages, self.width = nn.Sequential(*stages), inputs * height * width

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, C, H, W] in network units to [N, width]."""
        return F.silu(self.stages(channels_last(x)).flatten(1))


class ViT(nn.Module):
    """A vision transformer: patches and a token of its own, whose last state is the answer.

    Args:
        shape: (C, H, W) of the pictures; edges that no patch fills are padded.
        patch: pixels of a patch's side.
        width: of the tokens.
        layers: blocks.
        heads: of the attention.
        scaled: learn a factor for every entry of what the blocks add, as DINOv2 does.

    Raises:
        ConfigError: a patch larger than the picture.

    Reference:
        Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, section 3.1.
    """

    def __init__(
        self, shape: tuple[int, int, int], patch: int, width: int, layers: int, heads: int, scaled: bool = False
    ) -> None:
        super().__init__()
        if patch > min(shape[1:]):
            raise ConfigError(f"vit: patches of {patch} pixels do not fit pictures of {shape[1]}x{shape[2]}")
        rows, columns = (math.ceil(side / patch) for side in shape[1:])
        self.pad = (0, columns * patch - shape[2], 0, rows * patch - shape[1])
        self.patch, self.width, self.grid = patch, width, (rows, columns)
        self.inward = Linear(shape[0] * patch * patch, width)
        self.own = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 1 + rows * columns, width))
        self.blocks = nn.Sequential(*(Block(width, heads, scaled=scaled) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, C, H, W] in network units to [N, width]."""
        patches = F.unfold(F.pad(x, self.pad), self.patch, stride=self.patch).transpose(1, 2)
        tokens = torch.cat([self.own.expand(len(x), -1, -1), self.inward(patches)], 1) + self.place
        return self.norm(self.blocks(tokens)[:, 0])


def _stepped(side: int, step: int) -> int:
    """Return the side after the first convolution."""
    kernel = 3 + 2 * (step - 1)
    return (side + 2 * step - kernel) // step + 1


def _halved(side: int) -> int:
    """Return the side after a pooling."""
    return (side - 1) // 2 + 1
