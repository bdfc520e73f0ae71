"""Scores of predictions that are a sample of possible outcomes, and how often intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError


def crps(samples: Tensor, target: Tensor, *, fair: bool = True) -> Tensor:
    """Compute the continuous ranked probability score: the absolute error of an outcome that is a sample.

    Args:
        samples: [.., S].
        target: [..].
        fair: correct for the number of samples, so that the score of 8 has the same mean as that of 800. It can be
            negative, and needs two samples. Else the score of the sample taken as a distribution.

    Returns:
        [..], in the unit of the target; less is better. Of one sample, not fair, its absolute error.

    Raises:
        ConfigError: too few samples.

    Reference:
        Gneiting and Raftery, Journal of the American Statistical Association 2007, eq. 21; fair: Ferro 2014,
        Quarterly Journal of the Royal Meteorological Society.

    Example:
        >>> import torch
        >>> crps(torch.tensor([0.0, 1.0, 2.0]), torch.tensor(1.0), fair=False)
        tensor(0.2222)
    """
    count = samples.shape[-1]
    pairs = _pairs(count, fair)
    error = (samples - target.unsqueeze(-1)).abs().mean(-1)
    # sorted, the distances of all pairs are a weighted sum: the i-th is above i others and below the rest
    weight = torch.arange(1 - count, count, 2, dtype=samples.dtype, device=samples.device)
    ordered = (samples - samples.mean(-1, keepdim=True)).sort(-1).values
    return error - (ordered * weight).sum(-1) / pairs


def energy_score(samples: Tensor, target: Tensor, *, fair: bool = True) -> Tensor:
    """Compute the energy score, which is the CRPS of vectors.

    Args:
        samples: [.., S, D]; memory grows with S squared.
        target: [.., D].
        fair: correct for the number of samples, see `crps`.

    Returns:
        [..], in the unit of the target; less is better. Of one sample, not fair, its Euclidean error.

    Raises:
        ConfigError: too few samples.

    Reference:
        Gneiting and Raftery 2007, eq. 22 with beta = 1.

    Example:
        >>> import torch
        >>> energy_score(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(2))
        tensor(0.)
    """
    pairs = _pairs(samples.shape[-2], fair)
    error = torch.linalg.vector_norm(samples - target.unsqueeze(-2), dim=-1).mean(-1)
    # distances from products of matrices would lose half of the digits
    apart = torch.cdist(samples, samples, compute_mode="donot_use_mm_for_euclid_dist")
    return error - apart.sum((-2, -1)) / (2 * pairs)


def covered_by_samples(samples: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Tell whether the central interval of each level, read off samples, holds the target.

    If the target could be one of the samples, it lies between the i-th and the j-th smallest of S with probability
    (j - i) / (S + 1); intervals are interpolated between those, so that their coverage does not depend on S.

    Args:
        samples: [.., S].
        target: [..].
        levels: K shares in (0, 1).

    Returns:
        [.., K] bool; average over episodes, and compare with the levels. What is NaN, or predicted by a NaN, is not
        covered.

    Raises:
        ConfigError: a level outside (0, 1), or too wide for so few samples.

    Example:
        >>> import torch
        >>> covered_by_samples(torch.arange(1.0, 40.0), torch.tensor(6.0), [0.5, 0.9])
        tensor([False,  True])
    """
    _check_levels(levels)
    count, most = samples.shape[-1], max(levels)
    # a millionth is rounding: 39 samples do state the interval of 95 %
    if (least := math.ceil(2 / (1 - most) - 1 - 1e-6)) > count:
        raise ConfigError(f"coverage: {count} samples cannot state an interval of {most:.0%}; draw at least {least}")
    ordered = samples.sort(-1).values
    found = []
    for level in levels:
        place = (count + 1) * (1 - level) / 2 - 1
        low, high = _at(ordered, place), _at(ordered, count - 1 - place)
        found.append((low <= target) & (target <= high))
    return torch.stack(found, -1) & ~samples.isnan().any(-1, keepdim=True)


def covered_by_normal(mean: Tensor, deviation: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Tell whether the central interval of each level of a normal distribution holds the target.

    Args:
        mean: [..].
        deviation: [..], at least 0.
        target: [..].
        levels: K shares in (0, 1).

    Returns:
        [.., K] bool; average over episodes, and compare with the levels.

    Raises:
        ConfigError: a level outside (0, 1).

    Example:
        >>> import torch
        >>> covered_by_normal(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.5), [0.8, 0.9])
        tensor([False,  True])
    """
    _check_levels(levels)
    reach = torch.special.ndtri((1 + torch.tensor(levels, dtype=torch.float64)) / 2).to(mean)
    return (target - mean).abs().unsqueeze(-1) <= deviation.unsqueeze(-1) * reach


def _check_levels(levels: Sequence[float]) -> None:
    if not levels or not all(0 < level < 1 for level in levels):
        raise ConfigError(f"coverage: levels must lie in (0, 1), found {list(levels)}")


def _pairs(count: int, fair: bool) -> int:
    if count < 1 + fair:
        raise ConfigError(f"a {'fair score' if fair else 'score'} needs at least {1 + fair} samples, found {count}")
    return count * (count - fair)


def _at(ordered: Tensor, place: float) -> Tensor:
    """Read sorted samples at a fractional index."""
    place = min(max(place, 0.0), ordered.shape[-1] - 1.0)
    under = round(place) if abs(place - round(place)) < 1e-6 else math.floor(place)
    over = min(under + 1, ordered.shape[-1] - 1)
    return torch.lerp(ordered[..., under], ordered[..., over], max(0.0, place - under))
