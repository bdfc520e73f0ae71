"""Put faults and count what is lost: python benchmarks/faults.py [--quick] [--only NAME] [--json] [--out FILE].

Trainings, writers and collections are killed by SIGKILL, half of the time inside a save; every call that reaches the
disk fails once; single bits flip; files are cut; hostile files are opened; environment workers are killed and hang.
After each fault everything stored is verified and the work goes on. Losses must be 0.

`--only agent` is about agents in training: killed at each of their first 50 updates, after which all state, compared by
its hash, must become that of a training without a kill; and all of the above.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foreworld.core.files import write_json
from foreworld.models.linear import Linear
from foreworld.models.rssm import RSSM
from foreworld.testing import agents, damage, hostile_agents, survival
from foreworld.testing.faults import Tally
from foreworld.testing.striking import strike_training
from foreworld.testing.watching import watch_environment
from foreworld.train.run import environment

MEMORY = Path("/dev/shm")
"""A kill loses no more there than on a disk, where waiting for fsync would take most of the time."""


@dataclass(frozen=True)
class Size:
    """How many faults of each kind."""

    kills: int
    flips: int
    truncations: int
    hostile: int
    worker_kills: int
    hangs: int
    updates: int
    every: int


FULL = Size(kills=300, flips=10_000, truncations=500, hostile=2_000, worker_kills=200, hangs=50, updates=50, every=9)
QUICK = Size(kills=18, flips=200, truncations=20, hostile=60, worker_kills=3, hangs=2, updates=3, every=200)


def make() -> Any:
    """Build a small RSSM, the same every time."""
    torch.manual_seed(0)
    return RSSM(survival.SPEC, deter=16, units=8, latents=2, classes=2, depth=2, layers=1)


def linear() -> Any:
    """Build a linear model, which is opened faster."""
    return Linear(survival.SPEC, window=1, fit="gradient")


def campaigns(size: Size, seed: int) -> dict[str, Callable[[Path], Tally]]:
    """Return every campaign by name; each gets an empty folder."""
    third, half = size.kills // 3, size.flips // 2

    def spoil(home: Path) -> Tally:
        store, run = damage.targets(home, linear)
        first = damage.damage(store, half, size.truncations // 2, seed)
        return first + damage.damage(run, size.flips - half, size.truncations - size.truncations // 2, seed + 1)

    def disturb(_: Path) -> Tally:
        found = watch_environment(size.worker_kills, size.hangs, seed=seed)
        wrong = {"rows spliced": found.spliced, "rows lost": found.lost, "workers left over": found.leftover}
        losses = tuple(f"environments: {count} {what}" for what, count in wrong.items() if count)
        return Tally(worker_kills=found.kills, hangs=found.hangs, losses=losses)

    def refuse(home: Path) -> Tally:
        # a training says on every failed save that it goes on: a thousand times here
        with contextlib.redirect_stderr(io.StringIO()):
            return survival.refuse_disk(home, linear)

    return {
        "killed and hanging environments": disturb,
        "errors of the disk": refuse,
        "hostile files": lambda home: damage.deceive(home, make, size.hostile),
        "flips and truncations": spoil,
        "killed collections": lambda home: survival.kill(survival.collecting(home), third, seed),
        "killed writers": lambda home: survival.kill(survival.writing(home), third, seed),
        "killed trainings": lambda home: survival.kill(survival.training(home, make), size.kills - 2 * third, seed),
    }


def agent_campaigns(size: Size, seed: int) -> dict[str, Callable[[Path], Tally]]:
    """Return the campaigns against agents in training by name; each gets an empty folder."""

    def strike(_: Path) -> Tally:
        found = strike_training(size.worker_kills, size.hangs, seed=seed)
        print(f"  {found}", file=sys.stderr, flush=True)
        wrong = {"rows spliced": found.spliced, "windows spliced": found.spliced_windows, "rows lost": found.lost}
        wrong["not counted"] = found.kills + found.hangs - found.noticed["died"] - found.noticed["hung"]
        losses = tuple(f"struck agent: {count} {what}" for what, count in wrong.items() if count > 0)
        return Tally(worker_kills=found.kills, hangs=found.hangs, losses=losses)

    def kill_each(name: str) -> Callable[[Path], Tally]:
        updates = range(min(size.updates, 45) if name == "Atari" else size.updates)
        alone = name == "one environment"
        return lambda home: agents.kill_at_updates(home, agents.trainees()[name], updates, in_a_row=not alone)

    def refuse(home: Path) -> Tally:
        with contextlib.redirect_stderr(io.StringIO()):
            return agents.refuse_agent(home, every=size.every)

    def spoil(home: Path) -> Tally:
        return damage.damage(hostile_agents.agent_target(home), size.flips // 5, size.truncations // 5, seed)

    full = agents.trainees()["a replay that is full"]
    return {
        **{f"agents killed at every update: {name}": kill_each(name) for name in agents.trainees()},
        "agents killed at any moment": lambda home: survival.kill(
            agents.training_agent(home, full), size.kills // 3, seed
        ),
        "agents, errors of the disk": refuse,
        "agents, flips and truncations": spoil,
        "agents, hostile files": lambda home: hostile_agents.deceive_agent(home, size.hostile),
        "agents, killed and hanging environments": strike,
    }


def main() -> int:
    """Run the campaigns; return 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute's worth")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places of the faults")
    parser.add_argument("--kills", type=int, help="how many; 300 by default, 18 when quick")
    parser.add_argument("--only", default="", help="campaigns whose name contains this")
    parser.add_argument("--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None, help="where to work")
    parser.add_argument("--out", type=Path, help="file for the result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    total, started = Tally(), time.monotonic()
    size = QUICK if args.quick else FULL
    size = replace(size, kills=args.kills or size.kills)
    each: dict[str, dict[str, int]] = {}
    for name, campaign in (agent_campaigns(size, args.seed) | campaigns(size, args.seed)).items():
        if args.only in name:
            with tempfile.TemporaryDirectory(dir=args.folder) as home:
                begun = time.monotonic()
                found = campaign(Path(home))
            total += found
            said = {key: value for key, value in found.counts().items() if value}
            each[name] = {**said, "losses": len(found.losses)}
            print(f"{name}: {said}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            for loss in found.losses[:20]:
                print(f"  lost: {loss}", file=sys.stderr, flush=True)
    result = {
        **total.counts(),
        "campaigns": each,
        "wall_seconds": round(time.monotonic() - started),
        "quick": args.quick,
        "made": {**environment(args.seed), "command": " ".join(["python", "benchmarks/faults.py", *sys.argv[1:]])},
    }
    if args.out:
        write_json(args.out, result)
    if args.json:
        print(json.dumps(result, indent=2))
    return 1 if total.losses else 0


if __name__ == "__main__":
    sys.exit(main())
