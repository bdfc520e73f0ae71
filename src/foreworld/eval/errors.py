"""Squared errors of what was predicted, window by window and step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.core import Segment
from foreworld.data import Dataset
from foreworld.eval.predictors import COPY_LAST, Forecast, Past, Predictor, Probes, open_loop, watched
from foreworld.eval.quantities import (
    EMBED,
    LATENT,
    RETURN,
    Quantity,
    embedded,
    expected,
    named,
    real_rows,
    true_return,
    truth_spaces,
)
from foreworld.eval.spread import SpreadSums
from foreworld.eval.windows import Windows
from foreworld.ops.images import psnr, ssim
from foreworld.ops.scores import energy_score

CHANGED = 10 / 255
"""A pixel has changed when it differs by more than this from the last frame of the context."""

DECIDED = 0.05
"""The actions decide a pixel when the dreams under true and under shuffled actions differ by more than this."""

MODEL = "model"
FROM_ONE = "model_from_one_row"
TEACHER = "teacher_forced"
FLOOR = "floor"
SHUFFLED = "shuffled"
MODES = (MODEL, FROM_ONE, TEACHER, FLOOR, SHUFFLED)
"""What one model is asked in several ways; every other name is a baseline or a reference."""


@dataclass(frozen=True)
class Sums:
    """Summed squared errors, in units of the variance, and how many entries they sum over.

    Attributes:
        error: predictor to [W, H].
        count: [W, H].
    """

    error: dict[str, np.ndarray]
    count: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All that was measured of one quantity.

    Attributes:
        quantity: what it is.
        every: over all entries.
        changed: images: over pixels that changed since the context.
        decided: with actions: over the entries that the actions decide.
        energy: predictor to [W, H] energy score, in units of the deviation; for one sample it is the plain error.
        psnr: images: predictor to [W, H], decibels.
        ssim: images: predictor to [W, H].
        spread: what the samples of the model say about its error.
    """

    quantity: Quantity
    every: Sums
    changed: Sums
    decided: Sums
    energy: dict[str, np.ndarray]
    psnr: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]
    spread: SpreadSums


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The errors of an evaluation.

    Attributes:
        windows: where they were measured.
        reached: [W, H] bool, whether the episode goes on to that step.
        ended: [W] bool, whether a terminal state ends the window; one that is merely cut off would go on.
        tables: one per quantity that the model predicts.
        silent: quantities that it does not predict.
    """

    windows: Windows
    reached: np.ndarray
    ended: np.ndarray
    tables: dict[str, Table] = field(default_factory=dict)
    silent: Sequence[Quantity] = ()


def measure(
    model: Any,
    data: Dataset,
    windows: Windows,
    quantities: Sequence[Quantity],
    baselines: Mapping[str, Predictor],
    *,
    samples: int,
    seed: int,
    probes: Probes,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Predict every window with the model and the baselines; memory does not grow with what is predicted.

    The model is asked to predict after the whole context, after its last row alone, one step ahead of every row
    (teacher-forced), under another window's actions, and to say what it knows once it has seen the row (the floor).

    Args:
        model: any family.
        data: held-out episodes.
        windows: where to start, how much context, how far.
        quantities: what to judge.
        baselines: by name.
        samples: futures per prediction.
        seed: of the samples.
        probes: for simulator state.
        batch: windows at a time.
        progress: called with (windows done, windows).
    """
    ask = open_loop(model, samples, seed, probes)
    from_one = open_loop(model, samples, seed, probes, rows=1)
    reached = np.zeros((len(windows), windows.horizon), bool)
    ended = np.zeros(len(windows), bool)
    tables: dict[str, Table] = {}
    spaces = dict(data.spec.obs) | truth_spaces(data)
    for at, segment, truth in windows.batches(data, batch):
        past = _past(segment, named(truth), windows)
        found = {MODEL: ask(past), FROM_ONE: from_one(past)}
        found[TEACHER], found[FLOOR], latent = watched(model, segment, windows.context, probes)
        for name, predict in baselines.items():  # another model's latent is another thing
            found[name] = {key: value for key, value in predict(past).items() if key not in (EMBED, LATENT)}
        if COPY_LAST in found:
            found[COPY_LAST][LATENT] = latent[:, None, None].expand(-1, 1, windows.horizon, -1)
        if past.actions is not None and len(at) > 1:
            found[SHUFFLED] = ask(replace(past, actions=past.actions.roll(1, 0)))
        values = expected(spaces, segment.obs | named(truth))
        future = {name: value[:, windows.context :] for name, value in values.items()}
        last = {name: value[:, windows.context - 1] for name, value in values.items()}
        future[RETURN] = true_return(segment, windows.context)
        future[LATENT] = found[FLOOR][LATENT][:, 0]
        if "fixed_embed" in model.provides:
            with torch.no_grad():
                now = embedded(model, segment)
            future[EMBED], last[EMBED] = now[:, windows.context :], now[:, windows.context - 1]
            if COPY_LAST in found:
                found[COPY_LAST][EMBED] = last[EMBED][:, None, None].expand(-1, 1, windows.horizon, -1)
        rows = real_rows(segment)[:, windows.context :]
        for quantity in quantities:
            if quantity.column in found[MODEL]:
                table = tables.setdefault(quantity.name, _empty(quantity, found, reached.shape))
                _add(table, at, windows.episode[at], future[quantity.column], last.get(quantity.column), found, rows)
        reached[at] = rows.numpy()
        ended[at] = (segment.is_terminal & real_rows(segment)).any(1).numpy()
        if progress is not None:
            progress(int(at[-1]) + 1, len(windows))
    silent = [quantity for quantity in quantities if quantity.name not in tables]
    return Measured(windows=windows, reached=reached, ended=ended, tables=tables, silent=silent)


