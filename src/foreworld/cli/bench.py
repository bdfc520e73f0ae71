"""`foreworld bench`: how fast the parts run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.core.errors import ConfigError
from foreworld.nn.precision import Precision
from foreworld.studies.agent_speed import agent_speed, dream_speed, dream_sweep
from foreworld.studies.plan_peer import INSTALL, find_peer, versus
from foreworld.studies.plan_speed import Planning
from foreworld.studies.speed import (
    Figure,
    collection,
    imagination,
    matmul_gflops,
    sampling,
    to_float,
    world_model_update,
)
from foreworld.train.log import Display
from foreworld.train.run import environment

Part = Literal["update", "imagine", "sample", "collect"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure training, imagination, sampling and collection beside what this machine could do at best.

    Times are CPU time of one thread, the least of several, so that other work hardly shows. `foreworld bench agent`
    measures an update of model, actor and critic; `foreworld bench dream` imagines ten million actions; `foreworld
    bench plan` times a planner; `foreworld bench sweep` shows which number of states side by side dreams fastest, by
    size.

    example: foreworld bench --only update imagine

    example: foreworld bench agent --size 1m

    example: foreworld bench dream --size 1m --steps 10000000

    example: foreworld bench plan

    example: foreworld bench sweep --sizes 1m 12m --parallel 256 1024 4096
    """

    only: tuple[Part, ...] = ("update", "imagine", "sample", "collect")
    """What to measure."""
    env: tuple[str, ...] = ("ALE/Freeway-v5", "CartPole-v1")
    """Environments to collect from."""
    device: str = "cpu"
    """Device of update and imagine, such as cuda."""
    quick: bool = False
    """Small enough for CI; the figures mean less."""
    json: bool = False
    """Print JSON for machines."""


@dataclass(frozen=True, kw_only=True)
class BenchAgent:
    """Measure a full update of world model, actor and critic, and imagination by itself.

    On a CPU, times are CPU time of one thread, the least of several.

    example: foreworld bench agent --size 1m --json
    """

    size: str = "1m"
    """Size of the world model; see `foreworld list models`."""
    batch: int = 16
    """Windows of an update."""
    length: int = 64
    """Rows of a window."""
    precision: Precision = "float32"
    """Of matrix products: bfloat16 is faster where the processor multiplies it natively."""
    device: str = "cpu"
    """Where to compute, such as cuda."""
    json: bool = False
    """Print JSON for machines."""


@dataclass(frozen=True, kw_only=True)
class BenchDream:
    """Imagine so many actions, every one chosen by an actor, and say how long it took; nothing is extrapolated.

    example: foreworld bench dream --size 1m --steps 10000000 --json
    """

    size: str = "1m"
    """Size of the world model; see `foreworld list models`."""
    steps: int = 10_000_000
    """Actions to imagine, rounded up to whole dreams of 15 steps."""
    parallel: int | None = None
    """States that dream side by side; by default 1,024 on a CPU and 65,536 on a GPU."""
    precision: Precision = "float32"
    """Of matrix products: bfloat16 is faster where the processor multiplies it natively."""
    device: str = "cpu"
    """Where to compute, such as cuda."""
    json: bool = False
    """Print JSON for machines."""


@dataclass(frozen=True, kw_only=True)
class BenchSweep:
    """Imagine from few to many states side by side, with models of several sizes.

    example: foreworld bench sweep --sizes 1m 12m --parallel 256 1024 4096

    example: foreworld bench sweep --sizes 12m 200m --parallel 16384 65536 --device cuda --precision bfloat16
    """

    sizes: tuple[str, ...] = ("1m",)
    """Sizes of the world model; see `foreworld list models`."""
    parallel: tuple[int, ...] = (64, 256, 1024, 4096)
    """States that dream side by side."""
    precision: Precision = "float32"
    """Of matrix products: bfloat16 is faster where the processor multiplies it natively."""
    device: str = "cpu"
    """Where to compute, such as cuda."""
    json: bool = False
    """Print JSON for machines."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """Time plans by the cross-entropy method on one small predictor, for one and for many environments.

    On a CPU, times are CPU time of one thread, the least of several. With an interpreter that has stable-worldmodel,
    its solver does the same search on the same predictor in turn, in a process of its own.

    example: foreworld bench plan --json

    example: foreworld bench plan --peer-python peers/bin/python
    """

    environments: tuple[int, ...] = (1, 8)
    """To plan for at once."""
    samples: int = 300
    """Candidates of a round."""
    iterations: int = 30
    """Rounds."""
    horizon: int = 5
    """Actions in a plan."""
    device: str = "cpu"
    """Where to compute, such as cuda; the peer is timed on a CPU only."""
    peer_python: str | None = None
    """Interpreter of an environment with stable-worldmodel; by default this one, if it has it."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb, or one of its parts with options of its own."""
    part = {"agent": of_agent, "dream": of_dreams, "plan": of_plans, "sweep": of_sweep}.get(argv[0] if argv else "")
    with one_thread():
        bench(argv) if part is None else part(argv[1:])


