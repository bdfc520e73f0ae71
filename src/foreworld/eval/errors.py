"""Squared errors of predicted observations, episode by episode and step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foreworld.core import Segment, Spec
from foreworld.data import Dataset
from foreworld.eval.predictors import Predictor, as_expected
from foreworld.eval.windows import Windows

CHANGED = 10 / 255
"""A pixel has changed when it differs by more than this from the last frame of the context."""

DECIDED = 0.05
"""The actions decide a pixel when the dreams under true and under shuffled actions differ by more than this."""

MODEL = "model"
SHUFFLED = "shuffled"


@dataclass(frozen=True)
class Sums:
    """Summed squared errors, in units of the variance, and how many entries they sum over.

    Attributes:
        error: predictor name to [E, H].
        count: [E, H].
    """

    error: dict[str, np.ndarray]
    count: np.ndarray


@dataclass(frozen=True)
class ErrorTable:
    """All that an evaluation measures of one observation key.

    Attributes:
        every: over all entries.
        changed: images: over pixels that changed since the context; else None.
        decided: with actions: over the entries that the actions decide; else None.
        rows: [E, H] number of windows behind each cell.
        variance: the unit of the errors: mean variance of an entry over the evaluation set.
    """

    every: Sums
    changed: Sums | None
    decided: Sums | None
    rows: np.ndarray
    variance: float


def measure(
    data: Dataset,
    windows: Windows,
    key: str,
    model: Predictor,
    baselines: Mapping[str, Predictor],
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> ErrorTable:
    """Predict every window with the model, the baselines and the model under shuffled actions.

    Args:
        data: held-out episodes.
        windows: where to start, how much context, how far.
        key: which observation to judge.
        model: the model as a predictor.
        baselines: by name.
        batch: windows at a time.
        progress: called with (windows done, windows).

    Returns:
        Sums per episode and step.
    """
    space = data.spec.obs[key]
    image, acts = space.kind == "image", data.spec.action is not None
    unit, variance = _variance(data, windows, key, batch)
    names = [MODEL, *baselines, *([SHUFFLED] if acts else [])]
    shape = (data.episodes, windows.horizon)
    tables = {kind: _empty(names, shape) for kind in ("every", "changed", "decided")}
    rows, done = np.zeros(shape), 0
    for episodes, segment in windows.batches(data, batch):
        context, target, last, valid = _cut(segment, windows, data.spec, key)
        actions = None if segment.prev_action is None else segment.prev_action[:, windows.context :]
        found = {name: predict(context, actions, windows.horizon)[key] for name, predict in baselines.items()}
        found[MODEL] = model(context, actions, windows.horizon)[key]
        masks = {"every": valid}
        if image:
            masks["changed"] = valid & _any_channel((target - last).abs() > CHANGED)
        if acts:
            found[SHUFFLED] = model(context, None if actions is None else actions.roll(1, 0), windows.horizon)[key]
            both = valid & valid.roll(1, 0) if len(episodes) > 1 else torch.zeros_like(valid)
            differ = (found[MODEL] - found[SHUFFLED]).abs() / (1 if image else unit.sqrt())
            masks["decided"] = both & (_any_channel(differ > DECIDED) if image else differ > DECIDED)
        errors = {name: (value - target).square() / unit for name, value in found.items()}
        for kind, mask in masks.items():
            _add(tables[kind], errors, mask, episodes)
        np.add.at(rows, episodes, valid.flatten(2).any(-1).numpy())
        done += len(episodes)
        if progress is not None:
            progress(done, len(windows.episode))
    return ErrorTable(
        every=tables["every"],
        changed=tables["changed"] if image else None,
        decided=tables["decided"] if acts else None,
        rows=rows,
        variance=variance,
    )


def _cut(segment: Segment, windows: Windows, spec: Spec, key: str) -> tuple[Segment, Tensor, Tensor, Tensor]:
    """Split a window into context, target, last context frame, and the mask of real target entries."""
    value = as_expected(spec, segment.obs)[key]
    target, last = value[:, windows.context :], value[:, windows.context - 1 : windows.context]
    rows = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
    rows = rows[:, windows.context :]
    valid = rows.reshape(rows.shape + (1,) * (target.dim() - 2)).expand_as(target)
    return segment.rows(0, windows.context), target, last, valid


def _any_channel(mask: Tensor) -> Tensor:
    """Let a pixel count with all its channels [.., C, H, W] when any of them does."""
    return mask.any(-3, keepdim=True).expand_as(mask)


def _variance(data: Dataset, windows: Windows, key: str, batch: int) -> tuple[Tensor, float]:
    """Return the unit of squared errors: one number for images and integers, one per dimension for vectors."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for _, segment in windows.batches(data, batch):
        value = as_expected(data.spec, segment.obs)[key]
        rows = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
        value = value[rows].double()
        count, total, squares = count + len(value), total + value.sum(0), squares + value.square().sum(0)
    variance = (squares / count - (total / count).square()).clamp(min=0)
    pooled = variance.mean().clamp(min=1e-12)
    if data.spec.obs[key].kind == "vector":
        return variance.clamp(min=float(pooled) * 1e-4).float(), float(pooled)
    return pooled.float(), float(pooled)


def _empty(names: list[str], shape: tuple[int, int]) -> Sums:
    return Sums({name: np.zeros(shape) for name in names}, np.zeros(shape))


def _add(sums: Sums, errors: dict[str, Tensor], mask: Tensor, episodes: np.ndarray) -> None:
    weight = mask.float()
    for name, error in errors.items():
        np.add.at(sums.error[name], episodes, (error * weight).flatten(2).sum(-1).double().numpy())
    np.add.at(sums.count, episodes, weight.flatten(2).sum(-1).double().numpy())