def _past(segment: Segment, truth: dict[str, Tensor], windows: Windows) -> Past:
    seen = windows.context
    return Past(
        rows=segment.rows(0, seen),
        truth={name: value[:, :seen] for name, value in truth.items()},
        actions=None if segment.prev_action is None else segment.prev_action[:, seen:],
        horizon=windows.horizon,
    )


def _empty(quantity: Quantity, found: Mapping[str, Forecast], shape: tuple[int, int]) -> Table:
    names = [name for name, forecast in found.items() if quantity.column in forecast]
    judged = [name for name in names if name != SHUFFLED]
    pictures = judged if quantity.kind == "image" else []
    return Table(
        quantity=quantity,
        every=_sums(names, shape),
        changed=_sums(names if pictures else [], shape),
        decided=_sums([MODEL, SHUFFLED] if SHUFFLED in names else [], shape),
        energy={name: np.full(shape, np.nan) for name in judged if quantity.kind != "latent"},
        psnr={name: np.full(shape, np.nan) for name in pictures},
        ssim={name: np.full(shape, np.nan) for name in pictures},
        spread=SpreadSums.empty(shape),
    )


def _sums(names: Sequence[str], shape: tuple[int, int]) -> Sums:
    return Sums({name: np.zeros(shape) for name in names}, np.zeros(shape))


def _add(
    table: Table,
    at: np.ndarray,
    episodes: np.ndarray,
    actual: Tensor,
    last: Tensor | None,
    found: Mapping[str, Forecast],
    rows: Tensor,
) -> None:
    """Add a batch of windows: what happened [B, H, ...], and what was predicted of it [B, S, H, ...]."""
    quantity = table.quantity
    unit, image, actual = quantity.unit, quantity.kind == "image", quantity.pick(actual)
    said = {name: quantity.pick(found[name][quantity.column]) for name in table.every.error}
    means = {name: samples.mean(1) for name, samples in said.items()}
    valid = rows.reshape(rows.shape + (1,) * (actual.dim() - 2)).expand_as(actual)
    errors = {name: (value - actual).square() / unit for name, value in means.items()}
    _put(table.every, at, errors, valid)
    if image and last is not None:
        _put(table.changed, at, errors, valid & _any_channel((actual - last.unsqueeze(1)).abs() > CHANGED))
    if SHUFFLED in means:
        differ = (means[MODEL] - means[SHUFFLED]).abs() / (1 if image else unit.sqrt())
        decided = _any_channel(differ > DECIDED) if image else differ > DECIDED
        _put(table.decided, at, errors, valid & valid.roll(1, 0) & decided)
    for name, scores in table.energy.items():
        scores[at] = _where(rows, _energy(said[name], actual, unit))
    for name, scores in table.psnr.items():
        scores[at] = _where(rows, psnr(means[name].flatten(0, 1), actual.flatten(0, 1)).view(rows.shape))
        table.ssim[name][at] = _where(rows, ssim(means[name].flatten(0, 1), actual.flatten(0, 1)).view(rows.shape))
    if quantity.kind != "latent":
        table.spread.add(at, episodes, said[MODEL], actual, unit, valid)


def _energy(samples: Tensor, actual: Tensor, unit: Tensor) -> Tensor:
    """Score samples [B, S, H, ...] of what happened [B, H, ...], [B, H], in units of the deviation of one entry."""
    scale, cells = unit.sqrt(), actual.shape[:2]
    happened = (actual / scale).reshape(*cells, -1)
    guesses = (samples / scale).transpose(1, 2).reshape(*cells, samples.shape[1], -1)
    return energy_score(guesses, happened, fair=samples.shape[1] > 1) / happened.shape[-1] ** 0.5


def _put(sums: Sums, at: np.ndarray, errors: Mapping[str, Tensor], mask: Tensor) -> None:
    cells, weight = mask.shape[:2], mask.float()
    for name, total in sums.error.items():
        total[at] = (errors[name] * weight).reshape(*cells, -1).sum(-1).numpy()
    sums.count[at] = weight.reshape(*cells, -1).sum(-1).numpy()


def _where(rows: Tensor, scores: Tensor) -> np.ndarray:
    return torch.where(rows, scores, torch.nan).double().numpy()


def _any_channel(mask: Tensor) -> Tensor:
    """Let a pixel count with all its channels [.., C, H, W] when any of them does."""
    return mask.any(-3, keepdim=True).expand_as(mask)
