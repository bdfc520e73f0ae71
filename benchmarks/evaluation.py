"""How long does an evaluation take, and how much memory? python benchmarks/evaluation.py [--episodes 1000] [--json].

An RSSM of size 1m on vectors of 24 numbers and 6 actions, 100 steps ahead of 10 rows, 8 futures, all baselines, errors
and intervals. Every number of episodes runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import foreworld as fw
from foreworld.core import Space, Spec
from foreworld.core.files import write_json
from foreworld.data import Episode, Writer
from foreworld.presets.rssm import FAMILY
from foreworld.train.run import environment

RESULT = Path(__file__).parent / "results" / "evaluation.json"
TRAIN, CONTEXT, HORIZON = 50, 10, 100
SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(24,), dtype="float32")},
    action=Space(kind="vector", shape=(6,), dtype="float32", low=(-1.0,) * 6, high=(1.0,) * 6),
)


def evaluate(episodes: int) -> dict[str, float]:
    """Evaluate on random numbers, whose errors do not matter here."""
    rng, rows = np.random.default_rng(0), 1 + CONTEXT + HORIZON
    with tempfile.TemporaryDirectory() as folder:
        with Writer(folder, SPEC) as writer:
            for _ in range(episodes + TRAIN):
                action = rng.uniform(-1, 1, (rows, 6)).astype(np.float32)
                action[0] = 0
                obs, reward = rng.normal(size=(rows, 24)), rng.normal(size=rows)
                writer.add(
                    Episode(obs={"obs": obs.astype(np.float32)}, prev_action=action, reward=reward.astype(np.float32))
                )
        data = fw.load(folder)
        train, heldout = data.subset(range(TRAIN)), data.subset(range(TRAIN, TRAIN + episodes))
        model = FAMILY.build(SPEC, FAMILY.config("1m")).eval()
        cpu, wall = time.process_time(), time.perf_counter()
        fw.evaluate(model, heldout, train, horizon=HORIZON, context=CONTEXT, per_episode=1)
        spent = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"episodes": episodes, "cpu_seconds": spent[0], "wall_seconds": spent[1], "peak_megabytes": peak}


def main() -> None:
    """Measure a quarter of the episodes, then all of them, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--one", action="store_true", help="measure this number of episodes only, and print JSON")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(evaluate(args.episodes)))
        return
    rows = []
    for count in (args.episodes // 4, args.episodes):
        command = [sys.executable, __file__, "--one", "--episodes", str(count)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    command = " ".join(["python", "benchmarks/evaluation.py", *sys.argv[1:]])
    result = {"made": {**environment(0), "command": command}, "rows": rows}
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for row in rows:
        print(
            "{episodes} episodes: {cpu_seconds:.1f} s of CPU, {wall_seconds:.1f} s, {peak_megabytes:.0f} MB".format(
                **row
            )
        )


if __name__ == "__main__":
    main()
