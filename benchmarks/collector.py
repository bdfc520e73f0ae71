"""How much faster is an agent trained whose actions are taken while the updates run? On an environment that is slow.

python benchmarks/collector.py

Writes benchmarks/results/collector.json: seconds of the same training with both collectors, for environments that wait.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import foreworld as fw
from foreworld.envs import make
from foreworld.train.run import environment

SETTINGS: dict[str, Any] = {
    "steps": 150, "prefill": 40, "batch": 8, "length": 16, "train_ratio": 64, "save_every": 10**6,
}  # fmt: skip
WAITS = (0.0, 0.05, 0.2)
OUT = Path(__file__).parent / "results" / "collector.json"


class Slow(gym.Wrapper):
    """CartPole that waits at every step, as a simulator on another machine does."""

    def __init__(self, seconds: float) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.seconds = seconds

    def step(self, action: Any) -> Any:
        """Wait, then step."""
        time.sleep(self.seconds)
        return self.env.step(action)


def seconds_of(wait: float, collector: str, workers: bool) -> dict[str, float]:
    """Train, and return how long it took."""
    torch.manual_seed(0)
    model = fw.RSSM(make("CartPole-v1").spec, deter=128, units=32, latents=8)
    agent = fw.Dreamer(model, units=32)
    found = fw.train_agent(
        "collector:Slow", model, agent, env_options={"seconds": wait}, collector=collector, workers=workers, **SETTINGS
    )
    return {"seconds": round(found.seconds, 2), "steps": found.steps, "updates": found.updates}


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    lines = []
    for wait in WAITS:
        for workers in (False, True) if wait in (0.05,) else (False,):
            for collector in ("sync", "async"):
                line = {"wait": wait, "workers": workers, "collector": collector}
                lines.append(line | seconds_of(wait, collector, workers))
                print(lines[-1], flush=True)
    machine = {name: environment(0)[name] for name in ("processor", "cores", "threads", "platform")}
    OUT.write_text(json.dumps({"machine": machine, "settings": SETTINGS, "runs": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
