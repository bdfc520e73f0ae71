"""What the agent learns: python benchmarks/agent.py [--env CartPole-v1] [--preset classic] [--seeds 3] [--minutes 60].

Per seed: `foreworld agent` trains for 1,000 steps, `foreworld act` plays 20 episodes with the policy's mode from
starting states not seen before, and `foreworld agent --resume` goes on; at the end 100 episodes. These are the
evaluations of benchmarks/peers/model_free.py, so the environment steps to a threshold compare. Episodes of evaluations
are not counted as steps, and their time is not counted as training.

Interrupted by a signal, or at any other time, the same command goes on: a seed whose result is there is not run again,
and one that was begun is resumed from its last checkpoint. Runs lie in --keep, results in benchmarks/results/. What
stands after `--` is given to `foreworld agent` when a seed begins:

    python benchmarks/agent.py --env Pendulum-v1 --seeds 5 --side-by-side 2 -- --online.train-ratio 256
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peers.threshold import THRESHOLDS, reached, summary

import foreworld as fw
from foreworld.core.files import write_json
from foreworld.presets.agents import agent_preset
from foreworld.train.run import environment

RESULTS = Path(__file__).parent / "results"
STORED_AT_EVALUATION = "played"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every seed does.

    Attributes:
        env: environment id.
        preset: of the agent.
        steps: environment steps of the training.
        minutes: training time after which a seed ends, whatever its steps.
        every: steps between two evaluations.
        episodes: of each of them.
        final: episodes of the last one.
        extra: further arguments of `foreworld agent`.
    """

    env: str
    preset: str
    steps: int
    minutes: float
    every: int
    episodes: int
    final: int
    extra: tuple[str, ...] = ()


@dataclass
class Children:
    """The running commands, which end with this process."""

    threads: int
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def foreworld(self, *arguments: str) -> tuple[dict[str, Any], float]:
        """Run `foreworld ... --json`; return what it printed and its CPU seconds."""
        command = [sys.executable, "-m", "foreworld.cli", *arguments, "--json"]
        environ = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as child:
            with self.lock:
                self.running.add(child)
            assert child.stdout is not None
            printed = child.stdout.read()
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            with self.lock:
                self.running.discard(child)
        if child.returncode:
            raise RuntimeError(f"foreworld {' '.join(arguments)}: exit code {child.returncode}")
        return json.loads(printed), used.ru_utime + used.ru_stime

    def end(self) -> None:
        """Ask all of them to stop; they save a checkpoint first."""
        with self.lock:
            for child in self.running:
                child.terminate()


