"""What half precision is good enough for, and what it is not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
"""In which matrix products are computed; weights, sums, losses and whatever a model remembers stay float32."""


def lowered(device: torch.device | str, precision: Precision) -> torch.autocast:
    """Compute matrix products in another precision.

    Args:
        device: where.
        precision: `bfloat16`, or `float32` for no change.

    Raises:
        ConfigError: another one.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be {' or '.join(get_args(Precision))}, found {precision!r}")
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def at_least_single(x: Tensor) -> Tensor:
    """Return half precision, in which autocast computes, as float32: for losses, norms and distributions.

    Args:
        x: of any shape.

    Returns:
        The same numbers, of the same shape; other types stay as they are.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the precision in which matrix products of a tensor are computed now.

    Args:
        x: of any shape.
    """
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if x.dtype == torch.float32 and _autocast(kind) else x.dtype


def as_given(x: Tensor) -> AbstractContextManager[object]:
    """Compute in the precision of what is given, under autocast too, which would take sums in half precision.

    Args:
        x: a tensor on the device that is meant.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if _autocast(kind) else nullcontext()


def _autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
