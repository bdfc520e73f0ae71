"""Comparing trees of tensors, and the two ways in which a check ends early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from foreworld.core import Segment, Spec, seeded, tree
from foreworld.testing.samples import BATCH, LENGTH, random_segment

Factory = Callable[[Spec], nn.Module]
"""Builds a fresh model for a spec; called several times a check."""

TOLERANCE = 1e-4
"""Relative and absolute: float32 sums in another order differ by less, a leak between rows by more."""


class NonConforming(AssertionError):
    """A model breaks the protocol; the message says where and how."""


class Inapplicable(Exception):
    """A check does not concern this model; the message says why."""


def expect(condition: bool, message: str) -> None:
    """Raise `NonConforming` unless the condition holds."""
    if not condition:
        raise NonConforming(message)


def named_leaves(node: Any) -> dict[str, Tensor]:
    """Return the tensors of a tree by their path, such as `.deter` or `.obs['image']`."""
    pairs, _ = pytree.tree_flatten_with_path(node)
    return {pytree.keystr(path) or "value": leaf for path, leaf in pairs if isinstance(leaf, Tensor)}


def expect_same(found: Any, wanted: Any, what: str, tolerance: float = TOLERANCE) -> None:
    """Raise `NonConforming` unless two trees have the same leaves, up to a tolerance.

    Args:
        found: a tree of tensors.
        wanted: the tree that it should equal.
        what: the sentence that the difference contradicts, for the message.
        tolerance: relative and absolute; 0 for exactly equal.
    """
    left, right = named_leaves(found), named_leaves(wanted)
    expect(set(left) == set(right), f"{what}: the leaves are {sorted(left)} and {sorted(right)}")
    for name, a in left.items():
        b = right[name]
        expect(a.shape == b.shape, f"{what}: {name} has shape {tuple(a.shape)} and {tuple(b.shape)}")
        x, y = a.detach().double(), b.detach().double()
        if not torch.allclose(x, y, rtol=tolerance, atol=tolerance):
            gap = (x - y).abs().nan_to_num(torch.inf)
            where = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
            raise NonConforming(f"{what}: {name} differs by {gap.max():.3g} at index {where}")


def same(found: Any, wanted: Any) -> bool:
    """Tell whether two trees are exactly equal."""
    try:
        expect_same(found, wanted, "", 0.0)
    except NonConforming:
        return False
    return True


def build(make: Factory, spec: Spec, seed: int = 0) -> Any:
    """Make a model under a seed, and calibrate it where the family asks for it."""
    with seeded(seed):
        model: Any = make(spec)
    if "calibrate" in model.provides:
        model.calibrate(lambda: calibration_data(spec))
    return model


def calibration_data(spec: Spec) -> Iterator[Segment]:
    """Yield a little training data, the same at every call."""
    generator = torch.Generator().manual_seed(99)
    for _ in range(4):
        yield random_segment(spec, 8, 10, generator)


def sample(spec: Spec, seed: int = 1, batch: int = BATCH, length: int = LENGTH) -> Segment:
    """Draw a random segment from a seed."""
    return random_segment(spec, batch, length, torch.Generator().manual_seed(seed))


def graft(keep: Tensor, segment: Segment, other: Segment) -> Segment:
    """Take the rows of `segment` where `keep` [B, T] holds, else those of `other`; the condition stays."""
    mixed = tree.where(keep, replace(segment, condition=None), replace(other, condition=None))
    return replace(mixed, condition=segment.condition)
