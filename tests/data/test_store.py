from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core import Space
from foreworld.core.errors import DataError, InUse, OutputExists, WriteFailed
from foreworld.core.files import write_json
from foreworld.data import Episode, Source, Writer
from foreworld.testing.faults import failing, flip_bit, leftovers

IMAGE = Space(kind="image", shape=(3, 16, 16), dtype="uint8")
VECTOR = Space(kind="vector", shape=(2,), dtype="float32")
CHOICE = Space(kind="discrete", shape=(), dtype="int64", classes=(4,), start=(0,))
FULL = fw.Spec(obs={"image": IMAGE, "deep/pos": VECTOR}, action=CHOICE, fps=15.0, frame_skip=4)
TRUTH = {"ram": Space(kind="vector", shape=(5,), dtype="uint8")}


def full_episode(rows: int, seed: int = 0, terminal: bool = False) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode.from_transitions(
        {
            "image": rng.integers(0, 256, (rows, 3, 16, 16), dtype=np.uint8),
            "deep/pos": rng.normal(size=(rows, 2)).astype(np.float32),
        },
        rng.integers(0, 4, rows - 1),
        rng.normal(size=rows - 1),
        is_terminal=terminal,
        truth={"ram": rng.integers(0, 256, (rows, 5), dtype=np.uint8)},
    )


def write(path: Path, episodes: list[Episode], **options: object) -> fw.data.Dataset:
    with Writer(path, FULL, truth=TRUTH, **options) as writer:
        for episode in episodes:
            writer.add(episode)
    return fw.load(path)


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    source = Source(env="Toy-v0", policy="random", seed=3, options={"size": 16, "keys": None})
    episodes = [full_episode(7, 1), full_episode(3, 2, terminal=True)]
    data = write(tmp_path / "d", episodes, source=source)
    assert (data.spec, data.source, data.schema.truth) == (FULL, source, TRUTH)
    assert (data.episodes, data.rows, data.steps, data.lengths.tolist()) == (2, 10, 8, [7, 3])
    for i, episode in enumerate(episodes):
        raw, segment = data.raw(i), data.episode(i)
        for key, value in episode.obs.items():
            assert raw[f"obs/{key}"].tobytes() == value.tobytes()
            assert np.array_equal(segment.obs[key][0].numpy(), value)
        assert np.array_equal(data.truth([i], [0], len(episode.reward))["ram"][0].numpy(), episode.truth["ram"])
        assert segment.mask is None
        assert segment.is_first[0].tolist() == [True] + [False] * (segment.length - 1)
        assert segment.is_last[0].tolist() == [False] * (segment.length - 1) + [True]
        assert segment.is_terminal[0].any().item() == episode.is_terminal
        assert segment.prev_action[0, 0].tolist() == [0, 0, 0, 0]
        assert segment.prev_action[0, 1:].argmax(-1).tolist() == episode.prev_action[1:].tolist()
        assert np.array_equal(segment.reward[0].numpy(), episode.reward.astype(np.float32))
    assert set(segment.obs) == {"image", "deep/pos"}, "truth is never given to a model"


def test_every_column_is_a_standard_npy_file(tmp_path: Path) -> None:
    data = write(tmp_path / "d", [full_episode(4)])
    for name in data.schema.columns:
        file = tmp_path / "d" / "shards" / "000000" / f"{name}.npy"
        assert np.array_equal(np.load(file, allow_pickle=False), data.column(name))


def test_shards_are_sealed_by_rows_and_a_store_can_be_appended_to(tmp_path: Path) -> None:
    write(tmp_path / "d", [full_episode(4, i) for i in range(5)], shard_rows=8)
    assert sorted(p.name for p in (tmp_path / "d" / "shards").iterdir()) == ["000000", "000001", "000002"]
    data = write(tmp_path / "d", [full_episode(6, 9)])
    assert data.lengths.tolist() == [4] * 5 + [6]
    assert np.array_equal(data.raw(5)["obs/image"], full_episode(6, 9).obs["image"])
    assert np.array_equal(data.raw(3)["obs/image"], full_episode(4, 3).obs["image"])


