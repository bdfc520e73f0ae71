"""Functions over trees of tensors: states, segments, dictionaries of observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def map(fn: Callable[..., Any], first: T, *rest: T) -> T:
    """Apply a function to the leaves of one tree, or of several trees of the same structure.

    Args:
        fn: takes one leaf of each tree.
        first: a tree.
        rest: more trees like it.

    Returns:
        A tree of what `fn` returned.

    Example:
        >>> import torch, foreworld as fw
        >>> fw.tree.map(torch.add, {"a": torch.ones(2)}, {"a": torch.ones(2)})
        {'a': tensor([2., 2.])}
    """
    return pytree.tree_map(fn, first, *rest)


def leaves(node: Any) -> list[Tensor]:
    """Return the tensors of a tree, in a fixed order.

    Args:
        node: a tree; None in it counts as no leaf.
    """
    return [leaf for leaf in pytree.tree_leaves(node) if isinstance(leaf, Tensor)]


def index(node: T, key: Any) -> T:
    """Index every leaf: `index(states, (slice(None), -1))` is the last time step.

    Args:
        node: a tree.
        key: whatever a tensor can be indexed with.

    Returns:
        A tree of what the key picks.
    """
    return map(lambda leaf: leaf[key], node)


def detach(node: T) -> T:
    """Cut every leaf from the gradient graph.

    Args:
        node: a tree.

    Returns:
        A tree of the same values.
    """
    return map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, node)


def to(node: T, device: torch.device | str) -> T:
    """Move every leaf to a device.

    Args:
        node: a tree.
        device: where to.

    Returns:
        A tree on that device; a leaf that was there already is not copied.
    """
    return map(lambda leaf: leaf.to(device, non_blocking=True), node)


def stack(nodes: Sequence[T], dim: int = 1) -> T:
    """Stack trees along a new axis, by default time: H trees [B, ...] become [B, H, ...].

    Args:
        nodes: trees of the same structure and shapes.
        dim: the new axis.

    Returns:
        One tree, every leaf with one more axis.
    """
    return map(lambda *parts: torch.stack(parts, dim), *nodes)


def cat(nodes: Sequence[T], dim: int = 1) -> T:
    """Join trees along an axis they have, by default time.

    Args:
        nodes: trees of the same structure.
        dim: the axis.

    Returns:
        One tree, as long along that axis as all together.
    """
    return map(lambda *parts: torch.cat(parts, dim), *nodes)


def repeat(node: T, times: int) -> T:
    """Repeat every row of the batch, so that candidates of a row are adjacent.

    Args:
        node: leaves [B, ...].
        times: how often.

    Returns:
        Leaves [B * times, ...].
    """
    return map(lambda leaf: leaf.repeat_interleave(times, 0), node)


def to_vector(node: Any, lead: int = 1) -> Tensor:
    """Put all leaves into one vector of numbers.

    Args:
        node: leaves [B, ...], or [B, T, ...] with `lead` 2.
        lead: axes to keep.

    Returns:
        [B, K], or [B, T, K].
    """
    return torch.cat(
        [leaf.flatten(lead).float() if leaf.dim() > lead else leaf[..., None].float() for leaf in leaves(node)], -1
    )


def from_vector(like: T, vector: Tensor) -> T:
    """Undo `to_vector`.

    Args:
        like: what comes out, leaves [B, ...] of any values.
        vector: [B, K].

    Returns:
        Leaves [B, ...], of the types in `like`.
    """
    sizes = [leaf[0].numel() for leaf in leaves(like)]
    parts = iter(vector.split(sizes, -1))
    return map(lambda leaf: next(parts).reshape(leaf.shape).to(leaf.dtype).contiguous(), like)


def flatten_time(node: T) -> T:
    """Fold time into the batch.

    Args:
        node: leaves [B, T, ...].

    Returns:
        Leaves [B * T, ...].
    """
    return map(lambda leaf: leaf.flatten(0, 1), node)


def where(mask: Tensor, yes: T, no: T) -> T:
    """Choose row by row between two trees.

    Args:
        mask: [B] bool, or with more leading axes of the leaves.
        yes: leaves [B, ...], taken where the mask is true.
        no: leaves [B, ...], taken elsewhere.

    Returns:
        Leaves [B, ...].
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(mask.shape + (1,) * (a.dim() - mask.dim())), a, b)

    return map(choose, yes, no)
