"""Attention blocks: plain ones for encoders, and ones that a condition scales and shifts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core.errors import ConfigError
from foreworld.nn.mlp import Linear

EPS = 1e-6
"""Added to variances by the norms, as in the vision transformers whose weights are to be had."""


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: D.
        heads: how many; they share the width evenly.
        causal: whether an entry sees only itself and earlier ones.

    Raises:
        ConfigError: the width cannot be shared evenly.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"attention: the width ({width}) must be divisible by the heads ({heads})")
        self.heads, self.causal = heads, causal
        self.inward, self.outward = Linear(width, 3 * width), Linear(width, width)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Map [N, T, D] to [N, T, D]; queries and keys [N, heads, T, D / heads] pass through `rotate` first."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.inward(x).chunk(3, -1)
        )
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.outward(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention, then a hidden layer, each added to what it is given a normalised copy of.

    Args:
        width: D.
        heads: of the attention.
        causal: whether an entry sees only itself and earlier ones.
        condition: width C of what scales, shifts and gates both parts; 0 for none. The gates begin at zero, so that
            the block begins as the identity.
        scaled: learn a factor for every entry of both sums; without a condition.
        hidden: width of the hidden layer; 0 for 4 D.

    Reference:
        Vaswani et al. 2017, in the form with norms in front; Peebles and Xie, Scalable Diffusion Models with
        Transformers, 2023, section 3.2, for the condition ("adaLN-Zero"); Touvron et al., Going deeper with Image
        Transformers, 2021, section 3.1, for the factors ("LayerScale").
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool = False,
        condition: int = 0,
        scaled: bool = False,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS, elementwise_affine=condition == 0) for _ in range(2))
        self.factors = nn.Parameter(torch.ones(2, width)) if scaled else None
        self.attention = Attention(width, heads, causal)
        self.hidden = nn.Sequential(Linear(width, hidden), nn.GELU(), Linear(hidden, width))
        self.adapt = Linear(condition, 6 * width, outscale=0.0) if condition else None

    def forward(
        self, x: Tensor, condition: Tensor | None = None, rotate: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Map [N, T, D], under a condition [N, T, C], to [N, T, D]; `rotate` is that of `Attention`."""
        if self.adapt is None or condition is None:
            first, second = (1.0, 1.0) if self.factors is None else self.factors
            x = x + first * self.attention(self.norms[0](x), rotate)
            return x + second * self.hidden(self.norms[1](x))
        scale, shift, gate, scale2, shift2, gate2 = self.adapt(F.silu(condition)).chunk(6, -1)
        x = x + gate * self.attention(torch.addcmul(shift, self.norms[0](x), 1 + scale), rotate)
        return x + gate2 * self.hidden(torch.addcmul(shift2, self.norms[1](x), 1 + scale2))
