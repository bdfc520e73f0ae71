"""Training on stored episodes in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import foreworld as fw
from foreworld.core.errors import ConfigError
from foreworld.data import Dataset
from foreworld.encoders.latent import Vision

SMALL: dict[str, Any] = {
    "RSSM": {"deter": 32, "units": 16, "latents": 4, "classes": 4, "depth": 2},
    "JEPA": {"latent": 8, "units": 16, "layers": 1, "decoder": True, "vision": Vision(widths=(4,), patch=4)}
    | dict.fromkeys(("sigreg", "variance", "covariance", "similarity", "inverse", "barlow"), 0.5),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fw.collect("foreworld/TwoRooms-v0", steps=200, out=tmp_path_factory.mktemp("half") / "rooms")


@pytest.mark.parametrize("family", SMALL)
def test_half_precision_learns_nearly_alike_and_keeps_its_weights_in_single(family: str, data: Dataset) -> None:
    models, histories = [], []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        models.append(getattr(fw, family)(data.spec, **SMALL[family]))
        sizes = {"steps": 3, "batch": 4, "length": 6, "log_every": 1, "lr": 1e-3}
        histories.append(fw.fit(models[-1], data, precision=precision, **sizes).history)
    whole, half = histories
    losses = [name for name in whole[0] if name.startswith("loss/")]
    assert len(losses) > 3 and half[0] != whole[0]
    for name in losses:
        assert half[0][name] == pytest.approx(whole[0][name], rel=0.05, abs=1e-3), name
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in models[1].parameters())
    assert any(not torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_what_a_jepa_compares_and_remembers_is_single(data: Dataset) -> None:
    torch.manual_seed(0)
    model = fw.JEPA(data.spec, **SMALL["JEPA"])
    with torch.autocast("cpu", torch.bfloat16):
        found = model.losses(data.sample(3, 6, seed=0))
        ahead = model.step(model.initial(2), torch.zeros(2, 2))
    assert {name: term.dtype for name, term in found.terms.items()} == dict.fromkeys(found.terms, torch.float32)
    assert ahead.latents.dtype == torch.float32 == found.states.latents.dtype


def test_another_precision_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision"):
        fw.fit(fw.RSSM(data.spec, **SMALL["RSSM"]), data, steps=1, precision="half")
