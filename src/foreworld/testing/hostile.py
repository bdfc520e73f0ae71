"""Files made to deceive a loader: headers that lie, JSON that explodes, names and links that lead outside."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foreworld.core.files import MANIFEST, SEAL, list_files, sha256

SHARD = "shards/000000"
HUGE = 10**14

Change = Callable[[Path], object]
"""Does something to the folder of a store or a run."""


@dataclass(frozen=True)
class Attack:
    """One hostile change to a stored folder, which is honest before and after.

    Attributes:
        name: what is wrong with it.
        folder: the store or run.
        change: what the attacker does.
    """

    name: str
    folder: Path
    change: Change

    def place(self) -> Callable[[], None]:
        """Make the change; return what undoes it."""
        kept = self.folder.with_name(f"{self.folder.name}-kept")
        shutil.copytree(self.folder, kept, symlinks=True)
        self.change(self.folder)

        def undo() -> None:
            shutil.rmtree(self.folder)
            kept.rename(self.folder)

        return undo


def attacks(store: Path, run: Path, outside: Path) -> list[Attack]:
    """List every attack on a store and a run.

    Args:
        store: a dataset of one column `obs/obs`, with actions.
        run: a run with a checkpoint.
        outside: an empty folder that no loader may open anything in.
    """
    checkpoint = f"checkpoints/{max(path.name for path in (run / 'checkpoints').iterdir())}"
    found = [Attack(f"column {name}", store, change) for name, change in _columns(store)]
    for name, change in tensor_changes(run, checkpoint, ("model.safetensors", "training.safetensors")):
        found.append(Attack(f"tensors {name}", run, change))
    places = [(store, "schema.json", ""), (store, f"{SHARD}/{MANIFEST}", ""), (store, f"{SHARD}/episodes.json", SHARD)]
    places += [(run, "config.json", ""), (run, f"{checkpoint}/{MANIFEST}", "")]
    places += [(run, f"{checkpoint}/state.json", checkpoint)]
    for folder, file, sealed in places:
        for name, content in JSON.items():
            found.append(Attack(f"{file}: {name}", folder, partial(write_content, file, content, sealed)))
    for folder, part in ((store, SHARD), (run, checkpoint)):
        found += [Attack(f"{part} manifest: {n}", folder, change) for n, change in _manifests(part)]
    found += [Attack(f"schema: {n}", store, change) for n, change in field_changes("schema.json", SCHEMA)]
    found += [Attack(f"config: {n}", run, change) for n, change in field_changes("config.json", CONFIG)]
    found += [Attack(f"state: {n}", run, c) for n, c in field_changes(f"{checkpoint}/state.json", STATE, checkpoint)]
    found += [Attack(f"index: {n}", store, c) for n, c in field_changes(f"{SHARD}/episodes.json", INDEX, SHARD)]
    for folder, part in ((store, SHARD), (run, checkpoint)):
        files = [name for name in list_files(folder / part) if name != SEAL]
        top = (
            ["schema.json", "shards", SHARD, f"{SHARD}/obs"]
            if folder == store
            else ["config.json", "checkpoints", part]
        )
        for name in [*top, *(f"{part}/{file}" for file in files)]:
            changes = [Attack(f"{name}: {how}", folder, change) for how, change in link_changes(name, outside)]
            # without its newest checkpoint a run honestly goes on from the one before
            found += changes[:-1] if name == checkpoint else changes
    return found


def _columns(store: Path) -> Iterator[tuple[str, Change]]:
    for name, descr, shape in (
        ("obs/obs", "'<f4'", "(12, 2)"),
        ("prev_action", "'<i8'", "(12,)"),
        ("reward", "'<f4'", "(12,)"),
    ):
        file = f"{SHARD}/{name}.npy"
        body = (store / file).read_bytes()[128:]
        texts = {f"type {d}": _npy(_text(d, shape), body) for d in TYPES if d != descr}
        texts |= {f"shape {s}": _npy(_text(descr, s), body) for s in SHAPES if s != shape}
        texts |= {f"order {o}": _npy(_text(descr, shape, o), body) for o in ("None", "1", "'x'", "[]")}
        texts |= {f"text {t[:20]}": _npy(t, body) for t in TEXTS}
        honest = _npy(_text(descr, shape), body)
        texts |= {
            "short body": honest[:-1],
            "long body": honest + b"\0",
            "empty": b"",
            "cut header": honest[:40],
            "no length": honest[:8],
            "length past the end": honest[:8] + b"\xff\xff" + honest[10:],
            "no header": honest[:8] + b"\0\0" + honest[10:],
            "version 2, 4 GiB header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + honest[10:],
            "version 3": b"\x93NUMPY\x03\x00" + honest[8:],
            "version 9": b"\x93NUMPY\x09\x00" + honest[8:],
            "a zip archive": b"PK\x03\x04" + honest[4:],
        }
        if name == "obs/obs":
            texts["Fortran order"] = _npy(_text(descr, shape, "True"), body)
        for what, content in texts.items():
            yield f"{name}: {what}", partial(write_content, file, content, SHARD)


TYPES = ("'|O'", "'>f4'", "'<f8'", "'<f2'", "'<c8'", "'<U4'", "'|S4'", "'|V8'", "'<M8[ns]'", "[('a', '<f4')]", "'<i4'")
TYPES += ("'f4'", "'<f16'", "3", "'<f999999'", "('<f4', (2,))")
SHAPES = (
    f"({HUGE}, 2)",
    "(12, 4611686018427387904)",
    f"({2**64},)",
    "(-12, 2)",
    "(0, 2)",
    "()",
    "(12, 2, 1)",
    "(13, 2)",
)
SHAPES += ("(1e3, 2)", "(True, 2)", "(12L,)", "(12,, 2)", "[12]", "(" + "1, " * 100 + ")", "(" + "9" * 350 + ",)")
TEXTS = ("__import__('os').abort()", "(" * 1000, "-" * 3000 + "1", "{}", "{'descr': '<f4'}", "{" * 50, "\0" * 100)


def _text(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def _npy(header: str, body: bytes) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def tensor_changes(run: Path, checkpoint: str, files: Sequence[str]) -> Iterator[tuple[str, Change]]:
    """Name the changes to some files of tensors of a run's checkpoint, each with a tensor that is not a scalar."""
    for file in files:
        content = (run / checkpoint / file).read_bytes()
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        texts: dict[str, bytes] = {
            f"header of {n} bytes": n.to_bytes(8, "little") + content[8:]
            for n in (0, 1, size - 8, size + 8, len(content), 5 * 2**20, 2**31, 2**40, 2**63, 2**64 - 1)
        }
        texts |= {f"header {t[:16]!r}": _packed(t, data) for t in HEADERS}
        for what, change in _header_lies(header):
            texts[what] = _packed(json.dumps(change).encode(), data)
        floats = [entry["data_offsets"][0] for entry in header.values() if entry["dtype"] == "F32"]
        odd = {"NaN": b"\0\0\xc0\x7f", "infinity": b"\0\0\x80\x7f", "-infinity": b"\0\0\x80\xff"}
        for (what, value), at in itertools.product(odd.items(), floats[-1:]):
            texts[what] = content[:8] + content[8 : 8 + size] + data[:at] + value + data[at + 4 :]
        texts |= {"cut data": content[:-1], "more data": content + b"\0", "only a length": content[:8], "empty": b""}
        for what, changed in texts.items():
            yield f"{file}: {what}", partial(write_content, f"{checkpoint}/{file}", changed, checkpoint)


