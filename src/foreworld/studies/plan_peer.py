"""Planning beside stable-worldmodel's solver: the same predictor, the same search, in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from foreworld.core.errors import ForeworldError
from foreworld.studies.plan_speed import ACTIONS, Planning
from foreworld.studies.speed import matmul_gflops

CHILD = Path(__file__).with_name("swm_child.py")
INSTALL = (
    "pip install --no-deps stable-worldmodel==0.1.1; pip install torch==2.13.0 numpy==2.4.6 gymnasium==1.4.0 loguru"
)
CHECKED = 16
"""Candidates of each environment whose cost both sides must agree upon."""


class PeerError(ForeworldError):
    """The peer cannot be measured."""


class Peer:
    """The solver of stable-worldmodel in a process of its own, of one thread, with the predictor of a `Planning`.

    Args:
        python: interpreter of an environment with stable-worldmodel.
        planning: whose weights, starts, goals and search it gets.

    Raises:
        PeerError: the interpreter cannot be run.
    """

    def __init__(self, python: str, planning: Planning) -> None:
        """Start the process."""
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "predictor.npz"
        batch, horizon = len(planning.start), planning.planner.horizon
        source = torch.Generator().manual_seed(1)
        self.check = 2 * torch.rand(batch, CHECKED, horizon, ACTIONS, generator=source) - 1
        weights = {name: value.numpy() for name, value in planning.model.state_dict().items()}
        np.savez(file, start=planning.start, goal=planning.goal, check=self.check, **weights)
        planner = planning.planner
        settings = {"samples": planner.candidates, "iterations": planner.iterations, "elites": planner.elites}
        command = [python, str(CHILD), json.dumps(settings | {"horizon": horizon, "file": str(file)})]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environ,
            )
        except OSError as error:
            self._folder.cleanup()
            raise PeerError(f"--peer-python {python} cannot be run: {error.strerror}") from error

    def ask(self, what: str, environments: int, batch_size: int = 1) -> dict[str, Any]:
        """Ask for `costs` of the candidates to check, or for a `plan` and its CPU seconds.

        Raises:
            PeerError: the process ended.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        asked = {"what": what, "environments": environments, "batch_size": batch_size}
        try:
            self._child.stdin.write(json.dumps(asked) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # then nothing is answered either
        answer = self._child.stdout.readline()
        if not answer:
            raise PeerError(f"the peer ended at '{what}', exit code {self._child.wait()}; it needs: {INSTALL}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the process end."""
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe is not None
            pipe.close()
        self._child.wait()
        self._folder.cleanup()


def find_peer(python: str | None) -> str | None:
    """Return an interpreter that can import stable-worldmodel's solver; None if there is none.

    Args:
        python: as it was named; None tries the one that runs this.
    """
    return python or (sys.executable if importlib.util.find_spec("stable_worldmodel") else None)


def versus(planning: Planning, python: str, environments: Sequence[int], turns: int = 5) -> dict[str, Any]:
    """Let both plan in turn, and say what each took.

    Args:
        planning: foreworld's side, on the CPU.
        python: interpreter of the peer.
        environments: how many to plan for at once; the peer solves them one after another, as it does unless told
            otherwise, and all at once.
        turns: timed, of each side; one more comes before.

    Returns:
        By environments, CPU seconds for a plan of all of them (medians), and the peer's over foreworld's.

    Raises:
        PeerError: the peer cannot be run, or its predictor is another.
    """
    with Peer(python, planning) as peer:
        told = peer.ask("costs", len(planning.start))
        apart = float((planning.costs(peer.check) - torch.tensor(told["costs"])).abs().max())
        if apart > 1e-4:
            raise PeerError(f"the peer's costs of the same candidates differ by {apart:.2g}: its predictor is another")
        found = {str(count): _in_turn(planning, peer, count, turns) for count in environments}
    return {"peer": f"stable-worldmodel {told['version']}", "costs_differ_by": apart, "environments": found}


def _in_turn(planning: Planning, peer: Peer, count: int, turns: int) -> dict[str, float]:
    """Time plans for so many environments."""
    spent: dict[str, list[float]] = {}
    ways = {"peer": 1, **({"peer_batched": count} if count > 1 else {})}
    gflops = matmul_gflops()
    for _ in range(turns + 1):
        began = time.process_time()
        planning.plan(count)
        spent.setdefault("foreworld", []).append(time.process_time() - began)
        for name, size in ways.items():
            spent.setdefault(name, []).append(peer.ask("plan", count, size)["cpu_s"])
    least = planning.flops(count) / 1e9 / max(gflops, matmul_gflops())
    median = {name: statistics.median(times[1:]) for name, times in spent.items()}
    ratios = {name.replace("peer", "ratio"): round(median[name] / median["foreworld"], 2) for name in ways}
    return {
        **{f"{name}_cpu_s": round(value, 4) for name, value in median.items()},
        **{f"{name}_fraction_of_matmul": round(least / value, 3) for name, value in median.items()},
        **ratios,
    }
