"""Files that are whole or absent: atomic writes, and folders sealed by a manifest of hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foreworld.core.errors import DataError, ForeworldError, InUse, OutputExists

MANIFEST = "manifest.json"
TEMPORARY = ".partial-"
OURS = ("config.json", "schema.json", "episodes")
"""One of these lies in every folder that foreworld writes: a run, a dataset, an interrupted demo."""

LARGEST_JSON = 64 * 2**20


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    partial = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities become null, as JSON has no name for them."""
    write_atomic(path, (json.dumps(finite(value), indent=2) + "\n").encode())


def read_json(path: Path, error: type[ForeworldError] = DataError) -> Any:
    """Read a JSON file.

    Raises:
        ForeworldError: of type `error`: missing, too large, nested too deep or not JSON; the file is named.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise error(f"{path}: larger than {LARGEST_JSON >> 20} MiB, refused as JSON")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (ValueError, RecursionError, OSError) as fault:
        raise error(f"{path}: not readable as JSON ({fault})") from fault


def finite(value: Any) -> Any:
    """Replace NaN and infinities in nested lists and dictionaries by None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """Write a folder that appears under its name only when it is whole.

    Yields a temporary folder beside `path`. When the block ends well, every file is
    hashed into `manifest.json`, synced to disk, and the folder is renamed; when it
    fails, nothing is left.

    Raises:
        OutputExists: `path` is already there.
    """
    if path.exists():
        raise OutputExists(f"{path} already exists")
    partial = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        entries = {str(f.relative_to(partial)): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
        (partial / MANIFEST).write_text(json.dumps({"files": entries}, indent=2))
        for file in [*files, partial / MANIFEST]:
            _sync(file)
        sync_folder(partial)
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def verify_folder(path: Path, error: type[ForeworldError] = DataError) -> dict[str, int]:
    """Check a sealed folder against its manifest.

    Args:
        path: the folder.
        error: the type to raise.

    Returns:
        File name to size in bytes.

    Raises:
        ForeworldError: of type `error`: a file is missing, added, of another size or hash; it is named.
    """
    entries = read_manifest(path, error)
    present = {str(f.relative_to(path)) for f in path.rglob("*") if f.is_file()} - {MANIFEST}
    if extra := present - set(entries):
        raise error(f"{path / sorted(extra)[0]}: not listed in {MANIFEST}; remove it")
    for name, entry in entries.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise error(f"{file}: listed in {MANIFEST} but missing; restore it from a copy")
        if file.stat().st_size != entry["bytes"]:
            raise error(f"{file}: {file.stat().st_size} bytes where {entry['bytes']} were written; it is damaged")
        if sha256(file) != entry["sha256"]:
            raise error(f"{file}: its content does not match its hash; it is damaged, restore it from a copy")
    return {name: entry["bytes"] for name, entry in entries.items()}


def read_manifest(path: Path, error: type[ForeworldError] = DataError) -> dict[str, dict[str, Any]]:
    """Read a manifest and refuse names that point outside its folder."""
    manifest = read_json(path / MANIFEST, error)
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict):
        raise error(f"{path / MANIFEST}: has no table of files")
    for name, entry in entries.items():
        outside = Path(name).is_absolute() or ".." in Path(name).parts
        if outside or not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            raise error(f"{path / MANIFEST}: entry {name!r} is not valid")
    return entries


def sweep_partial(folder: Path) -> list[str]:
    """Remove what interrupted writes left in a folder; return the names removed."""
    gone = []
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        gone.append(leftover.name)
    return gone


def claim_output(path: Path, overwrite: bool = False) -> Path:
    """Make sure that an output path is free; with `overwrite`, clear it.

    Raises:
        OutputExists: it is there and `overwrite` is false, or it is a folder of somebody else's.
    """
    refuse_existing(path, overwrite)
    if path.exists():
        if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in OURS):
            raise OutputExists(f"{path} is not a folder that foreworld wrote, so it stays; choose another --out")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def refuse_existing(path: Path, overwrite: bool = False) -> None:
    """Refuse an output that is there, unless it may be replaced.

    Raises:
        OutputExists: it is there and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} already exists; choose another --out or add --overwrite")


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Hold a folder for writing; the kernel releases it when the process ends, however it ends.

    Raises:
        InUse: another writer holds it, in this process or another.
    """
    with (path / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(f"{path} is in use by process {file.read().strip()}; wait for it or choose another") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power loss."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
