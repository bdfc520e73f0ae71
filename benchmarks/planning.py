"""Does a world model act well by planning alone? python benchmarks/planning.py [--work DIR] [--quick].

No actor is asked anything. Two models:

- `pendulum`: an RSSM of Pendulum-v1, trained offline on 100 episodes of random torques.
- `cartpole`: the world model of a Dreamer agent that took 6,000 steps in CartPole-v1; with what the agent's critic
  expects after the horizon, and without.

And bundled worlds that plan with themselves, never wrong about the future, to their own goals: what is missing there is
the search, or the objective.

Every cell is one `foreworld plan`, all from the same starts. What is done is kept in --work, episodes, runs and cells:
interrupted, the same command goes on. Latency is that of 10 environments planned for in one batch, but for the cells
with a deadline, on whatever else the machine did meanwhile (`load`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from foreworld.cli.main import main as foreworld
from foreworld.core.files import write_json
from foreworld.train.run import environment

RESULT = Path(__file__).resolve().parent / "results" / "planning.json"
SAMPLES = ["--candidates", "64", "--iterations", "3"]
ICEM = ["--planner", "icem", *SAMPLES]
CHOICES = ["--candidates", "32", "--iterations", "3", "--elites", "6"]
ALONE, ONE = "--no-floors", ["--num-envs", "1", "--deadline-ms", "50"]

EPISODES = ["--episodes", "10", "--num-envs", "10"]

MODELS: dict[str, list[str]] = {
    "pendulum": [
        "collect --env Pendulum-v1 --episodes 100 --repeat 4 --out pendulum-episodes",
        "train --preset rssm --size 1m --data pendulum-episodes --steps 2500 --model.deter 128 --model.units 64 "
        "--model.latents 8 --model.latent gaussian --model.rep-weight 0.05 --fit.lr 2e-3 --fit.warmup 100 "
        "--fit.batch 8 --fit.length 50 --fit.decay 0.4 --fit.dream-share 0.3 --fit.watch 8 --no-clips --out pendulum",
    ],
    "cartpole": ["agent --env CartPole-v1 --steps 6000 --no-clips --out cartpole"],
}
"""What makes the models."""


def exact(world: str) -> list[str]:
    """Return the flags of planning with a bundled world itself, to its own goals."""
    return [
        "--exact",
        "--env",
        f"foreworld/{world}-v0",
        "--episodes",
        "40",
        "--num-envs",
        "20",
        "--objective.over",
        "sum",
    ]


STILL = ["--env-options", '{"rebound": 0, "tolerance": 1.4142}']
"""Two rooms where nothing is random, and the goal is sought exactly."""
PENDULUM = ["--run", "pendulum", "--env", "Pendulum-v1"]
CARTPOLE = ["--run", "cartpole", "--env", "CartPole-v1"]
CELLS: dict[str, list[str]] = {
    "pendulum, cem, horizon 20": [*PENDULUM, "--planner", "cem", *SAMPLES, "--horizon", "20"],
    "pendulum, cem, horizon 10": [*PENDULUM, "--planner", "cem", *SAMPLES, "--horizon", "10", ALONE],
    "pendulum, cem, execute 5": [*PENDULUM, "--planner", "cem", *SAMPLES, "--horizon", "20", "--execute", "5", ALONE],
    "pendulum, icem, horizon 20": [*PENDULUM, "--planner", "icem", *SAMPLES, "--horizon", "20", ALONE],
    "pendulum, mppi, horizon 20": [*PENDULUM, "--planner", "mppi", *SAMPLES, "--horizon", "20", ALONE],
    "pendulum, deadline 50 ms": [*PENDULUM, "--planner", "cem", *SAMPLES, "--horizon", "20", *ONE, ALONE],
    "cartpole, horizon 15, no critic": [*CARTPOLE, *CHOICES, "--horizon", "15", "--objective.no-critic"],
    "cartpole, horizon 5, no critic": [*CARTPOLE, *CHOICES, "--horizon", "5", "--objective.no-critic", ALONE],
    "cartpole, horizon 5, critic": [*CARTPOLE, *CHOICES, "--horizon", "5"],
    "PointMaze, cem": [*exact("PointMaze"), "--planner", "cem", *SAMPLES, "--horizon", "20", "--execute", "4"],
    "PointMazeMedium, icem": [*exact("PointMazeMedium"), *ICEM, "--horizon", "40", "--execute", "5"],
    "Reach, categorical cem": [*exact("Reach"), *SAMPLES, "--horizon", "12", "--execute", "4"],
    "TwoRooms, icem": [*exact("TwoRooms"), *STILL, *ICEM, "--horizon", "20", "--execute", "5"],
}


def made(argv: list[str]) -> Any:
    """Run a verb, and return what it prints as JSON."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = foreworld([*argv, "--json"])
    if code:
        raise SystemExit(f"foreworld {' '.join(argv)}: exit code {code}")
    return json.loads(printed.getvalue())


def measure(quick: bool) -> dict[str, Any]:
    """Make the models that are not there, and every cell that is not done, in the current folder."""
    for argv in (line.split() for lines in MODELS.values() for line in lines):
        if not Path(argv[-1]).exists():
            print(f"foreworld {' '.join(argv)}", file=sys.stderr, flush=True)
            made([*argv, "--quick"] if quick and argv[0] != "collect" else argv)
    cells = {}
    for name, argv in CELLS.items():
        kept = Path("cells") / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not kept.exists():
            print(name, file=sys.stderr, flush=True)
            began, load = time.time(), os.getloadavg()[0]
            told = made(["plan", *EPISODES, *argv, *(["--quick"] if quick else [])])
            kept.parent.mkdir(exist_ok=True)
            machine = {"command": f"foreworld plan {' '.join([*EPISODES, *argv])} --json", "load": round(load, 1)}
            write_json(kept, told | {"machine": machine | {"seconds": round(time.time() - began)}})
        cells[name] = json.loads(kept.read_text())
        cells[name].pop("made")
    models = {name: [f"foreworld {line}" for line in lines] for name, lines in MODELS.items()}
    return {"models": models, "cells": cells}


def show(cells: dict[str, Any]) -> None:
    """Print a line for every cell."""
    for name, cell in cells.items():
        floors = "".join(
            f", {what} {cell[key]:.4g}"
            for what, key in (("random", "random_floor"), ("shooting", "shooting_floor"), ("oracle", "oracle"))
            if cell[key] is not None
        )
        print(
            f"{name}: {cell[cell['measure']]:.4g} ({cell['ci_low']:.4g} to {cell['ci_high']:.4g}){floors}; "
            f"{cell['latency_ms_p50']:.3g} ms, 95 % {cell['latency_ms_p95']:.3g} ms, "
            f"{cell['deadline_misses']} of {cell['decisions']} too late"
        )


def main() -> None:
    """Measure, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs") / "planning", help="where everything is kept")
    parser.add_argument("--quick", action="store_true", help="a minute's worth; no result is written")
    args = parser.parse_args()
    work = args.work / "quick" if args.quick else args.work
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(work):
        result = measure(args.quick)
    if not args.quick:
        RESULT.parent.mkdir(exist_ok=True)
        command = {"command": "python benchmarks/planning.py"}
        write_json(RESULT, {"made": {**environment(0), **command}} | result)
    show(result["cells"])


if __name__ == "__main__":
    main()
