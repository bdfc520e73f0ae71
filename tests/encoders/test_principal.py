"""Principal components: against an exact decomposition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreworld.core.errors import ConfigError
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.encoders.principal import Principal
from foreworld.testing import random_segment, specs


def features(rows: int = 400) -> torch.Tensor:
    """Of 30 numbers, in directions that differ in how much they vary, and far from zero."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(30, 30)).Q
    return torch.randn(rows, 30) * 0.7 ** torch.arange(30.0) @ turn + 50


def test_they_are_those_of_an_exact_decomposition() -> None:
    x, reduce = features(), Principal(30, 6)
    reduce.fit(x)
    centred = (x - x.mean(0)).double().numpy()
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    exact = centred @ directions[:6].T
    exact /= np.sqrt(np.square(values[:6]).mean() / len(x))
    found = reduce(x).double().numpy()
    assert np.allclose(np.abs(found), np.abs(exact), atol=1e-2)  # a direction may point either way
    assert np.isclose(np.square(found).mean(), 1)


def test_distances_are_kept_but_for_their_unit() -> None:
    x, reduce = features(), Principal(30, 30)
    reduce.fit(x)
    z, x = reduce(x).double(), x.double()
    ratio = torch.cdist(z, z) / torch.cdist(x, x).clamp(min=1e-6)
    apart = ~torch.eye(len(x), dtype=torch.bool)
    assert float(ratio[apart].std() / ratio[apart].mean()) < 1e-3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="asked for 31 of 30 features"):
        Principal(30, 31)
    with pytest.raises(ConfigError, match="8 need more rows than 8"):
        Principal(30, 8).fit(features(8))
    with pytest.raises(ConfigError, match="are the same"):
        Principal(30, 8).fit(torch.ones(20, 30))


def test_an_encoder_finds_them_once() -> None:
    spec = specs()["mixed_discrete"]
    torch.manual_seed(0)
    net = LatentEncoder(spec, 4, 16, Vision(kind="vit", patch=8, tokens=8, blocks=1, heads=2, out="principal"))
    first, second = (random_segment(spec, 8, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    net.requires_grad_(False).fit_out(iter([first]))
    z = net(first.obs)
    assert float(z.square().mean()) == pytest.approx(1, abs=0.05) and bool(z.mean((0, 1)).abs().max() < 1e-3)
    net.fit_out(iter([second]))
    assert torch.equal(net(first.obs), z), "what is known, such as from another run, stays"
