"""PushT of gym-pusht: push a T-shaped block onto its outline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH
from foreworld.envs.area import resize_area

IDS = ("gym_pusht/PushT-v0",)
DRAWN = 96
"""Side of the package's own pictures."""

STEPS = 300
"""Steps of an episode, as the package registers it."""


class GymPushT(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """The task: `obs` (agent x, y; block x, y, angle), `goal` (block x, y, angle), a picture if wanted, `truth/state`.

    An action is where the agent is to go, in [0, 512]. The reward is the covered share of the goal over 0.95, at most
    1; above that share the episode ends in success, and after `steps` it is cut off. A restored moment is reached by
    acting the same again from the start, as what pymunk remembers of contacts cannot be copied.

    Reference:
        Chi et al., 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", PushT.
    """

    def __init__(self, *, image: bool = False, image_size: int | None = 64, steps: int = STEPS, **options: Any) -> None:
        """Open the task.

        Args:
            image: observe a picture too.
            image_size: side of the square picture, averaged from 96 x 96; None for 96.
            steps: after which an episode is cut off.
            **options: `damping` and `block_cog` of the package.
        """
        if steps < 1:
            raise ConfigError(f"{IDS[0]}: an episode has at least 1 step, found steps={steps}")
        package: Any = import_module("gym_pusht.envs.pusht")
        self._task: Any = package.PushTEnv(obs_type="state", render_mode="rgb_array", **options)
        self._image, self._size, self._steps = image, image_size or DRAWN, steps
        self._start, self._done = np.zeros(0), np.zeros((0, 2), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self._task.control_hz}
        self.render_mode = "rgb_array"
        self.action_space = self._task.action_space
        found: dict[str, spaces.Space[Any]] = {
            "obs": spaces.Box(-np.inf, np.inf, (5,), np.float64),
            "goal": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            TRUTH + "state": spaces.Box(-np.inf, np.inf, (10,), np.float64),
        }
        if image:
            found["image"] = spaces.Box(0, 255, (self._size, self._size, 3), np.uint8)
        self.observation_space: spaces.Space[Any] = spaces.Dict(found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a start; `options` may state it, `reset_to_state` [5] as in `obs`."""
        super().reset(seed=seed)
        state = (options or {}).get("reset_to_state")
        drawn = self._draw() if state is None else np.asarray(state, np.float64)
        if drawn.shape != (5,):
            raise ConfigError(f"{IDS[0]}: reset_to_state has shape {drawn.shape}, expected (5,)")
        self._start, self._done = drawn.copy(), np.zeros((0, 2), np.float32)
        obs, known = self._task.reset(options={"reset_to_state": drawn})
        return self._seen(obs), known

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Go towards a place for a tenth of a second."""
        taken = np.array(action, np.float32)
        self._done = np.concatenate([self._done, taken[None]])
        obs, reward, over, cut, known = self._task.step(taken)
        return self._seen(obs), float(reward), bool(over), bool(cut) or len(self._done) >= self._steps, known

    def render(self) -> np.ndarray:
        """Draw the table as the package does for pixels, uint8 [96, 96, 3]."""
        return self._task._render()

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment: the start, the actions since, random numbers.

        Raises:
            EnvironmentFault: before the first reset.
        """
        if not self._start.size:
            raise EnvironmentFault(f"{IDS[0]}: nothing to save yet; call reset first")
        words = generator_words(self.np_random)
        return {"start": self._start.copy(), "actions": self._done.copy(), "random": words}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Act the same again from the start of the saved moment.

        Raises:
            DataError: saved by something else.
        """
        fields = saved_fields(saved, {"start": (5,), "actions": None, "random": (6,)})
        self._task.reset(options={"reset_to_state": fields["start"].copy()})
        for taken in fields["actions"]:
            self._task.step(taken)
        self._start, self._done = fields["start"].copy(), fields["actions"].copy()
        self.np_random = generator_from(fields["random"])

    def close(self) -> None:
        """Give what draws back."""
        self._task.close()

    def _draw(self) -> np.ndarray:
        """Draw a start as the package does, from our random numbers."""
        places = [self.np_random.integers(*bounds) for bounds in ((50, 450), (50, 450), (100, 400), (100, 400))]
        return np.array([*places, self.np_random.uniform(-np.pi, np.pi)])

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        task = self._task
        agent, block = task.agent, task.block
        state = [
            *agent.position,
            *agent.velocity,
            *block.position,
            block.angle,
            *block.velocity,
            block.angular_velocity,
        ]
        found = {"obs": obs, "goal": np.array(task.goal_pose, np.float64), TRUTH + "state": np.array(state)}
        return {**found, "image": resize_area(self.render(), self._size, self._size)} if self._image else found


def make_pusht(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open PushT by its id, `gym_pusht/PushT-v0`.

    Args:
        env_id: the id.
        image_size: side of the picture; None for 96.
        **options: `image` and `steps`, see `GymPushT`, and those of the package.

    Returns:
        A `GymPushT`.

    Raises:
        MissingExtra: gym-pusht is not installed.
        UnknownName: another id.
        EnvironmentFault: an option that does not exist.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import_module("gym_pusht")
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs gym-pusht: pip install 'foreworld[pusht]'") from fault
    if env_id not in IDS:
        raise UnknownName(unknown("task", env_id, list(IDS)))
    try:
        return GymPushT(image_size=image_size, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault
