"""What the samples or members of a model say about its error: sums for calibration, gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

BINS = 320
LOWEST, HIGHEST = -4.0, 4.0
"""Range of log10(|error| / spread); what lies outside counts in the last bin."""


@dataclass(kw_only=True, eq=False)
class SpreadSums:
    """Errors and spread of S predictions, in units of the variance.

    Attributes:
        members: S; 0 before anything was added.
        mean: [W, H] squared error of the mean of the predictions, averaged over the entries.
        single: [W, H] squared error of one prediction, averaged over predictions and entries.
        variance: [W, H] unbiased variance of the predictions, averaged over the entries.
        ratio: [2, H, BINS] how often |error of the mean| / spread fell into a bin, for episodes with even and
            with odd numbers, so that one half can calibrate and the other judge.
    """

    members: int
    mean: np.ndarray
    single: np.ndarray
    variance: np.ndarray
    ratio: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Self:
        """Return sums of nothing for [W, H] cells."""
        blank = [np.full(shape, np.nan) for _ in range(3)]
        return cls(
            members=0, mean=blank[0], single=blank[1], variance=blank[2], ratio=np.zeros((2, shape[1], BINS), np.int64)
        )

    def add(
        self, at: np.ndarray, episodes: np.ndarray, samples: Tensor, actual: Tensor, unit: Tensor, valid: Tensor
    ) -> None:
        """Add windows `at` of some episodes: samples [B, S, H, ...] of what happened [B, H, ...], where `valid`."""
        self.members = count = samples.shape[1]
        if count < 2:
            return
        variance = samples.var(1) / unit
        error = (samples.mean(1) - actual).square() / unit
        single = (samples - actual.unsqueeze(1)).square().mean(1) / unit
        for total, value in ((self.mean, error), (self.single, single), (self.variance, variance)):
            total[at] = _average(value, valid)
        # the truth is one more draw: its distance from the mean of S has (S + 1) / S of their variance
        expected = (variance * (count + 1) / count).clamp(min=1e-12)
        ratio = 0.5 * torch.log10((error / expected).clamp(min=1e-30))
        place = _flat(((ratio - LOWEST) / (HIGHEST - LOWEST) * BINS).clamp(0, BINS - 1).nan_to_num().long())
        counts = _flat(valid & ratio.isfinite())
        steps = torch.arange(place.shape[1])[None, :, None] * BINS
        for half in (0, 1):
            chosen = counts & torch.from_numpy(episodes % 2 == half)[:, None, None]
            counted = torch.bincount((steps + place)[chosen], minlength=self.ratio[half].size)
            self.ratio[half] += counted.view(-1, BINS).numpy()


def _flat(value: Tensor) -> Tensor:
    """Flatten the entries of every cell: [B, H, ...] to [B, H, N]."""
    return value.reshape(*value.shape[:2], -1)


def _average(value: Tensor, valid: Tensor) -> np.ndarray:
    """Average over the entries of every cell [B, H]; NaN where none counts."""
    weight = _flat(valid).double()
    total, count = (_flat(value).double() * weight).sum(-1), weight.sum(-1)
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan).numpy()
