"""Minari's datasets: what the package writes is read, what is written the package reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import foreworld as fw
from foreworld.core.errors import DataError
from foreworld.data.formats import export_episodes, import_episodes
from foreworld.data.formats.spaces import declaration, declared
from foreworld.envs.spaces import gym_space

h5py = pytest.importorskip("h5py")


SCENE = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (40, 48, 3), np.uint8),
        "arm": spaces.Dict({"joint": spaces.Box(-1, 1, (3,), np.float64), "mode": spaces.Discrete(5, start=2)}),
    }
)
"""What a nested recording sees; every number counts the steps."""


def seen(steps: int) -> dict[str, Any]:
    """Return T+1 rows."""
    at = np.arange(steps + 1)
    camera = np.tile(np.linspace(0, 255, 48).astype(np.uint8)[None, None, :, None], (steps + 1, 40, 1, 3))
    camera[..., 0] = 20 * at[:, None, None]
    return {"camera": camera, "arm": {"joint": np.repeat(at[:, None] / 10, 3, 1), "mode": 2 + at % 5}}


@pytest.fixture
def theirs(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Return a dataset that the package itself stored: two episodes, one terminated, one cut off."""
    minari = pytest.importorskip("minari")
    buffers = pytest.importorskip("minari.data_collector.episode_buffer")
    storage = pytest.importorskip("minari.dataset.minari_storage").MinariStorage
    home = tmp_path / "scene-v0" / "data"
    home.mkdir(parents=True)
    made = storage.new(home, SCENE, spaces.Discrete(3), jpeg_encoding=getattr(request, "param", False))
    for number, steps in enumerate((6, 9)):
        last = np.arange(steps) == steps - 1
        episode = buffers.EpisodeBuffer(
            id=number,
            observations=seen(steps),
            actions=np.arange(steps) % 3,
            rewards=np.arange(1, steps + 1) / 2,
            terminations=last & (number == 0),
            truncations=last & (number == 1),
            infos=None,
        )
        made.update_episodes([episode])
    made.update_metadata({"dataset_id": "test/scene-v0", "minari_version": minari.__version__})
    return minari.MinariDataset(home)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("theirs", [False, True], indirect=True, ids=["raw", "jpeg"])
