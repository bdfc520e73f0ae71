"""Episodes as .npz files: aligned by name, refused when a name and its rows disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foreworld as fw
from foreworld.core.errors import DataError
from foreworld.data.formats import export_episodes, import_episodes

ROWS = np.arange(12.0).reshape(6, 2)
TAKEN = np.arange(1, 6)[:, None] / 10


def save(folder: Path, name: str = "a.npz", **arrays: Any) -> Path:
    np.savez(folder / name, **arrays)
    return folder / name


def test_an_action_is_taken_at_the_row_before(tmp_path: Path) -> None:
    file = save(tmp_path, **{"obs/where": ROWS, "action": TAKEN, "reward": np.ones(5), "is_terminal": True})
    raw = import_episodes(file, out=tmp_path / "d").data.raw(0)
    np.testing.assert_array_equal(raw["prev_action"], np.concatenate([[[0]], TAKEN]).astype(np.float32))
    assert raw["reward"].tolist() == [0, 1, 1, 1, 1, 1] and raw["is_terminal"].tolist() == [False] * 5 + [True]


def test_rows_that_are_aligned_already_say_so_by_name(tmp_path: Path) -> None:
    arrived = np.concatenate([[[0]], TAKEN])
    one = save(tmp_path, "one.npz", **{"obs/where": ROWS, "action": TAKEN, "reward": np.arange(5.0)})
    two = {"obs/where": ROWS, "prev_action": arrived, "prev_reward": np.arange(-1.0, 5).clip(0)}
    data = import_episodes([one, save(tmp_path, "two.npz", **two)], out=tmp_path / "d").data
    for name in data.schema.columns:
        np.testing.assert_array_equal(data.raw(0)[name], data.raw(1)[name])


def test_plain_video_and_truth(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), np.uint8)
    data = import_episodes(save(tmp_path, **{"obs/image": image, "truth/x": ROWS}), out=tmp_path / "d", fps=25).data
    assert data.spec.action is None and data.spec.fps == 25 and list(data.schema.truth) == ["x"]
    np.testing.assert_array_equal(data.raw(0)["obs/image"], np.moveaxis(image, -1, 1))


@pytest.mark.parametrize("env", ["foreworld/Lorenz63-v0", "CartPole-v1", "foreworld/PushT-v0"])
def test_a_folder_comes_back(env: str, tmp_path: Path) -> None:
    data = fw.collect(env, episodes=2, max_steps=10, out=tmp_path / "d")
    assert export_episodes(data, out=tmp_path / "x", format="npz") == ()
    found = import_episodes(tmp_path / "x", out=tmp_path / "e")
    assert found.format == "npz" and found.data.schema == data.schema
    for name in data.schema.columns:
        np.testing.assert_array_equal(found.data.column(name), data.column(name))
    export_episodes(data, out=tmp_path / "x", format="npz", overwrite=True)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no observation": ({"action": TAKEN}, "holds no obs/<key>"),
    "actions where they arrived": ({"obs/x": ROWS, "action": ROWS}, "6 rows of action .* they are called prev_action"),
    "too few actions": ({"obs/x": ROWS, "action": TAKEN[:3]}, "3 rows of action for 6 observations, expected 5"),
    "both": ({"obs/x": ROWS, "action": TAKEN, "prev_action": ROWS}, "both action and prev_action"),
    "other names": ({"obs/x": ROWS, "actions": TAKEN}, "holds an array 'actions'"),
    "one number": ({"obs/x": np.float32(1)}, "obs/x is one number"),
    "unequal rows": ({"obs/x": ROWS, "obs/y": ROWS[:4]}, "obs/y has 4 rows, obs/x 6"),
    "NaN": ({"obs/x": ROWS * np.nan}, r"a\.npz: column 'obs/x', row 0: NaN"),
    "one row": ({"obs/x": ROWS[:1]}, "at least 2 rows"),
    "an action first": ({"obs/x": ROWS, "prev_action": ROWS + 1}, "row 0: no action led to the first row"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    arrays, words = BROKEN[name]
    with pytest.raises(DataError, match=words) as caught:
        import_episodes(save(tmp_path, **arrays), out=tmp_path / "d")
    assert "a.npz" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_damaged_file_among_good_ones_leaves_nothing(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path, f"{number}.npz", **{"obs/x": ROWS, "action": TAKEN})
    (tmp_path / "2.npz").write_bytes((tmp_path / "2.npz").read_bytes()[:300])
    with pytest.raises(DataError, match=r"2\.npz: not readable"):
        import_episodes(tmp_path, out=tmp_path / "out" / "d")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(DataError, match="no named parts"):
        import_episodes(tmp_path / "0.npz", out=tmp_path / "d", subset="train")