def test_appending_under_another_spec_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d", [full_episode(4)])
    with pytest.raises(DataError, match="another spec"):
        Writer(tmp_path / "d", FULL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(OutputExists, match="not a dataset"):
        Writer(tmp_path / "other", FULL)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_plain_video_has_no_action(tmp_path: Path) -> None:
    spec = fw.Spec(obs={"image": IMAGE}, action=None, fps=30.0)
    with Writer(tmp_path / "d", spec) as writer:
        writer.add(Episode(obs={"image": np.ones((5, 3, 16, 16), np.uint8)}))
    segment = fw.load(tmp_path / "d").sample(2, 3)
    assert segment.prev_action is None
    assert segment.obs["image"].shape == (2, 3, 3, 16, 16)
    assert not segment.reward.any()


@pytest.mark.parametrize(
    ("spaces", "action", "expected"),
    [
        (Space(kind="discrete", shape=(2,), dtype="int64", classes=(2, 3), start=(0, 0)), [1, 2], [0, 1, 0, 0, 1]),
        (Space(kind="discrete", shape=(2,), dtype="int8", classes=(2, 2), start=(0, 0)), [1, 0], [0, 1, 1, 0]),
        (Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(5,)), 6, [0, 1, 0]),
        (Space(kind="vector", shape=(2,), dtype="float32", low=(-2, 0), high=(2, 4)), [1, 1], [0.5, -0.5]),
        (Space(kind="vector", shape=(1, 2), dtype="float32", low=(-2, 0), high=(2, 4)), [[1, 1]], [0.5, -0.5]),
    ],
)
def test_actions_are_stored_raw_and_given_model_ready(
    tmp_path: Path, spaces: Space, action: object, expected: list[float]
) -> None:
    spec = fw.Spec(obs={"obs": VECTOR}, action=spaces)
    taken = np.array([action, action], spaces.dtype)
    with Writer(tmp_path / "d", spec) as writer:
        writer.add(Episode.from_transitions({"obs": np.zeros((3, 2), np.float32)}, taken))
    data = fw.load(tmp_path / "d")
    assert data.raw(0)["prev_action"].dtype == spaces.dtype
    assert np.array_equal(data.raw(0)["prev_action"][1], np.asarray(action))
    assert data.episode(0).prev_action[0].tolist() == [[0.0] * len(expected), expected, expected]


BROKEN = {
    "NaN names column and row": ({"obs": {"deep/pos": (3, np.nan)}}, r"'obs/deep/pos', row 3.*NaN"),
    "infinite reward": ({"reward": (2, np.inf)}, r"'reward', row 2"),
    "no such action": ({"prev_action": (2, 7)}, r"'prev_action', row 2: 7"),
    "action in the first row": ({"prev_action": (0, 1)}, r"'prev_action', row 0.*must be zero"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_value_is_named_by_column_and_row(tmp_path: Path, name: str) -> None:
    damage, message = BROKEN[name]
    good = full_episode(5)
    obs, action, reward = dict(good.obs), good.prev_action.copy(), good.reward.copy()
    for target, spot in damage.items():
        if target == "obs":
            for key, (row, value) in spot.items():
                obs[key] = obs[key].copy()
                obs[key][row, 0] = value
        else:
            row, value = spot
            {"prev_action": action, "reward": reward}[target][row] = value
    with Writer(tmp_path / "d", FULL, truth=TRUTH) as writer:
        with pytest.raises(DataError, match=message):
            writer.add(Episode(obs=obs, prev_action=action, reward=reward, truth=good.truth))
        assert writer.episodes == 0
        writer.add(good)
    assert fw.load(tmp_path / "d").episodes == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": {"image": np.zeros((5, 3, 16, 16), np.uint8)}}, "'obs/deep/pos': missing"),
        ({"truth": {}}, "'truth/ram': missing"),
        ({"truth": {"ram": np.zeros((5, 5), np.uint8), "x": np.zeros(5)}}, "'truth/x': not in the spec"),
        ({"truth": {"ram": np.zeros((4, 5), np.uint8)}}, r"'truth/ram': shape \(4, 5\), expected \(5, 5\)"),
        ({"truth": {"ram": np.full((5, 5), 256)}}, "'truth/ram': .*fit uint8"),
        ({"truth": {"ram": np.zeros((5, 5), np.float32)}}, "'truth/ram': float32 values cannot be stored as uint8"),
        ({"prev_action": None}, "has an action"),
        ({"prev_action": np.zeros(5)}, "'prev_action': float64 values cannot"),
        ({"reward": np.zeros(4)}, "'reward': shape"),
    ],
)
def test_what_does_not_fit_the_spec_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = full_episode(5)
    fields = {"obs": good.obs, "prev_action": good.prev_action, "reward": good.reward, "truth": good.truth}
    with Writer(tmp_path / "d", FULL, truth=TRUTH) as writer, pytest.raises(DataError, match=message):
        writer.add(Episode(**(fields | change)))


def test_an_episode_needs_a_step(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", FULL, truth=TRUTH) as writer, pytest.raises(DataError, match="at least 2 rows"):
        writer.add(full_episode(1))


@pytest.mark.parametrize("key", ["../evil", "a/../../b", "/etc/x", ".hidden", "a//b", "a\nb", ""])
def test_keys_that_are_no_file_names_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="rename the key"):
        Writer(tmp_path / "d", fw.Spec(obs={key: VECTOR}, action=None))


