"""Minari's datasets on disk: a folder `data` with `metadata.json` and `main_data.hdf5`.

`episode_<k>` holds T `actions`, `rewards`, `terminations` and `truncations`, and T+1 `observations`, nested as the
space is. Pictures may be rows of JPEG. The package itself is not needed.

Reference:
    Younis et al., 2024, "Minari: A dataset API for offline reinforcement learning".
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from foreworld.core.disk import make_folder
from foreworld.core.errors import DataError, MissingExtra, SpecError
from foreworld.core.files import read_json, write_json
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.dataset import Dataset
from foreworld.data.episode import Episode
from foreworld.data.formats.hdf5 import array, creating, group, has, numbered, parsed, place, plain, reading
from foreworld.data.formats.recording import (
    SCHEMA,
    Format,
    Notes,
    Progress,
    Recording,
    Selection,
    described,
    kept_keys,
    schema_from,
    transitions,
)
from foreworld.data.formats.spaces import declaration, declared
from foreworld.data.schema import Schema, Source

METADATA, MAIN = "metadata.json", "main_data.hdf5"
EPISODE = "episode_"
ALONE = ("obs", "image")
"""Names that `Spec.from_space` gives to an observation that is no Dict."""

VERSION = "0.5.4"
"""Of the layout that is written: the first in which pictures need not be JPEG."""

INFOS = "infos were left out"
GOES_ON = "terminations before the end; the episode goes on there, and only its last row tells how it ended"


def recognises(path: Path) -> bool:
    """Say whether a folder, or the folder `data` in it, holds Minari's two files."""
    return any((home / METADATA).is_file() and (home / MAIN).is_file() for home in (path, path / "data"))


@contextmanager
def opened(path: Path, selection: Selection) -> Iterator[Recording]:
    """Open a dataset of Minari.

    Args:
        path: its folder, or the folder `data` in it.
        selection: keys to read, and how an end is understood.

    Yields:
        The recording.

    Raises:
        DataError: damaged, or of another layout; file, episode and key are named.
        MissingExtra: h5py is not installed, or pillow where pictures are JPEG.
    """
    home = path if (path / METADATA).is_file() else path / "data"
    if selection.subset is not None:
        raise DataError(f"{path}: Minari has no named parts, so there is no {selection.subset!r}")
    known = read_json(home / METADATA)
    if not isinstance(known, dict):
        raise DataError(f"{home / METADATA}: holds no object with fields")
    if (stored := known.get("data_format", "hdf5")) != "hdf5":
        raise DataError(f"{home / METADATA}: its episodes are stored as {stored!r:.40}; only hdf5 is read")
    schema, places = _schema(home, known, selection)
    notes = Notes()
    with reading(home / MAIN) as root:
        names = numbered(root, EPISODE)
        if (count := known.get("total_episodes")) != len(names):
            raise DataError(f"{home / MAIN}: holds {len(names)} episodes where {METADATA} says {count!r:.20}")

        def read() -> Iterator[tuple[str, Episode]]:
            for name in names:
                held = group(root, name)
                yield place(held), _episode(held, schema, places, selection, notes)

        yield Recording(
            spec=schema.spec, truth=schema.truth, source=schema.source, count=len(names), read=read, notes=notes
        )


def _schema(home: Path, known: dict[str, Any], selection: Selection) -> tuple[Schema, dict[str, str]]:
    """Return what the dataset holds, and where each observation lies in an episode."""
    where = str(home / METADATA)
    observed = _space(where, known, "observation_space")
    named = dict(_leaves(observed))
    alone = not isinstance(observed, spaces.Dict)
    if (home.parent / SCHEMA).is_file() and home.name == "data":
        kept = schema_from(str(home.parent / SCHEMA), read_json(home.parent / SCHEMA))
        obs = kept_keys(where, kept.spec.obs, selection.keys)
        spec = Spec(obs=obs, action=kept.spec.action, fps=kept.spec.fps, frame_skip=kept.spec.frame_skip)
        schema = Schema(spec=spec, truth=kept.truth, source=kept.source)
    else:
        if alone:
            only = next(iter(named.values()))
            named = {"image" if _from_gym(where, "observation", only).kind == "image" else "obs": only}
        wanted = kept_keys(where, dict.fromkeys(named), selection.keys)
        obs = {key: _from_gym(where, key, named[key]) for key in wanted}
        action = _from_gym(where, "action", _space(where, known, "action_space"))
        schema = Schema(spec=Spec(obs=obs, action=action), source=_source(where, known))
    return schema, {key: "observations" if alone else f"observations/{key}" for key in schema.spec.obs}


