"""robomimic's HDF5: demonstrations with several cameras and proprioception.

`data/demo_<k>` holds T steps: `actions`, `rewards`, `dones`, `states` and `obs/<key>`, where row t is what was there
before action t. What came after the last action is in `next_obs/<key>` alone; a file without it loses its last actions
here. `dones` is 1 at success, at the end of a demo, or both, as the file was made: by it alone, an end without future
cannot be told from one that was cut off. It is believed unless a `Selection` says `cut`.

Reference:
    Mandlekar et al., 2021, "What Matters in Learning from Offline Human Demonstrations for Robot Manipulation".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreworld.core.errors import DataError
from foreworld.core.files import finite
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH, Space, Spec
from foreworld.data.dataset import Dataset
from foreworld.data.episode import Episode
from foreworld.data.formats.hdf5 import (
    array,
    creating,
    group,
    has,
    is_hdf5,
    numbered,
    parsed,
    place,
    plain,
    reading,
    text,
)
from foreworld.data.formats.recording import (
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
from foreworld.data.formats.spaces import space_of
from foreworld.data.schema import Schema, Source

DEMO = "demo_"
SCHEMA = "foreworld"
"""Attribute of `data` in which an export keeps its schema; robomimic does not look at it."""

GYM_TYPE = 2
"""What robomimic calls a Gym environment in `env_args`."""

NAME_BYTES = 2**20
"""Bytes of all names of a filter key, at most."""

NO_OUTCOME = "no next_obs, so that the last action has no outcome; it was dropped, with its reward and its end"
NO_STATES = (
    "states holds none of the last observation and was left out; to keep it, drop the last actions (states=True)"
)
TOO_SHORT = "a single step without outcome; left out"
GOES_ON = "dones before the end; the episode goes on there, and only its last row tells how it ended"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is read of every demo."""

    schema: Schema
    stored: bool
    selection: Selection


def recognises(path: Path) -> bool:
    """Say whether a file is HDF5 with a group `data` of demos, or too broken to tell, which opening it will say."""
    if not is_hdf5(path):
        return False
    try:
        with reading(path) as root:
            return has(root, "data") and any(name.startswith(DEMO) for name in group(root, "data"))
    except DataError:
        return True


@contextmanager
def opened(path: Path, selection: Selection) -> Iterator[Recording]:
    """Open a file of demonstrations.

    Args:
        path: the file.
        selection: keys and filter key to read, and how `dones` is understood.

    Yields:
        The recording.

    Raises:
        DataError: damaged, or of another layout; file, demo and key are named.
        MissingExtra: h5py is not installed.
    """
    with reading(path) as root:
        data, notes = group(root, "data"), Notes()
        demos = _demos(root, data, selection.subset)
        plan = _plan(path, data, demos, selection)
        yield Recording(
            spec=plan.schema.spec,
            truth=plan.schema.truth,
            source=plan.schema.source,
            count=len(demos),
            read=lambda: _episodes(data, demos, plan, notes),
            notes=notes,
        )


def _demos(root: Any, data: Any, subset: str | None) -> list[str]:
    """Return the names of the demos, by number; of a filter key, those that it lists."""
    known = numbered(data, DEMO)
    if subset is None:
        return known
    if not has(root, "mask"):
        raise DataError(f"{place(root)}: has no filter keys (no group mask), so there is no {subset!r}")
    found = plain(group(root, "mask"), subset)
    where = f"{place(root)}, mask/{subset}"
    if found.dtype.kind not in "SO" or len(found.shape) != 1 or found.shape[0] > len(known):
        raise DataError(f"{where}: is no list of demos")
    if found.shape[0] * found.dtype.itemsize > NAME_BYTES:
        raise DataError(f"{where}: its names are too long")
    listed = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found[()]]
    for name in listed:
        if name not in known:
            raise DataError(f"{where}: {unknown('demo', name[:60], known)}")
    if not listed:
        raise DataError(f"{where}: lists no demo")
    return [name for name in known if name in set(listed)]


