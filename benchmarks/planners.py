"""How near to the optimum do planners get? python benchmarks/planners.py [--quick] [--json].

Two kinds of problems whose best plan is known, drawn at random: linear-quadratic systems (Riccati), half of them
unstable, and decision processes with ends (backward induction). Every planner has the same number of rollouts of the
model, where one with a gradient counts as three, and starts from nothing; `rollouts` is what it spent of them. Random
shooting is the trivial baseline. Tree search is also shown without its first part, which looks at everything.

On the systems a plan is judged by its cost over the least cost, 1 at best; on the processes by the share of plans that
are exactly as good as the best, and by what they earn less than it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import foreworld as fw
from foreworld.core.files import write_json
from foreworld.models.finite import Finite
from foreworld.models.quadratic import Quadratic
from foreworld.plan import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Gradient,
    Hybrid,
    Plan,
    Planner,
    PredictedReturn,
    QuasiNewton,
    RandomShooting,
    TreeSearch,
)
from foreworld.train.run import environment

RESULT = Path(__file__).parent / "results" / "planners.json"
FIRST = 1000
"""Seed of the first problem: the settings of planners were chosen on problems with small seeds."""
SAME = 1e-4
"""Returns that differ by no more are the same."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    problems: int
    budgets: tuple[int, ...]
    starts: int = 4
    horizon: int = 12
    process_horizon: int = 8


FULL = Size(problems=100, budgets=(200, 1000))
QUICK = Size(problems=2, budgets=(200,))


def largest(make: Callable[[int], Planner], budget: int) -> Planner:
    """Return the planner with as much of something as the budget allows."""
    number = 1
    while make(number + 1).budget <= budget:
        number += 1
    return make(number)


def for_numbers(h: int, budget: int) -> dict[str, Planner]:
    """Return planners for continuous actions, by name."""
    return {
        "random_shooting": RandomShooting(horizon=h, candidates=budget),
        "cem": largest(lambda n: CEM(horizon=h, candidates=40, elites=5, iterations=n), budget),
        "icem": largest(lambda n: ICEM(horizon=h, candidates=10 + n, elites=5, iterations=budget // 40), budget),
        "mppi": largest(lambda n: MPPI(horizon=h, candidates=40, iterations=n), budget),
        "gradient": largest(lambda n: Gradient(horizon=h, candidates=1, iterations=n), budget),
        "cem_and_adam": largest(
            lambda n: Hybrid(
                first=CEM(horizon=h, candidates=budget // 10, elites=budget // 40, iterations=3),
                second=Gradient(horizon=h, candidates=1, iterations=n),
            ),
            budget,
        ),
        "quasi_newton": largest(lambda n: QuasiNewton(horizon=h, iterations=n), budget),
        "cem_and_quasi_newton": largest(
            lambda n: Hybrid(
                first=CEM(horizon=h, candidates=budget // 10, elites=budget // 40, iterations=3),
                second=QuasiNewton(horizon=h, iterations=n),
            ),
            budget,
        ),
    }


def for_choices(h: int, budget: int) -> dict[str, Planner]:
    """Return planners for discrete actions, by name."""
    return {
        "random_shooting": RandomShooting(horizon=h, candidates=budget),
        "categorical_cem": largest(lambda n: CategoricalCEM(horizon=h, candidates=40, elites=5, iterations=n), budget),
        "tree_search": TreeSearch(horizon=h, simulations=budget),
        # thousands of single steps take minutes
        **({"tree_search_uncovered": TreeSearch(horizon=h, simulations=budget, cover=0.0)} if budget <= 200 else {}),
    }


def systems(planner: Planner, size: Size) -> Iterator[tuple[Plan, Tensor]]:
    """Yield the plans for every system, and their cost over the least cost from every start."""
    for seed in range(FIRST, FIRST + size.problems):
        model = Quadratic(seed=seed, radius=(0.95, 1.1)[seed % 2])
        x = model.starts(size.starts, size.horizon, seed=seed)
        with fw.seeded(seed):
            plan = planner(model, model.at(x), PredictedReturn())
        yield plan, plan.score / model.optimum(x, size.horizon)[1]


def processes(planner: Planner, size: Size) -> Iterator[tuple[Plan, Tensor]]:
    """Yield the plans for every process, and how much less than the best is earned from every state with a future."""
    for seed in range(FIRST, FIRST + size.problems):
        model = Finite(seed=seed)
        at = model.futures[:-1].nonzero()[:, 0]
        with fw.seeded(seed):
            plan = planner(model, model.at(at), PredictedReturn())
        yield plan, model.optimum(at, size.process_horizon)[1] - plan.score


Problems = Callable[[Planner, Size], Iterator[tuple[Plan, Tensor]]]


def timed(run: Problems, planner: Planner, size: Size) -> dict[str, Any]:
    """Run a planner on all problems, and note what it spent and how long it took."""
    began = time.process_time()
    found = list(run(planner, size))
    return {
        "rollouts": max(plan.rollouts for plan, _ in found),
        "cpu_ms_per_call": round(1000 * (time.process_time() - began) / size.problems, 1),
        "every": [[round(value, 5) for value in values.tolist()] for _, values in found],
    }


def measure(size: Size, budget: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a row for every planner on both kinds of problems."""
    rows = {name: timed(systems, p, size) for name, p in for_numbers(size.horizon, budget).items()}
    for row in rows.values():
        ratios = np.array(row["every"])
        row |= {"median": round(float(np.median(ratios)), 4), "worst": round(float(ratios.max()), 4)}
        row |= {"within_1_percent": round(float((ratios < 1.01).mean()), 4)}
        row |= {"systems_within_1_percent": int((ratios < 1.01).all(1).sum())}
    others = {name: timed(processes, p, size) for name, p in for_choices(size.process_horizon, budget).items()}
    for row in others.values():
        lost = np.concatenate(row["every"])
        row |= {"problems": len(lost), "solved_problems": int((lost < SAME).sum())}
        row |= {"solved": round(float((lost < SAME).mean()), 4), "mean_lost": round(float(lost.mean()), 4)}
    return {"systems": rows, "processes": others}


def show(result: dict[str, Any]) -> None:
    """Print the rows for people."""
    for budget, kinds in result.items():
        for kind, rows in kinds.items():
            names = [name for name in next(iter(rows.values())) if name != "every"]
            print(f"\n{kind}, at most {budget} rollouts\n{'':>22}" + "".join(f"{name:>18}" for name in names))
            for planner, row in rows.items():
                print(f"{planner:>22}" + "".join(f"{row[name]:>18}" for name in names))


def main() -> None:
    """Measure every budget and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds' worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size, began = QUICK if args.quick else FULL, time.process_time()
    budgets = {str(budget): measure(size, budget) for budget in size.budgets}
    result: dict[str, Any] = {
        "made": {**environment(FIRST), "command": " ".join(["python", "benchmarks/planners.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - began),
        "settings": {**asdict(size), "first_seed": FIRST},
        "budgets": budgets,
    }
    if not args.quick:
        RESULT.parent.mkdir(exist_ok=True)
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(budgets)


if __name__ == "__main__":
    main()