def test_what_minari_records_is_read(theirs: Any, tmp_path: Path) -> None:
    folder = tmp_path / "scene-v0"
    found = import_episodes(folder, out=tmp_path / "d")
    data = found.data
    assert (found.format, data.episodes, data.steps) == ("minari", 2, 15)
    assert set(data.spec.obs) == {"camera", "arm/joint", "arm/mode"}
    assert data.spec.obs["arm/mode"].start == (2,) and data.source.options["dataset_id"] == "test/scene-v0"
    assert [bool(data.raw(i)["is_terminal"][-1]) for i in range(2)] == [True, False]
    for number, episode in enumerate(theirs.iterate_episodes()):
        raw = data.raw(number)
        np.testing.assert_array_equal(raw["prev_action"][1:], episode.actions)
        np.testing.assert_array_equal(raw["reward"][1:], episode.rewards)
        np.testing.assert_array_equal(np.moveaxis(raw["obs/camera"], 1, -1), episode.observations["camera"])
        np.testing.assert_array_equal(raw["obs/arm/joint"], episode.observations["arm"]["joint"].astype(np.float32))
        np.testing.assert_array_equal(raw["obs/arm/mode"], episode.observations["arm"]["mode"])
    steps = np.arange(7)
    shown = data.raw(0)["obs/camera"][:, 0].mean((1, 2))
    np.testing.assert_allclose(shown, 20 * steps, atol=3, err_msg="row t shows what was there after t actions")
    cut = import_episodes(folder / "data", out=tmp_path / "e", cut=True, keys=["arm/joint"]).data
    assert not cut.column("is_terminal").any() and set(cut.spec.obs) == {"arm/joint"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env", ["CartPole-v1", "foreworld/PushT-v0", "foreworld/TwoRooms-v0"])
def test_what_is_written_minari_reads_and_it_comes_back(env: str, tmp_path: Path) -> None:
    data = fw.collect(env, episodes=3, max_steps=12, out=tmp_path / "d")
    assert export_episodes(data, out=tmp_path / "m", format="minari") == ()
    again = import_episodes(tmp_path / "m", out=tmp_path / "e").data
    assert again.schema == data.schema
    for name in data.schema.columns:
        np.testing.assert_array_equal(again.column(name), data.column(name))
    minari = pytest.importorskip("minari")
    theirs = minari.MinariDataset(tmp_path / "m" / "data")
    assert (theirs.total_episodes, theirs.total_steps) == (3, data.steps)
    assert theirs.spec.action_space == gym_space(data.schema.spec.action)
    for number, episode in enumerate(theirs.iterate_episodes()):
        raw = data.raw(number)
        np.testing.assert_array_equal(episode.actions, raw["prev_action"][1:])
        np.testing.assert_array_equal(episode.rewards, raw["reward"][1:])
        assert episode.terminations[-1] == raw["is_terminal"][-1] != episode.truncations[-1]
        found = episode.observations
        for key, space in data.spec.obs.items():
            one = found[key] if isinstance(found, dict) else found
            np.testing.assert_array_equal(space.to_rest(one), raw[f"obs/{key}"])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a dataset in Minari's layout without our schema beside it."""
    data = fw.collect("CartPole-v1", episodes=3, max_steps=6, out=tmp_path / "d")
    export_episodes(data, out=tmp_path / "m", format="minari")
    (tmp_path / "m" / "foreworld.json").unlink()
    return tmp_path / "m"


def test_without_our_schema_the_declarations_tell(written: Path, tmp_path: Path) -> None:
    again, data = import_episodes(written, out=tmp_path / "e").data, fw.load(tmp_path / "d")
    for name in data.schema.columns:
        np.testing.assert_array_equal(again.column(name), data.column(name))
    assert again.spec.obs["obs"].shape == (4,) and again.spec.action == data.spec.action


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


BOX = {"type": "Box", "dtype": "float32", "shape": [10**12], "low": [0.0], "high": [1.0]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data_format": "arrow"}, "stored as 'arrow'; only hdf5"),
        ({"total_episodes": 4}, "holds 3 episodes where metadata.json says 4"),
        ({"observation_space": None}, "has no observation_space"),
        ({"observation_space": "{"}, "observation_space: is no JSON"),
        ({"observation_space": json.dumps(BOX)}, "bounds of shape"),
        ({"observation_space": json.dumps({**BOX, "dtype": "object"})}, "is no declaration|bounds of shape"),
        ({"observation_space": json.dumps({"type": "Graph"})}, "'Graph' spaces are not supported"),
        ({"action_space": json.dumps({"type": "Tuple", "subspaces": []})}, "Tuple spaces are not supported"),
        ({"action_space": json.dumps({"type": "MultiBinary", "n": 10**12})}, "too large"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 1, "start": 0})}, "row 1|row 2|row 3|row 4|row 5"),
    ],
)
def test_metadata_that_cannot_be_is_refused(written: Path, tmp_path: Path, fields: Any, words: str) -> None:
    edit(written, **fields)
    with pytest.raises(DataError, match=words):
        import_episodes(written, out=tmp_path / "e", format="minari")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("observations", np.zeros((3, 4), np.float32), "observations: 3 rows where"),
        ("observations", None, r"episode_1.*'observations'"),
        ("actions", np.full(2, 9), "actions: 2 rows where"),
        ("terminations", np.zeros((2, 2)), "terminations: 2 rows where"),
        ("rewards", np.float64(1), r"rewards: shape \(\)"),
        ("rewards", np.zeros((4, 2)), r"rewards: shape \(4, 2\)"),
    ],
)
def test_an_episode_that_cannot_be_is_refused(written: Path, tmp_path: Path, name: str, value: Any, words: str) -> None:
    with h5py.File(written / "data" / "main_data.hdf5", "a") as root:
        del root[f"episode_1/{name}"]
        if value is not None:
            root[f"episode_1/{name}"] = value
    with pytest.raises(DataError, match=words) as caught:
        import_episodes(written, out=tmp_path / "e")
    assert "main_data.hdf5: episode_1" in str(caught.value)
    assert not (tmp_path / "e").exists()


def picture(folder: Path, content: bytes) -> None:
    """Replace the observations by rows of an encoded picture."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as root:
        for episode in root.values():
            rows = len(episode["observations"])
            del episode["observations"]
            episode["observations"] = np.tile(np.frombuffer(content, np.uint8), (rows, 1))


def test_a_picture_that_lies_is_refused_before_it_is_decoded(written: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    box = {"type": "Box", "dtype": "uint8", "shape": [32, 32, 3]}
    box |= {"low": np.zeros((32, 32, 3)).tolist(), "high": np.full((32, 32, 3), 255).tolist()}
    edit(written, observation_space=json.dumps(box))
    image.new("RGB", (64, 32)).save(tmp_path / "wide.jpeg")
    picture(written, (tmp_path / "wide.jpeg").read_bytes())
    with pytest.raises(DataError, match=r"row 0: a picture of \(64, 32\), declared as \(32, 32, 3\)"):
        import_episodes(written, out=tmp_path / "e")
    image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    picture(written, (tmp_path / "x.png").read_bytes())
    with pytest.raises(DataError, match="row 0: is no picture in JPEG"):
        import_episodes(written, out=tmp_path / "e")


SPACES = [
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete([2, 5]),
    spaces.Box(-1, 2, (2, 3), np.float32),
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(0, 255, (40, 32, 3), np.uint8),
    spaces.Box(-3, 3, (2,), np.int16),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_declaration_says_what_minari_says(space: spaces.Space[Any]) -> None:
    said = declaration(fw.Spec.from_space(space, None).obs["image" if space.dtype == np.uint8 else "obs"])
    assert declared("here", json.loads(json.dumps(said))) == space
    minari = pytest.importorskip("minari.serialization")
    assert minari.deserialize_space(json.dumps(said)) == space
    assert declared("here", json.loads(minari.serialize_space(space))) == space
