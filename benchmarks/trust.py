"""Count whether trust keeps its promises: python benchmarks/trust.py [--quick] [--json] [--out FILE].

On eight systems with known truth, calibration sets of 200 trajectories are drawn from a pool of 20,000, 1,000 times;
each time the safe horizon and the bands are measured and compared with the whole pool, and so are the rules of thumb.
Then powers, contraction rates and Lyapunov exponents that are known are measured from error curves, and it is counted
how often 95 % intervals hold the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from foreworld.core.files import finite, write_json
from foreworld.studies.coverage import interval_coverage
from foreworld.studies.systems import SYSTEMS
from foreworld.studies.trust import Promises, count_promises, growth_coverage, judge, recoveries
from foreworld.train.run import environment

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Count, say what was found, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything; written only with --out")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--out", type=Path, help="file for the result; benchmarks/results/trust.json by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scale = 10 if args.quick else 1
    promises, known = [], []
    for system in SYSTEMS:
        promises.append(count_promises(system, repeats=1000 // scale, pool=20_000 // scale, seed=args.seed))
        print(in_words(promises[-1]), file=sys.stderr, flush=True)
    larger = [
        count_promises(system, repeats=200 // scale, pool=20_000 // scale, calibration=1000, seed=args.seed)
        for system in SYSTEMS
    ]
    reach = ", ".join(f"{one.system} {one.reach:.1%}" for one in larger)
    print(f"with 1,000 trajectories the safe horizon reaches {reach}", file=sys.stderr, flush=True)
    for found in recoveries(500 if args.quick else 2000, seed=args.seed):
        known.append(found)
        print(f"{found.what}: {found.found:.4f}, truth {found.truth:.4f}", file=sys.stderr, flush=True)
    intervals = interval_coverage(
        units=(30, 100), methods=("t",), studies=10_000 // scale, repeats=1000, seed=args.seed
    )
    intervals += growth_coverage(1000 // scale, seed=args.seed)
    for one in intervals:
        print(f"95 % interval, {one.case}, {one.units} units: {one.covered:.1%}", file=sys.stderr, flush=True)
    targets = judge(promises, known, intervals)
    for target in targets:
        where = f"missed by {'; '.join(target.missed)}" if target.missed else "met"
        print(f"{target.aim}: {where} (worst {target.worst:.3g}, {target.at})", file=sys.stderr, flush=True)
    result = finite(
        {
            "targets": [asdict(target) for target in targets],
            "promises": [asdict(one) for one in promises],
            "promises_from_1000": [asdict(one) for one in larger],
            "recoveries": [asdict(one) for one in known],
            "intervals": [asdict(one) for one in intervals],
            "cpu_seconds": round(time.process_time()),
            "quick": args.quick,
            "made": {**environment(args.seed), "command": " ".join(["python", "benchmarks/trust.py", *sys.argv[1:]])},
        }
    )
    out = args.out or (None if args.quick else RESULTS / "trust.json")
    if out:
        write_json(out, result)
    if args.json:
        print(json.dumps(result, indent=2))


def in_words(one: Promises) -> str:
    """Say in one line how a system's promises were kept."""
    return (
        f"{one.system}: kept in {one.kept:.1%} of repeats, reaches {one.reach:.1%} of {one.oracle} steps; violated by "
        f"{one.violations:.1%}, 1-(1-e)^T {one.closed_form[0]:.1%}, mean curve {one.mean_curve[0]:.1%}; bands cover "
        f"{one.pointwise[0]:.1%} to {one.pointwise[1]:.1%} at a step, {one.trajectory:.1%} of trajectories"
    )


if __name__ == "__main__":
    main()
