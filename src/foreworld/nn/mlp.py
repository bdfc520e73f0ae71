"""Linear layers as DreamerV3 initialises them, normalisation, and the MLP made of both."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core.errors import ConfigError
from foreworld.nn.norm_silu import EPS, norm_silu

MOST_LAYERS = 1000
TRUNCATION = 1.1368
"""Standard deviation of a unit normal cut at two sigma is 1 / 1.1368; this undoes it."""


def init_(weight: Tensor, fan_in: int, outscale: float = 1.0) -> Tensor:
    """Fill a weight from a normal cut at two sigma, with variance outscale^2 / fan_in.

    Args:
        weight: any shape, changed in place.
        fan_in: inputs of a unit.
        outscale: factor; 0 gives zeros.

    Returns:
        The weight.
    """
    with torch.no_grad():
        if outscale == 0:
            return weight.zero_()
        scale = TRUNCATION * outscale / math.sqrt(fan_in)
        return nn.init.trunc_normal_(weight, 0.0, scale, -2 * scale, 2 * scale)


class Linear(nn.Linear):
    """A linear layer with truncated-normal weights and zero bias.

    Args:
        inputs: width in.
        outputs: width out.
        outscale: factor on the initial weights.
        bias: whether to add one.
        fan_in: what to count as inputs when this layer is a part of a wider one.
    """

    def __init__(
        self, inputs: int, outputs: int, outscale: float = 1.0, bias: bool = True, fan_in: int | None = None
    ) -> None:
        super().__init__(inputs, outputs, bias)
        init_(self.weight, fan_in or inputs, outscale)
        if bias:
            nn.init.zeros_(self.bias)


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, with a learned scale and no shift.

    Args:
        width: of that axis.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [.., width]."""
        return F.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), EPS)


class Hidden(nn.Module):
    """One hidden layer: linear, RMSNorm, SiLU.

    Args:
        inputs: width in.
        units: width out.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear, self.norm = Linear(inputs, units), RMSNorm(units)

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., inputs] to [.., units]."""
        return norm_silu(self.linear(x), self.norm.scale)


class MLP(nn.Sequential):
    """Hidden layers one after the other.

    Args:
        inputs: width in.
        units: width of every layer, and out.
        layers: how many.

    Raises:
        ConfigError: more layers than anybody wants; a damaged config would keep a machine busy for ever.
    """

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        if layers > MOST_LAYERS:
            raise ConfigError(f"an MLP has at most {MOST_LAYERS} layers, found {layers}")
        super().__init__(*(Hidden(inputs if i == 0 else units, units) for i in range(layers)))