def test_a_failed_write_leaves_the_earlier_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="disk"), Writer(tmp_path / "d", FULL, truth=TRUTH, shard_rows=4) as writer:
        writer.add(full_episode(4, 1))

        def full_disk(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("foreworld.core.files.sync", full_disk)
        writer.add(full_episode(4, 2))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "d" / "shards").iterdir()] == ["000000"]
    assert fw.load(tmp_path / "d").episodes == 1


def test_whole_episodes_survive_an_error_in_the_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "d", FULL, truth=TRUTH) as writer:
        writer.add(full_episode(4))
        raise KeyboardInterrupt
    assert fw.load(tmp_path / "d").episodes == 1


def test_float64_is_narrowed_and_torch_sees_the_stored_types(tmp_path: Path) -> None:
    spec = fw.Spec(obs={"obs": VECTOR}, action=None)
    with Writer(tmp_path / "d", spec) as writer:
        writer.add(Episode(obs={"obs": np.full((2, 2), 0.1)}))
        with pytest.raises(DataError, match=r"row 1.*too large for float32"):
            writer.add(Episode(obs={"obs": np.array([[0, 0], [0, 1e300]])}))
    assert fw.load(tmp_path / "d").episode(0).obs["obs"].dtype == torch.float32


def test_a_second_writer_is_refused_until_the_first_has_finished(tmp_path: Path) -> None:
    spec = fw.Spec(obs={"obs": VECTOR}, action=None)
    with Writer(tmp_path / "d", spec) as writer:
        with pytest.raises(InUse, match="is writing to it"):
            Writer(tmp_path / "d", spec)
        writer.add(Episode(obs={"obs": np.zeros((2, 2), np.float32)}))
    with pytest.raises(DataError, match="this writer is closed"):
        writer.add(Episode(obs={"obs": np.zeros((2, 2), np.float32)}))
    second = Writer(tmp_path / "d", spec)
    second.add(Episode(obs={"obs": np.ones((2, 2), np.float32)}))
    second.close()
    assert fw.load(tmp_path / "d").episodes == 2


def test_a_writer_that_is_forgotten_or_refused_keeps_no_lock(tmp_path: Path) -> None:
    spec = fw.Spec(obs={"obs": VECTOR}, action=None)
    Writer(tmp_path / "d", spec)
    with pytest.raises(DataError, match="another spec"):
        Writer(tmp_path / "d", FULL)
    with Writer(tmp_path / "d", spec):
        pass


def test_an_interrupted_start_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "d" / "shards").mkdir(parents=True)
    (tmp_path / "d" / ".lock").touch()
    (tmp_path / "d" / ".partial-1-0-schema.json").write_text("{")
    assert write(tmp_path / "d", [full_episode(4)]).episodes == 1
    assert not list((tmp_path / "d").glob(".partial-*"))


def test_a_refused_shard_can_be_sealed_again(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", FULL, truth=TRUTH, shard_rows=4) as writer:
        with failing(8, errno.ENOSPC), pytest.raises(WriteFailed, match=r"shards/000000: .*free space"):
            writer.add(full_episode(4, 1))
        assert list((tmp_path / "d" / "shards").iterdir()) == []
        writer.seal()
    assert fw.load(tmp_path / "d").episodes == 1


def test_more_columns_than_files_may_be_open(tmp_path: Path) -> None:
    spec = fw.Spec(obs={"obs": VECTOR}, action=None)
    with Writer(tmp_path / "d", spec, shard_rows=2) as writer:
        for _ in range(12):
            writer.add(Episode(obs={"obs": np.zeros((2, 2), np.float32)}))
    code = (
        "import resource, sys; import foreworld as fw; from foreworld.data import load\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))\n"
        "print(load(sys.argv[1]).episodes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("12", "")


def numbered(path: Path, count: int) -> None:
    with Writer(path, FULL, truth=TRUTH, shard_rows=8) as writer:
        for i in range(count):
            writer.add(full_episode(4, i))


def test_a_store_drops_its_oldest_shards_and_keeps_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 8)
    before = fw.load(path)
    with Writer(path, FULL, truth=TRUTH) as writer:
        writer.drop(1, 2)
        writer.drop(3, 6)
        writer.add(full_episode(4, 8))
    data = fw.load(path)
    assert data.numbers.tolist() == [6, 7, 8]
    assert data.fingerprint == before.fingerprint
    for i, number in enumerate([6, 7, 8]):
        assert np.array_equal(data.raw(i)["obs/image"], full_episode(4, number).obs["image"])
    assert np.array_equal(before.raw(0)["obs/image"], full_episode(4, 0).obs["image"]), "who has it open reads on"
    trained = before.subset([1, 5, 7]).stretches
    assert data.seen(trained).numbers.tolist() == [7]
    assert data.unseen(trained).numbers.tolist() == [6, 8]
    assert sorted(p.name for p in (path / "shards").iterdir()) == ["000003", "000004"]


def test_what_a_crash_left_of_a_dropped_shard_is_not_read_and_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 6)
    shutil.copytree(path / "shards" / "000000", tmp_path / "copy")
    with Writer(path, FULL, truth=TRUTH) as writer:
        writer.drop(1, 2)
    shutil.copytree(tmp_path / "copy", path / "shards" / "000000")
    assert fw.load(path).numbers.tolist() == [2, 3, 4, 5]
    numbered(path, 0)
    assert sorted(p.name for p in (path / "shards").iterdir()) == ["000001", "000002"]


