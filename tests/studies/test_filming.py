"""Films of dreams: playable, of the rows they say, without a trace in the training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import foreworld as fw
from foreworld.core import Space
from foreworld.core.errors import MissingCapability, SpecError
from foreworld.data import Dataset, Episode, Writer
from foreworld.envs import make
from foreworld.studies.dreams import dream
from foreworld.studies.filming import can_film, film_agent, write_dream
from foreworld.train.videos import list_videos

av = pytest.importorskip("av")
pytest.importorskip("PIL")

ACTION = Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,))
SETTINGS: dict[str, Any] = {"batch": 2, "length": 6, "lr": 0.1, "warmup": 1, "save_every": 2}


def written(folder: Path, space: Space, lengths: tuple[int, ...] = (30, 12, 30, 12)) -> Dataset:
    """Write episodes of noise."""
    rng = np.random.default_rng(0)
    with Writer(folder, fw.Spec(obs={"obs": space}, action=ACTION)) as writer:
        for length in lengths:
            obs = rng.integers(256, size=(length, *space.shape)).astype(space.dtype)
            action = np.array([0, *rng.integers(3, size=length - 1)])
            writer.add(Episode(obs={"obs": obs}, prev_action=action, reward=np.zeros(length, np.float32)))
    return fw.load(folder)


def small(data: Dataset) -> fw.RSSM:
    torch.manual_seed(0)
    return fw.RSSM(data.spec, deter=16, units=8, latents=2, classes=3, depth=2, layers=1)


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


VECTOR = Space(kind="vector", shape=(2,), dtype="float32")
IMAGE = Space(kind="image", shape=(3, 64, 64), dtype="uint8")


@pytest.mark.parametrize("space", [VECTOR, IMAGE], ids=["vector", "image"])
def test_training_is_the_same_with_films_and_they_play(space: Space, tmp_path: Path) -> None:
    data = written(tmp_path / "data", space)
    train, heldout = data.subset([1, 3]), data.subset([0, 2])
    plain, filmed = small(data), small(data)
    fw.fit(plain, train, steps=4, **SETTINGS)
    film = fw.film_dreams(heldout, context=5, horizon=12)
    fw.fit(filmed, train, steps=4, out=tmp_path / "run", film=film, **SETTINGS)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, filmed.state_dict()[name]), name
    found = list_videos(tmp_path / "run")
    assert [path.name for path in found] == ["00000002.mp4", "00000004.mp4"]
    early, late = (frames(path) for path in found)
    assert len(early) == len(late) == 5 + 12
    assert len({frame.shape for frame in (*early, *late)}) == 1
    # the same rows, dreamed by other weights
    assert np.abs(early[-1].astype(int) - late[-1]).max() > 20


def test_short_episodes_are_half_seen_and_dreamed_to_their_end(tmp_path: Path) -> None:
    data = written(tmp_path / "data", VECTOR, (8, 6, 5))
    fw.film_dreams(data.subset([0, 2]))(small(data), tmp_path / "short.mp4")
    assert len(frames(tmp_path / "short.mp4")) == 8


def test_of_stacked_frames_the_newest_is_shown(tmp_path: Path) -> None:
    data = written(tmp_path / "data", Space(kind="image", shape=(4, 64, 64), dtype="uint8"))
    found = dream(small(data), data, [0], [3], context=2, horizon=3)[0].clip("obs")
    np.testing.assert_array_equal(found.real[:, 0], data.raw(0)["obs/obs"][3:8, 3])
    assert found.dreamed.shape == found.real.shape == (5, 1, 64, 64)


def test_an_unknown_image_is_refused_with_those_there_are(tmp_path: Path) -> None:
    data = written(tmp_path / "data", IMAGE)
    found = dream(small(data), data, [0], [0], context=2, horizon=2)[0]
    with pytest.raises(SpecError, match=r"unknown image observation 'front'.*obs"):
        write_dream(found, tmp_path / "none.mp4", "front")


def test_who_cannot_decode_is_not_filmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(tmp_path / "data", VECTOR)
    model = small(data)
    assert can_film(model)
    monkeypatch.setitem(sys.modules, "av", None)
    assert not can_film(model)
    monkeypatch.undo()
    model.provides = model.provides - {"decode"}
    assert not can_film(model)
    with pytest.raises(MissingCapability, match="decode"):
        fw.film_dreams(data)(model, tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


def test_an_episode_is_filmed_as_the_environment_shows_it_and_what_shows_nothing_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fw.RSSM(make("CartPole-v1").spec, deter=16, units=8, latents=2)
    film = film_agent(fw.Dreamer(model, units=8), "CartPole-v1", {}, longest=12)
    film(model, tmp_path / "shown.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"shown.mp4", "shown-episode.mp4"}
    assert capsys.readouterr().err == ""

    def broken(self: object) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(CartPoleEnv, "render", broken)
    film(model, tmp_path / "blind.mp4")
    film(model, tmp_path / "blinder.mp4")
    assert {path.name for path in tmp_path.iterdir()} >= {"blind.mp4", "blinder.mp4"}
    assert not list(tmp_path.glob("blind*-episode.mp4"))
    assert capsys.readouterr().err.count("no display") == 1
