"""What an evaluation judges: observations, simulator state, returns, and the model's own latent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from foreworld.core import Segment, Space, tree
from foreworld.core.errors import SpecError
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval.windows import Windows
from foreworld.ops import effective_rank
from foreworld.ops.variance import Variance, error_unit

RETURN = "return"
LATENT = "latent"
EMBED = "embedding"
LATENT_ROWS = 4096
"""Rows that the deviation and the rank of a latent are taken from."""

SAME = 1e-12
"""A variance below this is none."""

PART = re.compile(r"(?P<column>.+)\[(?P<entries>\d+(:\d+)?(,\d+(:\d+)?)*)\]")
"""`truth/state[0:2,5]`: some numbers of a vector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantity:
    """One thing that is predicted and then happens.

    Attributes:
        name: an observation key, `truth/<key>`, some entries of these (`truth/state[0:2]`), `return`, `embedding` or
            `latent`.
        kind: of an observation or a simulator state: that of its space.
        unit: variance that squared errors are divided by: one number; one per dimension for vectors; one per
            step, [H], for the return.
        deviation: its root, averaged over the dimensions, in source units.
        note: what a reader must know about it; empty for nothing.
        entries: of a vector, which of its numbers count; empty for all of them.
    """

    name: str
    kind: Literal["image", "vector", "discrete", "return", "latent"]
    unit: Tensor
    deviation: float
    note: str = ""
    entries: tuple[int, ...] = ()

    @property
    def column(self) -> str:
        """Where it is found: its name without the entries."""
        return self.name.partition("[")[0] if self.entries else self.name

    def pick(self, value: Tensor) -> Tensor:
        """Return what counts of a column's values [.., V], or of all else."""
        return value[..., list(self.entries)] if self.entries else value


def find_quantities(model: Any, data: Dataset, windows: Windows, batch: int, key: str | None = None) -> list[Quantity]:
    """Measure the units of everything that can be judged on some windows.

    Args:
        model: its latent is one of the quantities.
        data: held-out episodes.
        windows: of them.
        batch: windows at a time.
        key: if it names some entries of a vector, these are a quantity too.

    Returns:
        Observations first, then simulator state, return, the embedding of a model whose embedding is fixed, and
        latent. There is no return without actions, or where all rows earn the same.

    Raises:
        SpecError: entries that are not there.
    """
    spaces = dict(data.spec.obs) | truth_spaces(data)
    column, entries = split_key(key or "")
    if entries:
        _check_entries(key or "", spaces, column, entries)
    variances = {name: Variance() for name in spaces}
    returns = Variance()
    for _, segment, truth in windows.batches(data, batch):
        rows = real_rows(segment)
        for name, value in expected(spaces, segment.obs | named(truth)).items():
            variances[name].add(value[rows])
        returns.add(true_return(segment, windows.context), rows[:, windows.context :])
    found = [_of_space(name, space, variances[name].value()) for name, space in spaces.items()]
    if entries:
        part = _of_space(key or "", spaces[column], variances[column].value()[list(entries)])
        found.append(replace(part, entries=entries))
    if data.spec.action is not None:
        variance = returns.value()
        if (variance > SAME).any():
            unit = torch.where(variance > SAME, variance, torch.nan)
            deviation = float(variance.mean().sqrt())
            found.append(Quantity(name=RETURN, kind="return", unit=unit.float(), deviation=deviation))
    if "fixed_embed" in model.provides:
        found.append(embed_quantity(model, data, windows, batch))
    return [*found, latent_quantity(model, data, windows, batch)]


def split_key(key: str) -> tuple[str, tuple[int, ...]]:
    """Split `truth/state[0:2,5]` into the column and its entries, (0, 1, 5); without brackets there are none.

    Example:
        >>> from foreworld.eval.quantities import split_key
        >>> split_key("truth/state[0:2,5]"), split_key("truth/state")
        (('truth/state', (0, 1, 5)), ('truth/state', ()))
    """
    found = PART.fullmatch(key)
    if found is None:
        return key, ()
    entries: list[int] = []
    for part in found["entries"].split(","):
        first, colon, stop = part.partition(":")
        entries += range(int(first), int(stop) if colon else int(first) + 1)
    return found["column"], tuple(entries)


