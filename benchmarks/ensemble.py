"""How much nearer to the truth is an ensemble than its members? python benchmarks/ensemble.py [--quick] [--json].

Per seed: a random player's games of Pendulum-v1, an ensemble of five small RSSMs trained on three quarters of them,
and the open-loop errors on the rest of the ensemble, of its members one by one, and of trivial baselines. Everything
predicts by modes, so that no sampling noise is averaged away.

The factor f is the ensemble's error over its members' root mean square. From it follows the mean correlation rho of
the members' errors, f = sqrt((1 + (M - 1) rho) / M): 0 where they are independent, 1 where an ensemble is of no use.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import foreworld as fw
from foreworld.core.files import write_json
from foreworld.models.rssm import RSSMConfig
from foreworld.train import FitConfig
from foreworld.train.run import environment

RESULT = Path(__file__).parent / "results" / "ensemble.json"
ENV = "Pendulum-v1"
HORIZONS = (1, 5, 10, 20, 50)
CONTEXT = 10
BASELINES = ("copy_last", "mean", "linear")
EACH = RSSMConfig(deter=128, units=64, latents=16, layers=2, latent="gaussian", rep_weight=0.05)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seeds: int
    episodes: int
    steps: int
    members: int = 5


FULL = Size(seeds=3, episodes=60, steps=1500)
QUICK = Size(seeds=1, episodes=24, steps=60)


def errors(size: Size, seed: int) -> dict[str, np.ndarray]:
    """Train an ensemble and return errors by step: `ensemble`, `member 0` to `member 4`, and the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        data = fw.collect(ENV, episodes=size.episodes, out=f"{folder}/episodes", seed=seed)
        train, heldout = data.split(0.25)
        torch.manual_seed(seed)
        model = fw.Ensemble(train.spec, member="rssm", members=size.members, each=EACH)
        settings = FitConfig(steps=size.steps, batch=8, length=16, lr=1.5e-3, warmup=50, decay=0.4, seed=seed)
        fw.fit(model, train, settings)
        model.eval()
        names = {"ensemble": model} | {f"member {i}": one for i, one in enumerate(model.models)}
        found: dict[str, np.ndarray] = {}
        with fw.deterministic():
            for name, one in names.items():
                steps = {"horizon": max(HORIZONS), "context": CONTEXT, "samples": 1, "per_episode": 4, "batch": 64}
                measured = fw.evaluate(one, heldout, train, seed=seed, **steps).every.errors
                found[name] = measured["model"].value
                found |= {baseline: measured[baseline].value for baseline in BASELINES}
    return found


def cells(found: dict[str, np.ndarray], members: int) -> dict[str, dict[str, float]]:
    """Turn errors by step into a row for each horizon."""
    each = np.stack([found[f"member {i}"] for i in range(members)])
    member = np.sqrt(np.square(each).mean(0))
    factor = found["ensemble"] / member
    columns = {
        "ensemble": found["ensemble"],
        "member": member,
        "best_member": each.min(0),
        "worst_member": each.max(0),
        **{name: found[name] for name in BASELINES},
        "factor": factor,
        "correlation": (members * factor**2 - 1) / (members - 1),
    }
    return {str(h): {name: round(float(value[h - 1]), 4) for name, value in columns.items()} for h in HORIZONS}


def average(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Average the rows over seeds; of the factor also the least and the greatest."""
    found: dict[str, dict[str, float]] = {}
    for h in runs[0]:
        row = {name: round(float(np.mean([run[h][name] for run in runs])), 4) for name in runs[0][h]}
        factors = [run[h]["factor"] for run in runs]
        found[h] = row | {"factor_min": min(factors), "factor_max": max(factors)}
    return found


def show(table: dict[str, dict[str, float]]) -> None:
    """Print the rows for people."""
    names = ["ensemble", "member", "best_member", *BASELINES, "factor", "correlation"]
    print("steps ahead  " + "  ".join(f"{name:>11}" for name in names))
    for h, row in table.items():
        print(f"{h:>11}  " + "  ".join(f"{row[name]:11.3f}" for name in names))


def main() -> None:
    """Run every seed and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds' worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if args.quick else FULL
    started, runs = time.process_time(), []
    for seed in range(size.seeds):
        runs.append(cells(errors(size, seed), size.members))
        print(f"seed {seed}: {time.process_time() - started:.0f} s of CPU", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "made": {**environment(0), "command": " ".join(["python", "benchmarks/ensemble.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - started),
        "settings": {"env": ENV, "context": CONTEXT, "unit": "nrmse", **asdict(size), "each": asdict(EACH)},
        "horizons": average(runs),
        "seeds": runs,
    }
    if not args.quick:
        RESULT.parent.mkdir(exist_ok=True)
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(result["horizons"])


if __name__ == "__main__":
    main()
