"""The bundled worlds as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH
from foreworld.envs.spaces import gym_space
from foreworld.worlds.catalogue import build, entry
from foreworld.worlds.world import Acting


class WorldEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One copy of a world that acts: what is seen, and `truth/state`, from which it could go on.

    Episodes have no terminal state; after `steps` they are cut off.
    """

    def __init__(self, world: Acting, *, steps: int = 200) -> None:
        """Open a world.

        Args:
            world: a world with an action.
            steps: of an episode.

        Raises:
            EnvironmentFault: the world takes no action.
        """
        if world.action is None:
            raise EnvironmentFault(f"{world.name}: takes no action, so it is no environment; record it instead")
        if steps < 1:
            raise EnvironmentFault(f"{world.name}: an episode has at least 1 step, found steps={steps}")
        self.world, self.steps = world, steps
        self._state = np.empty((0, world.width))
        self._taken = 0
        self._pictured = "image" in world.obs
        self.metadata = {"render_modes": ["rgb_array"] if self._pictured else [], "render_fps": 1 / world.dt}
        self.render_mode = "rgb_array" if self._pictured else None
        probe = world.truth(world.start(np.random.default_rng(0), 1))
        truth: dict[str, spaces.Space[Any]] = {
            TRUTH + key: spaces.Box(-np.inf, np.inf, value.shape[1:], np.float64) for key, value in probe.items()
        }
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            truth | {key: gym_space(space) for key, space in world.obs.items()}
        )
        self.action_space = gym_space(world.action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a start."""
        super().reset(seed=seed)
        self._state, self._taken = self.world.start(self.np_random, 1), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act for one step of the world."""
        before, act = self._state, np.asarray(action)[None]
        self._state = self.world.step(before, act, self.np_random)
        self._taken += 1
        reward = float(self.world.reward(before, act, self._state)[0])
        return self._observe(), reward, False, self._taken >= self.steps, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return the picture, uint8 [H, W, 3], if the world shows one."""
        return np.moveaxis(self.world.observe(self._state)["image"][0], 0, -1) if self._pictured else None

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment: state, steps taken, random numbers.

        Raises:
            EnvironmentFault: before the first reset.
        """
        if not len(self._state):
            raise EnvironmentFault(f"{self.world.name}: nothing to save yet; call reset first")
        words = generator_words(self.np_random)
        return {"state": self._state.copy(), "taken": np.array(self._taken), "random": words}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that an environment of the same world saved.

        Raises:
            DataError: saved by something else.
        """
        fields = saved_fields(saved, {"state": (1, self.world.width), "taken": (), "random": (6,)})
        self._state, self._taken = fields["state"].copy(), int(fields["taken"])
        self.np_random = generator_from(fields["random"])

    def _observe(self) -> dict[str, np.ndarray]:
        seen = self.world.observe(self._state) | {
            TRUTH + key: value for key, value in self.world.truth(self._state).items()
        }
        return {key: value[0] for key, value in seen.items()}


def make_world(env_id: str, *, image_size: int | None = None, steps: int | None = None, **parameters: Any) -> gym.Env:
    """Open a world by its id, `foreworld/<World>-v0`.

    Args:
        env_id: as `foreworld list envs` shows it.
        image_size: side of its pictures, drawn at that size; None for 64.
        steps: of an episode; None for what the id stands for.
        **parameters: fields of the world that differ from what the id stands for.

    Returns:
        A `WorldEnv`.

    Raises:
        UnknownName: no world has that id.
        ConfigError: a parameter that the world does not have, or a value that it refuses.
        EnvironmentFault: the world takes no action.
    """
    world = build(env_id, image_size=image_size, **parameters)
    if world.action is None:
        remedy = "write episodes of it with `foreworld collect`, fw.collect or foreworld.rollout.record"
        raise EnvironmentFault(f"{env_id}: takes no action, so it is no environment; {remedy}")
    return WorldEnv(cast(Acting, world), steps=entry(env_id).steps if steps is None else steps)
