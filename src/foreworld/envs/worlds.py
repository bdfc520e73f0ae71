"""The bundled worlds as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH
from foreworld.envs.spaces import gym_space
from foreworld.worlds.catalogue import build, entry
from foreworld.worlds.world import Acting, Aiming, Ending, placed_at


class WorldEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One copy of a world that acts: what is seen, and `truth/state`, from which it could go on.

    After `steps` an episode is cut off; a terminal state there is only where the world itself knows of one. In a world
    with a goal, `reset` tells `start`, `goal`, `distance` and `success` in its info, and `step` the last two.
    """

    def __init__(
        self,
        world: Acting,
        *,
        steps: int = 200,
        start: Sequence[float] | None = None,
        goal: Sequence[float] | None = None,
    ) -> None:
        """Open a world.

        Args:
            world: a world with an action.
            steps: of an episode.
            start: coordinates where every episode begins, in a world with a goal; None for what is drawn.
            goal: likewise, of the goal.

        Raises:
            EnvironmentFault: the world takes no action.
            ConfigError: a start or goal that the world refuses.
        """
        if world.action is None:
            raise EnvironmentFault(f"{world.name}: takes no action, so it is no environment; record it instead")
        if steps < 1:
            raise EnvironmentFault(f"{world.name}: an episode has at least 1 step, found steps={steps}")
        self.world, self.steps = world, steps
        self._state = np.empty((0, world.width))
        self._taken = 0
        self._aiming = world if isinstance(world, Aiming) else None
        self._fixed = {name: at for name, at in (("start", start), ("goal", goal)) if at is not None}
        self._ending = world if isinstance(world, Ending) else None
        self._pictured = "image" in world.obs
        self.metadata = {"render_modes": ["rgb_array"] if self._pictured else [], "render_fps": 1 / world.dt}
        self.render_mode = "rgb_array" if self._pictured else None
        if self._fixed and self._aiming is None:
            raise ConfigError(f"{world.name}: has no goal, so that neither can be placed; leave out start and goal")
        first = self._wanted(world.start(np.random.default_rng(0), 1), dict(self._fixed))
        probe = world.truth(first)
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
        """Draw a start.

        Args:
            seed: of this and all later episodes; None goes on with the random numbers there are.
            options: `state` [S] to begin in a state; in a world with a goal also `start` and `goal`, coordinates that
                take the place of what is drawn, and of what was fixed for all episodes.

        Returns:
            What is seen, and what there is to know.

        Raises:
            ConfigError: another option, or a value that the world refuses.
        """
        super().reset(seed=seed)
        drawn = self.world.start(self.np_random, 1)
        self._state, self._taken = self._wanted(drawn, self._fixed | (options or {})), 0
        if self._aiming is None:
            return self._observe(), {}
        start, goal = self._aiming.places(self._state)
        return self._observe(), {"start": start[0], "goal": goal[0]} | self._aimed()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act for one step of the world."""
        before, act = self._state, np.asarray(action)[None]
        self._state = self.world.step(before, act, self.np_random)
        self._taken += 1
        reward = float(self.world.reward(before, act, self._state)[0])
        over = self._ending is not None and bool(self._ending.over(self._state)[0])
        return self._observe(), reward, over, self._taken >= self.steps, self._aimed()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return the picture, uint8 [H, W, 3], if the world shows one."""
        return np.moveaxis(self.world.observe(self._state)["image"][0], 0, -1) if self._pictured else None

    def goal(self) -> dict[str, np.ndarray]:
        """Return what is seen where the goal of this episode is just reached, with its `truth/state`.

        Raises:
            EnvironmentFault: the world has no goal, or before the first reset.
        """
        if self._aiming is None or not len(self._state):
            raise EnvironmentFault(f"{self.world.name}: no goal to show; it takes a world with one, after a reset")
        return self._observe(self._aiming.reached(self._state))

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

    def _wanted(self, drawn: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        """Put what was asked for into a start state [1, S]."""
        state, name = options.pop("state", None), self.world.name
        if state is not None:
            drawn = np.array(placed_at(f"{name}, state", state, 1, self.world.width))
        if self._aiming is not None:
            drawn = self._aiming.placed(drawn, options.pop("start", None), options.pop("goal", None))
        if options:
            known = "state" if self._aiming is None else "state, start and goal"
            raise ConfigError(f"{name}: reset knows the options {known}, found {', '.join(sorted(options))}")
        return drawn

    def _aimed(self) -> dict[str, Any]:
        """Tell how far the goal is, if there is one."""
        if self._aiming is None:
            return {}
        distance, success = self._aiming.distance(self._state), self._aiming.success(self._state)
        return {"distance": float(distance[0]), "success": bool(success[0])}

    def _observe(self, state: np.ndarray | None = None) -> dict[str, np.ndarray]:
        state = self._state if state is None else state
        seen = self.world.observe(state) | {TRUTH + key: value for key, value in self.world.truth(state).items()}
        return {key: value[0] for key, value in seen.items()}


def make_world(
    env_id: str,
    *,
    image_size: int | None = None,
    steps: int | None = None,
    start: Sequence[float] | None = None,
    goal: Sequence[float] | None = None,
    **parameters: Any,
) -> gym.Env:
    """Open a world by its id, `foreworld/<World>-v0`.

    Args:
        env_id: as `foreworld list envs` shows it.
        image_size: side of its pictures, drawn at that size; None for 64.
        steps: of an episode; None for what the id stands for.
        start: coordinates where every episode begins, in a world with a goal; None for what is drawn.
        goal: likewise, of the goal.
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
    limit = entry(env_id).steps if steps is None else steps
    return WorldEnv(cast(Acting, world), steps=limit, start=start, goal=goal)
