"""Seeds, and the switch that turns every sample into its mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_deterministic = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global generators under a fixed seed, then restore them.

    Args:
        seed: any integer; the same seed gives the same samples on the same machine.

    Example:
        >>> import torch, foreworld as fw
        >>> with fw.seeded(0):
        ...     a = torch.rand(2)
        >>> with fw.seeded(0):
        ...     b = torch.rand(2)
        >>> bool((a == b).all())
        True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        _seed(seed)
        yield


@contextmanager
def deterministic(on: bool = True) -> Iterator[None]:
    """Make every latent distribution return its mode (or mean) instead of a sample.

    Equality checks (a fused unroll against the loop, saved against loaded) run under this.

    Args:
        on: false turns it off again inside of an outer block.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.nn import GaussianLatent, sample
        >>> with fw.deterministic():
        ...     sample(GaussianLatent(2), torch.tensor([1.0, 2.0, 0.0, 0.0]))
        tensor([1., 2.])
    """
    global _deterministic
    before, _deterministic = _deterministic, on
    try:
        yield
    finally:
        _deterministic = before


def is_deterministic() -> bool:
    """Tell whether samples are replaced by modes."""
    return _deterministic


def _seed(seed: int) -> None:
    """Seed every generator there is, as `torch.manual_seed` does, but without noting who asked, which takes longer."""
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    elif torch.accelerator.is_available():
        torch.manual_seed(seed)
    torch.default_generator.manual_seed(seed)
