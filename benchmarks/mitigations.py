"""What are the usual remedies against compounding error worth? python benchmarks/mitigations.py [--quick] [--json].

Multi-step training, ensembles, frequent replanning, and predicting in latent space instead of observations, each on
and off on one bundled world, with the same data, the same number of updates and three seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from foreworld.core.files import write_json
from foreworld.studies.mitigations import MitigationsConfig, Row, mitigations
from foreworld.train.run import environment

RESULT = Path(__file__).parent / "results" / "mitigations.json"
QUICK = MitigationsConfig(episodes=40, seeds=1, members=2, steps=60, starts=4, candidates=8, intervals=(5, 50))


def as_json(row: Row) -> dict[str, object]:
    """Write one row as plain values."""
    effect = {"value": float(row.effect.value), "low": float(row.effect.low), "high": float(row.effect.high)}
    return {**asdict(row), "effect": effect}


def main() -> None:
    """Run the study and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = QUICK if args.quick else MitigationsConfig()
    started = time.process_time()
    rows = mitigations(config, lambda text: print(f"{time.process_time() - started:6.0f} s  {text}", file=sys.stderr))
    result = {
        "made": {**environment(0), "command": " ".join(["python", "benchmarks/mitigations.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - started),
        "settings": asdict(config),
        "rows": [as_json(row) for row in rows],
    }
    if not args.quick:
        RESULT.parent.mkdir(exist_ok=True)
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for row in rows:
        effect = f"{float(row.effect.value):.3f} ({float(row.effect.low):.3f} to {float(row.effect.high):.3f})"
        change = f"{row.without:.3f} -> {row.with_it:.3f}, {effect}: {row.verdict}"
        print(f"{row.remedy}: {row.off} -> {row.on}; {row.measure}: {change}")


if __name__ == "__main__":
    main()
