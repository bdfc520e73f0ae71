"""Ridge regression in closed form, from moments that stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Second moments of inputs and targets, enough for ridge regression.

    Attributes:
        count: rows seen.
        x: [P] mean of the inputs.
        y: [Q] mean of the targets.
        xx: [P, P] covariance of the inputs.
        xy: [P, Q] covariance of inputs and targets.
        yy: [Q] variance of the targets.
    """

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor


def moments(x: Tensor, y: Tensor) -> Moments:
    """Gather moments of rows in float64.

    Args:
        x: [N, P] inputs.
        y: [N, Q] targets.

    Returns:
        Their moments; add those of other rows by `merge`.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    dx, dy = x - mean_x, y - mean_y
    n = len(x)
    return Moments(n, mean_x, mean_y, dx.T @ dx / n, dx.T @ dy / n, dy.square().mean(0))


def merge(a: Moments, b: Moments) -> Moments:
    """Combine the moments of two sets of rows, exactly as if gathered at once."""
    n = a.count + b.count
    wa, wb = a.count / n, b.count / n
    dx, dy = b.x - a.x, b.y - a.y
    return Moments(
        n,
        wa * a.x + wb * b.x,
        wa * a.y + wb * b.y,
        wa * a.xx + wb * b.xx + wa * wb * torch.outer(dx, dx),
        wa * a.xy + wb * b.xy + wa * wb * torch.outer(dx, dy),
        wa * a.yy + wb * b.yy + wa * wb * dy.square(),
    )


def ridge(m: Moments, strength: float) -> tuple[Tensor, Tensor]:
    """Solve for weight and bias that minimise squared error plus a penalty.

    Args:
        m: moments of the training rows.
        strength: penalty relative to the mean variance of the inputs, at least 0.

    Returns:
        weight [Q, P] and bias [Q], float64: y is about `x @ weight.T + bias`.
    """
    scale = m.xx.diagonal().mean().clamp(min=1e-12)
    penalty = (strength + 1e-10) * scale * torch.eye(len(m.x), dtype=m.xx.dtype)
    weight = torch.linalg.solve(m.xx + penalty, m.xy).T
    return weight, m.y - weight @ m.x


def residual(m: Moments, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the mean squared error of a linear map on the rows behind the moments.

    Args:
        m: moments of the rows to judge on.
        weight: [Q, P].
        bias: [Q].

    Returns:
        [Q].
    """
    offset = weight @ m.x + bias - m.y
    spread = m.yy - 2 * (weight * m.xy.T).sum(1) + ((weight @ m.xx) * weight).sum(1)
    return spread + offset.square()