HEADERS = (
    b"",
    b"[]",
    b"null",
    b"3",
    b"{",
    b"{}",
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"a": {}}',
    b'{"a": 3}',
    b"\xff" * 16,
)
HEADERS += (
    b'{"__metadata__": {"a": 1}}',
    b'{"__metadata__": {"a": "' + b"x" * 100_000 + b'"}}',
    b'{"a": {"dtype": "F32"}}',
)


def _packed(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _header_lies(header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    shaped = [n for n, entry in header.items() if entry["shape"]]
    name = next((n for n in shaped if header[n]["dtype"] == "F32"), shaped[0])
    entry = header[name]
    start, end = entry["data_offsets"]
    for dtype in ("F64", "I8", "U8", "F16", "I32", "BOOL", "XX", "f32", "", None, 3, ["F32"]):
        yield f"dtype {dtype!r}", {**header, name: {**entry, "dtype": dtype}}
    for shape in ([HUGE], [2**62, 4], [2**32, 2**32], [-1], [0], [], [1.5], ["3"], None, [1, *entry["shape"]], [[3]]):
        yield f"shape {shape!r}", {**header, name: {**entry, "shape": shape}}
    lies = ([start, end + 4], [start + 4, end], [end, start], [-4, end], [start, 2**63], [0, 2**40], [start], [], None)
    for offsets in (*lies, [start, end, end], ["0", "4"], [0.5, 1]):
        yield f"offsets {offsets!r}", {**header, name: {**entry, "data_offsets": offsets}}
    rest = {n: e for n, e in header.items() if n != name}
    yield "a tensor left out", rest
    for other in ("../x", "", "0.rms/../x", "999999.rms", "00.rms", "-1.rms", "0.", "x" * 100_000):
        yield f"a tensor named {other[:20]!r}", {**rest, other: entry}
    yield "overlap", {**header, "another": entry}


def _doubled(count: int, text: bytes) -> bytes:
    return b"[" + b",".join([text] * count) + b"]"


JSON: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "NaN": b'{"format": NaN}',
    "Infinity": b'{"format": Infinity}',
    "-Infinity": b'{"format": -Infinity}',
    "1e999": b'{"format": 1e999}',
    "5000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "400 digits": b'{"format": ' + b"9" * 400 + b"}",
    "a field twice": b'{"format": 1, "format": 1}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"format": 1}',
    "null": b"null",
    "true": b"true",
    "number": b"3",
    "text": b'"x"',
    "list": b"[]",
    "object": b"{}",
    "trailing": b"{} {}",
    "comment": b"{} // x",
    "single quotes": b"{'a': 1}",
    "half a character": b'{"\\ud800": 1}',
    "a NUL": b'{"a\\u0000b": 1}',
    "13 MiB": b'"' + b"x" * 13 * 2**20 + b'"',
    "millions of lists": _doubled(3_900_000, b"[]"),
    "millions of objects": _doubled(1_200_000, b'{"":0}'),
    "millions of numbers": _doubled(5_500_000, b"0"),
    "millions of texts": _doubled(2_300_000, b'"ab"'),
}


