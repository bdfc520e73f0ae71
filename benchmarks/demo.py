"""Reproduce the demo's numbers: python benchmarks/demo.py [--seed 0] [--keep runs/demo].

Runs `foreworld demo` in a scratch folder, or in one to keep, and writes the result, with hardware and versions, to
benchmarks/results/demo-seed<seed>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the demo and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a minute's worth, written to a file of its own")
    parser.add_argument("--keep", type=Path, help="folder of the run: a new one, with report and pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.keep or Path(scratch) / "demo"
        command = [sys.executable, "-m", "foreworld.cli", "demo", "--out", str(out), "--seed", str(args.seed), "--json"]
        started = time.monotonic()
        subprocess.run([*command, *(["--quick"] if args.quick else [])], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        result = json.loads((out / "result.json").read_text())
        made = json.loads((out / "env.json").read_text())
    result["report"] = "report.html"
    made["command"] = f"foreworld demo --seed {args.seed}" + (" --quick" if args.quick else "")
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"demo{'-quick' if args.quick else ''}-seed{args.seed}.json"
    target.write_text(json.dumps({"made": made, "wall_seconds": round(seconds), "result": result}, indent=2) + "\n")
    print(f"{target}: {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
