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


def test_one_models_encoder_arrives_in_every_member_and_predictors_stay_apart(data: Dataset, tmp_path: Path) -> None:
    single = fw.JEPA(data.spec, latent=8, units=16, layers=1)
    fw.fit(single, data, steps=5, batch=2, length=8, lr=1e-2, warmup=1, out=tmp_path / "run")
    torch.manual_seed(7)
    each = {"latent": 8, "units": 16, "layers": 1, "encoder": "frozen"}
    model = fw.Ensemble(data.spec, member="jepa", members=3, each=each)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    taken, left = adopt(model, tmp_path / "run")
    assert {name.split(".")[2] for name in taken} == {"encoder"} and "encoder" not in " ".join(left)
    for member in model.models:
        for name, value in single.encoder.state_dict().items():
            assert torch.equal(member.encoder.state_dict()[name], value)
    for name, value in model.state_dict().items():
        assert "encoder" in name or torch.equal(value, before[name]), name
    goal = {"obs": torch.randn(5, 4)}
    assert torch.equal(model.embed(goal), single.embed(goal))
    fw.fit(model, data, steps=3, batch=2, length=8, lr=1e-2, warmup=1)
    assert torch.equal(model.embed(goal), single.embed(goal))
    first, second = (torch.cat([w.flatten() for w in one.predictor.parameters()]) for one in model.models[:2])
    assert not torch.allclose(first, second)
    with torch.no_grad():
        states = model.step(model.initial(4), torch.eye(2).repeat(2, 1))
        assert float(model.spread(states).min()) > 1e-6


def test_an_encoder_that_would_stay_random_is_refused(data: Dataset, tmp_path: Path) -> None:
    fw.fit(fw.JEPA(data.spec, latent=8, units=16), data, steps=1, batch=2, length=8, out=tmp_path / "run")
    other = {"latent": 4, "units": 16, "encoder": "frozen"}
    for model in (fw.JEPA(data.spec, **other), fw.Ensemble(data.spec, member="jepa", members=2, each=other)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ConfigError, match=r"frozen and needs all of it, '.*encoder\.out\.1\..*' for one"):
            adopt(model, tmp_path / "run")
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    learned = fw.Ensemble(data.spec, member="jepa", members=2, each={"latent": 8, "units": 16})
    with pytest.raises(ConfigError, match=r"members of this ensemble must begin apart.*--model\.each\.encoder frozen"):
        adopt(learned, tmp_path / "run")
    with pytest.raises(ConfigError, match="is a run of jepa, not of ensemble"):
        adopt(fw.Ensemble(data.spec, member="linear", members=2), tmp_path / "run")


def test_several_encoders_do_not_become_one(data: Dataset, tmp_path: Path) -> None:
    each = {"latent": 8, "units": 16, "layers": 1}
    learned, frozen = (
        fw.Ensemble(data.spec, member="jepa", members=2, each=each | {"encoder": encoder})
        for encoder in ("learned", "frozen")
    )
    for name, model in (("learned", learned), ("frozen", frozen)):
        fw.fit(model, data, steps=1, batch=2, length=8, out=tmp_path / name)
    with pytest.raises(ConfigError, match=r"learned an encoder each.*begin with a run of one model"):
        adopt(frozen, tmp_path / "learned")
    assert not adopt(frozen, tmp_path / "frozen")[1]


def test_weights_that_mean_nothing_are_refused(data: Dataset, tmp_path: Path) -> None:
    fw.fit(fw.JEPA(data.spec, latent=8, units=16), data, steps=1, batch=2, length=8, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="is a run of jepa, not of linear"):
        adopt(fw.Linear(data.spec), tmp_path / "run")
