"""`@state`: frozen dataclasses of tensors that torch treats as one tree."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar, dataclass_transform

from torch.utils import _pytree as pytree

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
def state(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass and register it as a pytree.

    Every leaf carries the batch on axis 0. Fields may hold tensors, other states,
    dictionaries of them, or None.

    Args:
        cls: a class whose annotations name the fields.

    Returns:
        The dataclass; `foreworld.core.tree` and `torch.compile` see through it.

    Example:
        >>> import torch
        >>> from foreworld.core import state, tree
        >>> @state
        ... class Pendulum:
        ...     angle: torch.Tensor
        >>> tree.map(lambda leaf: leaf * 2, Pendulum(angle=torch.ones(3))).angle
        tensor([2., 2., 2.])
    """
    made = dataclass(frozen=True, kw_only=True, eq=False)(cls)
    pytree.register_dataclass(made, field_names=[f.name for f in fields(made)])  # type: ignore[arg-type]
    return made