def _manifests(part: str) -> Iterator[tuple[str, Change]]:
    good = {"bytes": 1, "sha256": "0" * 64}
    names = (
        "/etc/passwd",
        "../x",
        "../../../outside/x",
        "a/../b",
        ".",
        "..",
        "",
        "a//b",
        "./x",
        "x/",
        "a\0b",
        "x" * 5000,
    )
    for name in (*names, "\ud800", "C:\\x", "~/x", "no-such-file"):
        yield f"a file named {name[:20]!r}", partial(_entries, part, lambda files, name=name: {**files, name: good})
    for field, values in (
        ("bytes", (-1, 1.5, True, None, "5", 10**30, [])),
        ("sha256", ("", 0, None, "F" * 64, "0" * 63, [])),
    ):
        for value in values:
            change = partial(_every_entry, lambda entry, field=field, value=value: {**entry, field: value})
            yield f"{field} {value!r:.30}", partial(_entries, part, change)
    for entry in (None, [], 3, {}, {**good, "path": "/etc/passwd"}):
        yield f"entries {entry!r:.40}", partial(_entries, part, partial(_every_entry, lambda _, entry=entry: entry))
    yield "no entries", partial(_entries, part, lambda files: {})
    yield "a list of entries", partial(_entries, part, lambda files: list(files))