class Record:
    """The file of results, written after every evaluation of every seed."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.lock = path, threading.Lock()
        settings = json.loads(json.dumps(vars(plan)))
        self.result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
        if self.result.setdefault("settings", settings) != settings:
            sys.exit(f"{path} has results with other settings, {self.result['settings']}; choose another --name")
        self.threshold = THRESHOLDS.get(plan.env)

    def of(self, seed: int) -> dict[str, Any]:
        """Return what is known of a seed."""
        for run in self.result["runs"]:
            if run["seed"] == seed:
                return deepcopy(run)
        empty = {"seed": seed, "done": False, "steps": [], "mean_return": [], "seconds": [], "cpu_seconds": 0.0}
        return {**empty, "returns": []}

    def keep(self, run: dict[str, Any]) -> None:
        """Write what is known of a seed now."""
        if self.threshold is not None:
            run |= reached(run["steps"], run["returns"], self.threshold)
        now = deepcopy(run)  # its thread goes on to change it, while another writes
        with self.lock:
            others = [other for other in self.result["runs"] if other["seed"] != now["seed"]]
            self.result["runs"] = sorted([*others, now], key=lambda one: one["seed"])
            command = " ".join(["python", "benchmarks/agent.py", *sys.argv[1:]])
            self.result["made"] = {**environment(now["seed"]), "command": command}
            self.result["summary"] = self._summary()
            write_json(self.path, self.result)

    def _summary(self) -> dict[str, Any]:
        done = [run for run in self.result["runs"] if run["done"]]
        finals = [run["final"]["mean_return"] for run in done]
        found: dict[str, Any] = {"done": len(done), "final_mean_return": finals}
        if done and self.threshold is not None:
            found |= {"threshold": self.threshold, "above": sum(one >= self.threshold for one in finals)}
            found |= summary(done)
        return found


def play(children: Children, folder: Path, episodes: int, seed: int) -> tuple[dict[str, Any], list[float]]:
    """Let the agent act; return what `act` says and the return of every episode."""
    played = folder / STORED_AT_EVALUATION
    found, _ = children.foreworld(
        *("act", "--run", str(folder), "--episodes", str(episodes), "--seed", str(seed)),
        *("--out", str(played), "--overwrite"),
    )
    data = fw.load(played)
    returns = [round(float(data.raw(i)["reward"].sum(dtype=np.float64)), 4) for i in range(data.episodes)]
    shutil.rmtree(played)
    return found, returns


def learn(children: Children, record: Record, plan: Plan, seed: int, folder: Path) -> None:
    """Train one seed, from its start or from where it stopped, and evaluate it on the way."""
    run = record.of(seed)
    if run["done"]:
        return
    late = False
    while not late and (not run["steps"] or run["steps"][-1] < plan.steps):
        target = min(plan.steps, (run["steps"][-1] if run["steps"] else 0) + plan.every)
        limits = ["--steps", str(target), "--minutes", str(plan.minutes)]
        if any((folder / "checkpoints").glob("*")):
            begin = ["--resume", str(folder)]
        else:
            if folder.exists():  # ended before its first checkpoint
                shutil.rmtree(folder)
            begin = ["--env", plan.env, "--preset", plan.preset, "--seed", str(seed), "--out", str(folder)]
            begin += plan.extra
        trained, cpu = children.foreworld("agent", *begin, *limits)
        late = trained["steps"] < target
        _, returns = play(children, folder, plan.episodes, seed=1 + trained["steps"])
        run["steps"].append(trained["steps"])
        run["returns"].append(returns)
        run["mean_return"].append(round(float(np.mean(returns)), 4))
        run["seconds"].append(round(trained["seconds"], 1))
        run["cpu_seconds"] = round(run["cpu_seconds"] + cpu, 1)
        run["updates"] = trained["updates"]
        record.keep(run)
        now = f"{trained['steps']} steps, {trained['seconds'] / 60:.1f} minutes: {run['mean_return'][-1]:.4g}"
        print(f"seed {seed}: {now}", file=sys.stderr, flush=True)
    final, returns = play(children, folder, plan.final, seed=0)
    kept = {name: final[name] for name in ("mode", "episodes", "mean_return", "ci_low", "ci_high", "confidence")}
    run |= {"done": True, "final": {**kept, "returns": returns}}
    record.keep(run)


def show(result: dict[str, Any]) -> None:
    """Print a line for every seed."""
    for run in result["runs"]:
        final = run.get("final")
        said = f"{final['mean_return']:.4g} ({final['ci_low']:.4g} to {final['ci_high']:.4g})" if final else "not done"
        first = f", threshold first at step {run['first_step']}" if "first_step" in run else ""
        print(
            f"seed {run['seed']}: {said} after {run['steps'][-1]} steps, {run['seconds'][-1] / 60:.0f} minutes{first}"
        )
    print(f"summary: {json.dumps(result['summary'])}")


def main() -> None:
    """Run every seed that is not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="by default those of the preset")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, for each seed")
    parser.add_argument("--every", type=int, default=1_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--final", type=int, default=100)
    parser.add_argument("--side-by-side", type=int, default=1, help="seeds at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--name", help="of the file of results; by default agent-<env>-<preset>")
    parser.add_argument("--keep", type=Path, default=Path("runs") / "benchmark")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments, marked, extra = sys.argv[1:], "--", []
    if marked in arguments:
        at = arguments.index(marked)
        arguments, extra = arguments[:at], arguments[at + 1 :]
    args = parser.parse_args(arguments)
    plan = Plan(
        env=args.env,
        preset=args.preset,
        steps=args.steps or agent_preset(args.preset).online.steps,
        minutes=args.minutes,
        every=args.every,
        episodes=args.episodes,
        final=args.final,
        extra=tuple(extra),
    )
    name = args.name or f"agent-{args.env.replace('/', '-').replace(':', '-')}-{args.preset}"
    record, children = Record(RESULTS / f"{name}.json", plan), Children(args.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(args.side_by_side))
        stack.callback(children.end)
        asked = [
            pool.submit(learn, children, record, plan, seed, args.keep / name / f"seed{seed}")
            for seed in range(args.seeds)
        ]
        try:
            for one in asked:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if args.json:
        print(json.dumps(record.result, indent=2))
    else:
        show(record.result)


if __name__ == "__main__":
    main()
