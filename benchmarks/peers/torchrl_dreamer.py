"""DreamerV3 of TorchRL and of foreworld, update by update in turn: python benchmarks/peers/torchrl_dreamer.py.

TorchRL is no dependency of foreworld. It runs as a child process in an environment of its own:

    python -m venv peers
    peers/bin/pip install torchrl==0.14.1 tensordict==0.14.3 torch==2.13.0 numpy==2.4.6
    python benchmarks/peers/torchrl_dreamer.py --peer-python peers/bin/python [--json]

Both build the size 1m for 24 numbers and a box of 6 actions, and learn one batch of 16 windows of 64 steps with
imagination of 15 steps: world model, actor, critic, optimiser, slow critic. Both take the same number of threads, and
time is CPU time of the process, as wall time lies on a shared machine. After a warm-up they take turns, so that
what else the machine does falls on both. The loss of both must fall, or it was no update.

`ratio` is TorchRL's CPU seconds per update over foreworld's, medians of both. With `--half`, each also takes turns with
its matrix products in bfloat16 (autocast; foreworld's `online.precision`), and `ratio_half` is that of the better of
TorchRL's two over foreworld's in bfloat16. Imagination is measured by itself too: 15 steps with actor and reward from
1,024 and 8,192 states. `--compile-peer` lets TorchInductor compile TorchRL's
update, which on a CPU TorchRL does only on request; that takes minutes before the first update.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

import foreworld as fw
from foreworld.agents import DreamerLearner
from foreworld.core import Segment
from foreworld.core.errors import ForeworldError
from foreworld.core.files import write_json
from foreworld.nn.precision import Precision, lowered
from foreworld.presets.rssm import FAMILY
from foreworld.studies.speed import matmul_gflops, noise_segment, vector_spec
from foreworld.train.optim import make_optimizer
from foreworld.train.run import environment
from foreworld.train.update import update

RESULT = Path(__file__).parents[1] / "results" / "torchrl_dreamer.json"
CHILD = Path(__file__).with_name("torchrl_learner.py")
BATCH, LENGTH, HORIZON, EPISODE = 16, 64, 15, 100
STATES = (1024, 8192)
INSTALL = "pip install torchrl==0.14.1 tensordict==0.14.3 torch==2.13.0 numpy==2.4.6"


class PeerError(ForeworldError):
    """The peer cannot be measured."""


class Side(Protocol):
    """What is measured."""

    def facts(self) -> dict[str, Any]:
        """Return parameters and settings."""
        ...

    def update(self) -> dict[str, Any]:
        """Do one update; return `cpu_s` and the `loss` before it."""
        ...

    def imagine(self, states: int) -> dict[str, Any]:
        """Imagine 15 steps from so many states; return `cpu_s`."""
        ...


class TorchRL:
    """The child process."""

    def __init__(self, python: Path, threads: int, compiled: bool = False, half: bool = False) -> None:
        command = [str(python), str(CHILD), "--threads", str(threads)]
        command += [*(["--compile"] if compiled else []), *(["--half"] if half else [])]
        try:
            # the child writes to our standard error what it has to say
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environ(threads)
            )
        except OSError as error:
            raise PeerError(f"--peer-python {python} cannot be run: {error.strerror}") from error

    def facts(self) -> dict[str, Any]:
        """Return parameters, versions, threads."""
        return self._ask("facts")

    def update(self) -> dict[str, Any]:
        """Do one update."""
        return self._ask("update")

    def imagine(self, states: int) -> dict[str, Any]:
        """Imagine from so many states."""
        return self._ask(f"imagine {states}")

    def close(self) -> None:
        """Let the child end."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()

    def _ask(self, what: str) -> dict[str, Any]:
        assert self.child.stdin is not None and self.child.stdout is not None
        try:
            self.child.stdin.write(what + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # then nothing is answered either
        answer = self.child.stdout.readline()
        if not answer:
            raise PeerError(f"the peer ended at '{what}', exit code {self.child.wait()}; it needs: {INSTALL}")
        return json.loads(answer)


class Foreworld:
    """The same update here."""

    def __init__(self, precision: Precision = "float32") -> None:
        torch.manual_seed(0)
        self.precision = precision
        self.model = fw.RSSM(vector_spec(), FAMILY.config("1m"))
        self.agent = fw.Dreamer(self.model, units=self.model.config.units)
        self.learner = DreamerLearner(self.model, self.agent).train()
        # the child's rate: high enough that a few updates move the loss
        self.optimizer = make_optimizer(self.learner, replace(FAMILY.fit("1m"), lr=1e-3, warmup=1))
        self.segment = synthetic_segment()

    def facts(self) -> dict[str, Any]:
        """Return the trainable parameters."""
        return {
            "precision": self.precision,
            "parameters": sum(p.numel() for p in self.learner.parameters() if p.requires_grad),
        }

    def update(self) -> dict[str, Any]:
        """Do one update."""
        with lowered("cpu", self.precision):
            spent, outcome = _timed(lambda: update(self.learner, self.optimizer, self.segment))
        values = outcome.numbers()
        losses = {name: values[f"loss/{name}"] * weight for name, weight in self.learner.loss_weights.items()}
        return {**spent, "loss": sum(losses.values()), "losses": losses}

    def imagine(self, states: int) -> dict[str, Any]:
        """Imagine from so many states."""
        start = self.model.initial(states)

        def dream() -> None:
            with torch.no_grad(), lowered("cpu", self.precision):
                fw.imagine(self.model, start, self.agent.policy, HORIZON)

        return _timed(dream)[0]


def synthetic_segment() -> Segment:
    """Draw 16 windows of 64 rows from episodes of 100: noise of unit scale, in which nothing is to be learned."""
    noise = noise_segment(vector_spec(), BATCH, LENGTH)
    row = (torch.arange(LENGTH) + torch.randint(EPISODE, (BATCH, 1))) % EPISODE
    first, last = row == 0, row == EPISODE - 1
    action = noise.prev_action
    assert action is not None
    return replace(
        noise,
        prev_action=action * ~first.unsqueeze(-1),
        reward=noise.reward * ~first,
        is_first=first,
        is_terminal=last,
        is_last=last.clone(),
    )


def measure(sides: dict[str, Side], warm: int, updates: int, dreams: int) -> dict[str, dict[str, Any]]:
    """Let the sides take turns and return what each took."""
    found = {name: side.facts() for name, side in sides.items()}
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(warm + updates):
        for name, side in sides.items():
            turns[name].append(side.update())
    for name, taken in turns.items():
        spent = [turn["cpu_s"] for turn in taken[warm:]]
        median = statistics.median(spent)
        found[name] |= {
            "cpu_s_per_update": round(median, 4),
            "cpu_s_of_updates": [round(s, 4) for s in spent],
            "imagined_steps_per_core_s_in_update": round(BATCH * LENGTH * HORIZON / median),
            "loss_first": round(taken[0]["loss"], 3),
            "loss_last": round(taken[-1]["loss"], 3),
        }
    for states in STATES:
        spent = {name: [] for name in sides}
        for i in range(1 + dreams):
            for name, side in sides.items():
                cpu = side.imagine(states)["cpu_s"]
                spent[name] += [cpu] if i else []
        for name in sides:
            rate = states * HORIZON / statistics.median(spent[name])
            found[name].setdefault("imagined_steps_per_core_s", {})[str(states)] = round(rate)
    return found


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Divide what the peer takes by what foreworld takes."""
    peer, ours = found["torchrl"], found["foreworld"]
    rates = ours["imagined_steps_per_core_s"]
    half = {}
    if "foreworld_half" in found:
        best = min(found[name]["cpu_s_per_update"] for name in ("torchrl", "torchrl_half"))
        half = {"ratio_half": round(best / found["foreworld_half"]["cpu_s_per_update"], 2)}
    return half | {
        "ratio": round(peer["cpu_s_per_update"] / ours["cpu_s_per_update"], 2),
        "imagination_ratio": {n: round(rates[n] / peer["imagined_steps_per_core_s"][n], 2) for n in rates},
        "losses_fell": all(side["loss_last"] < side["loss_first"] for side in found.values()),
    }


def show(result: dict[str, Any]) -> None:
    """Print the comparison for people."""
    print(f"{'':14}  parameters  CPU s/update  imagined steps/core-s: in update  alone, 1024  alone, 8192  loss")
    for name, side in result["sides"].items():
        rates = side["imagined_steps_per_core_s"]
        print(
            f"{name:14}  {side['parameters']:10,}  {side['cpu_s_per_update']:12.3f}"
            f"  {side['imagined_steps_per_core_s_in_update']:32,}  {rates['1024']:11,}  {rates['8192']:11,}"
            f"  {side['loss_first']:.1f} -> {side['loss_last']:.1f}"
        )
    half = f", in bfloat16 {result['ratio_half']:.2f}" if "ratio_half" in result else ""
    print(f"ratio {result['ratio']:.2f}{half}, imagination alone {result['imagination_ratio']}")


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return CPU and wall seconds of a call and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}, found


def _environ(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}


def main() -> None:
    """Measure both and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, help="interpreter of the environment with TorchRL")
    parser.add_argument("--compile-peer", action="store_true", help="compile TorchRL's update; nothing is kept")
    parser.add_argument("--half", action="store_true", help="both in bfloat16 too")
    parser.add_argument("--updates", type=int, default=20, help="timed, of each side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warm, updates, dreams = (1, 3, 1) if args.quick else (3, args.updates, 5)
    try:
        with ExitStack() as stack:
            sides: dict[str, Side] = {"foreworld": Foreworld()}
            sides |= {"foreworld_half": Foreworld("bfloat16")} if args.half else {}
            for name, half in (("torchrl", False), *([("torchrl_half", True)] if args.half else [])):
                peer = TorchRL(args.peer_python, args.threads, args.compile_peer, half)
                stack.callback(peer.close)
                sides[name] = peer
            found = measure(sides, warm, updates, dreams)
    except PeerError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    given = ["peers/bin/python" if one == str(args.peer_python) else one for one in sys.argv[1:]]
    command = " ".join(["python", "benchmarks/peers/torchrl_dreamer.py", *given])
    result = {
        "made": {**environment(0), "command": command},
        "settings": {"size": "1m", "obs": 24, "action": 6, "batch": BATCH, "length": LENGTH, "horizon": HORIZON}
        | {"warm": warm, "updates": updates, "threads": args.threads},
        **compare(found),
        "matmul_gflops": round(matmul_gflops(), 1),
        "sides": found,
    }
    if not (args.quick or args.compile_peer):
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
