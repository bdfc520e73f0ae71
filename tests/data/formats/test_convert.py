"""Every format: any episodes come back bit by bit; formats of others; what needs a package says which."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import foreworld as fw
from foreworld.core import Space, registry
from foreworld.core.errors import DataError, MissingExtra, UnknownName
from foreworld.data import Dataset, Episode, Source, Writer
from foreworld.data.formats import Format, Recording, Selection, export_episodes, import_episodes

H5PY = importlib.util.find_spec("h5py") is not None
FORMATS = [
    pytest.param(name, marks=pytest.mark.skipif(name != "npz" and not H5PY, reason="needs h5py"))
    for name in ("minari", "npz", "robomimic")
]

VECTORS = st.builds(
    lambda shape, dtype: Space(kind="vector", shape=tuple(shape), dtype=dtype),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["float32", "int16", "uint8", "int64", "bool"]),
)
BOXES = st.integers(1, 3).map(
    lambda n: Space(kind="vector", shape=(n,), dtype="float32", low=(-2.0,) * n, high=(float(n),) * n)
)
IMAGES = st.sampled_from(["hwc", "chw", "hw"]).map(
    lambda layout: Space(kind="image", shape=(1 if layout == "hw" else 3, 16, 20), dtype="uint8", layout=layout)
)
DISCRETE = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(
    lambda n: Space(kind="discrete", shape=(len(n),), dtype="int64", classes=tuple(n), start=tuple(range(len(n))))
)
ONE = st.integers(1, 5).map(lambda n: Space(kind="discrete", shape=(), dtype="int64", classes=(n,), start=(-1,)))
SPECS = st.builds(
    lambda obs, action, fps: fw.Spec(obs=obs, action=action, fps=fps, frame_skip=2),
    st.dictionaries(
        st.sampled_from(["obs", "image", "arm/joint", "arm/grip", "camera_0"]),
        st.one_of(VECTORS, BOXES, IMAGES, DISCRETE, ONE),
        min_size=1,
        max_size=3,
    ),
    st.one_of(BOXES, DISCRETE, ONE),
    st.sampled_from([None, 12.5]),
)


def draw(space: Space, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows of a space."""
    if space.kind == "discrete":
        drawn = [rng.integers(s, s + n, rows) for s, n in zip(space.start, space.classes, strict=True)]
        return np.stack(drawn, 1).reshape(rows, *space.shape)
    if space.dtype == "float32":
        return rng.uniform(-2, 1, (rows, *space.shape)).astype(np.float32)
    return rng.integers(0, 2 if space.dtype == "bool" else 120, (rows, *space.shape)).astype(space.dtype)


def stored(path: Path, spec: fw.Spec, lengths: list[int], seed: int) -> Dataset:
    """Store random episodes."""
    rng = np.random.default_rng(seed)
    truth = {"state": Space(kind="vector", shape=(2,), dtype="float32")}
    with Writer(path, spec, truth=truth, source=Source(env="drawn/at random", seed=seed)) as writer:
        for number, steps in enumerate(lengths):
            assert spec.action is not None
            episode = Episode.from_transitions(
                {key: draw(space, steps + 1, rng) for key, space in spec.obs.items()},
                draw(spec.action, steps, rng),
                rng.normal(size=steps).astype(np.float32),
                is_terminal=number % 2 == 0,
                truth={"state": draw(truth["state"], steps + 1, rng)},
            )
            writer.add(episode)
    return fw.load(path)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=SPECS, lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 999))
def test_any_episodes_come_back_bit_by_bit(
    format: str, spec: fw.Spec, lengths: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    data = stored(folder / "d", spec, lengths, seed)
    assert export_episodes(data, out=folder / "x", format=format) == ()
    found = import_episodes(folder / "x", out=folder / "e")
    assert (found.format, found.notes, found.data.schema) == (format, (), data.schema)
    assert found.data.lengths.tolist() == data.lengths.tolist()
    for name in data.schema.columns:
        np.testing.assert_array_equal(found.data.column(name), data.column(name))
    assert sorted(path.name for path in folder.iterdir()) == ["d", "e", "x"]


def text_format() -> Format:
    """Return a format of one's own: one number a line, an episode a file."""

    @contextmanager
    def opened(path: Path, selection: Selection) -> Iterator[Recording]:
        rows = np.array(path.read_text().split(), np.float32)[:, None]
        spec = fw.Spec(obs={"x": Space(kind="vector", shape=(1,), dtype="float32")}, action=None)
        read = iter([(str(path), Episode(obs={"x": rows}))])
        yield Recording(spec=spec, truth={}, source=Source(env=path.name), count=1, read=lambda: read)

    def write(data: Dataset, path: Path, progress: Any) -> tuple[str, ...]:
        path.write_text("\n".join(map(str, data.raw(0)["obs/x"].ravel().tolist())))
        return ("rewards were left out",)

    def recognises(path: Path) -> bool:
        return path.suffix == ".txt"

    return Format(name="text", about="numbers", recognises=recognises, opened=opened, write=write)


def test_a_format_of_an_outside_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("their_format")
    module.FORMAT = text_format()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_format", module)
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint()] if group.endswith("formats") else [])
    (tmp_path / "a.txt").write_text("1 2 3.5")
    found = import_episodes(tmp_path / "a.txt", out=tmp_path / "d")
    assert found.format == "text" and found.data.column("obs/x").ravel().tolist() == [1, 2, 3.5]
    assert export_episodes(found.data, out=tmp_path / "b.txt", format="text") == ("rewards were left out",)
    assert (tmp_path / "b.txt").read_text().split() == ["1.0", "2.0", "3.5"]


class EntryPoint:
    """What an installed package would declare."""

    name, value = "text", "their_format:FORMAT"


def test_what_needs_a_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fw.collect("CartPole-v1", episodes=1, out=tmp_path / "d")
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(MissingExtra, match=r"pip install 'foreworld\[hdf5\]'"):
        import_episodes(tmp_path / "x.hdf5", out=tmp_path / "e")
    with pytest.raises(MissingExtra, match="needs h5py"):
        export_episodes(data, out=tmp_path / "y.hdf5", format="robomimic")
    with pytest.raises(UnknownName, match="did you mean 'robomimic'"):
        export_episodes(data, out=tmp_path / "y", format="robomimick")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "x.hdf5"]


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fw.collect("CartPole-v1", episodes=2, out=tmp_path / "d")

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(fw.core.errors.WriteFailed, match="free space"):
        export_episodes(data, out=tmp_path / "x", format="npz")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_an_old_dataset_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **{"obs/x": np.zeros((4, 1))})
    np.savez(tmp_path / "bad.npz", **{"obs/x": np.full((4, 1), np.nan)})
    import_episodes(tmp_path / "good.npz", out=tmp_path / "d")
    with pytest.raises(DataError, match="NaN"):
        import_episodes([tmp_path / "good.npz", tmp_path / "bad.npz"], out=tmp_path / "d", overwrite=True)
    assert fw.load(tmp_path / "d").episodes == 1
