"""Beginning with another run's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import foreworld as fw
from foreworld.core.errors import ConfigError
from foreworld.data import Dataset
from foreworld.train import adopt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fw.collect("CartPole-v1", episodes=3, out=tmp_path_factory.mktemp("adopt") / "data")


def test_a_model_with_actions_takes_over_the_encoder_of_one_without(data: Dataset, tmp_path: Path) -> None:
    video = fw.JEPA(replace(data.spec, action=None), latent=8, units=16)
    fw.fit(video, data, steps=2, batch=2, length=8, out=tmp_path / "video")
    model = fw.JEPA(data.spec, latent=8, units=16, encoder="frozen")
    taken, left = adopt(model, tmp_path / "video")
    assert {name for name in model.state_dict() if name.startswith("encoder")} <= set(taken)
    assert set(taken) | set(left) == set(model.state_dict())
    assert {name.split(".")[0] for name in left} == {"predictor", "reward", "cont"}
    for name in taken:
        assert torch.equal(model.state_dict()[name], video.state_dict()[name])


def test_weights_that_mean_nothing_are_refused(data: Dataset, tmp_path: Path) -> None:
    fw.fit(fw.JEPA(data.spec, latent=8, units=16), data, steps=1, batch=2, length=8, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="is a run of jepa, and this is a linear"):
        adopt(fw.Linear(data.spec), tmp_path / "run")
