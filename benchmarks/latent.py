"""Is it better to predict in latent space or in pixels? python benchmarks/latent.py --run runs/demo [--json].

One trained model, asked twice on frames that it was never trained on: once it goes on from latent state to latent
state, as it was trained to; once every predicted frame is decoded and read back as if it had been seen, so that what
the picture does not hold is lost at every step. `make demo` trains the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from foreworld.core.files import write_json
from foreworld.data import load
from foreworld.eval import evaluate_open_loop
from foreworld.eval.windows import sum_by_episode
from foreworld.ops import bootstrap_ratio
from foreworld.studies.grounded import Grounded
from foreworld.studies.openloop import parts
from foreworld.train import load_run
from foreworld.train.run import environment

RESULT = Path(__file__).parent / "results" / "latent.json"
HORIZONS = (1, 10, 50)
SETTINGS = {"horizon": 50, "context": 30, "samples": 8, "per_episode": 2}


def main() -> None:
    """Ask the model both ways and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="run folder of a model that decodes pictures"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    started, run = time.process_time(), load_run(args.run)
    heldout, _ = parts(run, load(run.data))
    models = {"latent": run.model, "pixels": Grounded(run.model)}
    found = {name: evaluate_open_loop(model, heldout, {}, **SETTINGS) for name, model in models.items()}
    squares = [sum_by_episode(one.main.errors**2, one.episode) for one in found.values()]
    ratio = bootstrap_ratio(*squares, root=True)
    rows = {
        str(h): {
            **{name: float(one.main.every.errors["model"].value[h - 1]) for name, one in found.items()},
            "ratio": [float(part[h - 1]) for part in (ratio.value, ratio.low, ratio.high)],
        }
        for h in HORIZONS
    }
    result = {
        "made": {**environment(0), "command": " ".join(["python", "benchmarks/latent.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - started),
        "settings": {"env": heldout.source.env, "updates": run.step, "unit": "nrmse", **SETTINGS},
        "episodes": heldout.episodes,
        "horizons": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for h, row in rows.items():
        value, low, high = row["ratio"]
        errors = f"latent {row['latent']:.3f}, pixels {row['pixels']:.3f}"
        print(f"{h:>3} steps: {errors}, ratio {value:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
