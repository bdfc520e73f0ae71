"""Whether actions and rewards stand in the rows that they belong to: a scan over shifts by one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core.spaces import Space
from foreworld.data import Dataset
from foreworld.data.schema import ACTION, OBS
from foreworld.ops.bootstrap import bootstrap
from foreworld.ops.regress import Moments, moments, ridge

SHIFTS = (-1, 0, 1)
ROWS = 8000
MOST_NUMBERS = 40_000_000
FEWEST_ROWS = 40
SIDE = 64
FOLDS = 5
GROUPS = 20
TILES = 8
FEATURES = 128
PRODUCTS = 16
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FREE = 10.0
LIMIT = 5.0
CONFIDENCE = 0.99
SEEN = 0.02
"""A share below this is as good as nothing."""
EXACT = 0.9
"""A share above this leaves no doubt which row it is."""
STILL = 1e-6
"""Features that vary less than this stand still."""

Verdict = Literal["aligned", "shifted", "unclear", "unseen", "absent"]
Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What the change from row t-1 to row t tells about the value stored at row t + shift.

    Attributes:
        shift: rows; 0 is where arrival rows keep it.
        share: share of the value's variance that the change explains, on rows not fitted on.
        low: lower end of its interval.
        high: upper end.
        lead: by how much the share exceeds that of shift 0.
        lead_low: lower end of the interval of the lead, paired by episode.
    """

    shift: int
    share: float
    low: float
    high: float
    lead: float
    lead_low: float


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The scan of one column.

    Attributes:
        column: `prev_action` or `reward`.
        verdict: `aligned`; `shifted` by `best` rows; `unclear`: another shift leads, but shift 0
            explains too much for a plain shift; `unseen`: no shift explains anything; `absent`:
            there is nothing to align, `reason` says why.
        best: the shift that explains most.
        rows: rows that were judged.
        shifts: one for each shift; empty when absent.
        reason: why there is nothing to align.
    """

    column: str
    verdict: Verdict
    best: int = 0
    rows: int = 0
    shifts: tuple[Shift, ...] = ()
    reason: str = ""


def scan(data: Dataset, column: str = ACTION, seed: int = 0, progress: Progress | None = None) -> Alignment:
    """Find the row whose action (or reward) is the one that the change between two rows shows.

    From two observations in a row, ridge regression on features and products of pairs of them reads
    the value stored one row before, with, and after the second one. The right row wins also when the
    policy reacts to what it sees: two consecutive states tell at least as much about the action between
    them as about its neighbours. Held actions resemble their neighbours, so only rows around
    which the value changes are judged.

    Args:
        data: the rows.
        column: `prev_action` or `reward`.
        seed: which rows are drawn, and the resamples.
        progress: called with (folds done, folds).

    Returns:
        Shares by shift with intervals over episodes, and what follows from them.
    """
    if column == ACTION and data.spec.action is None:
        return Alignment(column=column, verdict="absent", reason="no actions: nothing to align")
    rows = _changing_rows(data, column, seed)
    if len(rows) < FEWEST_ROWS:
        what = f"{'actions' if column == ACTION else 'rewards'} change around {len(rows)} rows only"
        reason = f"{what}: too few to align, at least {FEWEST_ROWS} are needed"
        return Alignment(column=column, verdict="absent", rows=len(rows), reason=reason)
    values = torch.stack([_values(data, column, rows, shift) for shift in SHIFTS], 1)
    action = values[:, 1, :0] if column == ACTION or data.spec.action is None else _values(data, ACTION, rows, 0)
    evidence = torch.cat([action, _evidence(data, rows)], 1)
    group, fold = _groups(rows, seed)
    errors = _errors(values, evidence, fold, beside=column == ACTION, progress=progress)
    sums = np.stack([np.bincount(group, error) for error in errors.flatten(0, 1).numpy()], 1)
    return _judged(column, len(rows), sums.reshape(len(sums), len(SHIFTS), 2), seed)


def _changing_rows(data: Dataset, column: str, seed: int) -> np.ndarray:
    """Draw (episode, row) pairs [N, 2] whose value differs from that before or after it."""
    found = []
    for episode in range(data.episodes):
        taken = data.raw(episode)[column].reshape(int(data.lengths[episode]), -1)
        changes = (taken[1:] != taken[:-1]).any(1)  # [T]: between rows t and t + 1
        # the first row has no action, so all neighbours are there from row 2 to the last but one
        rows = np.flatnonzero(changes[1:-1] | changes[2:]) + 2
        found.append(np.stack([np.full(len(rows), episode), rows], 1))
    rows = np.concatenate(found)
    # large observations are judged on fewer rows, so that memory stays bounded
    most = max(FEWEST_ROWS, min(ROWS, MOST_NUMBERS // sum(_width(space) for space in data.spec.obs.values())))
    if len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]
    return rows


def _width(space: Space) -> int:
    """Return about how many numbers of evidence an observation gives."""
    return SIDE * SIDE if space.kind == "image" else 3 * space.width


def _values(data: Dataset, column: str, rows: np.ndarray, shift: int) -> Tensor:
    """Return the column's values [N, Q] a few rows on, actions model-ready."""
    found = torch.from_numpy(_gather(data, column, rows + np.array([0, shift])))
    if column == ACTION and data.spec.action is not None:
        return data.spec.action.to_model(found).float()
    return found.reshape(len(rows), -1).float()


