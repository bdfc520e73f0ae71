"""What keeps an embedding from collapsing to a point, a line or a plane: losses that are statistics of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

KNOTS, REACH = 17, 3.0
"""The characteristic function is compared at so many places from 0 to REACH, beyond which a normal's is next to 0."""


def random_directions(width: int, count: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw unit vectors, every direction as likely.

    Args:
        width: D.
        count: P.
        like: [...], says where to and in which type.
        generator: source of randomness, on the CPU; None for torch's global one.

    Returns:
        [D, P].
    """
    device = like.device if generator is None else torch.device("cpu")
    drawn = torch.randn(width, count, generator=generator, device=device, dtype=torch.float32)
    return F.normalize(drawn, dim=0).to(like)


def sigreg(z: Tensor, directions: Tensor, weight: Tensor | None = None) -> Tensor:
    """Measure how far points are from a standard normal, by the test of Epps and Pulley along given directions.

    Along each direction the points' empirical characteristic function is compared with exp(-t^2 / 2), and squared
    differences are integrated with the weight exp(-t^2 / 2). A standard normal in all directions is neither a point
    nor a subspace. Times the number of points, the expectation for N normal points is a constant, whatever N.

    Args:
        z: [..., N, D], points; leading axes are samples of their own, and averaged.
        directions: [D, P] unit vectors.
        weight: [..., N], 0 for points that do not count; None counts all.

    Returns:
        Scalar, 0 or more.

    Reference:
        Balestriero and LeCun, LeJEPA, 2025, arXiv 2511.08544, definition of SIGReg; Epps and Pulley, A test for
        normality based on the empirical characteristic function, Biometrika 1983.

    Example:
        >>> import torch
        >>> from foreworld.ops.collapse import random_directions, sigreg
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(256, 8, generator=generator)
        >>> directions = random_directions(8, 64, z, generator)
        >>> bool(sigreg(z, directions) < 2 < sigreg(z * torch.tensor([1.0] + [0.0] * 7), directions))
        True
    """
    knots = torch.linspace(0, REACH, KNOTS, device=z.device, dtype=z.dtype)
    normal = torch.exp(-0.5 * knots.square())
    step = torch.full_like(knots, 2 * REACH / (KNOTS - 1))  # twice: the other half, below 0, is the mirror image
    step[0] = step[-1] = REACH / (KNOTS - 1)
    share = torch.ones_like(z[..., 0]) if weight is None else weight.to(z)
    count = share.sum(-1)
    angle = (z @ directions).unsqueeze(-1) * knots  # [..., N, P, K]
    share = (share / count.clamp(min=1).unsqueeze(-1))[..., None, None]
    real, imaginary = (angle.cos() * share).sum(-3), (angle.sin() * share).sum(-3)
    # without points both are 0 and the test has nothing to say
    apart = ((real - normal).square() + imaginary.square()) @ (step * normal)
    return (apart.mean(-1) * count).mean()


def variance_hinge(z: Tensor, weight: Tensor | None = None, least: float = 1.0) -> Tensor:
    """Measure by how much the deviations of the dimensions fall short.

    Args:
        z: [N, D], points.
        weight: [N], 0 for points that do not count; None counts all.
        least: deviation that every dimension should have.

    Returns:
        Scalar: the mean over dimensions of what is missing.

    Reference:
        Bardes, Ponce and LeCun, VICReg, 2022, equations 1 and 2.

    Example:
        >>> import torch
        >>> from foreworld.ops.collapse import variance_hinge
        >>> round(float(variance_hinge(torch.tensor([[0.0, -2.0], [0.0, 2.0]]))), 3)  # one dimension of two is dead
        0.495
    """
    centred, count = _centred(z, weight)
    deviation = (centred.square().sum(0) / (count - 1).clamp(min=1) + 1e-4).sqrt()
    return F.relu(least - deviation).mean()


def covariance_penalty(z: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum the squared covariances between different dimensions, divided by their number.

    Args:
        z: [N, D], points.
        weight: [N], 0 for points that do not count; None counts all.

    Returns:
        Scalar, 0 where dimensions are uncorrelated.

    Reference:
        Bardes, Ponce and LeCun, VICReg, 2022, equations 3 and 4.

    Example:
        >>> import torch
        >>> from foreworld.ops.collapse import covariance_penalty
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> float(covariance_penalty(z))
        0.0
    """
    centred, count = _centred(z, weight)
    matrix = centred.T @ centred / (count - 1).clamp(min=1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]


def barlow_twins(a: Tensor, b: Tensor, weight: Tensor | None = None, redundancy: float = 5e-3) -> Tensor:
    """Measure how far the correlations between two views' dimensions are from the identity.

    Args:
        a: [N, D], one view of N things.
        b: [N, D], the other.
        weight: [N], 0 for things that do not count; None counts all.
        redundancy: weight of correlations between different dimensions.

    Returns:
        Scalar, divided by D.

    Reference:
        Zbontar et al., Barlow Twins, 2021, equations 1 and 2.

    Example:
        >>> import torch
        >>> from foreworld.ops.collapse import barlow_twins
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> bool(barlow_twins(z, z) < 1e-4 < barlow_twins(z, z.roll(1, 1)))
        True
    """
    left, count = _centred(a, weight)
    right, _ = _centred(b, weight)
    scale = [(x.square().sum(0) / count.clamp(min=1) + 1e-4).sqrt() for x in (left, right)]
    matrix = (left / scale[0]).T @ (right / scale[1]) / count.clamp(min=1)
    diagonal = matrix.diagonal()
    apart = (1 - diagonal).square().sum()
    return (apart + redundancy * (matrix.square().sum() - diagonal.square().sum())) / a.shape[1]


def _centred(z: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return points less their mean, zero where they do not count, and how many count."""
    share = torch.ones_like(z[:, :1]) if weight is None else weight.to(z).unsqueeze(1)
    count = share.sum()
    return (z - (z * share).sum(0) / count.clamp(min=1)) * share, count
