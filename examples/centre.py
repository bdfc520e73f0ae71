"""An environment of your own, seen by a camera and a sensor, and moved by two motors.

    cd examples
    foreworld agent --env centre:Centre --out centre
    foreworld act --run centre --env centre:Centre --episodes 100

Nothing is registered: the class's name is enough, and settings for pictures are taken because it shows some. A dot that
moves at random earns 16.4 in an episode, one that goes straight to the middle 47.9 (`python centre.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIDE, DOT, LENGTH, PACE = 32, 5, 50, 0.1


class Centre(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """Bring a dot to the middle and keep it there; a step is paid by how near it is."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "camera": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                "place": spaces.Box(-1, 1, (2,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.place, self.steps = np.zeros(2), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin anywhere."""
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move by a tenth of the action."""
        self.place = np.clip(self.place + PACE * np.asarray(action), -1, 1)
        self.steps += 1
        return self._seen(), float(1 - np.abs(self.place).max()), False, self.steps >= LENGTH, {}

    def _seen(self) -> dict[str, np.ndarray]:
        camera = np.zeros((SIDE, SIDE, 3), np.uint8)
        row, column = ((self.place + 1) / 2 * (SIDE - DOT)).astype(int)
        camera[row : row + DOT, column : column + DOT] = 255
        return {"camera": camera, "place": self.place.astype(np.float32)}


def earned(choose: Callable[[dict[str, np.ndarray]], np.ndarray], episodes: int = 100) -> float:
    """Return the mean return of a way to choose actions."""
    env, total = Centre(), 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=1_000_000 + episode)
        over = False
        while not over:
            obs, reward, _, over, _ = env.step(choose(obs))
            total += reward
    return total / episodes


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    print(f"random {earned(lambda _: rng.uniform(-1, 1, 2)):.1f}")
    print(f"straight {earned(lambda obs: np.clip(-obs['place'] / PACE, -1, 1)):.1f}")
