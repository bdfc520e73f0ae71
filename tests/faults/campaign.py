"""Campaigns, in a process of their own from which children are forked; one JSON object is printed."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from foreworld.models.linear import Linear
from foreworld.models.rssm import RSSM
from foreworld.testing import agents, damage, hostile_agents, replaying, striking, survival


def make() -> Any:
    torch.manual_seed(0)
    return RSSM(survival.SPEC, deter=16, units=8, latents=2, classes=2, depth=2, layers=1)


def linear() -> Any:
    """Build a linear model, which is opened faster."""
    return Linear(survival.SPEC, window=1, fit="gradient")


def spoil(targets: Iterable[damage.Target], count: int) -> Any:
    return sum((damage.damage(target, count, count // 20, 1) for target in targets), survival.Tally())


def strike(count: int) -> Any:
    """Strike a training so often, every fifth time so that a process hangs."""
    found = striking.strike_training(count - count // 5, count // 5, num_envs=2)
    wrong = {"rows spliced": found.spliced, "windows spliced": found.spliced_windows, "rows lost": found.lost}
    wrong["strikes not counted"] = found.kills + found.hangs - found.noticed["died"] - found.noticed["hung"]
    losses = tuple(f"{count} {what}" for what, count in wrong.items() if count)
    return survival.Tally(worker_kills=found.kills, hangs=found.hangs, losses=losses)


CAMPAIGNS: dict[str, Callable[[int, Path], Any]] = {
    "training": lambda count, home: survival.kill(survival.training(home, make), count, seed=1),
    "writing": lambda count, home: survival.kill(survival.writing(home), count, seed=1),
    "collecting": lambda count, home: survival.kill(survival.collecting(home), count, seed=1),
    "replaying": lambda count, home: survival.kill(replaying.replaying(home), count, seed=1),
    "errors": lambda every, home: survival.refuse_disk(home, linear, every=every),
    "hostile": lambda count, home: damage.deceive(home, make, count),
    "damage": lambda count, home: spoil(damage.targets(home, linear), count),
    "agents": lambda count, home: survival.kill(agents.training_agent(home, FULL), count, seed=1),
    "agent errors": lambda every, home: agents.refuse_agent(home, every=every),
    "hostile agents": lambda count, home: hostile_agents.deceive_agent(home, count),
    "damaged agents": lambda count, home: spoil([hostile_agents.agent_target(home)], count),
    "strikes": lambda count, home: strike(count),
}
FULL = agents.trainees()["a replay that is full"]


def run(name: str, count: int, home: Path) -> Any:
    """Run a campaign; one named after a trainee kills it at each of its first `count` updates."""
    if name in CAMPAIGNS:
        return CAMPAIGNS[name](count, home)
    return agents.kill_at_updates(home, agents.trainees()[name], range(count), in_a_row=name != "one environment")


if __name__ == "__main__":
    torch.set_num_threads(1)
    memory = Path("/dev/shm")
    found = {}
    for argument in sys.argv[1:]:
        name, _, count = argument.partition("=")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as home:
            tally = run(name, int(count), Path(home))
        found[name] = {**tally.counts(), "lost": list(tally.losses[:20])}
    print(json.dumps(found))