def _space(where: str, known: Mapping[str, Any], name: str) -> spaces.Space[Any]:
    said = known.get(name)
    if not isinstance(said, str):
        raise DataError(f"{where}: has no {name}; open the dataset with minari once more and store it anew")
    return declared(f"{where}, {name}", parsed(f"{where}, {name}", said))


def _leaves(space: spaces.Space[Any], prefix: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    if not isinstance(space, spaces.Dict):
        yield prefix.rstrip("/"), space
        return
    for key, inner in space.spaces.items():
        yield from _leaves(inner, f"{prefix}{key}/")


def _from_gym(where: str, key: str, space: spaces.Space[Any]) -> Space:
    try:
        return Space.from_gym(space, key)
    except SpecError as fault:
        raise DataError(f"{where}: {fault}; or name the keys to keep") from fault


def _source(where: str, known: Mapping[str, Any]) -> Source:
    name = str(known.get("dataset_id", ""))[:200]
    said = known.get("env_spec")
    made = parsed(f"{where}, env_spec", said) if isinstance(said, str) else {}
    return Source(
        env=str(made.get("id") or name)[:200], convention="transition", options={"format": "minari", "dataset_id": name}
    )


def _episode(held: Any, schema: Schema, places: dict[str, str], selection: Selection, notes: Notes) -> Episode:
    spec, name = schema.spec, held.name.strip("/")
    reward = array(held, "rewards")
    if len(reward.shape) != 1:
        raise DataError(f"{place(reward)}: shape {reward.shape} where one number a step belongs")
    steps = reward.shape[0]
    ends = {flag: array(held, flag, steps)[()].astype(bool) for flag in ("terminations", "truncations")}
    if any(flags.shape != (steps,) for flags in ends.values()):
        raise DataError(f"{place(held)}: its terminations or truncations are not one flag a step")
    if ends["terminations"][:-1].any():
        notes.add(GOES_ON, name)
    if has(held, "infos") and not schema.truth and len(group(held, "infos")):
        notes.add(INFOS, name)
    assert spec.action is not None
    return Episode.from_transitions(
        obs={key: _observed(held, places[key], space, steps + 1) for key, space in spec.obs.items()},
        action=spec.action.to_rest(array(held, "actions", steps)[()]),
        reward=reward[()].astype(np.float32),
        is_terminal=bool(ends["terminations"][-1:].any()) and not selection.cut,
        truth={key: s.to_rest(array(held, f"infos/{TRUTH}{key}", steps + 1)[()]) for key, s in schema.truth.items()},
    )


def _observed(held: Any, where: str, space: Space, rows: int) -> np.ndarray:
    """Return the rows of one observation at rest; pictures may be stored as JPEG."""
    shape = space.from_rest(np.empty((1, *space.shape), np.uint8)).shape[1:] if space.kind == "image" else ()
    if space.kind == "image" and plain(held, where).shape[1:] != shape:
        return space.to_rest(_decoded(held, where, shape, rows))
    return space.to_rest(array(held, where, rows)[()])


def _decoded(held: Any, where: str, shape: tuple[int, ...], rows: int) -> np.ndarray:
    """Decode one JPEG a row; none may have another size than declared, which is looked at before decoding."""
    try:
        image = import_module("PIL.Image")
    except ImportError as fault:
        raise MissingExtra(f"{held.file.filename} needs pillow: pip install 'foreworld[video]'") from fault
    found = plain(held, where) if plain(held, where).dtype.kind == "O" else array(held, where)
    if found.shape[:1] != (rows,) or len(found.shape) > 2:
        raise DataError(f"{place(found)}: shape {found.shape}, neither pictures nor {rows} rows of JPEG")
    decoded = []
    for row in range(rows):
        at = f"{place(found)}, row {row}"
        try:
            picture = image.open(io.BytesIO(np.asarray(found[row], np.uint8).tobytes()), formats=["JPEG"])
            if picture.size[::-1] != shape[:2]:
                raise DataError(f"{at}: a picture of {picture.size}, declared as {shape}")
            pixels = np.asarray(picture)
        except (OSError, SyntaxError, ValueError, TypeError) as fault:
            raise DataError(f"{at}: is no picture in JPEG ({fault})") from fault
        if pixels.reshape(-1).shape != (int(np.prod(shape)),):
            raise DataError(f"{at}: a picture of shape {pixels.shape}, declared as {shape}")
        decoded.append(pixels.reshape(shape))
    return np.stack(decoded)


def write(data: Dataset, path: Path, progress: Progress | None = None) -> tuple[str, ...]:
    """Write a dataset as `minari.MinariDataset(path / "data")` opens it, pictures without loss.

    Simulator state is written among the `infos`; the schema lies beside, so that reading gives the same dataset again.

    Args:
        data: the episodes.
        path: of the new folder.
        progress: called with (done, total), in episodes.

    Returns:
        Nothing: all of it is kept.

    Raises:
        DataError: plain video, which has no actions.
        MissingExtra: h5py is not installed.
        WriteFailed: the disk refused.
    """
    schema = data.schema
    if schema.spec.action is None:
        raise DataError(f"{data.path}: is plain video, and Minari needs actions; export it as npz")
    make_folder(path / "data")
    with creating(path / "data" / MAIN) as root:
        for number in range(data.episodes):
            _write_episode(root.create_group(f"{EPISODE}{number}"), data, number)
            if progress is not None:
                progress(number + 1, data.episodes)
    about = re.sub(r"[^A-Za-z0-9]+", "-", schema.source.env).strip("-") or "episodes"
    known = {
        "total_episodes": data.episodes,
        "total_steps": data.steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_nested(schema.spec.obs)),
        "action_space": json.dumps(declaration(schema.spec.action)),
        "dataset_id": f"foreworld/{about}-v0",
        "minari_version": VERSION,
        "dataset_size": round((path / "data" / MAIN).stat().st_size / 1e6, 1),
    }
    write_json(path / "data" / METADATA, known)
    write_json(path / SCHEMA, described(schema))
    return ()


