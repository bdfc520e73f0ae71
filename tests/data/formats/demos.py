"""Demonstrations in robomimic's documented layout, written by h5py alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")


@dataclass(frozen=True)
class Demo:
    """One episode: T+1 observations around T actions."""

    obs: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    states: np.ndarray


def random_demo(rng: np.random.Generator, steps: int) -> Demo:
    """Draw an episode whose every number tells from the others."""
    obs: dict[str, np.ndarray] = {name: rng.integers(0, 256, (steps + 1, 20, 24, 3), np.uint8) for name in CAMERAS}
    obs |= {"robot0_eef_pos": rng.normal(size=(steps + 1, 3)), "object": rng.normal(size=(steps + 1, 10))}
    action, reward = rng.uniform(-1, 1, (steps, 7)), rng.integers(0, 2, steps).astype(float)
    return Demo(obs, action, reward, rng.normal(size=(steps, 32)))


def write_demos(path: Path, demos: list[Demo], *, outcome: bool = True, done: int = 1) -> Path:
    """Write demonstrations as robomimic's own scripts do."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number, demo in enumerate(demos):
            held: Any = data.create_group(f"demo_{number}")
            held.attrs["num_samples"], held.attrs["model_file"] = len(demo.action), "<mujoco/>"
            held["actions"], held["rewards"], held["states"] = demo.action, demo.reward, demo.states
            held["dones"] = np.eye(len(demo.action), dtype=int)[-1] * done
            for key, rows in demo.obs.items():
                held.create_dataset(f"obs/{key}", data=rows[:-1], compression="gzip")
                if outcome:
                    held.create_dataset(f"next_obs/{key}", data=rows[1:], compression="gzip")
        data.attrs["total"] = sum(len(demo.action) for demo in demos)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        file["mask/train"] = np.array([f"demo_{i}" for i in range(0, len(demos), 2)], dtype="S8")
        file["mask/valid"] = np.array([f"demo_{i}" for i in range(1, len(demos), 2)], dtype="S8")
    return path
