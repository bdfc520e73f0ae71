"""Places of patches by turning queries and keys, as V-JEPA 2 does it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreworld.core.errors import ConfigError

BASE = 10_000.0
"""The slowest angle of many is about one over this a step."""


class GridRotary(nn.Module):
    """Turn queries and keys by the row and the column of the patch that they belong to.

    The entries of a head are shared between frame, row and column: an even number each, and what is left over stays as
    it is. A picture is frame 0, by which nothing turns. Entries 2i and 2i + 1 (a, b) become (a cos - b sin,
    b cos + a sin), but each with an angle of its own: the published code repeats the list of n frequencies (entry e has
    frequency e mod n) where a rotation would give both entries the same. The weights were trained so.

    Args:
        grid: rows and columns of the patches, in the order of the tokens.
        width: of a head.

    Raises:
        ConfigError: a head too narrow for three axes, or of an odd width.

    Reference:
        Su et al., RoFormer, 2021, section 3.2; Assran et al., V-JEPA 2, 2025, arXiv 2506.09985, section 2
        ("3D-RoPE"), and its published code for the shares and frequencies.

    Example:
        >>> import torch
        >>> from foreworld.nn.rotary import GridRotary
        >>> turned = GridRotary((1, 2), 6)(torch.ones(2, 6))  # two entries for each axis; the second patch in column 1
        >>> [round(entry, 2) for entry in turned[1].tolist()]
        [1.0, 1.0, 1.0, 1.0, -0.3, 1.38]
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        if width < 6 or width % 2:
            raise ConfigError(f"rotary places: a head has an even width of at least 6, found {width}; use fewer heads")
        (rows, columns), share = grid, 2 * (width // 6)
        rates = BASE ** -(torch.arange(share // 2) / (share // 2)).repeat(2)
        angles = torch.zeros(rows, columns, width)
        angles[..., share : 2 * share] = torch.arange(rows)[:, None, None] * rates
        angles[..., 2 * share : 3 * share] = torch.arange(columns)[:, None] * rates
        self.register_buffer("cos", angles.flatten(0, 1).cos(), persistent=False)
        self.register_buffer("sin", angles.flatten(0, 1).sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn queries or keys [.., T, width] of T patches."""
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        across = torch.stack((-second, first), -1).flatten(-2)
        return torch.addcmul(x * self.cos, across, self.sin).to(x.dtype)
