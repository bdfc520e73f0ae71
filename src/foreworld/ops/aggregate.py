"""One number for the scores of several runs on several tasks."""

from __future__ import annotations

import numpy as np

from foreworld.ops.correlation import midranks

Axis = int | tuple[int, ...]


def interquartile_mean(scores: np.ndarray, axis: Axis = (-2, -1)) -> np.ndarray:
    """Average the middle half of the scores.

    Of n scores the floor(n / 4) smallest and as many of the largest are left out. It is moved less by a single run
    than the mean, and needs fewer runs than the median. A NaN among the scores gives NaN: it is never trimmed away.

    Args:
        scores: [.., N, M], runs by tasks.
        axis: what to average over.

    Returns:
        [..], in the unit of the scores.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, section 4.3.

    Example:
        >>> import numpy as np
        >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 99.0]), axis=0))
        1.5
    """
    axes = sorted(i % scores.ndim for i in ((axis,) if isinstance(axis, int) else axis))
    rest = [i for i in range(scores.ndim) if i not in axes]
    flat = scores.transpose(*rest, *axes).reshape(*(scores.shape[i] for i in rest), -1)
    count = flat.shape[-1]
    cut = count // 4
    # sorting short lists is several times faster than finding the two quartiles; NaN comes last
    ordered = np.sort(flat, -1)
    kept = ordered[..., cut : count - cut].mean(-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, kept)


def interquartile_mean_error(scores: np.ndarray) -> np.ndarray:
    """Estimate the standard error of the interquartile mean of independent scores, for `bootstrap` by `t`.

    Args:
        scores: [R, E, ...].

    Returns:
        [R, ...], of the interquartile mean over axis 1, in the unit of the scores.

    Reference:
        Tukey and McLaughlin, Sankhya A 1963: the deviation of the scores with the outer quarters pulled in.
    """
    count = scores.shape[1]
    cut = count // 4
    ordered = np.sort(scores, 1)
    pulled = np.concatenate(
        [
            np.repeat(ordered[:, cut : cut + 1], cut, 1),
            ordered[:, cut : count - cut],
            np.repeat(ordered[:, count - cut - 1 : count - cut], cut, 1),
        ],
        1,
    )
    return pulled.std(1, ddof=1) * np.sqrt(count) / (count - 2 * cut)


def task_median(scores: np.ndarray) -> np.ndarray:
    """Return the median over tasks of the mean over runs.

    Args:
        scores: [.., N, M], runs by tasks.

    Returns:
        [..], in the unit of the scores.

    Example:
        >>> import numpy as np
        >>> float(task_median(np.array([[0.0, 1.0, 9.0], [2.0, 3.0, 9.0]])))
        2.0
    """
    return np.median(scores.mean(-2), -1)


def optimality_gap(scores: np.ndarray, target: float = 1.0, axis: Axis = (-2, -1)) -> np.ndarray:
    """Return how far the scores fall short of a target on average; what lies above it counts as on it.

    Args:
        scores: [.., N, M], runs by tasks.
        target: in the unit of the scores.
        axis: what to average over.

    Returns:
        [..], in the unit of the scores, at least 0.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, section 4.3.
    """
    return target - np.minimum(scores, target).mean(axis)


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the probability that a run of the first arm scores more than one of the second, averaged over tasks.

    A tie counts half.

    Args:
        first: [.., N, M], runs by tasks.
        second: [.., K, M].

    Returns:
        [..], a probability.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, section 4.3; the statistic of Mann and Whitney 1947.

    Example:
        >>> import numpy as np
        >>> float(probability_of_improvement(np.array([[2.0], [3.0]]), np.array([[1.0], [2.0]])))
        0.875
    """
    runs, others = first.shape[-2], second.shape[-2]
    ranks = midranks(np.concatenate([first, second], -2).swapaxes(-2, -1))
    wins = ranks[..., :runs].sum(-1) - runs * (runs + 1) / 2
    return (wins / (runs * others)).mean(-1)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs that score more than each threshold, averaged over tasks; a NaN does not.

    Args:
        scores: [.., N, M], runs by tasks.
        thresholds: [K], in the unit of the scores.

    Returns:
        [.., K], shares.

    Reference:
        Agarwal et al. 2021, arXiv 2108.13264, section 4.2.
    """
    return np.stack([(scores > threshold).mean((-2, -1)) for threshold in thresholds], -1)
