"""How often should be planned anew? python benchmarks/replanning.py --run RUN [--episodes 50] [--seed 0].

RUN is a model of two rooms, such as benchmarks/jepa.py leaves in its --work. It acts by planning, and its own episodes
are kept (`foreworld plan --record`). On these `foreworld horizon` measures how far the dreamt place of the dot is off,
read off the latents by a probe, and recommends how many actions of a plan to carry out: as many as the place stays
within the goal's tolerance. Then the same goals are tried with other intervals, from the same starts: was it good
advice?

All is in benchmarks/results/replanning.json, with every episode.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jepa import foreworld

import foreworld as fw
from foreworld.core.files import write_json
from foreworld.worlds.rooms import TwoRooms

RESULT = Path(__file__).parent / "results" / "replanning.json"
ENV, PLACE = "foreworld/TwoRooms-v0", "truth/state[0:2]"
PLANNER = "--planner icem --horizon 60 --candidates 200 --iterations 4 --std 1.0 --max-steps 200"
FIRST, INTERVALS = 10, (5, 10, 20, 30, 60)
KEPT = (
    "success",
    "ci_low",
    "ci_high",
    "confidence",
    "episodes",
    "mean_length",
    "plans",
    "planning_seconds",
    "protocol",
)


def planned(args: argparse.Namespace, every: int, seed: int, *more: str) -> dict[str, Any]:
    """Reach for goals, with a new plan after so many actions."""
    acting = ["--run", str(args.run), "--env", ENV, "--no-floors", "--seed", str(seed), "--execute", str(every)]
    counts = ["--episodes", str(args.episodes), "--num-envs", str(min(50, args.episodes))]
    return foreworld("plan", *acting, *counts, *PLANNER.split(), *more)


def tolerated(episodes: Path) -> float:
    """Return the goal's tolerance as an error of the place in its deviations: a root mean square over x and y."""
    deviation = fw.load(episodes).column("truth/state")[:, :2].std(0)
    return float(TwoRooms().tolerance / math.sqrt(2) / np.sqrt((deviation**2).mean()))


def main() -> None:
    """Ask for advice, and try it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs") / "replanning")
    parser.add_argument("--quick", action="store_true", help="a few minutes' worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    if args.quick:
        args.episodes = 4
    own = args.work / "planned"
    shutil.rmtree(own, ignore_errors=True)
    planned(args, FIRST, 500 + args.seed, "--record", str(own))  # other episodes than those that judge the advice
    limit, sure = tolerated(own), ["--confidence", "0.5", "--violation-rate", "0.5"] if args.quick else []
    judged = ["--run", str(args.run), "--key", PLACE, "--context", "2", "--steps", "60", "--max-error", f"{limit:.4f}"]
    advice = foreworld("horizon", *judged, "--data", str(own), "--seed", str(args.seed), *sure)
    taught = foreworld("horizon", *judged, "--seed", str(args.seed), *sure)
    print(
        f"own plans: every {advice['replan_every']}, data: every {taught['replan_every']}", file=sys.stderr, flush=True
    )
    cells = []
    for every in sorted({*INTERVALS, advice["replan_every"] or 1}):
        found = planned(args, every, 1000 + args.seed)
        cells.append({"every": every, **{name: found[name] for name in KEPT}, "all": found["every"]["planner"]})
        one = cells[-1]
        said = f"{one['success']:.2f} ({one['ci_low']:.2f} to {one['ci_high']:.2f}), {one['mean_length']:.0f} steps"
        print(f"every {every}: {said}, {one['planning_seconds']:.0f} s", file=sys.stderr, flush=True)
    result = {"tolerated": limit, "own_plans": advice, "data": taught, "cells": cells, "made": found["made"]}
    if not args.quick:
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