def _plan(path: Path, data: Any, demos: list[str], selection: Selection) -> _Plan:
    """Find out what the demos hold: from the schema that an export kept, or from the first demo."""
    if (kept := text(data, SCHEMA)) is not None:
        schema = schema_from(f"{path}: data", parsed(f"{path}: data", kept))
        obs = kept_keys(str(path), schema.spec.obs, selection.keys)
        return _Plan(schema=replace(schema, spec=replace(schema.spec, obs=obs)), stored=True, selection=selection)
    first = group(data, demos[0])
    held = group(first, "obs")
    obs = {key: space_of(array(held, key)) for key in kept_keys(str(path), dict.fromkeys(held), selection.keys)}
    action = space_of(array(first, "actions"))
    if action.kind == "vector" and all(_inside(group(data, demo)) for demo in demos):
        low, high = (-1.0,) * action.width, (1.0,) * action.width
        action = replace(action, low=low, high=high)
    arguments = _arguments(path, data)
    rate = (
        arguments.get("env_kwargs", {}).get("control_freq") if isinstance(arguments.get("env_kwargs"), dict) else None
    )
    fps = float(rate) if isinstance(rate, int | float) and 0 < rate < 1e6 else None
    truth = {"states": space_of(array(first, "states"))} if selection.states else {}
    source = Source(
        env=str(arguments.get("env_name", path.name)),
        convention="transition",
        options={"format": "robomimic", "env_args": arguments, "subset": selection.subset},
    )
    schema = Schema(spec=Spec(obs=obs, action=action, fps=fps), truth=truth, source=source)
    return _Plan(schema=schema, stored=False, selection=selection)


def _arguments(path: Path, data: Any) -> dict[str, Any]:
    """Return the description of the environment, `env_args`."""
    said = text(data, "env_args")
    return {} if said is None else finite(parsed(f"{path}: data, env_args", said))


def _inside(demo: Any) -> bool:
    """Say whether every action lies in [-1, 1], as robomimic wants them."""
    taken = array(demo, "actions")[()]
    return bool((np.abs(taken) <= 1).all())


def _episodes(data: Any, demos: list[str], plan: _Plan, notes: Notes) -> Iterator[tuple[str, Episode]]:
    for name in demos:
        demo = group(data, name)
        episode = _episode(demo, plan, notes)
        if episode is not None:
            yield place(demo), episode


def _episode(demo: Any, plan: _Plan, notes: Notes) -> Episode | None:
    """Read one demo; None where it is too short to hold a step with its outcome."""
    name, spec = demo.name.rpartition("/")[2], plan.schema.spec
    taken = array(demo, "actions")
    if not taken.shape:
        raise DataError(f"{place(taken)}: is one number, not one action a row")
    steps = taken.shape[0]
    held, after = group(demo, "obs"), group(demo, "next_obs") if has(demo, "next_obs") else None
    whole = after is not None and not (plan.selection.states and not plan.stored)
    action, reward = taken[()], _reward(demo, steps)
    is_terminal = _is_terminal(demo, steps, plan.selection.cut, name, notes)
    if after is None:
        notes.add(TOO_SHORT if steps < 2 else NO_OUTCOME, name)
    if has(demo, "states") and not plan.selection.states and not plan.stored and plain(demo, "states").size:
        notes.add(NO_STATES, name)
    if not whole:
        action, reward, is_terminal = action[:-1], reward[:-1], False
    if not len(action):
        return None
    spaces = {key: _channels_last(space) if plan.stored else space for key, space in spec.obs.items()}
    obs = {key: space.to_rest(_rows(held, after, key, steps, whole)) for key, space in spaces.items()}
    assert spec.action is not None
    if plan.stored and spec.action.kind == "discrete":
        action = _from_one_hot(place(taken), action, spec.action)
    return Episode.from_transitions(
        obs=obs, action=action, reward=reward, is_terminal=is_terminal, truth=_truth(demo, plan, steps)
    )


def _rows(held: Any, after: Any, key: str, steps: int, whole: bool) -> np.ndarray:
    """Return the observations of a demo, T+1 with that after the last action, else T."""
    before = array(held, key, steps)
    if not whole:
        return before[()]
    then = array(after, key, steps)
    if then.shape != before.shape or then.dtype != before.dtype:
        raise DataError(f"{place(then)}: has another shape or type than obs/{key}")
    if steps > 1 and not np.array_equal(then[0], before[1], equal_nan=before.dtype.kind == "f"):
        raise DataError(
            f"{place(then)}: its row 0 is not row 1 of obs/{key}, so that the rows do not follow each other"
        )
    rows = np.empty((steps + 1, *before.shape[1:]), before.dtype)
    before.read_direct(rows, dest_sel=np.s_[:steps])
    rows[steps] = then[steps - 1]
    return rows


def _reward(demo: Any, steps: int) -> np.ndarray:
    """Return the rewards; a file without them pays nothing."""
    if not has(demo, "rewards"):
        return np.zeros(steps, np.float32)
    found = array(demo, "rewards", steps)
    if found.shape != (steps,):
        raise DataError(f"{place(found)}: shape {found.shape} where {steps} numbers belong")
    return found[()].astype(np.float32)


