from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import foreworld as fw
from foreworld.core import Space
from foreworld.core.errors import DataError
from foreworld.core.files import MANIFEST, sha256
from foreworld.data import Episode, Writer
from foreworld.data.schema import Column
from foreworld.data.shard import open_column

SPEC = fw.Spec(obs={"obs": Space(kind="vector", shape=(4,), dtype="float32")}, action=None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Writer(tmp_path / "d", SPEC, shard_rows=6) as writer:
        for i in range(3):
            writer.add(Episode(obs={"obs": np.full((6, 4), i, np.float32)}))
    return tmp_path / "d"


def reseal(shard: Path) -> None:
    """Give a tampered shard a manifest that agrees with it, as an attacker would."""
    files = [f for f in shard.rglob("*") if f.is_file() and f.name != MANIFEST]
    entries = {str(f.relative_to(shard)): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
    (shard / MANIFEST).write_text(json.dumps({"files": entries}))


def raw_npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(6, 4)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


HOSTILE = {
    "huge shape": (raw_npy(header(shape="(99999999999999, 4)")), "shape"),
    "overflowing shape": (raw_npy(header(shape="(6, 4611686018427387904)")), "shape"),
    "negative shape": (raw_npy(header(shape="(-6, 4)"), bytes(96)), "not readable"),
    "short body": (raw_npy(header(), bytes(95)), "95|bytes"),
    "long body": (raw_npy(header(), bytes(97)), "bytes"),
    "objects": (raw_npy(header(descr="'|O'"), bytes(96)), "of numbers"),
    "records": (raw_npy(header(descr="[('a', '<f4')]"), bytes(96)), "of numbers"),
    "other type": (raw_npy(header(descr="'<i4'"), bytes(96)), "holds <i4"),
    "other byte order": (raw_npy(header(descr="'>f4'"), bytes(96)), "holds"),
    "fortran order": (raw_npy(header(order="True"), bytes(96)), "Fortran"),
    "code": (raw_npy("__import__('os').system('true')", bytes(96)), "not readable"),
    "deep nesting": (raw_npy("(" * 100, bytes(96)), "not readable"),
    "missing field": (raw_npy("{'descr': '<f4'}", bytes(96)), "not readable"),
    "unknown version": (b"\x93NUMPY\x09\x00" + bytes(100), "version"),
    "not npy": (b"PK\x03\x04" + bytes(100), "not readable"),
    "empty": (b"", "not readable"),
    "truncated header": (raw_npy(header())[:30], "not readable"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_column_is_refused_from_its_header(store: Path, name: str) -> None:
    content, message = HOSTILE[name]
    shard = store / "shards" / "000001"
    (shard / "obs" / "obs.npy").write_bytes(content)
    reseal(shard)
    with pytest.raises(DataError, match=message) as error:
        fw.load(store)
    assert "000001/obs/obs.npy" in str(error.value)


def test_nothing_is_allocated_for_a_lying_header(tmp_path: Path) -> None:
    rows = 10**12
    (tmp_path / "x.npy").write_bytes(raw_npy(header(shape=f"({rows}, 4)")))
    with pytest.raises(DataError, match="promises"):
        open_column(tmp_path / "x.npy", rows, Column(dtype="float32", shape=(4,)))


def test_a_flipped_bit_is_found_and_the_file_named(store: Path) -> None:
    file = store / "shards" / "000002" / "reward.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"000002/reward\.npy.*damaged"):
        fw.load(store)


def test_verification_is_remembered_until_a_file_changes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    from foreworld.data import shard

    real = shard.verify_folder
    monkeypatch.setattr(shard, "verify_folder", lambda path: (checked.append(path.name), real(path)))
    fw.load(store)
    assert checked == ["000000", "000001", "000002"]
    fw.load(store)
    assert len(checked) == 3
    file = store / "shards" / "000001" / "reward.npy"
    os.utime(file, ns=(1, 1))
    fw.load(store)
    assert checked[3:] == ["000001"]
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DataError, match=r"000001/reward\.npy.*damaged"):  # same size and mtime: the ctime tells
        fw.load(store)
    content[-1] ^= 1
    file.write_bytes(content)
    (store / "verified.json").write_text("not json")
    fw.load(store)
    assert len(checked) == 8


def test_a_read_only_store_opens(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("foreworld.data.shard.write_json", refuse)
    assert fw.load(store).episodes == 3
    assert not (store / "verified.json").exists()


def drop_shard(store: Path) -> None:
    shutil.rmtree(store / "shards" / "000001")


def drop_first_shard(store: Path) -> None:
    shutil.rmtree(store / "shards" / "000000")


def drop_column(store: Path) -> None:
    (store / "shards" / "000001" / "reward.npy").unlink()


def drop_manifest(store: Path) -> None:
    (store / "shards" / "000001" / MANIFEST).unlink()


def add_file(store: Path) -> None:
    (store / "shards" / "000001" / "extra.npy").touch()


def edit(field: str, value: object) -> Callable[[Path], None]:
    def apply(store: Path) -> None:
        path = store / "schema.json"
        values = json.loads(path.read_text()) | {field: value}
        del values["sha256"]
        path.write_text(json.dumps(values))

    return apply


def lengths(value: object) -> Callable[[Path], None]:
    def apply(store: Path) -> None:
        (store / "shards" / "000001" / "episodes.json").write_text(json.dumps({"lengths": value}))
        reseal(store / "shards" / "000001")

    return apply


BIG = {"kind": "discrete", "shape": [], "dtype": "int64", "classes": [10**12], "start": [0]}
SMALL = {"kind": "vector", "shape": [4], "dtype": "float32", "low": [0.0], "high": [1.0]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_shard, "shard 000001 is missing"),
        (drop_first_shard, "shard 000000 is missing"),
        (drop_column, "reward.npy.*missing"),
        (drop_manifest, "not a complete shard"),
        (add_file, "extra.npy.*not listed"),
        (edit("format", 99), "format 99.*update foreworld"),
        (edit("convention", "departure"), "convention 'departure'"),
        (edit("columns", {}), "do not follow from its spec"),
        (edit("spec", 3), "not a valid schema"),
        (edit("spec", {"obs": 3, "action": None}), "not a valid schema"),
        (edit("spec", {"obs": {"obs": BIG}, "action": None}), "too large"),
        (edit("spec", {"obs": {"obs": SMALL}, "action": None}), "contradicts itself"),
        (edit("spec", {"obs": {"obs": {"kind": "vector", "shape": [4], "dtype": "object"}}, "action": None}), "stored"),
        (
            edit("spec", {"obs": {"../obs": {"kind": "vector", "shape": [4], "dtype": "float32"}}, "action": None}),
            "rena",
        ),
        (edit("source", {"colour": "red"}), "unknown field 'colour'"),
        (lengths([7]), "index say"),
        (lengths([]), "no valid list"),
        (lengths([6.0]), "no valid list"),
        (lengths([True]), "no valid list"),
        (lengths("6"), "no valid list"),
        (lengths([2**63] * 3), "no valid list"),
        (lengths([2**39] * 2**10), "schema and index say"),
    ],
)
def test_damage_gets_one_clear_error(store: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(store)
    with pytest.raises(DataError, match=message):
        fw.load(store)


def test_what_is_no_store_or_empty_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a foreworld dataset"):
        fw.load(tmp_path)
    with Writer(tmp_path / "d", SPEC):
        pass
    with pytest.raises(DataError, match="no finished episode"):
        fw.load(tmp_path / "d")


def test_what_a_crash_left_is_neither_read_nor_kept(store: Path) -> None:
    leftover = store / "shards" / ".partial-1-000003"
    leftover.mkdir()
    assert fw.load(store).episodes == 3
    with Writer(store, SPEC):
        pass
    assert not leftover.exists()
