"""How many pictures of MuJoCo come in a second of one core, in full and drawn fast, and how far are they apart?

python benchmarks/rendering.py

Writes benchmarks/results/rendering.json. An environment whose package is not installed is left out, and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.errors import MissingExtra
from foreworld.envs import builder
from foreworld.train.run import environment

os.environ.setdefault("MUJOCO_GL", "egl")

ENVS = ("HalfCheetah-v5", "Hopper-v5", "dmc/walker-walk", "PointMaze_UMaze-v3", "ogbench/pointmaze-medium-v0")
SIZE = 64
STEPS, ROUNDS = 30, 3
OUT = Path(__file__).parent / "results" / "rendering.json"


def measure(env_id: str, quality: str) -> dict[str, Any]:
    """Step with pictures; the least time of several rounds, and the pictures of the first steps."""
    env = builder(env_id, image=True, image_size=SIZE, render_quality=quality)()
    rng, shape = np.random.default_rng(0), env.action_space.shape
    frames = [env.reset(seed=0)[0]["image"]]
    seconds = []
    for _ in range(ROUNDS):
        before = time.process_time()
        for _ in range(STEPS):
            obs, _, over, cut, _ = env.step(rng.uniform(-1, 1, shape).astype(np.float32))
            frames.append(obs["image"])
            if over or cut:
                env.reset()
        seconds.append((time.process_time() - before) / STEPS)
    env.close()
    return {"steps_per_second": round(1 / min(seconds), 1), "frames": np.stack(frames[:STEPS])}


def of(env_id: str) -> dict[str, Any]:
    """Measure both qualities of one environment, alone in its process."""
    try:
        full, fast = measure(env_id, "full"), measure(env_id, "fast")
    except MissingExtra as fault:
        return {"env": env_id, "left_out": str(fault)}
    apart = np.abs(full["frames"].astype(int) - fast["frames"]).mean()
    found = {"env": env_id, "size": SIZE, "full": full["steps_per_second"], "fast": fast["steps_per_second"]}
    return found | {"times": round(found["fast"] / found["full"], 1), "mean_difference_of_255": round(float(apart), 1)}


def main() -> None:
    """Measure every environment in a process of its own, and write."""
    lines = []
    for env_id in ENVS:
        done = subprocess.run([sys.executable, __file__, env_id], capture_output=True, text=True, check=True)
        lines.append(json.loads(done.stdout.splitlines()[-1]))
        print(lines[-1], flush=True)
    machine = {name: environment(0)[name] for name in ("processor", "cores", "threads", "platform")}
    made = {"command": "python benchmarks/rendering.py", "seed": 0, "gl": os.environ["MUJOCO_GL"], **machine}
    OUT.write_text(
        json.dumps({"made": made, "unit": "steps with a picture, a CPU second", "runs": lines}, indent=1) + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(of(sys.argv[1])))
    else:
        main()
