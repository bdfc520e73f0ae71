"""Arrays of unknown origin: read exactly, or refused in one sentence before anything is unpickled or allocated."""

from __future__ import annotations

import io
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from foreworld.core.errors import DataError
from foreworld.data.npz import LARGEST, read_npz


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), **options)
    return out.getvalue()


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


KINDS = st.sampled_from(["<f8", "<f4", "<f2", ">f8", "<i8", "<i4", "|u1", "|b1"])


@settings(max_examples=60)
@given(data=st.data(), dtype=KINDS, compressed=st.booleans(), order=st.sampled_from("CF"))
def test_what_numpy_saves_is_read_exactly(
    data: st.DataObject, dtype: str, compressed: bool, order: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    array = data.draw(arrays(np.dtype(dtype), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)))
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=np.asarray(array, order=order), other=np.arange(3))
    found = read_npz(path, ["x"], ["absent"])
    assert list(found) == ["x"]
    assert found["x"].dtype == array.dtype
    np.testing.assert_array_equal(found["x"], array)


def test_large_arrays_are_read_in_full(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(300, 100, 4))
    np.savez_compressed(tmp_path / "x.npz", x=array)
    np.testing.assert_array_equal(read_npz(tmp_path / "x.npz", ["x"])["x"], array)


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"


def lying(shape: str, body: bytes = b"") -> bytes:
    text = (HEADER % shape).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HOSTILE = {
    "objects": ({"x.npy": npy(np.array([{}, 1], object), allow_pickle=True)}, "only a pickle could read"),
    "records": ({"x.npy": npy(np.zeros(3, [("a", "<f4")]))}, "not readable"),
    "text": ({"x.npy": npy(np.array(["a", "bc"]))}, "store plain numbers"),
    "complex": ({"x.npy": npy(np.zeros(3, complex))}, "store plain numbers"),
    "dates": ({"x.npy": npy(np.zeros(3, "M8[s]"))}, "not readable"),
    "unknown type": ({"x.npy": lying("2,", bytes(16)).replace(b"<f8", b"<z8")}, "no type of numbers"),
    "no array": ({"x.npy": b"hello"}, "not readable as a .npy"),
    "empty": ({"x.npy": b""}, "not readable as a .npy"),
    "promises more": ({"x.npy": lying("99999999999999, 4")}, "its header promises"),
    "promises less": ({"x.npy": lying("2,", bytes(24))}, "its header promises"),
    "negative": ({"x.npy": lying("-2,", bytes(16))}, "not readable"),
    "code": ({"x.npy": lying("__import__('os')", bytes(16))}, "not readable"),
    "missing": ({"y.npy": npy(np.ones(3))}, "unknown array 'x'"),
    "nothing": ({}, "unknown array 'x'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_array_of_numbers_is_refused(name: str, tmp_path: Path) -> None:
    members, words = HOSTILE[name]
    with pytest.raises(DataError, match=words) as caught:
        read_npz(pack(tmp_path / "x.npz", members), ["x"])
    assert str(tmp_path / "x.npz") in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="no such file"):
        read_npz(path, ["x"])
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(DataError, match=r"no \.npz file"):
        read_npz(tmp_path / "x.npy", ["x"])
    with pytest.raises(DataError, match="not a plain file"):
        read_npz(tmp_path, ["x"])
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match=r"not readable as \.npz"):
        read_npz(path, ["x"])


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy(np.ones(3)))
        archive.writestr("x.npy", npy(np.zeros(3)))
    with pytest.raises(DataError, match="'x' twice"):
        read_npz(tmp_path / "x.npz", ["x"])


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.npz", {"x.npy": npy(np.ones(3))}, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match=r"compressed in a way that numpy\.savez does not write"):
        read_npz(path, ["x"])


def peak() -> int:
    """Most memory that this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def test_a_zip_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    rows = 2**24
    archive = zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("x.npy", "w") as out:
        out.write(lying(f"{rows},"))
        for _ in range(rows * 8 // 2**20):
            out.write(bytes(2**20))
    assert (tmp_path / "x.npz").stat().st_size < 2**20
    before = peak()
    with pytest.raises(DataError, match="no measured numbers shrink so far"):
        read_npz(tmp_path / "x.npz", ["x"])
    assert peak() - before < 64


def test_what_is_too_large_is_refused_from_the_directory(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.npz", {"x.npy": npy(np.ones(3))}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (LARGEST + 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="use fewer episodes"):
        read_npz(path, ["x"])


@settings(max_examples=300)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_is_found_or_changes_nothing(
    place: int, bit: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    array = np.arange(40.0).reshape(8, 5)
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    np.savez_compressed(path, x=array)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content[: place % len(content)] if cut else content)
    try:
        found = read_npz(path, ["x"])["x"]
    except DataError:
        return
    np.testing.assert_array_equal(found, array)
