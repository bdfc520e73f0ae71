"""`foreworld bench`: how fast the parts run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.studies.speed import (
    Figure,
    collection,
    imagination,
    matmul_gflops,
    sampling,
    to_float,
    world_model_update,
)
from foreworld.train.run import environment

Part = Literal["update", "imagine", "sample", "collect"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure training, imagination, sampling and collection beside what this machine could do at best.

    Times are CPU time of one thread, the least of several, so that other work hardly shows.

    example: foreworld bench --only update imagine
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


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Bench, argv, "bench")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        gflops = matmul_gflops(args.device)
        say(f"float32 matrix product: {gflops:.0f} GFLOP/s", args.json)
        figures = []
        for measure in measures(args, gflops):
            figures.append(measure())
            say(f"{figures[-1].name}: {figures[-1].value:.4g} {figures[-1].unit}", args.json)
    finally:
        torch.set_num_threads(threads)
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