def of_agent(argv: list[str]) -> None:
    """Run `foreworld bench agent`."""
    args = parse(BenchAgent, argv, "bench agent")
    found = agent_speed(args.size, args.device, args.batch, args.length, args.precision).to_json()
    _tell(found, args.json, f"update of model, actor and critic, size {args.size}, on {args.device}")


def of_dreams(argv: list[str]) -> None:
    """Run `foreworld bench dream`."""
    args = parse(BenchDream, argv, "bench dream")
    if args.steps < 1 or (args.parallel is not None and args.parallel < 1):
        raise ConfigError("bench dream: --steps and --parallel must be at least 1")
    with Display("dream", "steps", quiet=args.json) as display:
        found = dream_speed(args.size, args.steps, args.device, args.parallel, args.precision, display.show).to_json()
    _tell(found, args.json, f"imagined actions, size {args.size}, on {args.device}")


def of_plans(argv: list[str]) -> None:
    """Run `foreworld bench plan`."""
    args = parse(BenchPlan, argv, "bench plan")
    if not args.environments or min(*args.environments, args.samples // 20, args.iterations, args.horizon) < 1:
        raise ConfigError("bench plan: --environments, --iterations and --horizon must be at least 1, --samples 20")
    planning = Planning(max(args.environments), args.device, args.samples, args.iterations, args.horizon)
    plans = [planning.speed(count).to_json() for count in args.environments]
    peer, against = find_peer(args.peer_python), None
    if peer is not None and args.device == "cpu":
        against = versus(planning, peer, args.environments)
    absent = "no peer: not on this device" if args.device != "cpu" else "no peer: name --peer-python, with " + INSTALL
    if args.json:
        print_json({"made": environment(seed=0), "plans": plans, "versus": against or absent})
        return
    names = list(plans[0])
    print_table("plans", [name.replace("_", " ") for name in names], [list(plan.values()) for plan in plans])
    if against is None:
        say(absent, False)
        return
    for count, row in against["environments"].items():
        say(f"{count} environments: {against['peer']} takes {row['ratio']:.2f} times as long", False)


def of_sweep(argv: list[str]) -> None:
    """Run `foreworld bench sweep`."""
    args = parse(BenchSweep, argv, "bench sweep")
    if not args.sizes or not args.parallel or min(args.parallel) < 1:
        raise ConfigError("bench sweep: name at least one of --sizes, and numbers of --parallel states of at least 1")
    cells = []
    for found in dream_sweep(args.sizes, args.parallel, args.device, args.precision):
        cells.append(found.to_json())
        per_second = found.steps / found.seconds
        say(f"size {found.size}, {found.parallel:,} states: {per_second:,.0f} imagined steps a second", args.json)
    if args.json:
        print_json({"made": environment(seed=0), "cells": cells})
        return
    rows = [list(cell.values()) for cell in cells]
    print_table(f"imagination on {args.device}", [name.replace("_", " ") for name in cells[0]], rows)


def _tell(found: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print_json({"made": environment(seed=0)} | found)
    else:
        print_table(title, ["what", "value"], [[name.replace("_", " "), value] for name, value in found.items()])


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, and put back how many there were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def bench(argv: list[str]) -> None:
    """Run `foreworld bench`."""
    args = parse(Bench, argv, "bench")
    gflops = matmul_gflops(args.device)
    say(f"float32 matrix product: {gflops:.0f} GFLOP/s", args.json)
    figures = []
    for measure in measures(args, gflops):
        figures.append(measure())
        say(f"{figures[-1].name}: {figures[-1].value:.4g} {figures[-1].unit}", args.json)
    if args.json:
        print_json(
            {
                "made": environment(seed=0),
                "device": args.device,
                "matmul_gflops": gflops,
                "figures": list(map(asdict, figures)),
            }
        )
        return
    rows = [[f.name, f.value, f.unit, f"{f.fraction:.0%}", f.bound_by] for f in figures]
    print_table("speed, per second of one core" if args.device == "cpu" else f"speed on {args.device}", COLUMNS, rows)


COLUMNS = ["what", "speed", "unit", "of the bound", "which is set by"]


def measures(args: Bench, gflops: float) -> Iterator[Callable[[], Figure]]:
    """Yield what was asked for, ready to be called."""
    if "update" in args.only:
        yield lambda: world_model_update(gflops, "1m", 16, 64, args.device)
        yield lambda: world_model_update(gflops, "tiny", 8, 16, args.device)
    if "imagine" in args.only:
        for states in (1024,) if args.quick else (1024, 8192):
            yield lambda states=states: imagination(gflops, states, "1m", args.device)
    if "sample" in args.only:
        yield lambda: sampling(3_000 if args.quick else 100_000)
        yield lambda: to_float(2 if args.quick else 16)
    if "collect" in args.only:
        for env in args.env:
            yield lambda env=env: collection(env, 400) if args.quick else collection(env, 4000, least=1.0)
