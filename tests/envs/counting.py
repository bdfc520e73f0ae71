"""An environment whose observation is its own step index and last action."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counting(gym.Env[Any, Any]):
    """Count steps; episodes last 2, 3, 4, ... steps, odd ones end in a terminal state, even ones are cut off."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10, "frame_skip": 2}

    def __init__(self, index: int = 0, nested: bool = True) -> None:
        self.index, self.nested, self.played = index, nested, 0
        self.action_space = spaces.Discrete(5, start=1)
        count = spaces.Box(0, np.inf, (3,), np.float64)
        self.observation_space: Any = (
            spaces.Dict({"inner": spaces.Dict({"count": count}), "truth/played": spaces.Box(0, 999, (), np.int32)})
            if nested
            else count
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.played += 1
        self.at = 0
        return self.observe(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.at += 1
        over = self.at == self.played + 1
        odd = self.played % 2 == 1
        return self.observe(int(action)), float(self.at), over and odd, over and not odd, {}

    def observe(self, action: int) -> Any:
        count = np.array([self.index, self.at, action], np.float64)
        return {"inner": {"count": count}, "truth/played": np.int32(self.played)} if self.nested else count