def _is_terminal(demo: Any, steps: int, cut: bool, name: str, notes: Notes) -> bool:
    """Say whether the last row has no future: what `dones` says of the last step."""
    if cut or not has(demo, "dones"):
        return False
    found = array(demo, "dones", steps)
    if found.shape != (steps,):
        raise DataError(f"{place(found)}: shape {found.shape} where {steps} flags belong")
    flags = found[()] != 0
    if flags[:-1].any():
        notes.add(GOES_ON, name)
    return bool(flags[-1:].any())


def _truth(demo: Any, plan: _Plan, steps: int) -> dict[str, np.ndarray]:
    if plan.stored:
        held = group(demo, TRUTH.rstrip("/")) if plan.schema.truth else None
        return {key: s.to_rest(array(held, key, steps + 1)[()]) for key, s in plan.schema.truth.items()}
    return {key: array(demo, key, steps)[()] for key in plan.schema.truth}


def _channels_last(space: Space) -> Space:
    """Return a space whose pictures are [H, W, C], as robomimic wants them, whatever layout they came in."""
    return replace(space, layout="hwc") if space.kind == "image" else space


def _from_one_hot(where: str, action: np.ndarray, space: Space) -> np.ndarray:
    """Return the integers that an export wrote as one-hots."""
    if action.shape[1:] != (space.width,):
        raise DataError(f"{where}: {action.shape[1:]} numbers an action, the schema says {space.width}")
    return space.from_one_hot(torch.from_numpy(action)).numpy().astype(space.dtype)


def write(data: Dataset, path: Path, progress: Progress | None = None) -> tuple[str, ...]:
    """Write episodes as demonstrations, the schema beside them, so that reading gives the same dataset again.

    Pictures are written [H, W, C]. Integer actions are written as one-hots, as robomimic learns numbers only. `dones`
    is 1 where the world ended.

    Args:
        data: the episodes.
        path: of the new file.
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
        raise DataError(f"{data.path}: is plain video, and a demonstration has actions; export it as npz")
    with creating(path) as root:
        home = root.create_group("data")
        home.attrs["total"] = data.steps
        home.attrs["env_args"] = json.dumps(_described_env(schema.source))
        home.attrs[SCHEMA] = json.dumps(described(schema))
        for number in range(data.episodes):
            _write_demo(home.create_group(f"{DEMO}{number}"), data, number, schema.spec.action)
            if progress is not None:
                progress(number + 1, data.episodes)
    return ()


def _write_demo(demo: Any, data: Dataset, number: int, action: Space) -> None:
    found, spec = transitions(data, number), data.schema.spec
    steps = len(found.reward)
    assert found.action is not None
    demo.attrs["num_samples"] = steps
    coded = action.one_hot(torch.from_numpy(found.action.copy())).numpy() if action.kind == "discrete" else found.action
    demo["actions"] = coded
    demo["rewards"] = found.reward
    dones = np.zeros(steps, np.int64)
    dones[-1] = found.is_terminal
    demo["dones"] = dones
    for key, rows in found.obs.items():
        seen = _channels_last(spec.obs[key]).from_rest(rows)
        _write_array(demo, f"obs/{key}", seen[:-1])
        _write_array(demo, f"next_obs/{key}", seen[1:])
    for key, rows in found.truth.items():
        _write_array(demo, f"{TRUTH}{key}", rows)
    if (state := found.truth.get("states", found.truth.get("state"))) is not None:
        demo["states"] = state[:-1]


def _write_array(demo: Any, name: str, rows: np.ndarray) -> None:
    """Write an array; pictures compressed, one row a piece, so that a row can be read by itself."""
    if rows.dtype == np.uint8 and rows.ndim > 2:
        demo.create_dataset(name, data=rows, chunks=(1, *rows.shape[1:]), compression="gzip", compression_opts=1)
    else:
        demo.create_dataset(name, data=rows)


def _described_env(source: Source) -> Mapping[str, Any]:
    """Return `env_args`: that of the file from which the episodes came, or the environment as a Gym one."""
    kept = source.options.get("env_args")
    if isinstance(kept, dict) and kept:
        return kept
    return {"env_name": source.env, "type": GYM_TYPE, "env_kwargs": finite(dict(source.options))}


FORMAT = Format(
    name="robomimic",
    about="HDF5 with data/demo_<k>",
    recognises=recognises,
    opened=opened,
    write=write,
)