def _evidence(data: Dataset, rows: np.ndarray) -> Tensor:
    """Return what can be seen of the step to each row [N, P]: the observation before, its change, the change's size."""
    parts = []
    for key, space in data.spec.obs.items():
        before, after = (_gather(data, OBS + key, at) for at in (rows - np.array([0, 1]), rows))
        chunks = range(0, len(rows), 256)
        parts.append(
            torch.cat([_step(_flat(before[i : i + 256], space), _flat(after[i : i + 256], space)) for i in chunks])
        )
    return torch.cat(parts, 1)


def _step(before: Tensor, after: Tensor) -> Tensor:
    """Describe the step between observations [N, D], or grey pictures [N, H, W], by features [N, P].

    Of pictures, the size of the change and the motion along both axes (change times slope) are also
    summed over rows, columns and tiles: a small player is found wherever it is.
    """
    change = after - before
    plain = [before, change, change.abs()]
    if before.dim() == 2:
        return torch.cat(plain, 1)
    middle = F.pad((before + after) / 2, (1, 1, 1, 1), mode="replicate")
    slope_y, slope_x = middle[:, 2:, 1:-1] - middle[:, :-2, 1:-1], middle[:, 1:-1, 2:] - middle[:, 1:-1, :-2]
    moved = torch.stack([change.abs(), change * slope_y, change * slope_x], 1)
    tiles = _pooled(moved, TILES)
    small = [_pooled(part, SIDE // 2) for part in plain]
    return torch.cat([part.flatten(1) for part in (*small, moved.mean(2), moved.mean(3), tiles)], 1)


def _gather(data: Dataset, column: str, rows: np.ndarray) -> np.ndarray:
    bounds = np.flatnonzero(np.diff(rows[:, 0])) + 1
    return np.concatenate([data.raw(int(part[0, 0]))[column][part[:, 1]] for part in np.split(rows, bounds)])


def _flat(value: np.ndarray, space: Space) -> Tensor:
    """Return observations as vectors [N, D], or as grey pictures [N, H, W] of limited size."""
    tensor = torch.from_numpy(value)
    if space.kind == "discrete":
        return space.one_hot(tensor)
    if space.kind == "vector":
        return tensor.reshape(len(value), -1).float()
    # unequal weights, so that two colours of the same brightness differ
    grey = torch.einsum("nchw,c->nhw", tensor.float() / 255, torch.linspace(1.0, 0.5, space.shape[0]))
    return _pooled(grey, SIDE)


def _pooled(picture: Tensor, most: int) -> Tensor:
    height, width = picture.shape[-2:]
    return F.adaptive_avg_pool2d(picture, (min(height, most), min(width, most)))


def _groups(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit of the intervals [N] and the fold [N] of every row.

    Units are episodes, or stretches of them where episodes are few; folds are whole episodes, or stretches.
    """
    episode = np.unique(rows[:, 0], return_inverse=True)[1]
    episodes = int(episode.max()) + 1
    pieces = -(-GROUPS // episodes)
    counts = np.bincount(episode)
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[episode]
    group = episode * pieces + rank * pieces // counts[episode]
    group = np.unique(group, return_inverse=True)[1]
    unit = episode if episodes >= FOLDS else group
    return group, np.random.default_rng(seed).permutation(int(unit.max()) + 1)[unit] % FOLDS


def _errors(values: Tensor, evidence: Tensor, fold: np.ndarray, *, beside: bool, progress: Progress | None) -> Tensor:
    """Read every row's values from the evidence when its fold is held out.

    Args:
        values: [N, shift, Q].
        evidence: [N, P].
        fold: [N].
        beside: let every shift also be read from the values at the other shifts.
        progress: called with (folds done, folds).

    Returns:
        Squared errors [shift, 2, N]: with the evidence, and without.
    """
    count, shifts, width = values.shape
    plain = torch.zeros(shifts, count, dtype=torch.float64)
    found = torch.zeros(shifts, len(STRENGTHS), count, dtype=torch.float64)
    flat = values.flatten(1)
    folds = np.unique(fold)
    for number, held in enumerate(folds):
        test, train = (torch.from_numpy(np.flatnonzero(kept)) for kept in (fold == held, fold != held))
        # the penalty is for the evidence; what neighbours tell is free, so that little evidence means little change
        known = FREE * _standard(flat, train)
        inputs = torch.cat([known, _features(evidence, flat, train)], 1).double()
        total = moments(inputs[train], flat[train])
        for i in range(shifts):
            own = torch.arange(i * width, (i + 1) * width)
            others = torch.tensor([j for j in range(shifts * width) if beside and j // width != i], dtype=torch.long)
            seen = torch.cat([others, torch.arange(shifts * width, inputs.shape[1])])
            plain[i, test] = _held_out(total, inputs, flat, others, own, train, test, STRENGTHS[:1])[0]
            found[i][:, test] = _held_out(total, inputs, flat, seen, own, train, test, STRENGTHS)
        if progress is not None:
            progress(number + 1, len(folds))
    best = found.sum(2).argmin(1)
    return torch.stack([found[torch.arange(shifts), best], plain], 1)


def _held_out(
    total: Moments,
    inputs: Tensor,
    values: Tensor,
    seen: Tensor,
    own: Tensor,
    train: Tensor,
    test: Tensor,
    strengths: tuple[float, ...],
) -> Tensor:
    """Return squared errors [strength, test rows] of reading some values from some inputs."""
    target = values[test][:, own]
    if not len(seen):
        return (target - total.y[own]).square().sum(1).expand(len(strengths), -1)
    part = Moments(
        total.count, total.x[seen], total.y[own], total.xx[seen][:, seen], total.xy[seen][:, own], total.yy[own]
    )
    # an unusual row must not outweigh all others: what is read is a value that occurs
    low, high = values[train][:, own].amin(0), values[train][:, own].amax(0)
    errors = []
    for strength in strengths:
        weight, bias = ridge(part, strength)
        read = torch.clamp(inputs[test][:, seen] @ weight.T + bias, low, high)
        errors.append((read - target).square().sum(1))
    return torch.stack(errors)


def _features(evidence: Tensor, values: Tensor, train: Tensor) -> Tensor:
    """Return standardised features [N, P]: the evidence that goes with the values, and products of its components."""
    chosen = evidence[train]
    spread = chosen.std(0)
    shared = (chosen.T @ (_standard(values, train)[train] / len(train))).abs().amax(1)
    strength = torch.where(spread > STILL, shared / spread.clamp(min=STILL), 0.0)
    plain = _standard(evidence[:, strength.topk(min(FEATURES, len(strength))).indices], train).clamp(-LIMIT, LIMIT)
    rank = min(PRODUCTS, plain.shape[1])
    basis = torch.linalg.eigh((plain[train].T @ plain[train]).double())[1][:, -rank:].float()
    codes = plain @ basis
    upper = torch.triu_indices(rank, rank)
    return torch.cat([plain, _standard(codes[:, upper[0]] * codes[:, upper[1]], train).clamp(-LIMIT, LIMIT)], 1)


def _standard(x: Tensor, train: Tensor) -> Tensor:
    mean, spread = x[train].mean(0), x[train].std(0)
    return (x - mean) / torch.where(spread > STILL, spread, torch.ones_like(spread))


def _judged(column: str, rows: int, sums: np.ndarray, seed: int) -> Alignment:
    """Compare the shifts by squared errors [group, shift, 2]."""

    def shares(drawn: np.ndarray) -> np.ndarray:
        total = drawn.sum(1)
        return np.maximum(1 - total[..., 0] / np.maximum(total[..., 1], 1e-12), -1.0)

    def leads(drawn: np.ndarray) -> np.ndarray:
        share = shares(drawn)
        return share - share[..., 1:2]

    own = bootstrap(shares, sums, confidence=CONFIDENCE, seed=seed)
    lead = bootstrap(leads, sums, confidence=CONFIDENCE, seed=seed)
    shifts = tuple(
        Shift(
            shift=shift,
            share=float(own.value[i]),
            low=float(own.low[i]),
            high=float(own.high[i]),
            lead=float(lead.value[i]),
            lead_low=float(lead.low[i]),
        )
        for i, shift in enumerate(SHIFTS)
    )
    best = max(shifts, key=lambda s: s.share)
    judge = _action_verdict if column == ACTION else _reward_verdict
    return Alignment(column=column, verdict=judge(best, shifts[1]), best=best.shift, rows=rows, shifts=shifts)


def _action_verdict(best: Shift, stored: Shift) -> Verdict:
    if best.low < SEEN:
        return "unseen"
    if best.shift == 0 or best.lead_low < SEEN:
        return "aligned"
    # a world that answers late shows part of its last action too; what is not yet taken no world can show, so
    # a later action that leads a little may only be one that follows from what is seen
    plain = stored.high < best.share / 3 if best.shift < 0 else stored.share < 0.7 * best.share
    return "shifted" if plain or best.low > EXACT else "unclear"


def _reward_verdict(best: Shift, stored: Shift) -> Verdict:
    if best.low < SEEN:
        return "unseen"
    if best.shift == 0 or best.lead_low < SEEN:
        return "aligned"
    if stored.high < best.share / 3:
        return "shifted"
    # rewards follow from states, which resemble each other: only what is left unexplained tells them apart
    return "unclear" if 1 - best.share < (1 - stored.share) / 4 else "aligned"