def _check_entries(key: str, spaces: Mapping[str, Space], column: str, entries: tuple[int, ...]) -> None:
    if column not in spaces:
        raise SpecError(unknown("quantity", column, list(spaces)))
    space = spaces[column]
    if space.kind != "vector" or len(space.shape) != 1:
        raise SpecError(f"{key}: only a vector has entries, and {column} is {space.kind} {list(space.shape)}")
    if max(entries) >= space.width:
        raise SpecError(f"{key}: {column} has the entries 0 to {space.width - 1}")


@torch.no_grad()
def embed_quantity(model: Any, data: Dataset, windows: Windows, batch: int) -> Quantity:
    """Measure the deviation of an embedding that training does not change, on real rows."""
    variance = Variance()
    for _, segment, _ in windows.batches(data, batch):
        variance.add(embedded(model, segment)[real_rows(segment)])
    note = "errors in it are comparable between models with the same encoder, and with no others"
    found = variance.value()
    return Quantity(
        name=EMBED,
        kind="vector",
        unit=error_unit(found, True).float(),
        deviation=float(error_unit(found, False).sqrt()),
        note=note,
    )


def embedded(model: Any, segment: Segment) -> Tensor:
    """Return where every row lies in an embedding that training does not change, [B, T, E], on the CPU."""
    return model.encoder(tree.to(segment.obs, device_of(model))).cpu()


def latent_quantity(model: Any, data: Dataset, windows: Windows, batch: int) -> Quantity:
    """Measure deviation and effective rank of a model's features on real rows."""
    found, count = [], 0
    with torch.no_grad():
        for _, segment, _ in windows.batches(data, batch):
            feat = features(model, segment)
            found.append(feat[real_rows(segment)].flatten(1))
            count += len(found[-1])
            if count >= LATENT_ROWS:
                break
    feats = torch.cat(found)[:LATENT_ROWS].double()
    variance = feats.var(0, unbiased=False).mean().clamp(min=1e-12)
    rank = effective_rank(feats)
    note = (
        f"diagnostic only: every model has its own; effective rank {rank:.1f} of {feats.shape[1]}, and a latent that "
        "hardly varies is easy to predict"
    )
    return Quantity(name=LATENT, kind="latent", unit=variance.float(), deviation=float(variance.sqrt()), note=note)


def features(model: Any, segment: Segment) -> Tensor:
    """Return the features after every real row, [B, T, D], on the CPU."""
    there = tree.to(segment, device_of(model))
    return model.read(model.observe(model.initial(segment.batch), there)).feat.cpu()


def device_of(model: Any) -> torch.device:
    """Return where a model computes; data stay on the CPU."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def truth_spaces(data: Dataset) -> dict[str, Space]:
    """Return the spaces of the recorded simulator state as `truth/<key>`."""
    return {TRUTH + key: space for key, space in data.schema.truth.items()}


def named(truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the prefix `truth/` before the names of simulator state."""
    return {TRUTH + key: value for key, value in truth.items()}


def expected(spaces: Mapping[str, Space], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn stored values into what a model predicts of them: [0, 1] images, numbers, one-hots."""
    found = {}
    for key, space in spaces.items():
        value = values[key]
        if space.kind == "image":
            found[key] = value.float() / 255
        else:
            found[key] = value.float() if space.kind == "vector" else space.one_hot(value)
    return found


def true_return(segment: Segment, context: int) -> Tensor:
    """Return the sum of the rewards earned in the first 1, 2, ... H steps after the context, [B, H]."""
    return segment.reward[:, context:].cumsum(1)


def predicted_return(reward: Tensor, cont: Tensor | None) -> Tensor:
    """Return the expected sum of rewards after 1, 2, ... H steps: a state's own cont never erases its reward.

    Args:
        reward: [.., H] of the states reached.
        cont: [.., H] probability that each is not terminal; None for always 1.
    """
    if cont is None:
        return reward.cumsum(-1)
    alive = torch.cat([torch.ones_like(cont[..., :1]), cont[..., :-1]], -1).cumprod(-1)
    return (alive * reward).cumsum(-1)


def real_rows(segment: Segment) -> Tensor:
    """Return which rows are no padding, [B, T] bool."""
    return torch.ones_like(segment.is_first) if segment.mask is None else segment.mask


def _of_space(name: str, space: Space, variance: Tensor) -> Quantity:
    unit, pooled = error_unit(variance, space.kind == "vector"), float(error_unit(variance, False))
    return Quantity(name=name, kind=space.kind, unit=unit.float(), deviation=float(np.sqrt(pooled)))
