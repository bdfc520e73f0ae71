from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import foreworld as fw
from foreworld.core.errors import ConfigError, OutputExists, SpecError, UnknownName
from foreworld.rollout import record
from foreworld.worlds import Balls, Fork, Lorenz63, Pendulum


def files(path: Path) -> dict[str, bytes]:
    found = [path / "schema.json", *sorted((path / "shards").rglob("*"))]
    return {str(file.relative_to(path)): file.read_bytes() for file in found if file.is_file()}


def test_rows_are_what_the_world_shows(tmp_path: Path) -> None:
    data = record("foreworld/Fork-v0", episodes=5, image_size=32, seed=2, out=tmp_path / "d")
    assert data.spec.action is None and data.spec.fps == pytest.approx(10)
    assert (data.episodes, data.rows, data.lengths.tolist()) == (5, 125, [25] * 5)
    assert list(data.spec.obs) == ["obs", "image"] and data.spec.obs["image"].shape == (3, 32, 32)
    world = Fork(size=32)
    for episode in range(5):
        raw, truth = data.raw(episode), data.truth([episode], [0], 25)["state"][0].numpy()
        assert np.array_equal(raw["obs/obs"], truth[:, :2])
        assert np.abs(raw["obs/image"].astype(int) - world.render(truth.astype(float))).max() <= 1
        assert not raw["reward"].any() and not raw["is_terminal"].any()
        assert raw["is_first"].tolist() == [True] + [False] * 24


def test_the_same_seed_gives_the_same_bytes_and_more_episodes_only_add(tmp_path: Path) -> None:
    for name in "ab":
        record("foreworld/Fork-v0", episodes=20, seed=4, out=tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    few, many = fw.load(tmp_path / "a"), record("foreworld/Fork-v0", episodes=33, seed=4, out=tmp_path / "c")
    other = record("foreworld/Fork-v0", episodes=20, seed=5, out=tmp_path / "d")
    for episode in range(20):
        state = few.raw(episode)["truth/state"]
        assert np.array_equal(state, many.raw(episode)["truth/state"])
        assert not np.array_equal(state, other.raw(episode)["truth/state"])
    starts = many.column("truth/state")[::25, 1]
    assert len(np.unique(starts)) == 33


def test_a_budget_of_steps_is_exact(tmp_path: Path) -> None:
    data = record(Lorenz63(settle=1.0), steps=250, max_steps=100, out=tmp_path / "d")
    assert data.steps == 250 and data.lengths.tolist() == [101, 101, 51]
    assert record(Pendulum(), episodes=1, out=tmp_path / "e").lengths.tolist() == [101]


def test_collect_records_what_takes_no_action(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    data = fw.collect(
        "foreworld/FreePendulum-v0",
        episodes=3,
        max_steps=7,
        seed=1,
        out=tmp_path / "d",
        progress=lambda done, total: told.append((done, total)),
    )
    again = record("foreworld/FreePendulum-v0", episodes=3, max_steps=7, seed=1, out=tmp_path / "e")
    assert data.spec.action is None and data.lengths.tolist() == [8, 8, 8]
    assert np.array_equal(data.column("obs/obs"), again.column("obs/obs"))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert data.source.env == "foreworld/FreePendulum-v0" and data.source.seed == 1
    with pytest.raises(ConfigError, match="leave out policy and noise"):
        fw.collect("foreworld/FreePendulum-v0", lambda rows: rows.reward, episodes=1, out=tmp_path / "f")
    with pytest.raises(ConfigError, match="leave out policy and noise"):
        fw.collect("foreworld/FreePendulum-v0", noise=0.5, episodes=1, out=tmp_path / "f")


def test_keys_parameters_and_sources(tmp_path: Path) -> None:
    data = record("foreworld/Fork-v0", episodes=2, keys=["obs"], left=1.0, out=tmp_path / "d")
    assert list(data.spec.obs) == ["obs"]
    assert (data.column("truth/state")[24::25, 2] == -1).all()
    assert data.source.options == {"image_size": None, "left": 1.0, "keys": ["obs"], "max_steps": None}
    own = record(Balls(radii=(0.2,)), episodes=1, out=tmp_path / "e").source
    assert own.env == "balls" and own.options["radii"] == [0.2]
    with pytest.raises(SpecError, match="unknown observation key 'images'; did you mean 'image'"):
        record("foreworld/Fork-v0", episodes=2, keys=["images"], out=tmp_path / "f")
    with pytest.raises(SpecError, match="choose from obs, image"):
        record("foreworld/Fork-v0", episodes=2, keys=[], out=tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_stop_keeps_what_was_done(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    assert record(Pendulum(), episodes=100, out=tmp_path / "d", stop=lambda: next(asked)).episodes == 3
    with pytest.raises(OutputExists):
        record(Pendulum(), episodes=1, out=tmp_path / "d")
    assert record(Pendulum(), episodes=1, out=tmp_path / "d", overwrite=True).episodes == 1


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    for budget in ({}, {"episodes": 1, "steps": 1}, {"episodes": 0}, {"steps": -1}, {"episodes": 1, "max_steps": 0}):
        with pytest.raises(ConfigError):
            record(Pendulum(), out=tmp_path / "d", **budget)
    with pytest.raises(ConfigError, match="takes an action"):
        record("foreworld/Pendulum-v0", episodes=1, out=tmp_path / "d")
    with pytest.raises(UnknownName, match="did you mean"):
        record("foreworld/Lorenz-v0", episodes=1, out=tmp_path / "d")
    with pytest.raises(ConfigError, match="go with an id"):
        record(Pendulum(), episodes=1, out=tmp_path / "d", damping=2.0)
    assert not (tmp_path / "d").exists()