@pytest.mark.parametrize("work", ["drop", "rewind"])
def test_any_refusal_of_the_disk_leaves_a_whole_store_when_shards_are_removed(tmp_path: Path, work: str) -> None:
    numbered(tmp_path / "whole", 6)
    left = {"drop": [2, 3, 4, 5], "rewind": [0, 1, 2, 3]}[work]
    for at in range(1, 200):
        path = tmp_path / str(at)
        shutil.copytree(tmp_path / "whole", path)
        with failing(at, errno.EIO) as seen:
            try:
                with Writer(path, FULL, truth=TRUTH) as writer:
                    writer.drop(1, 2) if work == "drop" else writer.rewind(2)
            except (WriteFailed, DataError) as fault:  # when it writes, or when it opens what is there
                assert str(path) in str(fault)
        assert fw.load(path).numbers.tolist() in ([0, 1, 2, 3, 4, 5], left)
        with Writer(path, FULL, truth=TRUTH) as writer:
            writer.drop(1, 2) if work == "drop" else writer.rewind(2)
        assert fw.load(path).numbers.tolist() == left
        assert leftovers(path) == []
        if len(seen) < at:
            break
    assert at > 5


def test_a_gap_behind_what_was_dropped_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 8)
    with Writer(path, FULL, truth=TRUTH) as writer:
        writer.drop(1, 2)
    shutil.rmtree(path / "shards" / "000001")
    with pytest.raises(DataError, match="shard 000001 is missing"):
        fw.load(path)


def test_a_store_returns_to_fewer_shards(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 8)
    with Writer(path, FULL, truth=TRUTH) as writer:
        assert writer.shards == 4
        writer.rewind(2)
        writer.add(full_episode(4, 9))
    data = fw.load(path)
    assert data.episodes == 5
    assert np.array_equal(data.raw(4)["obs/image"], full_episode(4, 9).obs["image"])


def test_a_store_that_dropped_all_it_returned_to_goes_on_with_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 8)
    fingerprint = fw.load(path).fingerprint
    with Writer(path, FULL, truth=TRUTH) as writer:
        writer.drop(2, 4)
        writer.rewind(2)
    with pytest.raises(DataError, match="no finished episode"):
        fw.load(path)
    numbered(path, 2)
    data = fw.load(path)
    assert data.numbers.tolist() == [4, 5]
    assert data.fingerprint == fingerprint
    assert [p.name for p in (path / "shards").iterdir()] == ["000002"]


def test_a_shard_that_is_dropped_while_the_store_is_opened_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d"
    numbered(path, 8)
    from foreworld.data import dataset

    writer, real = Writer(path, FULL, truth=TRUTH), dataset.shard_paths
    drops = iter([1, 2])

    def late(store: Path) -> list[Path]:
        found = real(store)
        if shards := next(drops, 0):
            writer.drop(shards, 2 * shards)
        return found

    monkeypatch.setattr(dataset, "shard_paths", late)
    assert fw.load(path).numbers.tolist() == [4, 5, 6, 7]
    writer.close()


def test_every_flipped_bit_of_what_was_dropped_is_found(tmp_path: Path) -> None:
    path = tmp_path / "d"
    numbered(path, 6)
    with Writer(path, FULL, truth=TRUTH) as writer:
        writer.drop(1, 2)
    file = path / "dropped.json"
    for bit in range(0, 8 * file.stat().st_size, 3):
        flip_bit(file, bit)
        with pytest.raises(DataError, match=r"dropped\.json"):
            fw.load(path)
        flip_bit(file, bit)
    for wrong in ({}, {"shards": 1, "episodes": 0, "fingerprint": "0" * 64}, {"shards": 10**30, "episodes": 10**30}):
        write_json(file, {"shards": 1, "episodes": 2, "fingerprint": "no hash", **wrong}, sealed=True)
        with pytest.raises(DataError, match=r"dropped\.json.*damaged"):
            fw.load(path)
    write_json(file, {"shards": 1, "more": 2}, sealed=True)
    with pytest.raises(DataError, match="unknown field 'more'"):
        fw.load(path)
