"""The campaigns find what they look for: careless writers and readers are caught."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foreworld.core.errors import DataError, WriteFailed
from foreworld.core.files import read_json, sha256, write_json
from foreworld.testing.damage import Target, damage
from foreworld.testing.faults import failing, flip_bit, leftovers, watch_calls

CARELESS = """
import json, os, sys, time
from pathlib import Path
from foreworld.testing.faults import leftovers
from foreworld.testing.survival import Subject, kill
path = Path(sys.argv[1]) / "place" / "folder" / "state.json"

def work():
    path.parent.mkdir(exist_ok=True)
    for number in range(20):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(handle, json.dumps({"number": number}).encode())
        os.close(handle)

def check():
    return json.loads(path.read_text())["number"] * 0 if path.exists() else 0

path.parent.mkdir(parents=True)
print(len(kill(Subject(path.parent, work, check, lambda: None), 8, seed=0).losses))
"""


def test_a_writer_that_writes_in_place_is_caught(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CARELESS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 0


def test_a_reader_that_checks_nothing_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "numbers.bin"
    path.write_bytes(bytes(64))

    def trusting() -> int:
        return len(path.read_bytes())

    def crashing() -> None:
        if any(path.read_bytes()):
            raise KeyError

    def silent() -> None:
        if any(path.read_bytes()) or path.stat().st_size != 64:
            raise DataError("something is wrong")

    def careful() -> None:
        if any(path.read_bytes()) or path.stat().st_size != 64:
            raise DataError(f"{path}: damaged")

    for reader, sentence in ((trusting, "accepted"), (crashing, "KeyError"), (silent, "not named")):
        found = damage(Target(tmp_path, (path,), reader), 4, 1, seed=0)
        assert len(found.losses) >= 4
        assert sentence in found.losses[0]
    assert damage(Target(tmp_path, (path,), careful), 20, 5, seed=0).losses == ()


def test_a_bit_flips_and_flips_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x00\x00")
    flip_bit(path, 11)
    assert path.read_bytes() == b"\x00\x08"
    flip_bit(path, 11)
    assert path.read_bytes() == b"\x00\x00"


def test_each_call_fails_once_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")
    before, refused = sha256(path), set()
    for at in range(1, 20):
        with failing(at, errno.ENOSPC) as seen:
            try:
                write_json(path, "new")
            except WriteFailed as fault:
                refused.add(seen[-1])
                assert str(path) in str(fault)
                assert "free space" in str(fault)
                assert fault.errno == errno.ENOSPC
            else:
                assert len(seen) < at or read_json(path) == "new"
        if len(seen) < at:
            break
        assert sha256(path) == before or read_json(path) == "new"
        assert leftovers(tmp_path) == []
    assert {"open", "write", "fsync", "replace"} <= refused
    assert read_json(path) == "new"


def test_watching_ends_with_the_block(tmp_path: Path) -> None:
    real = os.mkdir
    with (
        pytest.raises(RuntimeError),
        watch_calls(("mkdir",), lambda number, name, call, arguments: call()) as seen,
    ):
        (tmp_path / "a").mkdir()
        raise RuntimeError
    assert seen == ["mkdir"]
    assert os.mkdir is real
