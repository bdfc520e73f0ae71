"""Files that are whole or absent: JSON that checks itself, and folders sealed by a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foreworld.core.disk import LOCK as LOCK
from foreworld.core.disk import TEMPORARY as TEMPORARY
from foreworld.core.disk import append_text as append_text
from foreworld.core.disk import (
    create,
    discard,
    held,
    list_files,
    make_folder,
    open_regular,
    partial_name,
    remove_folder,
    sync,
    writing,
)
from foreworld.core.disk import lock_folder as lock_folder
from foreworld.core.disk import sweep_partial as sweep_partial
from foreworld.core.disk import write_atomic as write_atomic
from foreworld.core.errors import DataError, ForeworldError, OutputExists, WriteFailed

MANIFEST = "manifest.json"
SEAL = "sha256"
"""Field of a sealed JSON file that holds the hash of all others."""
OURS = ("config.json", "schema.json", "episodes", "foreworld.json", "plan.json")
"""One of these lies in every folder that foreworld writes: a run, a dataset, an interrupted demo, an export, plans."""

LARGEST_JSON = 12 * 2**20
MOST_CONTAINERS = 400_000
"""Together these keep what hostile JSON can make Python allocate below 256 MB."""

_HASH = re.compile(r"[0-9a-f]{64}")


def write_json(path: Path, value: Any, *, sealed: bool = False, durable: bool = True) -> None:
    """Write JSON atomically; NaN and infinities become null, as JSON has no name for them.

    Args:
        path: the file.
        value: what to write; an object when it is sealed.
        sealed: add a field `sha256` over all others, so that `read_sealed` finds any change.
        durable: False inside a folder that is sealed afterwards, which brings all of it to the disk at once.

    Raises:
        DataError: too large to be read again.
        WriteFailed: the disk refused; the old content is intact.
    """
    plain = json.loads(json.dumps(finite(value)))  # as it will be read: keys are text, tuples are lists
    data = _sealed(plain) if sealed else _encoded(plain)
    if len(data) > LARGEST_JSON or data.count(b"{") + data.count(b"[") > MOST_CONTAINERS:
        raise DataError(f"{path}: {len(data) >> 20} MiB of JSON could not be read again; use fewer episodes")
    if durable:
        return write_atomic(path, data)
    with create(path) as file:
        file.write(data)


def read_json(path: Path, error: type[ForeworldError] = DataError) -> Any:
    """Read a JSON file.

    Raises:
        ForeworldError: of type `error`: missing, no plain file, too large, nested too deep, not JSON,
            with a field given twice or a number that is not finite; the file is named.
    """
    return _decoded(path, _content(path, error), error)


def read_sealed(
    path: Path, fields: set[str], error: type[ForeworldError] = DataError, form: int | None = None
) -> dict[str, Any]:
    """Read a JSON object that checks itself.

    A file without the field `sha256` is not checked: who edits one on purpose removes that line.

    Args:
        path: the file.
        fields: every field that it may have.
        error: the type to raise.
        form: what the field `format` must say, if there is one.

    Raises:
        ForeworldError: of type `error`: not readable, of another format, with an unknown field, or changed.
    """
    data = _content(path, error)
    value = _decoded(path, data, error)
    if not isinstance(value, dict):
        raise error(f"{path}: holds no object with fields; it is damaged, restore it from a copy")
    if form is not None and (type(value.get("format")) is not int or value["format"] != form):
        raise error(f"{path}: format {value.get('format')!r}, this version reads {form}; update foreworld")
    if extra := sorted(set(value) - fields - {SEAL}):
        raise error(f"{path}: unknown field {extra[0]!r:.50}; it is damaged, or from a newer foreworld")
    if SEAL in value:
        rest = {name: inner for name, inner in value.items() if name != SEAL}
        if _sealed(rest) != data:
            raise error(
                f"{path}: does not match its own hash; it is damaged, restore it from a copy "
                f"(edited on purpose? remove its {SEAL!r} field)"
            )
        return rest
    return value


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
        WriteFailed: the disk refused.
    """
    if os.path.lexists(path):
        raise OutputExists(f"{path} already exists")
    partial = partial_name(path)
    with writing(path):
        discard(partial)
        make_folder(path.parent)
        try:
            partial.mkdir()
            with held(partial):
                yield partial
                _seal(partial)
                os.rename(partial, path)  # noqa: PTH104 - the seam for faults is `os`
                try:
                    sync(path.parent)
                except OSError:  # it may not survive a power loss, so it must not look finished
                    os.rename(path, partial)  # noqa: PTH104
                    raise
        except BaseException:
            discard(partial)
            raise