def _write_episode(held: Any, data: Dataset, number: int) -> None:
    found, spec = transitions(data, number), data.schema.spec
    steps = len(found.reward)
    held.attrs["id"], held.attrs["total_steps"] = number, steps
    only = len(spec.obs) == 1 and next(iter(spec.obs)) in ALONE
    for key, rows in found.obs.items():
        held["observations" if only else f"observations/{key}"] = spec.obs[key].from_rest(rows)
    held["actions"], held["rewards"] = found.action, found.reward
    last = np.arange(steps) == steps - 1
    held["terminations"], held["truncations"] = last & found.is_terminal, last & (not found.is_terminal)
    for key, rows in found.truth.items():
        held[f"infos/{TRUTH}{key}"] = rows


def _nested(obs: Mapping[str, Space]) -> dict[str, Any]:
    """Return the declaration of all observations: a Dict nested by `/`, or the only one."""
    if len(obs) == 1 and next(iter(obs)) in ALONE:
        return declaration(next(iter(obs.values())))
    top: dict[str, Any] = {"type": "Dict", "subspaces": {}}
    for key, space in obs.items():
        *homes, last = key.split("/")
        at = top
        for home in homes:
            at = at["subspaces"].setdefault(home, {"type": "Dict", "subspaces": {}})
        at["subspaces"][last] = declaration(space)
    return top


FORMAT = Format(
    name="minari",
    about="a folder with data/metadata.json and data/main_data.hdf5",
    recognises=recognises,
    opened=opened,
    write=write,
)
