"""A replay that is killed again and again, resumed from its last state, and in the end compared to the bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from foreworld.core import Space, Spec
from foreworld.core.disk import remove_folder
from foreworld.core.files import claim_output, make_folder, sealed_folder, sha256, sweep_partial
from foreworld.core.tensorfile import read_tensors, write_tensors
from foreworld.data import Replay, load
from foreworld.data.shard import shard_paths
from foreworld.envs import Rows
from foreworld.testing.survival import Subject, whole_checkpoints
from foreworld.train.checkpoint import KEEP, list_checkpoints

SPEC = Spec(
    obs={"where": Space(kind="vector", shape=(3,), dtype="float32")},
    action=Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,)),
)
ENVS, CARRY = 2, 3
TICKS, SAVE_EVERY = 400, 25


def numbered_rows(ticks: int, seed: int = 0) -> list[Rows]:
    """Make the rows of a whole run, the same every time: some episodes end, some break off, some rows do not arrive."""
    draw = np.random.default_rng(seed)
    episode, step, ended = np.full(ENVS, -1), np.zeros(ENVS, int), np.ones(ENVS, bool)
    found = []
    for _ in range(ticks):
        arrived = draw.random(ENVS) > 0.1
        first = arrived & (ended | (draw.random(ENVS) < 0.02))
        last = arrived & (draw.random(ENVS) < 0.08)
        episode, step = episode + first, np.where(first, 0, step + arrived)
        ended = np.where(arrived, last, ended)
        where = np.stack([np.arange(ENVS), episode, step], 1).astype(np.float32)
        found.append(
            Rows(
                obs={"where": where},
                prev_action=np.where(first, 0, (episode + step) % 3),
                reward=np.where(first, 0, step).astype(np.float32),
                is_first=first,
                is_terminal=last & (draw.random(ENVS) < 0.5),
                is_last=last,
                truth={},
                arrived=arrived,
            )
        )
    return found


def run_replay(run: Path) -> None:
    """Fill a replay and learn from it, or go on with it from its last checkpoint."""
    saved = run / "checkpoints"
    for place in (run, saved):
        sweep_partial(place)
    newest = list_checkpoints(saved)[-1:]
    state = read_tensors(newest[0] / "replay.safetensors", lambda forms: None) if newest else None
    if state is None:
        claim_output(run / "replay", overwrite=True)
    begun = int(newest[0].name) if newest else 0
    options = {"num_envs": ENVS, "length": 6, "capacity": 150, "carry": CARRY}
    replay = Replay(run / "replay", SPEC, **options, state=state)
    try:
        for tick, rows in enumerate(numbered_rows(TICKS)[begun:], begun):
            replay.add(rows, np.full((ENVS, CARRY), tick, np.float32))
            if replay.ready():
                batch = replay.sample(3, tick)
                replay.write_back(batch, (batch.carry[:, None] + torch.arange(6)[:, None]) % 1000 + 0.5)
            if (tick + 1) % SAVE_EVERY == 0:
                _save(replay, saved, tick + 1)
    finally:
        replay.close()


def replaying(home: Path) -> Subject:
    """Run a replay; its state and its store must be bit for bit those of one that nobody touched."""
    run_replay(home / "whole")
    expected = _digest(home / "whole")
    run = home / "replayed" / "run"
    run.parent.mkdir()

    def check() -> int:
        found = whole_checkpoints(run)
        if (run / "replay" / "schema.json").exists() and shard_paths(run / "replay"):
            _expect_numbered(run / "replay")
        return int(found[-1].name) if found else 0

    def finish() -> None:
        if _digest(run) != expected:
            raise AssertionError("the replay differs from that of the uninterrupted run")

    return Subject(run, lambda: run_replay(run), check, finish)


def _save(replay: Replay, saved: Path, tick: int) -> None:
    make_folder(saved)
    target = saved / f"{tick:08d}"
    if not target.exists():
        with sealed_folder(target) as partial:
            write_tensors(partial / "replay.safetensors", replay.save())
        replay.confirm()
    for old in list_checkpoints(saved)[:-KEEP]:
        remove_folder(old)


def _digest(run: Path) -> str:
    """Hash the last state and all shards."""
    newest = list_checkpoints(run / "checkpoints")[-1]
    files = [newest / "replay.safetensors", *(path / "manifest.json" for path in shard_paths(run / "replay"))]
    return hashlib.sha256("".join(path.parent.name + sha256(path) for path in files).encode()).hexdigest()


def _expect_numbered(store: Path) -> None:
    data = load(store)
    for number in range(data.episodes):
        where = data.raw(number)["obs/where"]
        if (where[:, :2] != where[0, :2]).any() or (where[:, 2] != np.arange(len(where))).any():
            raise AssertionError(f"episode {number} of the store is spliced")
