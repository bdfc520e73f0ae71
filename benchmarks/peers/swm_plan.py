"""The planner of stable-worldmodel and of foreworld, plan by plan in turn: python benchmarks/peers/swm_plan.py.

stable-worldmodel is no dependency of foreworld. Its solver runs as a child process in an environment of its own, which
needs none of what else the package asks for:

    python -m venv peers
    peers/bin/pip install --no-deps stable-worldmodel==0.1.1
    peers/bin/pip install torch==2.13.0 numpy==2.4.6 gymnasium==1.4.0 loguru
    python benchmarks/peers/swm_plan.py --peer-python peers/bin/python [--json]

Both search by the cross-entropy method, 300 samples, 30 rounds, 30 elites, 5 steps ahead, with one predictor: 192
numbers and 10 actions through one hidden layer of 512, the same weights on both sides, which is checked by the costs of
the same candidates. Both take one thread, and time is CPU time of each process, in turn, medians. The peer plans for 8
environments one after another, which is its default (batch_size 1), and all at once (batch_size 8).

`ratio` is the peer's CPU seconds over foreworld's. Beside it stands what share of the time the predictor's own matrix
products would take at the speed of a large one, measured in the same minute: no planner could be faster than that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from foreworld.core.files import write_json
from foreworld.studies.plan_peer import PeerError, versus
from foreworld.studies.plan_speed import ACTIONS, ELITES, EMBED, HIDDEN, HORIZON, ITERATIONS, SAMPLES, Planning
from foreworld.train.run import environment

RESULT = Path(__file__).parents[1] / "results" / "swm_plan.json"


def main() -> None:
    """Measure both and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter of the environment with stable-worldmodel")
    parser.add_argument("--turns", type=int, default=7, help="timed plans of each side")
    parser.add_argument("--quick", action="store_true", help="one turn; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = versus(Planning(8), args.peer_python, (1, 8), 1 if args.quick else args.turns)
    except PeerError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    given = ["peers/bin/python" if one == args.peer_python else one for one in sys.argv[1:]]
    settings: dict[str, Any] = {"samples": SAMPLES, "iterations": ITERATIONS, "elites": ELITES, "horizon": HORIZON}
    settings |= {"embed": EMBED, "hidden": HIDDEN, "actions": ACTIONS, "turns": args.turns, "threads": 1}
    made = {**environment(0), "command": " ".join(["python", "benchmarks/peers/swm_plan.py", *given])}
    result = {"made": made, "settings": settings, **found}
    if not args.quick:
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for count, row in found["environments"].items():
        print(f"{count} environments: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
