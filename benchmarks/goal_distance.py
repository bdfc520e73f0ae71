"""Which states of a dream should be compared with the goal? python benchmarks/goal_distance.py [--episodes 50].

In bundled worlds with walls, iCEM plans with the world itself, which is never wrong, so that whatever fails is the
search or what it searches for. The distance to the goal is the straight line. It is summed over all states of a dream,
taken at the last, or at the nearest; starts, goals and rollouts are the same.

Every cell is one call of `foreworld plan`, and is in benchmarks/results/goal_distance.json with all its episodes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from foreworld.core.files import write_json

RESULT = Path(__file__).parent / "results" / "goal_distance.json"
WORLDS = ("foreworld/TwoRooms-v0", "foreworld/PointMaze-v0", "foreworld/PointMazeMedium-v0")
OPTIONS = {"foreworld/TwoRooms-v0": {"rebound": 0, "tolerance": 1.4142}}
"""So that nothing is drawn at random while the goal is sought, and it is sought exactly."""
OVER = ("sum", "last", "nearest")
PLANNER = ("--planner", "icem", "--horizon", "60", "--candidates", "256", "--iterations", "5", "--std", "1.0")
KEPT = ("measure", "success", "ci_low", "ci_high", "confidence", "episodes", "mean_length", "rollouts", "protocol")


def cell(world: str, over: str, episodes: int) -> dict[str, Any]:
    """Let iCEM act in a world, and return what came of it."""
    flags = ["--episodes", str(episodes), "--num-envs", str(episodes), "--max-steps", "200", "--no-floors"]
    flags += ["--env-options", json.dumps(OPTIONS.get(world, {}))]
    command = ["plan", "--exact", "--env", world, *PLANNER, "--execute", "10", "--objective.over", over, *flags]
    done = subprocess.run(
        [sys.executable, "-m", "foreworld.cli", *command, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    found = json.loads(done.stdout)
    kept = {name: found[name] for name in KEPT}
    return {"world": world, "over": over, **kept, "every": found["every"], "made": found["made"]}


def main() -> None:
    """Measure every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    worlds, episodes = (WORLDS[:1], 4) if args.quick else (WORLDS, args.episodes)
    cells = []
    for world in worlds:
        for over in OVER:
            cells.append(cell(world, over, episodes))
            one = cells[-1]
            said = f"{one['success']:.2f} ({one['ci_low']:.2f} to {one['ci_high']:.2f})"
            print(f"{world}, {over}: {said}, {one['mean_length']:.0f} steps", file=sys.stderr, flush=True)
    if not args.quick:
        write_json(RESULT, {"cells": cells})
    if args.json:
        print(json.dumps({"cells": cells}, indent=2))


if __name__ == "__main__":
    main()
