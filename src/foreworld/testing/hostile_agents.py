"""Files of an agent's run that are damaged or made to deceive: each must be refused when the run is gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.files import list_files
from foreworld.testing.agents import Trainee
from foreworld.testing.damage import Target, open_hostile
from foreworld.testing.faults import Tally
from foreworld.testing.hostile import (
    Attack,
    Change,
    field_changes,
    link_changes,
    tensor_changes,
    write_content,
)
from foreworld.train import load_agent, train_agent
from foreworld.train.checkpoint import list_checkpoints, read_beside

FILES = ("agent.safetensors", "replay.safetensors", "collector.safetensors", "ratio.safetensors")
LONG = 2**62
CONFIG: dict[str, tuple[Any, ...]] = {
    "agent": (None, [], 3, {"unknown": 1}),
    "agent.units": (10**5, 10**9, LONG, 0, 1.5, "x", None),
    "agent.layers": (10**9, 10**3, 2, 0, None),
    "agent.horizon": (0, "x"),
    "model.layers": (10**9, 2),
    "env": (None, [], 3, {}, {"id": "CartPole-v1"}, {"id": "CartPole-v1", "options": {}, "more": 1}),
    "env.id": (None, 3, "", "no-such-v0", "os:system", "../x:Y", "x" * 100_000, "MountainCar-v0"),
    "env.options": (None, 3, [], {"num_envs": 3}, {"no_such": 1}, {"entry_point": "os:system"}),
    "fit": (None, 3, "x", {"unknown": 1}),
    "fit.num_envs": (0, 2, 10**9, "x"),
    "fit.length": (0, 7, 10**9),
    "fit.capacity": (0, 1),
    "fit.capacity_gib": (-1.0, 1e-12, "x"),
    "fit.optimizer": ("sgd", "adamw"),
}
NUMBERS: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {
    "replay.safetensors": {
        "form": ((0, 2), (1, 7), (2, 10**9)),
        "counts": ((0, -1), (1, 10**6), (1, LONG), (2, 0), (2, 99), (3, 0), (3, 99), (3, -1)),
        "saves": ((0, -1), (0, 10**6), (0, LONG)),
        "streams": ((0, -1), (0, 3), (1, 0), (1, 10**6), (1, LONG), (2, 0), (2, 2), (3, 1), (4, 0), (4, LONG)),
        "next_online": ((0, -1), (0, 0), (0, -LONG), (0, LONG), (0, 10**6)),
        "episodes": ((0, 1), (0, 10**6), (0, -1), (1, 10**6), (2, 1), (2, 10**6), (2, LONG), (3, 2)),
    },
    "collector.safetensors": {
        "counts": ((0, -1), (1, -1), (2, -1)),
        "open/number": ((0, -1), (0, LONG)),
        "open/0/actions": ((0, 2), (0, -1), (0, LONG)),
    },
    "ratio.safetensors": {"counts": ((0, -1), (1, -1))},
}


def agent_target(home: Path) -> Target:
    """Train a small agent, so that some of its replay is sealed and evicted, and some is in its checkpoint.

    Args:
        home: an empty folder.
    """
    run = home / "agent"
    settings = {"prefill": 50, "capacity": 120, "train_ratio": 2, "save_every": 4, "steps": 280}
    Trainee(env="CartPole-v1", settings=settings).train(run)
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    state = read_beside(checkpoint, "replay")
    assert len(state["gathered/reward"]) and len(state["episodes"]) and int(state["counts"][1]), "nothing to attack"
    shards = [path for path in (run / "replay" / "shards").iterdir() if int(path.name) < int(state["counts"][3])]
    folders = (checkpoint, *shards)
    files = [folder / name for folder in folders for name in list_files(folder)]
    files += [run / "config.json", run / "replay" / "schema.json", run / "replay" / "dropped.json"]

    def open_run() -> None:
        (run / "replay" / "verified.json").unlink(missing_ok=True)  # as in a copy: nothing is remembered
        found = load_agent(run)
        train_agent(found.env, found.run.model, found.agent, env_options=found.env_options, out=run, resume=True)

    return Target(run, tuple(files), open_run)


def deceive_agent(home: Path, count: int) -> Tally:
    """Go on with runs of an agent that were made hostile, one after another, as `damage.deceive` does.

    Args:
        home: an empty folder.
        count: how many to open; spread over all that there are.
    """
    target, outside = agent_target(home), home / "outside"
    outside.mkdir()
    every = agent_attacks(target.folder, outside)
    chosen = [every[int(i)] for i in np.linspace(0, len(every) - 1, min(count, len(every)))]
    return open_hostile(chosen, [target], outside)


def agent_attacks(run: Path, outside: Path) -> list[Attack]:
    """List the attacks that only a run with an agent can suffer.

    Args:
        run: the run, as `agent_target` makes it.
        outside: an empty folder that no loader may open anything in.
    """
    part = f"checkpoints/{list_checkpoints(run / 'checkpoints')[-1].name}"
    found = [*tensor_changes(run, part, FILES), *field_changes("config.json", CONFIG)]
    for file, tensors in NUMBERS.items():
        found += _number_changes(run, part, file, tensors)
    for name in (*(f"{part}/{file}" for file in FILES), "replay/schema.json", "replay/dropped.json", "replay/shards"):
        # without its list of dropped shards, and without shards, a store is found to lack some
        found += [(f"{name}: {how}", change) for how, change in link_changes(name, outside)]
    return [Attack(name, run, change) for name, change in found]


def _number_changes(
    run: Path, part: str, file: str, tensors: dict[str, tuple[tuple[int, int], ...]]
) -> Iterator[tuple[str, Change]]:
    """Name the changes to single whole numbers: tensor to pairs of a place in it and what is written there."""
    content = (run / part / file).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for tensor, changes in tensors.items():
        for at, value in changes:
            start = 8 + size + header[tensor]["data_offsets"][0] + 8 * at
            changed = content[:start] + value.to_bytes(8, "little", signed=True) + content[start + 8 :]
            assert changed != content, f"{tensor}[{at}] is {value} anyway"
            yield f"{file}: {tensor}[{at}] = {value}", partial(write_content, f"{part}/{file}", changed, part)
