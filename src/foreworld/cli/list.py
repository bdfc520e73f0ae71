"""`foreworld list`: families, sizes, planners, environments, runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from foreworld.cli.options import parse, print_json, print_table
from foreworld.cli.planner_flags import listed
from foreworld.core import Spec
from foreworld.core.files import read_json
from foreworld.core.registry import load as find
from foreworld.core.registry import names
from foreworld.core.spaces import Space
from foreworld.presets.agents import PRESETS
from foreworld.train.checkpoint import list_checkpoints, updates_of
from foreworld.train.run import CHECKPOINTS, CONFIG
from foreworld.worlds.catalogue import WORLDS

ADAPTED = {
    "gym_pusht": (
        "gym_pusht/PushT-v0",
        "foreworld",
        "gym_pusht/PushT-v0",
        "push a T onto its outline; vectors or pictures",
    ),
    "ogbench": ("ogbench/...", "foreworld", "ogbench/pointmaze-medium-v0", "mazes of OGBench; vectors or pictures"),
    "robotics": (
        "PointMaze_...",
        "foreworld",
        "PointMaze_UMaze-v3",
        "mazes of Gymnasium-Robotics; vectors or pictures",
    ),
}
"""What opens environments of other packages with goals: ids, who made the adapter, an example, what it is."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List what there is: model families with their sizes, agent presets, planners, environments, or runs in a folder.

    example: foreworld list models

    example: foreworld list runs
    """

    what: Annotated[Literal["models", "agents", "planners", "envs", "runs"], tyro.conf.Positional] = "models"
    """What to list."""
    folder: Path = Path("runs")
    """Where runs are looked for."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(List, argv, "list")
    found = {
        "models": _models,
        "agents": _agents,
        "planners": _planners,
        "envs": _envs,
        "runs": lambda: _runs(args.folder),
    }
    columns, rows = found[args.what]()
    if args.json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(args.what, columns, rows)


def _models() -> tuple[list[str], list[list[str | int]]]:
    """Count parameters on one picture world, so that sizes can be compared."""
    spec = Spec(
        obs={"image": Space(kind="image", shape=(3, 64, 64), dtype="uint8")},
        action=Space(kind="discrete", shape=(), dtype="int64", classes=(6,), start=(0,)),
    )
    rows: list[list[str | int]] = []
    for name in names("models"):
        family = find("models", name)
        for size in family.sizes:
            with torch.device("meta"):
                count = sum(p.numel() for p in family.build(spec, family.config(size)).parameters())
            rows.append([name, size, count, family.fit(size).steps])
    return ["family", "size", "parameters (64x64 RGB, 6 actions)", "updates by default"], rows


def _agents() -> tuple[list[str], list[list[str | int | float]]]:
    rows: list[list[str | int | float]] = [
        [name, preset.model.deter, preset.online.steps, preset.online.train_ratio, preset.online.num_envs, preset.about]
        for name, preset in PRESETS.items()
    ]
    return ["preset", "deter", "steps", "train ratio", "environments", "for"], rows


def _planners() -> tuple[list[str], list[list[str | int]]]:
    return ["planner", "actions", "horizon by default", "rollouts by default", "how it searches"], listed()


def _envs() -> tuple[list[str], list[list[str]]]:
    rows = [["any Gymnasium id", "gymnasium", "CartPole-v1", ""]]
    rows.append(["module:Class", "you", "my_arm:Pusher", "a class of your own, in the current directory or installed"])
    for name in names("envs"):
        if name == "foreworld":
            rows += [[env_id, "foreworld", env_id, world.about] for env_id, world in WORLDS.items()]
        elif name == "ALE":
            rows.append(["ALE/...", "foreworld", "ALE/Freeway-v5", "an Atari 2600 game; pictures"])
        elif name == "crafter":
            rows.append(["crafter/...", "foreworld", "crafter/reward", "survival with 22 achievements; pictures"])
        elif name == "dmc":
            rows.append(["dmc/...", "foreworld", "dmc/walker-walk", "DeepMind Control Suite; vectors or pictures"])
        elif name in ADAPTED:
            rows.append(list(ADAPTED[name]))
        else:
            rows.append([f"{name}/...", "foreworld", name, ""])
    return ["id", "made by", "example", "what it is"], rows


def _runs(folder: Path) -> tuple[list[str], list[list[str | int]]]:
    rows: list[list[str | int]] = []
    for config in sorted(folder.glob(f"*/{CONFIG}")):
        stored = read_json(config)
        found = list_checkpoints(config.parent / CHECKPOINTS)
        step = updates_of(found[-1]) if found else 0
        rows.append([str(config.parent), stored.get("family", "?"), step, stored.get("data", {}).get("path") or "–"])
    return ["run", "family", "updates", "data"], rows