SCHEMA: dict[str, tuple[Any, ...]] = {
    "format": (0, 2, -1, 1.0, "1", None, True, [], 10**30),
    "convention": ("departure", None, 3, [], ""),
    "columns": ({}, [], None, {"obs/obs": 3}),
    "spec": (None, 3, [], {}, {"obs": {}, "action": 3}),
    "spec.obs": (None, 3, [], {"../x": None}, {"obs": None}),
    "spec.condition": (1, -1, "x", None),
    "spec.fps": (-1.0, 0.0, "x", []),
    "spec.frame_skip": (0, -1, 1.5, None),
    "spec.action.kind": ("image", "vector", "x", None, 3),
    "spec.action.classes": ([], [HUGE], [-2], [2, 2], ["2"], None, [2.5]),
    "spec.action.start": ([], [10**30], [None], [0, 0], "0"),
    "spec.action.dtype": ("object", "O", "float32", "int4", "", None, 3, "int64, int64"),
    "spec.obs.obs.shape": ([HUGE], [-2], [0], [2.0], ["2"], None, [2**62, 4], [[2]]),
    "spec.obs.obs.dtype": ("object", "float128", "complex64", "V8", "datetime64[ns]", None),
    "spec.obs.obs.low": ([0.0], [None, None], "x"),
    "truth": ([], 3, {"x": None}, {"../x": {"kind": "vector", "shape": [1], "dtype": "float32"}}),
    "source": ([], 3, {"env": 3}, {"seed": "x"}, {"unknown": 1}),
    "unknown": (1,),
}
CONFIG: dict[str, tuple[Any, ...]] = {
    "format": (0, 2, None, "1", [], True),
    "family": ("no-such", "os:system", "../x", "", None, 3, []),
    "model": (None, [], 3, {"unknown": 1}, {"__class__": "x"}),
    "model.deter": (10**5, 10**9, 2**62, -16, 0, 1.5, "x", None, []),
    "model.units": (10**5, 2**40, -1, "x", None),
    "spec": (None, 3, [], {}),
    "spec.obs.obs.shape": ([3], [2**40], [-2], [1.5], "x"),
    "data": (None, 3, [], {}),
    "data.path": (None, 3, []),
    "data.trained_on": (None, [], {}, {"fingerprint": 3, "rows": []}),
    "data.trained_on.rows": (
        [],
        [[0]],
        [[0, 0, 10**30]],
        [[-1, 0, 2]],
        [[0, 3, 2]],
        [[0, -1, 2]],
        [[99, 0, 1]],
        [["a"]],
    ),
    "fit": (None, 3, "x"),
    "unknown": (1,),
}
STATE: dict[str, tuple[Any, ...]] = {
    "step": (-1, 1.5, "x", None, True, []),
    "seconds": (-1, "x", None, True, []),
    "optimizer": (None, {}, [], [None], [{}], [{"lr": 1}], 3),
    "unknown": (1,),
}
INDEX: dict[str, tuple[Any, ...]] = {
    "lengths": (
        [],
        [1, 11],
        [-6, 18],
        [6.0, 6.0],
        [True, 11],
        ["6", "6"],
        [2**63, 6],
        [2**39] * 1000,
        None,
        3,
        {},
    ),
}


def field_changes(file: str, changes: dict[str, tuple[Any, ...]], sealed: str = "") -> Iterator[tuple[str, Change]]:
    """Name the changes to fields of a JSON file: dotted name to the values that are put there."""
    for where, values in changes.items():
        for value in values:
            yield f"{where} = {value!r:.60}", partial(_set, file, where.split("."), value, sealed)


def link_changes(name: str, outside: Path) -> Iterator[tuple[str, Change]]:
    """Name what can stand in a folder in place of an honest file or folder."""

    def leads(target: str) -> Change:
        def change(folder: Path) -> None:
            path = folder / name
            copy = outside / path.name
            shutil.rmtree(outside)
            outside.mkdir()
            path.rename(copy)
            path.symlink_to(target or copy)

        return change

    yield "a link to an honest copy outside", leads("")
    yield "a link to an endless device", leads("/dev/zero")
    yield "a link to nothing", leads("/no/such/file")
    yield "a link to itself", leads(name.rpartition("/")[2])
    yield "a pipe", lambda folder: (_away(folder / name), os.mkfifo(folder / name))
    yield "nothing", lambda folder: _away(folder / name)


def _away(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_content(file: str, content: bytes, sealed: str, folder: Path) -> None:
    """Write a file of a folder, and give the part that is `sealed`, if any, a manifest that agrees."""
    (folder / file).write_bytes(content)
    if sealed:
        reseal(folder / sealed)


def reseal(folder: Path) -> None:
    """Give a changed folder a manifest that agrees with it, as an attacker would."""
    files = {name: stat for name, stat in list_files(folder).items() if name != MANIFEST}
    entries = {name: {"bytes": stat.st_size, "sha256": sha256(folder / name)} for name, stat in files.items()}
    (folder / MANIFEST).write_text(json.dumps({"files": entries}))


def _set(file: str, where: list[str], value: Any, sealed: str, folder: Path) -> None:
    path = folder / file
    values = json.loads(path.read_bytes())
    values.pop(SEAL, None)
    inner = values
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    path.write_text(json.dumps(values))
    if sealed:
        reseal(folder / sealed)


def _entries(part: str, change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    path = folder / part / MANIFEST
    path.write_text(json.dumps({"files": change(json.loads(path.read_bytes())["files"])}))


def _every_entry(change: Callable[[Any], Any], files: dict[str, Any]) -> dict[str, Any]:
    return {name: change(entry) for name, entry in files.items()}
