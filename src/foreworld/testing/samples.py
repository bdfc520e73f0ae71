"""Random specs, segments and actions on which models are checked."""

from __future__ import annotations

import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec

BATCH = 3
LENGTH = 6
HORIZON = 4

VECTOR = Space(kind="vector", shape=(5,), dtype="float32")
IMAGE = Space(kind="image", shape=(3, 32, 32), dtype="uint8")
DISCRETE = Space(kind="discrete", shape=(), dtype="int64", classes=(4,), start=(1,))
BOX = Space(kind="vector", shape=(2,), dtype="float32", low=(-2.0, 0.0), high=(2.0, 1.0))
MULTI = Space(kind="discrete", shape=(2,), dtype="int64", classes=(2, 3), start=(0, 0))


def specs() -> dict[str, Spec]:
    """Return the specs that every family should accept, by name.

    Example:
        >>> from foreworld.testing import specs
        >>> specs()["plain_video"].action is None
        True
    """
    return {
        "vector_discrete": Spec(obs={"obs": VECTOR}, action=DISCRETE),
        "vector_box": Spec(obs={"obs": VECTOR}, action=BOX),
        "vector_multi_discrete": Spec(obs={"obs": VECTOR}, action=MULTI),
        "image_discrete": Spec(obs={"image": IMAGE}, action=DISCRETE),
        "mixed_discrete": Spec(obs={"image": IMAGE, "sensor": VECTOR, "symbol": DISCRETE}, action=DISCRETE),
        "plain_video": Spec(obs={"image": IMAGE}, action=None),
    }


def random_segment(
    spec: Spec, batch: int = BATCH, length: int = LENGTH, generator: torch.Generator | None = None
) -> Segment:
    """Draw a segment of noise that obeys the conventions of arrival rows.

    Sequence 0 starts an episode at row 0 and another in the middle; sequence 1 starts in
    mid-episode; the others have random boundaries.

    Args:
        spec: what the world looks like.
        batch: B, how many.
        length: T, rows of each.
        generator: source of randomness; None for torch's global one.

    Returns:
        [B, T] rows: `prev_action` and `reward` are zero where `is_first`, `is_last` precedes
        every `is_first`, and about half of the last rows are terminal.
    """
    first = torch.rand(batch, length, generator=generator) < 0.3
    first[0] = False
    first[0, 0] = first[0, length // 2] = True
    first[1:2, 0] = False
    for t in range(1, length):  # an episode has at least two rows
        first[:, t] &= ~first[:, t - 1]
    last = torch.cat([first[:, 1:], (torch.rand(batch, 1, generator=generator) < 0.5) & ~first[:, -1:]], 1)
    terminal = last & (torch.rand(batch, length, generator=generator) < 0.5)
    actions = random_actions(spec, batch, length, generator)
    condition = torch.randn(batch, spec.condition, generator=generator) if spec.condition else None
    return Segment(
        obs={name: _values(space, (batch, length), generator) for name, space in spec.obs.items()},
        prev_action=None if actions is None else actions * ~first[..., None],
        reward=torch.randn(batch, length, generator=generator) * ~first,
        is_first=first,
        is_terminal=terminal,
        is_last=last,
        condition=condition,
    )


def random_actions(spec: Spec, batch: int, length: int, generator: torch.Generator | None = None) -> Tensor | None:
    """Draw model-ready actions.

    Args:
        spec: what the world looks like.
        batch: B, how many.
        length: H, steps of each.
        generator: source of randomness; None for torch's global one.

    Returns:
        [B, H, A], one-hot for discrete components, in [-1, 1] for numbers; None for plain video.
    """
    if spec.action is None:
        return None
    if spec.action.kind == "discrete":
        return spec.action.one_hot(_values(spec.action, (batch, length), generator))
    return torch.rand(batch, length, spec.action.width, generator=generator) * 2 - 1


def _values(space: Space, lead: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    """Draw values of a space as they are stored."""
    dtype = getattr(torch, space.dtype)
    if space.kind == "image":
        return torch.randint(0, 256, (*lead, *space.shape), dtype=dtype, generator=generator)
    if space.kind == "discrete":
        unit = torch.rand(*lead, len(space.classes), generator=generator)
        value = (unit * torch.tensor(space.classes)).long() + torch.tensor(space.start)
        return value.reshape(*lead, *space.shape).to(dtype)
    if space.bounded:
        unit = torch.rand(*lead, space.width, generator=generator)
        value = torch.tensor(space.low) + unit * (torch.tensor(space.high) - torch.tensor(space.low))
        return value.reshape(*lead, *space.shape).to(dtype)
    return torch.randn(*lead, *space.shape, generator=generator).to(dtype)
