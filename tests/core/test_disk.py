"""Locks end with their holder, leftovers are swept but never what is being written, JSON checks itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foreworld.core.disk import create, lock_folder, make_folder, open_regular, partial_name, remove_folder
from foreworld.core.errors import DataError, InUse, OutputExists, WriteFailed
from foreworld.core.files import (
    claim_output,
    holds_nothing,
    read_json,
    read_sealed,
    sealed_folder,
    sweep_partial,
    verify_folder,
    write_atomic,
    write_json,
)

HOLD = """
import os, sys, time
from pathlib import Path
from foreworld.core.disk import lock_folder
with lock_folder(Path(sys.argv[1])):
    worker = os.fork()
    if worker == 0:
        print(os.getpid(), flush=True)  # from here on it has let go of the lock
        time.sleep(60)  # a worker that outlives its parent
        os._exit(0)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    told = rf"process {os.getpid()} is writing.*wait"
    with lock_folder(tmp_path), pytest.raises(InUse, match=told), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_killed_writer_leaves_no_lock_even_when_its_worker_lives_on(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(InUse, match=f"process {holder.pid}"), lock_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with lock_folder(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()


def test_a_folder_that_cannot_be_locked_says_so(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="could not be written"), lock_folder(tmp_path / "absent"):
        pass


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    dead = tmp_path / ".partial-1-0-x"
    dead.write_text("")
    live = partial_name(tmp_path / "y")
    with create(live), sealed_folder(tmp_path / "z") as folder:
        (folder / "a").write_text("a")
        assert sweep_partial(tmp_path) == [dead.name]
        assert live.exists()
        assert folder.exists()
    assert sweep_partial(tmp_path) == [live.name]
    assert verify_folder(tmp_path / "z") == {"a": 1}


def test_sweeping_for_one_name_leaves_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f".partial-1-0-{name}").mkdir()
    assert sweep_partial(tmp_path, "a") == [".partial-1-0-a"]
    assert sweep_partial(tmp_path / "absent") == []


def test_taking_a_folder_sweeps_it(tmp_path: Path) -> None:
    (tmp_path / ".partial-1-0-x").write_text("")
    with lock_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_removed_folder_is_gone_from_its_name_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "deep" / "x")
    (tmp_path / "deep" / "x" / "file").write_text("1")
    monkeypatch.setattr("foreworld.core.disk.discard", lambda path: None)
    remove_folder(tmp_path / "deep" / "x")
    assert [path.name.startswith(".partial-") for path in (tmp_path / "deep").iterdir()] == [True]
    monkeypatch.undo()
    assert len(sweep_partial(tmp_path / "deep")) == 1


def test_an_output_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {})
    with lock_folder(tmp_path / "run"), pytest.raises(InUse):
        claim_output(tmp_path / "run", overwrite=True)
    assert read_json(tmp_path / "run" / "config.json") == {}
    claim_output(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_start_holds_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    (out / ".lock").touch()
    (out / ".partial-7-0-schema.json").write_text("{")
    assert holds_nothing(out)
    assert claim_output(out) == out
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "thesis.tex").touch()
    assert not holds_nothing(out)
    with pytest.raises(OutputExists, match="already exists"):
        claim_output(out)
    with pytest.raises(OutputExists, match="not a folder that foreworld wrote"):
        claim_output(out, overwrite=True)
    assert not (out / ".lock").exists()


def test_a_failed_write_keeps_the_old_content_and_no_part_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "x", b"old")

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(WriteFailed, match=r"x: could not be written \(Input/output error\); check the disk"):
        write_atomic(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_pipes_links_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name, reason in (("pipe", "not a plain file"), ("link", "is a link"), ("absent", "no such file")):
        with pytest.raises(DataError, match=reason), open_regular(tmp_path / name):
            pass
    with pytest.raises(DataError, match="not a plain file"):
        read_json(Path("/dev/zero"))


SEALED = {"format": 1, "share": 0.1, "rows": [[1, 2], [3, 4]], "name": "ä", "none": None}


def test_a_sealed_file_reads_back_and_finds_every_change(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, SEALED | {"rows": ((1, 2), (3, 4))}, sealed=True)
    assert read_sealed(path, set(SEALED), form=1) == SEALED
    honest = path.read_bytes()
    for at in range(len(honest)):
        for bit in range(8):
            changed = bytearray(honest)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(DataError, match=r"x\.json"):
                read_sealed(path, set(SEALED), form=1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"format": 2}', "format 2, this version reads 1; update"),
        (b'{"format": true}', "format True"),
        (b'{"format": 1, "colour": 3}', "unknown field 'colour'"),
        (b"[1]", "no object"),
        (b'{"format": 1, "format": 1}', "given twice"),
        (b'{"format": 1, "share": NaN}', "not a finite number"),
        (b'{"format": 1, "share": 1e400}', "not a finite number"),
        (b'{"format": 1, "rows": ' + b"[" * 10**5, "recursion"),
        (b"[" + b"[]," * 400_000, "more than 400000 lists"),
        (b" " * (12 * 2**20 + 1), "larger than 12 MiB"),
    ],
)
def test_json_that_deceives_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(DataError, match=reason):
        read_sealed(tmp_path / "x.json", set(SEALED), form=1)


def test_who_edits_a_sealed_file_on_purpose_removes_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, SEALED, sealed=True)
    edited = json.loads(path.read_text()) | {"share": 0.2}
    path.write_text(json.dumps(edited))
    with pytest.raises(DataError, match="edited on purpose"):
        read_sealed(path, set(SEALED))
    del edited["sha256"]
    path.write_text(json.dumps(edited))
    assert read_sealed(path, set(SEALED))["share"] == 0.2


def test_json_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read again"):
        write_json(tmp_path / "x.json", "x" * (12 * 2**20))
    assert list(tmp_path.iterdir()) == []
