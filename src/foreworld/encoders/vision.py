"""Pictures of any size to tokens: residual convolutions, and vision transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core.errors import ConfigError, SpecError
from foreworld.nn.attention import EPS, Block
from foreworld.nn.conv import Conv, channels_last
from foreworld.nn.mlp import Linear
from foreworld.nn.rotary import GridRotary


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


@dataclass(frozen=True)
class Patches:
    """Cut pictures into patches.

    Attributes:
        shape: (C, H, W) of the pictures; edges that no patch fills are padded.
        side: pixels of a patch's side.

    Raises:
        ConfigError: a patch larger than the picture.

    Example:
        >>> import torch
        >>> from foreworld.encoders.vision import Patches
        >>> patches = Patches((3, 8, 10), 4)
        >>> patches.grid, patches(torch.zeros(2, 3, 8, 10)).shape
        ((2, 3), torch.Size([2, 6, 48]))
    """

    shape: tuple[int, int, int]
    side: int

    def __post_init__(self) -> None:
        """Refuse a patch that does not fit."""
        if self.side > min(self.shape[1:]):
            height, width = self.shape[1:]
            raise ConfigError(f"vit: patches of {self.side} pixels do not fit pictures of {height}x{width}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return math.ceil(self.shape[1] / self.side), math.ceil(self.shape[2] / self.side)

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return self.shape[0] * self.side**2

    def __call__(self, x: Tensor) -> Tensor:
        """Cut pictures [N, C, H, W] into patches [N, rows * columns, width]."""
        (rows, columns), (height, width) = self.grid, self.shape[1:]
        padded = F.pad(x, (0, columns * self.side - width, 0, rows * self.side - height))
        return F.unfold(padded, self.side, stride=self.side).transpose(1, 2)


def means_of_fields(tokens: Tensor, grid: tuple[int, int], fields: int) -> Tensor:
    """Average the tokens of patches over fields of a picture, and put the fields side by side.

    Args:
        tokens: of the patches, row by row, [N, rows * columns, D].
        grid: rows and columns.
        fields: F, along each side; where they do not divide the patches, neighbours share some.

    Returns:
        [N, D * F * F].

    Example:
        >>> import torch
        >>> from foreworld.encoders.vision import means_of_fields
        >>> means_of_fields(torch.arange(8.0).view(1, 8, 1), (2, 4), fields=2)
        tensor([[0.5000, 2.5000, 4.5000, 6.5000]])
    """
    return F.adaptive_avg_pool2d(tokens.transpose(1, 2).unflatten(2, grid), fields).flatten(1)


class ViT(nn.Module):
    """A vision transformer: patches and a token of its own, whose last state is the answer for the whole picture.

    Args:
        shape: (C, H, W) of the pictures; edges that no patch fills are padded.
        patch: pixels of a patch's side.
        width: of the tokens.
        layers: blocks.
        heads: of the attention.
        scaled: learn a factor for every entry of what the blocks add, as DINOv2 does.
        hidden: width of the blocks' hidden layers; 0 for four times that of the tokens.
        fields: answer with the means of so many times so many fields of patches instead; 0 for the whole picture.

    Raises:
        ConfigError: a patch larger than the picture, or more fields than patches.

    Reference:
        Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, section 3.1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        width: int,
        layers: int,
        heads: int,
        scaled: bool = False,
        hidden: int = 0,
        fields: int = 0,
    ) -> None:
        super().__init__()
        self.patches, self.fields = Patches(shape, patch), fields
        self.width = _answer_width(width, self.patches, fields)
        rows, columns = self.patches.grid
        self.inward = Linear(self.patches.width, width)
        self.own = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 1 + rows * columns, width))
        self.blocks = nn.Sequential(*(Block(width, heads, scaled=scaled, hidden=hidden) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, C, H, W] in network units to [N, width]."""
        patches = self.inward(self.patches(x))
        tokens = self.blocks(torch.cat([self.own.expand(len(x), -1, -1), patches], 1) + self.place)
        if self.fields:
            return means_of_fields(self.norm(tokens[:, 1:]), self.patches.grid, self.fields)
        return self.norm(tokens[:, 0])


class RotaryViT(nn.Module):
    """A vision transformer as V-JEPA 2's: places by turned queries and keys; the answer is the mean of the patches.

    It is the encoder of clips, given one picture as a clip of two equal frames, as V-JEPA 2-AC encodes every frame.

    Args:
        shape: (C, H, W) of the pictures; edges that no patch fills are padded.
        patch: pixels of a patch's side.
        width: of the tokens.
        layers: blocks.
        heads: of the attention.
        hidden: width of the blocks' hidden layers; 0 for four times that of the tokens.
        fields: answer with the means of so many times so many fields of patches instead; 0 for the whole picture.

    Raises:
        ConfigError: a patch larger than the picture, more fields than patches, or heads too narrow for three axes.

    Reference:
        Assran et al., V-JEPA 2, 2025, arXiv 2506.09985, sections 2 and 3.

    Example:
        >>> import torch
        >>> from foreworld.encoders.vision import RotaryViT
        >>> RotaryViT((3, 32, 32), patch=16, width=24, layers=2, heads=2)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 24])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int = 0,
        fields: int = 0,
    ) -> None:
        super().__init__()
        self.patches, self.fields = Patches(shape, patch), max(fields, 1)
        self.width = _answer_width(width, self.patches, fields)
        self.inward = Linear(self.patches.width, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden=hidden) for _ in range(layers))
        self.rotate = GridRotary(self.patches.grid, width // heads)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, C, H, W] in network units to [N, width]."""
        return means_of_fields(self.tokens(x), self.patches.grid, self.fields)

    def tokens(self, x: Tensor) -> Tensor:
        """Map pictures [N, C, H, W] in network units to a token of every patch [N, rows * columns, width]."""
        tokens = self.inward(self.patches(x))
        for block in self.blocks:
            tokens = block(tokens, rotate=self.rotate)
        return self.norm(tokens)


def _answer_width(width: int, patches: Patches, fields: int) -> int:
    """Return how many numbers a transformer answers with, whose tokens have `width`."""
    if fields > min(patches.grid):
        rows, columns = patches.grid
        raise ConfigError(f"vision.fields: {fields} by {fields} are more than {rows} by {columns} patches")
    return width * max(fields, 1) ** 2


def _stepped(side: int, step: int) -> int:
    """Return the side after the first convolution."""
    kernel = 3 + 2 * (step - 1)
    return (side + 2 * step - kernel) // step + 1


def _halved(side: int) -> int:
    """Return the side after a pooling."""
    return (side - 1) // 2 + 1
