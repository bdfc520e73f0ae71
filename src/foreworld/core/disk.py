"""Bytes on disk: every lasting write of the library goes through these few calls of `os`, where faults can be put."""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from foreworld.core.errors import DataError, ForeworldError, InUse, WriteFailed

TEMPORARY = ".partial-"
LOCK = ".lock"

REMEDIES = {
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space within your quota",
    errno.EIO: "check the disk, it failed",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "close other programs",
    errno.EACCES: "use a folder that is yours",
    errno.EPERM: "use a folder that is yours",
    errno.EROFS: "use a folder that is not read-only",
}

_serial = itertools.count()
_held: set[int] = set()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about a failed write into one sentence that names the path and the remedy.

    Raises:
        WriteFailed: the block raised an OSError.
    """
    try:
        yield
    except WriteFailed:
        raise
    except OSError as fault:
        failed = WriteFailed(
            f"{path}: could not be written ({fault.strerror or fault}); {remedy(fault)} and run it again; "
            "what was finished before is intact"
        )
        failed.errno = fault.errno
        raise failed from fault


def remedy(fault: Exception) -> str:
    """Return what to do about a refusal of the system."""
    return REMEDIES.get(getattr(fault, "errno", None) or 0, "see to the cause")


@contextmanager
def create(path: Path, append: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing, new or at its end; while it is open, `sweep_partial` leaves it alone."""
    mode = os.O_APPEND if append else os.O_EXCL
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | mode, 0o666)
    _try_lock(handle)
    with io.BufferedWriter(_Raw(handle), 2**20) as file:
        yield file


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        WriteFailed: the disk refused; the old content is intact.
    """
    partial = partial_name(path)
    with writing(path):
        try:
            discard(partial)
            with create(partial) as file:
                file.write(data)
            sync(partial)
            os.replace(partial, path)  # noqa: PTH105 - the seam for faults is `os`
            sync(path.parent)
        except BaseException:
            discard(partial)
            raise


def append_text(path: Path, text: str) -> None:
    """Append text to a file; what a crash leaves of it has no end of line.

    Raises:
        WriteFailed: the disk refused; nothing was appended.
    """
    with writing(path):
        before = path.stat().st_size if path.exists() else 0
        try:
            with create(path, append=True) as file:
                file.write(text.encode())
        except OSError:
            with suppress(OSError):  # what comes next must not be glued to a part of this
                os.truncate(path, before)
            raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents, so that they survive a power loss.

    Raises:
        WriteFailed: the disk refused.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with writing(path):
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def open_regular(path: Path, error: type[ForeworldError] = DataError) -> Iterator[io.BufferedReader]:
    """Open a file of unknown origin for reading; links, pipes and devices are refused.

    Raises:
        ForeworldError: of type `error`: missing, not readable, or not a plain file.
    """
    try:
        # without O_NONBLOCK, opening a pipe would wait for ever
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as fault:
        if getattr(fault, "errno", None) == errno.ELOOP:
            raise error(f"{path}: is a link; copy the folder with `cp -rL` and use the copy") from None
        reason = getattr(fault, "strerror", None) or fault
        raise error(f"{path}: cannot be opened ({reason}); {remedy(fault)}") from fault
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)  # a folder could not even be wrapped as a file
        raise error(f"{path}: is not a plain file; remove it or restore it from a copy")
    with os.fdopen(handle, "rb") as file:
        yield file


def list_files(folder: Path, error: type[ForeworldError] = DataError) -> dict[str, os.stat_result]:
    """List every file below a folder by its relative name, with its stat.

    Raises:
        ForeworldError: of type `error`: no folder, or something in it is a link, pipe or device.
    """
    found: dict[str, os.stat_result] = {}
    if folder.is_symlink():
        raise error(f"{folder}: is a link; copy the folder with `cp -rL` and use the copy")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found |= {f"{entry.name}/{name}": s for name, s in list_files(folder / entry.name, error).items()}
            elif entry.is_file(follow_symlinks=False):
                found[entry.name] = entry.stat(follow_symlinks=False)
            else:
                raise error(f"{folder / entry.name}: is a link or not a plain file; copy with `cp -rL` or remove it")
    except OSError as fault:
        raise error(f"{folder}: cannot be listed ({fault.strerror or fault}); {remedy(fault)}") from fault
    return found


def partial_name(path: Path) -> Path:
    """Return the temporary name under which this process writes a file or folder."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{next(_serial)}-{path.name}")


def discard(path: Path) -> None:
    """Remove a file or folder if it can be removed; what stays is swept later."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a crash leaves it whole or gone, never half there under its name.

    Raises:
        WriteFailed: it could not be removed.
    """
    partial = partial_name(path)
    with writing(path):
        os.rename(path, partial)  # noqa: PTH104
        sync(path.parent)
    discard(partial)


def sweep_partial(folder: Path, name: str = "") -> list[str]:
    """Remove what interrupted writes left in a folder, and leave alone what is being written.

    Args:
        folder: where to look.
        name: only what was to become this file or folder; by default everything.

    Returns:
        The names removed.
    """
    gone = []
    for leftover in sorted(folder.iterdir()) if folder.is_dir() else []:
        ours = leftover.name.startswith(TEMPORARY) and (not name or leftover.name.endswith(f"-{name}"))
        if ours and not _being_written(leftover):
            discard(leftover)
            gone.append(leftover.name)
    return gone


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Hold a folder for writing, and sweep what an interrupted writer left in it.

    The kernel releases the lock when the process ends, however it ends, so that no stale lock
    stays; the file `.lock` stays and means nothing by itself. Processes forked meanwhile do not
    hold it. On a file system without locks nothing is guarded.

    Raises:
        InUse: another writer holds it, in this process or another.
        WriteFailed: the folder cannot be written to.
    """
    with writing(path):
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if not _try_lock(handle):
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        os.close(handle)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise InUse(f"{path}: {who} is writing to it; wait until it has finished, or choose another folder")
    _held.add(handle)
    try:
        with suppress(OSError):  # who holds it is written for people only
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        sweep_partial(path)
        yield
    finally:
        if handle in _held:  # not so in a forked process
            _held.discard(handle)
            os.close(handle)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Mark a temporary folder as being written, so that nobody sweeps it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _try_lock(handle)
        yield
    finally:
        os.close(handle)


class _Raw(io.RawIOBase):
    """An open file whose writes go through `os.write`."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = handle

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return os.write(self._handle, data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    return True


def _being_written(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _release_in_child() -> None:
    """Close what a fork copied: a worker that outlives its parent must not keep the parent's folder locked."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
