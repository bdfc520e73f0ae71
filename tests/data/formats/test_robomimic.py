"""robomimic's files: every transition survives, what is missing is said, what is broken or hostile is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demos import CAMERAS, Demo, random_demo, write_demos

import foreworld as fw
from foreworld.core.errors import DataError, OutputExists
from foreworld.data import Dataset
from foreworld.data.formats import export_episodes, import_episodes
from foreworld.data.formats.hdf5 import LARGEST

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def demos() -> list[Demo]:
    rng = np.random.default_rng(0)
    return [random_demo(rng, steps) for steps in (5, 3, 4)]


@pytest.fixture
def file(tmp_path: Path, demos: list[Demo]) -> Path:
    return write_demos(tmp_path / "lift.hdf5", demos)


def triples(data: Dataset, episode: int) -> list[tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]]:
    """Return (obs_t, action_t, obs_t+1) of an episode, pictures [H, W, C] again."""
    raw = data.raw(episode)
    seen = {key: space.from_rest(raw[f"obs/{key}"]) for key, space in data.spec.obs.items()}
    rows = [{key: value[t] for key, value in seen.items()} for t in range(len(raw["reward"]))]
    return [(rows[t], raw["prev_action"][t + 1], rows[t + 1]) for t in range(len(rows) - 1)]


def test_every_transition_arrives(file: Path, demos: list[Demo], tmp_path: Path) -> None:
    found = import_episodes(file, out=tmp_path / "d")
    data = found.data
    assert (found.format, data.episodes, data.steps, data.spec.fps) == ("robomimic", 3, 12, 20.0)
    assert {key: space.kind for key, space in data.spec.obs.items()} == {
        **dict.fromkeys(CAMERAS, "image"), "robot0_eef_pos": "vector", "object": "vector"
    }  # fmt: skip
    for number, demo in enumerate(demos):
        assert len(triples(data, number)) == len(demo.action)
        for t, (before, action, after) in enumerate(triples(data, number)):
            np.testing.assert_array_equal(action, demo.action[t].astype(np.float32))
            for key, rows in demo.obs.items():
                np.testing.assert_array_equal(before[key], rows[t].astype(before[key].dtype))
                np.testing.assert_array_equal(after[key], rows[t + 1].astype(after[key].dtype))
        np.testing.assert_array_equal(data.raw(number)["reward"][1:], demo.reward)
        assert data.raw(number)["is_terminal"][-1]
    assert data.source.env == "Lift" and data.source.options["env_args"]["type"] == 1
    assert data.schema.spec.action is not None and data.schema.spec.action.low == (-1.0,) * 7
    assert [note for note in found.notes if "states holds none of the last observation" in note]


def test_without_next_obs_the_last_action_is_dropped_and_said(demos: list[Demo], tmp_path: Path) -> None:
    file = write_demos(tmp_path / "lift.hdf5", demos, outcome=False)
    found = import_episodes(file, out=tmp_path / "d")
    assert found.data.steps == 12 - 3
    assert any("no next_obs" in note and "(3 episodes, the first demo_0)" in note for note in found.notes)
    for number, demo in enumerate(demos):
        raw = found.data.raw(number)
        np.testing.assert_array_equal(raw["prev_action"][1:], demo.action[:-1].astype(np.float32))
        assert not raw["is_terminal"].any(), "what was done was not seen"


def test_states_are_truth_where_the_last_action_is_given_up_for_them(
    file: Path, demos: list[Demo], tmp_path: Path
) -> None:
    data = import_episodes(file, out=tmp_path / "d", states=True).data
    assert data.steps == 9
    np.testing.assert_array_equal(data.raw(1)["truth/states"], demos[1].states.astype(np.float32))


def test_dones_are_believed_unless_every_end_is_cut(file: Path, demos: list[Demo], tmp_path: Path) -> None:
    assert not import_episodes(file, out=tmp_path / "a", cut=True).data.column("is_terminal").any()
    undone = write_demos(tmp_path / "u.hdf5", demos, done=0)
    assert not import_episodes(undone, out=tmp_path / "b").data.column("is_terminal").any()


def test_a_done_before_the_end_is_said(file: Path, tmp_path: Path) -> None:
    with h5py.File(file, "a") as root:
        root["data/demo_1/dones"][0] = 1
    notes = import_episodes(file, out=tmp_path / "d").notes
    assert any("dones before the end" in note and "(1 episode, the first demo_1)" in note for note in notes)


def test_a_filter_key_selects(file: Path, tmp_path: Path) -> None:
    assert import_episodes(file, out=tmp_path / "t", subset="train").data.lengths.tolist() == [6, 5]
    assert import_episodes(file, out=tmp_path / "v", subset="valid").data.lengths.tolist() == [4]
    with pytest.raises(DataError, match="unknown entry 'test'"):
        import_episodes(file, out=tmp_path / "x", subset="test")


def test_keys_select(file: Path, tmp_path: Path) -> None:
    data = import_episodes(file, out=tmp_path / "d", keys=["object", CAMERAS[0]]).data
    assert set(data.spec.obs) == {"object", CAMERAS[0]}
    with pytest.raises(DataError, match="did you mean 'object'"):
        import_episodes(file, out=tmp_path / "e", keys=["objekt"])


def test_several_files_make_one_dataset_if_they_agree(file: Path, demos: list[Demo], tmp_path: Path) -> None:
    wide = [Demo(d.obs, 3 * d.action, d.reward, d.states) for d in demos[:1]]
    other = write_demos(tmp_path / "other.hdf5", wide)
    data = import_episodes([file, other], out=tmp_path / "d").data
    assert data.episodes == 4 and data.schema.spec.action is not None and not data.schema.spec.action.bounded
    third = write_demos(tmp_path / "third.hdf5", demos[1:])
    with h5py.File(third, "a") as root:
        for demo in root["data"].values():
            del demo["obs/object"], demo["next_obs/object"]
    with pytest.raises(DataError, match=r"third\.hdf5: has other observations"):
        import_episodes([file, third], out=tmp_path / "e")


def test_what_was_imported_comes_back_from_an_export(file: Path, tmp_path: Path) -> None:
    data = import_episodes(file, out=tmp_path / "d").data
    assert export_episodes(data, out=tmp_path / "again.hdf5", format="robomimic") == ()
    again = import_episodes(tmp_path / "again.hdf5", out=tmp_path / "e").data
    assert again.schema == data.schema
    for name in data.schema.columns:
        np.testing.assert_array_equal(again.column(name), data.column(name))
    with h5py.File(tmp_path / "again.hdf5") as theirs, h5py.File(file) as ours:
        assert json.loads(theirs["data"].attrs["env_args"]) == json.loads(ours["data"].attrs["env_args"])
        assert theirs["data"].attrs["total"] == 12
        for key in (*CAMERAS, "object"):
            for part in ("obs", "next_obs"):
                np.testing.assert_array_equal(
                    theirs[f"data/demo_2/{part}/{key}"][()],
                    ours[f"data/demo_2/{part}/{key}"][()].astype(theirs[f"data/demo_2/{part}/{key}"].dtype),
                )


@pytest.mark.parametrize("env", ["CartPole-v1", "foreworld/PointMaze-v0", "foreworld/PushT-v0"])
def test_what_was_collected_comes_back(env: str, tmp_path: Path) -> None:
    data = fw.collect(env, episodes=2, max_steps=15, out=tmp_path / "d")
    export_episodes(data, out=tmp_path / "x.hdf5", format="robomimic")
    again = import_episodes(tmp_path / "x.hdf5", out=tmp_path / "e").data
    assert again.schema == data.schema
    for name in data.schema.columns:
        np.testing.assert_array_equal(again.column(name), data.column(name))


def test_pictures_are_written_channels_last_whatever_they_were(tmp_path: Path) -> None:
    data = fw.collect("foreworld/PushT-v0", episodes=1, max_steps=3, out=tmp_path / "d")
    export_episodes(data, out=tmp_path / "x.hdf5", format="robomimic")
    with h5py.File(tmp_path / "x.hdf5") as root:
        stored = root["data/demo_0/obs/image"][()]
        assert root["data/demo_0"].attrs["num_samples"] == 3 and stored.shape == (3, 64, 64, 3)
        np.testing.assert_array_equal(np.moveaxis(stored, -1, 1), data.raw(0)["obs/image"][:-1])
        np.testing.assert_array_equal(root["data/demo_0/states"][()], data.raw(0)["truth/state"][:-1])


def test_states_that_are_empty_are_not_missed(demos: list[Demo], tmp_path: Path) -> None:
    bare = [Demo(d.obs, d.action, d.reward, np.zeros((0, 0))) for d in demos]
    assert import_episodes(write_demos(tmp_path / "x.hdf5", bare), out=tmp_path / "d").notes == ()


def remove(name: str) -> Callable[[Any, Path], None]:
    def damage(root: Any, folder: Path) -> None:
        del root[name]

    return damage


def put(name: str, value: Any) -> Callable[[Any, Path], None]:
    def damage(root: Any, folder: Path) -> None:
        del root[name]
        root[name] = value

    return damage


def add(name: str, value: Any) -> Callable[[Any, Path], None]:
    def damage(root: Any, folder: Path) -> None:
        root[name] = value

    return damage


def nest(root: Any, folder: Path) -> None:
    del root["data/demo_1/actions"]
    root["data/demo_1/actions/x"] = np.zeros(3)


def change(name: str, at: Any, value: Any) -> Callable[[Any, Path], None]:
    def damage(root: Any, folder: Path) -> None:
        root[name][at] = value

    return damage


def external_link(root: Any, folder: Path) -> None:
    with h5py.File(folder / "secret.hdf5", "w") as other:
        other["actions"] = np.zeros((3, 7))
    del root["data/demo_1/actions"]
    root["data/demo_1/actions"] = h5py.ExternalLink(str(folder / "secret.hdf5"), "actions")


def external_data(root: Any, folder: Path) -> None:
    with h5py.File(folder / "secret.hdf5", "w") as other:
        other["data/demo_0/actions"] = np.zeros((3, 7))
    del root["data"]
    root["data"] = h5py.ExternalLink(str(folder / "secret.hdf5"), "data")


def soft_link(root: Any, folder: Path) -> None:
    del root["data/demo_1/obs"]
    root["data/demo_1/obs"] = h5py.SoftLink("/data/demo_1/next_obs")


def virtual(root: Any, folder: Path) -> None:
    with h5py.File(folder / "secret.hdf5", "w") as other:
        other["a"] = np.zeros((3, 7))
    layout = h5py.VirtualLayout((3, 7), float)
    layout[:] = h5py.VirtualSource(str(folder / "secret.hdf5"), "a", (3, 7))
    del root["data/demo_1/actions"]
    root["data/demo_1"].create_virtual_dataset("actions", layout)


def outside(root: Any, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(bytes(3 * 7 * 8))
    del root["data/demo_1/actions"]
    part = [(str(folder / "secret.bin"), 0, 3 * 7 * 8)]
    root["data/demo_1"].create_dataset("actions", (3, 7), float, external=part)


def declared(shape: tuple[int, ...], **options: Any) -> Callable[[Any, Path], None]:
    def damage(root: Any, folder: Path) -> None:
        del root["data/demo_1/actions"]
        root["data/demo_1"].create_dataset("actions", shape, float, **options)

    return damage


def half_written(root: Any, folder: Path) -> None:
    del root["data/demo_1/actions"]
    made = root["data/demo_1"].create_dataset("actions", (3, 7), float, chunks=(1, 7))
    made[0] = 1


def objects(root: Any, folder: Path) -> None:
    del root["data/demo_1/actions"]
    root["data/demo_1"].create_dataset("actions", data=["a", "b", "c"], dtype=h5py.string_dtype())


def text_attribute(root: Any, folder: Path) -> None:
    root["data"].attrs["env_args"] = "{not json"


def number_attribute(root: Any, folder: Path) -> None:
    root["data"].attrs["env_args"] = np.zeros(5)


def shifted(root: Any, folder: Path) -> None:
    root["data/demo_1/next_obs/object"][()] = np.roll(root["data/demo_1/next_obs/object"][()], 1, 0)


BROKEN = {
    "no data": (remove("data"), "unknown entry 'data'"),
    "no actions": (remove("data/demo_1/actions"), r"data/demo_1.*'actions'"),
    "no obs": (remove("data/demo_1/obs"), r"data/demo_1.*'obs'"),
    "a camera is missing": (remove(f"data/demo_1/obs/{CAMERAS[1]}"), f"data/demo_1/obs.*{CAMERAS[1]}"),
    "its outcome is missing": (remove("data/demo_1/next_obs/object"), "data/demo_1/next_obs.*'object'"),
    "obs is an array": (put("data/demo_1/obs", np.zeros(3)), "obs: is no group"),
    "actions are a group": (nest, "is no array"),
    "too few rows": (put("data/demo_1/obs/object", np.zeros((2, 10))), "obs/object: 2 rows where 3 rows belong"),
    "too many rewards": (put("data/demo_1/rewards", np.zeros(4)), "rewards: 4 rows where 3"),
    "rewards are vectors": (put("data/demo_1/rewards", np.zeros((3, 2))), r"rewards: shape \(3, 2\)"),
    "another shape": (put("data/demo_1/actions", np.zeros((3, 6))), r"demo_1: column 'prev_action': shape \(4, 6\)"),
    "no rows": (put("data/demo_1/actions", np.zeros((0, 7))), "0|rows"),
    "one number": (put("data/demo_1/actions", 1.0), "one number"),
    "NaN in actions": (change("data/demo_1/actions", (1, 2), np.nan), "demo_1: column 'prev_action', row 2: NaN"),
    "NaN in obs": (change("data/demo_1/obs/object", (0, 0), np.nan), "demo_1: column 'obs/object', row 0: NaN"),
    "infinite reward": (change("data/demo_1/rewards", 0, np.inf), "demo_1: column 'reward', row 1"),
    "complex": (put("data/demo_1/actions", np.zeros((3, 7), complex)), "complex128; only plain numbers"),
    "records": (put("data/demo_1/actions", np.zeros(3, [("a", "f4")])), "only plain numbers"),
    "objects": (objects, "object; only plain numbers"),
    "external link": (external_link, "actions: is a link, which is not followed"),
    "all of it external": (external_data, "data: is a link, which is not followed"),
    "soft link": (soft_link, "obs: is a link, which is not followed"),
    "virtual dataset": (virtual, "other files, which are not followed"),
    "external storage": (outside, "other files, which are not followed"),
    "huge and empty": (declared((10**12, 7), chunks=(1, 7)), f"at most {LARGEST >> 30} are read"),
    "large and never written": (declared((10**6, 7), chunks=(1000, 7)), "its writer was interrupted"),
    "never written": (declared((3, 7)), "promises 168 bytes and holds none"),
    "huge pieces": (declared((3, 7), chunks=(10**8, 7), maxshape=(None, 7), fillvalue=1), "holds none"),
    "half written": (half_written, "1 of its 3 pieces are there"),
    "a plugin": (declared((3, 7), chunks=(3, 7), compression=32015, allow_unknown_filter=True), "needs a plugin"),
    "another name": (add("data/scene", 1.0), "'scene', where only demo_<number>"),
    "env_args is no JSON": (text_attribute, "env_args: is no JSON"),
    "env_args is no text": (number_attribute, "'env_args': is no text"),
    "shifted": (shifted, "do not follow each other"),
    "a mask of numbers": (put("mask/train", np.zeros(3)), "is no list of demos"),
    "a mask of others": (put("mask/train", np.array([b"demo_9"])), "unknown demo 'demo_9'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_or_hostile_gets_one_sentence_and_leaves_nothing(file: Path, tmp_path: Path, name: str) -> None:
    damage, words = BROKEN[name]
    with h5py.File(file, "a") as root:
        damage(root, tmp_path)
    subset = "train" if "mask" in name else None
    with pytest.raises(DataError, match=words) as caught:
        import_episodes(file, out=tmp_path / "d", format="robomimic", subset=subset)
    assert "lift.hdf5" in str(caught.value) and "\n" not in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"lift.hdf5", "secret.hdf5", "secret.bin"}


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"lift\.hdf5: (not readable as HDF5|is no HDF5 file)"):
        import_episodes(file, out=tmp_path / "d", format="auto" if share > 0.1 else "robomimic")


def test_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "x.hdf5").write_text("hello")
    with pytest.raises(DataError, match=r"is in no format that is known: minari .*, npz .*, robomimic"):
        import_episodes(tmp_path / "x.hdf5", out=tmp_path / "d")
    with pytest.raises(DataError, match="no such file"):
        import_episodes(tmp_path / "absent.hdf5", out=tmp_path / "d")
    with pytest.raises(DataError, match="nothing to import"):
        import_episodes([], out=tmp_path / "d")


def test_a_link_is_not_opened(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.hdf5").symlink_to(file)
    with pytest.raises(DataError, match="is a link"):
        import_episodes(tmp_path / "link.hdf5", out=tmp_path / "d", format="robomimic")


def test_nothing_is_overwritten_unless_asked_and_only_by_a_whole_dataset(file: Path, tmp_path: Path) -> None:
    first = import_episodes(file, out=tmp_path / "d", subset="valid").data
    with pytest.raises(OutputExists):
        import_episodes(file, out=tmp_path / "d")
    broken = tmp_path / "broken.hdf5"
    shutil.copy(file, broken)
    with h5py.File(broken, "a") as root:
        root["data/demo_2/actions"][0, 0] = np.nan
    with pytest.raises(DataError, match="demo_2"):
        import_episodes(broken, out=tmp_path / "d", overwrite=True)
    assert fw.load(tmp_path / "d").rows == first.rows
    assert import_episodes(file, out=tmp_path / "d", overwrite=True).data.episodes == 3


def test_a_stop_leaves_nothing(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stopped"):
        import_episodes(file, out=tmp_path / "d", stop=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["lift.hdf5"]


def test_plain_video_has_no_place_in_it(tmp_path: Path) -> None:
    data = fw.collect("foreworld/Lorenz63-v0", episodes=1, out=tmp_path / "d")
    with pytest.raises(DataError, match="export it as npz"):
        export_episodes(data, out=tmp_path / "x.hdf5", format="robomimic")
    assert not list(tmp_path.glob("*x.hdf5"))
