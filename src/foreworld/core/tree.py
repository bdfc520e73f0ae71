"""Functions over trees of tensors: states, segments, dictionaries of observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def map(fn: Callable[..., Any], first: T, *rest: T) -> T:
    """Apply `fn` to the leaves of one tree, or of several trees of the same structure."""
    return pytree.tree_map(fn, first, *rest)


def leaves(node: Any) -> list[Tensor]:
    """Return the tensors of a tree, in a fixed order; None counts as no leaf."""
    return [leaf for leaf in pytree.tree_leaves(node) if isinstance(leaf, Tensor)]


def index(node: T, key: Any) -> T:
    """Index every leaf: `index(states, (slice(None), -1))` is the last time step."""
    return map(lambda leaf: leaf[key], node)


def detach(node: T) -> T:
    """Cut every leaf from the gradient graph."""
    return map(lambda leaf: leaf.detach(), node)


def to(node: T, device: torch.device | str) -> T:
    """Move every leaf to a device."""
    return map(lambda leaf: leaf.to(device, non_blocking=True), node)


def stack(nodes: Sequence[T], dim: int = 1) -> T:
    """Stack trees along a new axis, by default time: H trees [B, ...] become [B, H, ...]."""
    return map(lambda *parts: torch.stack(parts, dim), *nodes)


def cat(nodes: Sequence[T], dim: int = 1) -> T:
    """Join trees along an axis they have, by default time."""
    return map(lambda *parts: torch.cat(parts, dim), *nodes)


def repeat(node: T, times: int) -> T:
    """Repeat every row of the batch: [B, ...] becomes [B * times, ...], candidates of a row adjacent."""
    return map(lambda leaf: leaf.repeat_interleave(times, 0), node)


def flatten_time(node: T) -> T:
    """Fold time into the batch: [B, T, ...] becomes [B * T, ...]."""
    return map(lambda leaf: leaf.flatten(0, 1), node)


def where(mask: Tensor, yes: T, no: T) -> T:
    """Choose row by row: `yes` where `mask` [B] is true, else `no`."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(mask.shape + (1,) * (a.dim() - mask.dim())), a, b)

    return map(choose, yes, no)
