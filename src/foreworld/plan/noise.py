"""The noise that candidates are made of: standard normals, independent or correlated in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError

Noise = Callable[[tuple[int, int, int, int], torch.device], Tensor]
"""A shape [B, N, H, A] and a device to standard normal numbers of that shape."""


def white(shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Draw independent numbers from torch's global generator.

    Args:
        shape: [B, N, H, A].
        device: where to.

    Returns:
        Standard normal numbers of that shape.
    """
    return torch.randn(shape, device=device)


@dataclass(frozen=True)
class Coloured:
    """Noise whose power falls with the frequency f as 1 / f^exponent, so that actions last and a plan gets somewhere.

    Every number by itself is standard normal.

    Attributes:
        exponent: 0 is white, 1 pink, 2 brown.

    Reference:
        Timmer and Koenig, On generating power law noise, 1995; for planning Pinneri et al., iCEM, 2020, section 3.1.

    Example:
        >>> import torch
        >>> from foreworld.plan import Coloured
        >>> noise = Coloured(2.0)((1, 100_000, 12, 1), torch.device("cpu"))[0, :, :, 0]
        >>> bool((noise[:, 5] * noise[:, 6]).mean() > 0.8)
        True
    """

    exponent: float

    def __post_init__(self) -> None:
        """Refuse noise whose power grows with the frequency."""
        if not 0 <= self.exponent < math.inf:
            raise ConfigError(f"noise: the exponent is 0 or more and finite, found {self.exponent}")

    def __call__(self, shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
        """Draw noise [B, N, H, A] from torch's global generator."""
        batch, number, horizon, width = shape
        steps = 2 * horizon  # a spectrum repeats itself: only half of a period is used, or the end would know the start
        frequency = torch.fft.rfftfreq(steps, device=device)
        frequency[0] = frequency[1]
        gain = frequency ** (-self.exponent / 2)
        whole = torch.cat([gain, gain[1:-1].flip(0)])  # of positive and negative frequencies
        spectrum = torch.fft.rfft(torch.randn(batch, number, steps, width, device=device), dim=2)
        shaped = torch.fft.irfft(spectrum * (gain / whole.square().mean().sqrt())[:, None], n=steps, dim=2)
        return shaped[:, :, :horizon]
