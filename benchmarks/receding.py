"""Plan, act, plan again: iCEM with few rollouts beside CEM with many. python benchmarks/receding.py [--quick] [--json].

Six tasks: five bundled worlds and one unstable linear-quadratic system. The planner looks into the world itself (its
true state, its true steps), plans 20 steps ahead, carries out the first action, and begins the next search from the
rest of its plan; so it goes on for 50 steps from 40 starts. All planners start from the same states, and each step
they have up to as many rollouts as their name says. What counts is the return of the 50 steps. The
difference to CEM with 1,000 comes with a 95 % interval: by bootstrap over starts, which are the same for both.

Starts and chance are seeded with `--seed`, 1 by default; settings were chosen with seed 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import foreworld as fw
from foreworld.core.files import write_json
from foreworld.models.quadratic import Quadratic
from foreworld.models.simulated import Simulated
from foreworld.plan import CEM, ICEM, Planner, PredictedReturn, RandomShooting
from foreworld.train.run import environment
from foreworld.worlds import build

RESULT = Path(__file__).parent / "results" / "receding.json"
HORIZON = 20
RADIUS = 1.1
"""Spectral radius of the linear-quadratic system: it runs away unless it is held."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    starts: int = 40
    steps: int = 50


def world(name: str, **fields: Any) -> Callable[[int, int], tuple[Any, Any]]:
    """Return what makes a world into a model, with so many starts, by seed."""

    def make(starts: int, seed: int) -> tuple[Any, Any]:
        model = Simulated(replace(build(name), **fields), seed=seed)
        return model, model.initial(starts)

    return make


def system(starts: int, seed: int) -> tuple[Any, Any]:
    """Return a linear-quadratic system of this seed, and starts."""
    model = Quadratic(seed=1000 + seed, radius=RADIUS)
    return model, model.at(model.starts(starts, HORIZON, seed=seed))


TASKS: dict[str, Callable[[int, int], tuple[Any, Any]]] = {
    "pendulum": world("foreworld/Pendulum-v0"),
    "double_pendulum": world("foreworld/DoublePendulum-v0"),
    "push_balls": world("foreworld/PushBalls-v0"),
    "point_maze": world("foreworld/PointMaze-v0", dense=True),
    "two_rooms": world("foreworld/TwoRooms-v0", dense=True, rebound=0),
    "linear_quadratic": system,
}

PLANNERS: dict[str, Planner] = {
    "random_shooting_100": RandomShooting(horizon=HORIZON, candidates=100),
    "cem_1000": CEM(horizon=HORIZON, candidates=100, iterations=10, elites=10),
    "cem_100": CEM(horizon=HORIZON, candidates=33, iterations=3, elites=10),
    "icem_100": ICEM(horizon=HORIZON, candidates=33, iterations=4, elites=5),
    "icem_300": ICEM(horizon=HORIZON, candidates=80, iterations=6, elites=8),
}


def episode(planner: Planner, task: str, size: Size, seed: int) -> dict[str, Any]:
    """Return what was earned from every start, and what it took."""
    model, state = TASKS[task](size.starts, seed)
    objective, warm = PredictedReturn(), None
    earned, going = torch.zeros(size.starts), torch.ones(size.starts)
    began = time.process_time()
    with fw.seeded(seed):
        for _ in range(size.steps):
            plan = planner(model, state, objective, warm=warm)
            state, warm = model.step(state, plan.actions[:, 0]), plan.after(1)
            read = model.read(state)
            assert read.reward is not None and read.cont is not None
            earned, going = earned + going * read.reward, going * read.cont
    spent = time.process_time() - began
    return {
        "rollouts_per_step": planner.budget,
        "cpu_ms_per_action": round(1000 * spent / size.steps / size.starts, 2),
        "mean": round(float(earned.mean()), 4),
        "every": [round(value, 4) for value in earned.tolist()],
    }


def gain(one: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """Return by how much more one earns than another, with the ends of a 95 % interval."""
    difference = np.array(one["every"]) - np.array(other["every"])
    draws = np.random.default_rng(0).choice(difference, (10_000, len(difference))).mean(1)
    return [round(float(value), 4) for value in (difference.mean(), *np.quantile(draws, [0.025, 0.975]))]


def show(tasks: dict[str, Any]) -> None:
    """Print the rows for people."""
    print(f"{'':18}" + "".join(f"{name:>22}" for name in PLANNERS) + "   icem_100 less cem_1000 (95 % interval)")
    for task, row in tasks.items():
        cells = "".join(f"{row['planners'][name]['mean']:>22.3f}" for name in PLANNERS)
        print(f"{task:18}{cells}   {row['gain'][0]:.3f} ({row['gain'][1]:.3f} to {row['gain'][2]:.3f})")


def main() -> None:
    """Measure every task and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size, began = Size(starts=2, steps=3) if args.quick else Size(), time.process_time()
    tasks = {}
    for task in TASKS:
        found = {name: episode(planner, task, size, args.seed) for name, planner in PLANNERS.items()}
        tasks[task] = {"gain": gain(found["icem_100"], found["cem_1000"]), "planners": found}
    good = {
        name: sum(gain(row["planners"][name], row["planners"]["cem_1000"])[0] >= 0 for row in tasks.values())
        for name in PLANNERS
    }
    result = {
        "made": {**environment(args.seed), "command": " ".join(["python", "benchmarks/receding.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - began),
        "settings": {"horizon": HORIZON, "starts": size.starts, "steps": size.steps},
        "tasks_at_least_as_good_as_cem_1000": good,
        "tasks": tasks,
    }
    if not args.quick:
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(tasks)


if __name__ == "__main__":
    main()
