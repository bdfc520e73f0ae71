"""Campaigns, in a process of their own from which children are forked; one JSON object is printed."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from foreworld.models.linear import Linear
from foreworld.models.rssm import RSSM
from foreworld.testing import damage, replaying, survival


def make() -> Any:
    torch.manual_seed(0)
    return RSSM(survival.SPEC, deter=16, units=8, latents=2, classes=2, depth=2, layers=1)


def linear() -> Any:
    """Build a linear model, which is opened faster."""
    return Linear(survival.SPEC, window=1, fit="gradient")


def run(name: str, count: int, home: Path) -> Any:
    if name == "training":
        return survival.kill(survival.training(home, make), count, seed=1)
    if name == "writing":
        return survival.kill(survival.writing(home), count, seed=1)
    if name == "collecting":
        return survival.kill(survival.collecting(home), count, seed=1)
    if name == "replaying":
        return survival.kill(replaying.replaying(home), count, seed=1)
    if name == "errors":
        return survival.refuse_disk(home, linear, every=count)
    if name == "hostile":
        return damage.deceive(home, make, count)
    return sum(
        (damage.damage(target, count, count // 20, 1) for target in damage.targets(home, linear)), survival.Tally()
    )


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