def verify_folder(
    path: Path, error: type[ForeworldError] = DataError, names: tuple[str, ...] | None = None
) -> dict[str, int]:
    """Check a sealed folder against its manifest.

    Args:
        path: the folder.
        error: the type to raise.
        names: files to hash; by default all. The list of files and their sizes are always checked.

    Returns:
        File name to size in bytes.

    Raises:
        ForeworldError: of type `error`: a file is missing, added, of another size or hash; it is named.
    """
    present = list_files(path, error)
    entries = read_manifest(path, error)
    present.pop(MANIFEST, None)
    if extra := sorted(set(present) - set(entries)):
        raise error(f"{path / extra[0]}: not listed in {MANIFEST}; remove it")
    if missing := sorted(set(entries) - set(present)):
        raise error(f"{path / missing[0]}: listed in {MANIFEST} but missing; restore it from a copy")
    for name, entry in entries.items():
        file, size = path / name, present[name].st_size
        if size != entry["bytes"]:
            raise error(f"{file}: {size} bytes where {entry['bytes']} were written; it is damaged")
        if (names is None or name in names) and sha256(file, error) != entry["sha256"]:
            raise error(f"{file}: its content does not match its hash; it is damaged, restore it from a copy")
    return {name: entry["bytes"] for name, entry in entries.items()}


def read_manifest(path: Path, error: type[ForeworldError] = DataError) -> dict[str, dict[str, Any]]:
    """Read a manifest and refuse names that point outside its folder."""
    file = path / MANIFEST
    entries = read_sealed(file, {"files"}, error).get("files")
    if not isinstance(entries, dict):
        raise error(f"{file}: has no table of files; it is damaged, restore it from a copy")
    for name, entry in entries.items():
        outside = not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))
        valid = isinstance(entry, dict) and set(entry) == {"bytes", "sha256"} and type(entry["bytes"]) is int
        if outside or not valid or entry["bytes"] < 0 or not _HASH.fullmatch(str(entry["sha256"])):
            raise error(f"{file}: entry {name!r:.80} is not valid; it is damaged, restore it from a copy")
    return entries


def claim_output(path: Path, overwrite: bool = False) -> Path:
    """Make sure that an output path is free; with `overwrite`, clear it.

    Raises:
        OutputExists: it is there and `overwrite` is false, or it is a folder of somebody else's.
        InUse: somebody is writing to it.
    """
    refuse_existing(path, overwrite)
    if path.is_dir():
        if not holds_nothing(path) and not any((path / name).exists() for name in OURS):
            raise OutputExists(f"{path} is not a folder that foreworld wrote, so it stays; choose another folder")
        with lock_folder(path):
            remove_folder(path)
    elif path.exists():
        path.unlink()
    make_folder(path.parent)
    sweep_partial(path.parent, path.name)
    return path


def refuse_existing(path: Path, overwrite: bool = False) -> None:
    """Refuse an output that is there, unless it may be replaced or holds nothing.

    Raises:
        OutputExists: it is there and `overwrite` is false.
    """
    if path.exists() and not overwrite and not holds_nothing(path):
        raise OutputExists(f"{path} already exists; choose another folder or add --overwrite")


def holds_nothing(path: Path) -> bool:
    """Return whether a folder holds nothing but what an interrupted start leaves: locks, parts, empty folders."""

    def nothing(entry: Path) -> bool:
        ours = entry.name == LOCK or entry.name.startswith(TEMPORARY)
        return ours or (entry.is_dir() and not entry.is_symlink() and all(map(nothing, entry.iterdir())))

    return path.is_dir() and all(map(nothing, path.iterdir()))


def sha256(path: Path, error: type[ForeworldError] = DataError) -> str:
    """Hash a plain file.

    Raises:
        ForeworldError: of type `error`: it cannot be read.
    """
    with open_regular(path, error) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as fault:
            raise error(f"{path}: cannot be read ({fault.strerror or fault}); check the disk") from fault


def _seal(folder: Path) -> None:
    """Hash every file below a folder into its manifest, and bring all of it to the disk."""
    names = list_files(folder, WriteFailed)
    entries = {name: {"bytes": s.st_size, "sha256": sha256(folder / name, WriteFailed)} for name, s in names.items()}
    with create(folder / MANIFEST) as file:
        file.write(_sealed({"files": entries}))
    files = [folder / name for name in (*names, MANIFEST)]
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(folder)}
    for file in [*files, *sorted(folders)]:
        sync(file)


def _encoded(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _sealed(value: dict[str, Any]) -> bytes:
    """Encode an object with its hash; reading compares every byte, so there is one way to write it."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return _encoded({**value, SEAL: digest})


def _content(path: Path, error: type[ForeworldError]) -> bytes:
    with open_regular(path, error) as file:
        try:
            data = file.read(LARGEST_JSON + 1)
        except OSError as fault:
            raise error(f"{path}: cannot be read ({fault.strerror or fault}); check the disk") from fault
    if len(data) > LARGEST_JSON:
        raise error(f"{path}: larger than {LARGEST_JSON >> 20} MiB, refused as JSON")
    if data.count(b"{") + data.count(b"[") > MOST_CONTAINERS:
        raise error(f"{path}: more than {MOST_CONTAINERS} lists and objects, refused as JSON")
    return data


def _decoded(path: Path, data: bytes, error: type[ForeworldError]) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a field is given twice")
        return found

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text:.20} is not a finite number")
        return value

    try:
        return json.loads(data.decode(), object_pairs_hook=once, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as fault:
        raise error(f"{path}: not readable as JSON ({fault}); it is damaged, restore it from a copy") from fault
