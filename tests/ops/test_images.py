"""Likeness of images, against an independent implementation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from foreworld.core.errors import ConfigError
from foreworld.ops import psnr, ssim


def by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """Average the index over channels and places, written with scipy's filter in float64."""
    found = []
    for a, b in zip(x.astype(float), y.astype(float), strict=True):

        def blur(image: np.ndarray) -> np.ndarray:
            return ndimage.gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

        ma, mb = blur(a), blur(b)
        va, vb, vab = blur((a - a.mean()) ** 2), blur((b - b.mean()) ** 2), blur((a - a.mean()) * (b - b.mean()))
        va, vb = va - (ma - a.mean()) ** 2, vb - (mb - b.mean()) ** 2
        vab = vab - (ma - a.mean()) * (mb - b.mean())
        index = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
        found.append(index.mean())
    return float(np.mean(found))


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((3, 24, 31)), (0, 3, 3))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    noise = rng.random((3, 24, 31))
    return [
        (smooth, 0.8 * smooth + 0.2 * noise),
        (smooth, 1 - smooth),
        (noise, rng.random((3, 24, 31))),
        (smooth, smooth),
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ssim_is_that_of_an_independent_implementation(dtype: torch.dtype) -> None:
    x, y = (np.stack(images) for images in zip(*pairs(), strict=True))
    found = ssim(torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype))
    expected = [by_scipy(a, b) for a, b in pairs()]
    assert found.tolist() == pytest.approx(expected, abs=1e-12 if dtype == torch.float64 else 2e-5)
    assert float(found[1]) < 0 < float(found[0]) < float(found[3])


def test_flat_images_differ_by_their_light_alone() -> None:
    found = ssim(*(torch.full((1, 11, 11), light, dtype=torch.float64) for light in (0.2, 0.6)))
    assert float(found) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), abs=1e-12)


def test_equal_images_and_leading_axes() -> None:
    image = torch.rand(2, 5, 3, 16, 16)
    assert torch.allclose(ssim(image, image), torch.ones(2, 5))
    assert torch.isinf(psnr(image, image)).all()
    other = torch.rand(2, 5, 3, 16, 16)
    for score in (ssim, psnr):
        found = score(image, other)
        assert found.shape == (2, 5)
        assert float(found[1, 2]) == pytest.approx(float(score(image[1, 2], other[1, 2])), abs=1e-5)
        assert torch.allclose(found, score(other, image))


def test_psnr_by_hand() -> None:
    zero = torch.zeros(1, 3, 4, 4)
    assert psnr(zero, zero + 0.1).tolist() == pytest.approx([20], abs=1e-4)
    half = zero.clone()
    half[..., :2] = 0.2
    assert psnr(zero, half).tolist() == pytest.approx([10 * np.log10(1 / 0.02)], abs=1e-4)


def test_images_smaller_than_the_window_are_refused_unless_it_is_made_smaller() -> None:
    image = torch.rand(3, 7, 12)
    with pytest.raises(ConfigError, match="7x12 are smaller than the window of 11"):
        ssim(image, image)
    assert float(ssim(image, image, window=7)) == pytest.approx(1)
