"""Mazes of Gymnasium-Robotics: a ball or an ant that is to reach a place."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH
from foreworld.envs.mujoco import Painter, RenderQuality, Simulation, draw_without_screen, is_fast, positions

STARTS = ("PointMaze_", "AntMaze_")


class RoboticsMaze(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One maze: `observation`, `achieved_goal`, `desired_goal`, a picture if wanted, and `truth/state`.

    As in the package, reaching the goal pays and does not end an episode, which is cut off by the time limit of its id,
    unless `continuing_task=False`: then it is terminal.

    Reference:
        de Lazcano et al., 2024, "Gymnasium Robotics"; Fu et al., 2020, "D4RL".
    """

    def __init__(
        self,
        env_id: str,
        *,
        image: bool = False,
        image_size: int = 64,
        render_quality: RenderQuality = "full",
        steps: int | None = None,
        **options: Any,
    ) -> None:
        """Open a maze.

        Args:
            env_id: as the package registers it.
            image: observe a picture too.
            image_size: side of the square picture.
            render_quality: `full`, or `fast`: other pictures, much sooner where there is no GPU.
            steps: after which an episode is cut off; None for those of the id.
            **options: of the package, such as `continuing_task`, `reset_target`, `reward_type` and `maze_map`.
        """
        fast = is_fast(env_id, render_quality, image)
        size = {"width": image_size, "height": image_size} if image else {}
        made = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True, **size, **options)
        limit = made.spec.max_episode_steps if made.spec is not None else None
        self._maze = cast(Any, made.unwrapped)
        # what simulates within it, by the name that either kind gives it
        self._inner = self._maze.point_env if env_id.startswith("PointMaze_") else self._maze.ant_env
        Path(self._maze.tmp_xml_file_path).unlink(missing_ok=True)  # it was read, and would stay for ever
        self._limit, self._taken, self._begun = steps or limit, 0, False
        self._simulation = Simulation(self._inner)
        self._painter = Painter(self._inner, env_id, fast) if image else None
        rate = round(1 / self._inner.dt, 6)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": rate, "frame_skip": self._inner.frame_skip}
        self.render_mode = "rgb_array"
        self.action_space = self._maze.action_space
        found = dict(self._maze.observation_space.spaces)
        found[TRUTH + "state"] = spaces.Box(-np.inf, np.inf, positions(self._inner.data).shape, np.float64)
        if self._painter is not None:
            found["image"] = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: spaces.Space[Any] = spaces.Dict(found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a start and a goal; `options` may name the cells, `goal_cell` and `reset_cell`."""
        super().reset(seed=seed)
        inner = int(self.np_random.integers(2**31))
        obs, known = self._maze.reset(seed=inner, options=options)
        self._taken, self._begun = 0, True
        return self._seen(obs), known

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act."""
        obs, reward, over, cut, known = self._maze.step(action)
        self._taken += 1
        late = self._limit is not None and self._taken >= self._limit
        return self._seen(obs), float(reward), bool(over), bool(cut) or late, known

    def render(self) -> np.ndarray:
        """Draw the maze, uint8 [H, W, 3]."""
        return self._maze.render() if self._painter is None else self._painter.draw()

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment: the simulation, the goal, steps taken, random numbers of all that draw some.

        Raises:
            EnvironmentFault: before the first reset.
        """
        if not self._begun:
            raise EnvironmentFault("nothing to save yet; call reset first")
        return {
            **self._simulation.save(),
            "goal": np.array(self._maze.goal),
            "taken": np.array(self._taken),
            "random/maze": generator_words(self._maze.np_random),
            "random/starts": generator_words(self.np_random),
        }

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that the same maze, with the same options, saved.

        Raises:
            DataError: saved by something else.
        """
        ours = ("goal", "taken", "random/maze", "random/starts")
        shapes = {"goal": (2,), "taken": (), "random/maze": (6,), "random/starts": (6,)}
        fields = saved_fields({name: saved[name] for name in ours if name in saved}, shapes)
        self._maze.goal = fields["goal"].copy()
        self._maze.update_target_site_pos()
        self._simulation.restore({name: value for name, value in saved.items() if name not in ours})
        self._taken, self._begun = int(fields["taken"]), True
        self._maze.np_random = generator_from(fields["random/maze"])
        self.np_random = generator_from(fields["random/starts"])

    def close(self) -> None:
        """Give the simulator and what draws back."""
        if self._painter is not None:
            self._painter.close()
        self._maze.close()

    def _seen(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {**obs, TRUTH + "state": positions(self._inner.data)}
        return found if self._painter is None else {**found, "image": self._painter.draw()}


def make_robotics(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open a maze of Gymnasium-Robotics by its id.

    Args:
        env_id: `PointMaze_<Maze>-v3` or `AntMaze_<Maze>-v5`, alone or after `robotics/`.
        image_size: side of the picture; None for 64.
        **options: see `RoboticsMaze`, and those of the package.

    Returns:
        A `RoboticsMaze`.

    Raises:
        MissingExtra: gymnasium-robotics is not installed.
        UnknownName: no such maze.
        EnvironmentFault: an option that does not exist, or no way to draw.
    """
    draw_without_screen()
    try:
        gym.register_envs(import_module("gymnasium_robotics"))
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs gymnasium-robotics: pip install 'foreworld[robotics]'") from fault
    name = env_id.removeprefix("robotics/")
    if name not in gym.registry or not name.startswith(STARTS):
        known = [each for each in gym.registry if each.startswith(STARTS)]
        raise UnknownName(unknown("maze", name, known))
    try:
        return RoboticsMaze(name, image_size=image_size or 64, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault
