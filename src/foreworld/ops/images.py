"""How alike two images are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core.errors import ConfigError


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio, 10 log10 (1 / mean squared error).

    Args:
        predicted: [.., C, H, W] in [0, 1].
        target: [.., C, H, W] in [0, 1].

    Returns:
        [..], decibel; more is better, infinite for equal images.

    Example:
        >>> import torch
        >>> psnr(torch.full((3, 8, 8), 0.6), torch.full((3, 8, 8), 0.5))
        tensor(20.0000)
    """
    return -10 * torch.log10((predicted - target).square().mean((-3, -2, -1)))


def ssim(predicted: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Compute the structural similarity, averaged over channels and over all places where the whole window fits.

    Images smaller than the window have none: what a smaller window gives cannot be compared. It is refused unless
    `window` is set.

    Args:
        predicted: [.., C, H, W] in [0, 1].
        target: [.., C, H, W] in [0, 1].
        window: side of the Gaussian window, in pixels.
        sigma: its standard deviation, in pixels.

    Returns:
        [..], in [-1, 1]; more is better, 1 for equal images.

    Raises:
        ConfigError: an image smaller than the window.

    Reference:
        Wang et al., IEEE Transactions on Image Processing 2004, eq. 13 to 16, with their constants, on colours
        channel by channel.

    Example:
        >>> import torch
        >>> image = torch.rand(3, 16, 16)
        >>> ssim(image, image)
        tensor(1.)
    """
    height, width = target.shape[-2:]
    if min(height, width) < window:
        raise ConfigError(f"ssim: images of {height}x{width} are smaller than the window of {window}; use psnr instead")
    place = torch.arange(window, dtype=target.dtype, device=target.device) - (window - 1) / 2
    weight = torch.exp(-place.square() / (2 * sigma**2))
    weight = weight / weight.sum()

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1))

    # about 0.5, so that the variances, small differences of squares, keep their digits in float32
    x, y = ((image - 0.5).reshape(-1, 1, height, width) for image in (predicted, target))
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    light = (2 * mean_x * mean_y + 0.01**2) / (mean_x.square() + mean_y.square() + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return (light * structure).mean((-3, -2, -1)).reshape(target.shape[:-2]).mean(-1)
