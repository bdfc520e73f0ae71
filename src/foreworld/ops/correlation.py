"""Agreement of two lists of numbers: by value, by rank, by pairs; and how well a score tells two classes apart.

All take leading axes, so that they can be given to `bootstrap` as they are. A NaN in a list gives NaN, and so does a
list without any variation.
"""

from __future__ import annotations

import numpy as np


def midranks(x: np.ndarray) -> np.ndarray:
    """Rank numbers from 1; equal ones share the mean of their ranks.

    Args:
        x: [.., N].

    Returns:
        [.., N]; NaN throughout a list that holds a NaN.

    Example:
        >>> import numpy as np
        >>> midranks(np.array([30.0, 10.0, 30.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    order = np.argsort(x, -1, kind="stable")
    ordered = np.take_along_axis(x, order, -1)
    place = np.broadcast_to(np.arange(x.shape[-1]), x.shape)
    new = np.ones(x.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    last = np.ones(x.shape, bool)
    last[..., :-1] = new[..., 1:]
    first_of_tie = np.maximum.accumulate(np.where(new, place, 0), -1)
    last_of_tie = np.minimum.accumulate(np.where(last, place, x.shape[-1])[..., ::-1], -1)[..., ::-1]
    ranks = np.empty(x.shape)
    np.put_along_axis(ranks, order, (first_of_tie + last_of_tie) / 2 + 1, -1)
    return np.where(np.isnan(x).any(-1, keepdims=True), np.nan, ranks)


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the linear correlation.

    Args:
        x: [.., N].
        y: [.., N].

    Returns:
        [..], in [-1, 1].

    Example:
        >>> import numpy as np
        >>> round(float(pearson(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]))), 4)
        0.3273
    """
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return np.clip(_ratio((dx * dy).sum(-1), _norm(x, dx) * _norm(y, dy)), -1, 1)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the correlation of the ranks; ties share their mean rank.

    Args:
        x: [.., N].
        y: [.., N].

    Returns:
        [..], in [-1, 1].
    """
    return pearson(midranks(x), midranks(y))


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute Kendall's tau-b: agreeing minus disagreeing pairs, over pairs not tied.

    Time grows with N squared, memory with N.

    Args:
        x: [.., N].
        y: [.., N].

    Returns:
        [..], in [-1, 1].

    Reference:
        Kendall, The treatment of ties in ranking problems, Biometrika 1945.

    Example:
        >>> import numpy as np
        >>> round(float(kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))), 4)
        0.3333
    """
    agree, apart_x, apart_y = (np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1]) for _ in range(3))
    for i in range(1, x.shape[-1]):
        sx = np.sign(x[..., i : i + 1] - x[..., :i])
        sy = np.sign(y[..., i : i + 1] - y[..., :i])
        agree += (sx * sy).sum(-1)
        apart_x += np.abs(sx).sum(-1)
        apart_y += np.abs(sy).sum(-1)
    return _ratio(agree, np.sqrt(apart_x * apart_y))


def auroc(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the probability that a positive scores more than a negative; a tie counts half.

    Args:
        score: [.., N].
        positive: [.., N] bool.

    Returns:
        [..], 0.5 for a score that says nothing; NaN where a class is empty.

    Reference:
        Hanley and McNeil, Radiology 1982: the area under the curve is the statistic of Mann and Whitney.

    Example:
        >>> import numpy as np
        >>> float(auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])))
        0.875
    """
    count = positive.sum(-1)
    wins = np.where(positive, midranks(score), 0.0).sum(-1) - count * (count + 1) / 2
    return _ratio(wins, count * (positive.shape[-1] - count))


def _norm(x: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of what remains of x without its mean; 0 where that is no more than rounding."""
    norm = np.sqrt((moved * moved).sum(-1))
    return np.where(norm <= 1e-13 * np.sqrt((x * x).sum(-1)), 0.0, norm)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) != 0)
