"""Mazes of OGBench: a point or a body that is to reach one of five goals. No data set is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH
from foreworld.envs.mujoco import (
    RenderQuality,
    Simulation,
    draw_without_screen,
    is_fast,
    lighten_model,
    lighten_scene,
    positions,
)

STARTS = ("pointmaze-", "antmaze-", "humanoidmaze-")
OURS = ("goal", "goal_place", "taken", "random/episodes")
"""What is added to the fields of a simulation when a maze is saved."""


class OGBenchMaze(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One maze: `obs`, `goal` (what is observed there), a picture if wanted, and `truth/state`.

    Reaching the goal pays 1 and is terminal; the time limit of the id cuts an episode off. The package draws tasks,
    starts and noise from NumPy's global random numbers; here the seed of `reset` decides all of them.

    Reference:
        Park et al., 2025, "OGBench: Benchmarking Offline Goal-Conditioned RL".
    """

    def __init__(
        self,
        name: str,
        *,
        task: int | None = None,
        image: bool = False,
        image_size: int = 64,
        render_quality: RenderQuality = "full",
        steps: int | None = None,
        **options: Any,
    ) -> None:
        """Open a maze.

        Args:
            name: as the package registers it, such as `pointmaze-medium-v0`.
            task: 1 to 5, which start and goal; None draws one for every episode.
            image: observe a picture of the whole maze too.
            image_size: side of the square picture.
            render_quality: `full`, or `fast`: other pictures, much sooner where there is no GPU.
            steps: after which an episode is cut off; None for those of the id.
            **options: of the package, such as `terminate_at_goal` and `maze_unit`.
        """
        self._fast = is_fast(name, render_quality)
        made = gym.make(name, disable_env_checker=True, width=image_size, height=image_size, **options)
        limit = made.spec.max_episode_steps if made.spec is not None else None
        self._maze = cast(Any, made.unwrapped)
        Path(self._maze.fullpath).unlink(missing_ok=True)  # it was read, and would stay for ever
        if task is not None and not 1 <= task <= self._maze.num_tasks:
            raise ConfigError(f"ogbench/{name}: task {task}, it has 1 to {self._maze.num_tasks}")
        self._task, self._image, self._goal = task, image, np.zeros(0)
        self._limit, self._taken = steps or limit, 0
        self._simulation = Simulation(self._maze)
        if self._fast:
            lighten_model(self._maze.model)
        if image:
            self._try_to_draw(name)
        rate = round(1 / self._maze.dt, 6)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": rate, "frame_skip": self._maze.frame_skip}
        self.render_mode = "rgb_array"
        self.action_space = self._maze.action_space
        seen = spaces.Box(-np.inf, np.inf, self._maze.get_ob().shape, np.float64)
        state = spaces.Box(-np.inf, np.inf, positions(self._maze.data).shape, np.float64)
        found: dict[str, spaces.Space[Any]] = {"obs": seen, "goal": seen, TRUTH + "state": state}
        if image:
            found["image"] = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: spaces.Space[Any] = spaces.Dict(found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a task, its start and its goal; `options` may name the task, `task_id`."""
        super().reset(seed=seed)
        wanted = dict(options or {})
        if self._task is not None:
            wanted.setdefault("task_id", self._task)
        inner = int(self.np_random.integers(2**31))
        self._maze.action_space.seed(inner)
        with self._seeded():
            obs, known = self._maze.reset(options=wanted, seed=inner)
        self._goal, self._taken = np.array(known["goal"], np.float64), 0
        return self._seen(obs), known

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act."""
        with self._seeded():
            _, reward, over, cut, known = self._maze.step(np.asarray(action))
        self._taken += 1
        late = self._limit is not None and self._taken >= self._limit
        return self._seen(self._maze.get_ob()), float(reward), bool(over), bool(cut) or late, known

    def render(self) -> np.ndarray:
        """Draw the maze from above, uint8 [H, W, 3]."""
        maze: Any = self._maze
        if self._fast:
            if maze.custom_renderer is None:
                maze.initialize_renderer()
            lighten_scene(cast(Any, maze.custom_renderer).scene)
        return maze.render()

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment: the simulation, the goal, steps taken, random numbers.

        Raises:
            EnvironmentFault: before the first reset.
        """
        if not self._goal.size:
            raise EnvironmentFault("nothing to save yet; call reset first")
        return {
            **self._simulation.save(),
            "goal": self._goal.copy(),
            "goal_place": np.array(self._maze.cur_goal_xy, np.float64),
            "taken": np.array(self._taken),
            "random/episodes": generator_words(self.np_random),
        }

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that the same maze, with the same options, saved.

        Raises:
            DataError: saved by something else.
        """
        shapes = {"goal": self._maze.get_ob().shape, "goal_place": (2,), "taken": (), "random/episodes": (6,)}
        fields = saved_fields({name: saved[name] for name in OURS if name in saved}, shapes)
        self._maze.set_goal(goal_xy=fields["goal_place"].copy())
        self._simulation.restore({name: value for name, value in saved.items() if name not in OURS})
        self._goal, self._taken = fields["goal"].copy(), int(fields["taken"])
        self.np_random = generator_from(fields["random/episodes"])

    def close(self) -> None:
        """Give the simulator back, and what draws, within its own context: in another's it would delete that one's."""
        renderer: Any = self._maze.custom_renderer
        if renderer is not None and renderer._gl_context is not None:
            renderer._gl_context.make_current()
            renderer.close()
        self._maze.close()

    def __del__(self) -> None:
        """Give it back also where nobody closed the environment."""
        with suppress(Exception):
            self.close()

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        found = {"obs": obs, "goal": self._goal, TRUTH + "state": positions(self._maze.data)}
        return {**found, "image": self.render()} if self._image else found

    def _try_to_draw(self, name: str) -> None:
        try:
            self.render()
        except Exception as fault:
            said = f"no picture can be drawn ({type(fault).__name__}: {fault})"
            raise EnvironmentFault(
                f"ogbench/{name}: {said}; set MUJOCO_GL to egl or osmesa, or leave image out"
            ) from fault

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Let NumPy's global numbers follow from ours, and put back what they were."""
        before = np.random.get_state()  # noqa: NPY002 - the package draws from these
        np.random.seed(int(self.np_random.integers(2**31)))  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


def make_ogbench(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open a maze of OGBench by its id.

    Args:
        env_id: `ogbench/<maze>`, for example `ogbench/pointmaze-medium-v0`.
        image_size: side of the picture; None for 64.
        **options: see `OGBenchMaze`, and those of the package.

    Returns:
        An `OGBenchMaze`.

    Raises:
        MissingExtra: ogbench is not installed.
        UnknownName: no such maze.
        EnvironmentFault: an option that does not exist, or no way to draw.
    """
    draw_without_screen()
    try:
        import_module("ogbench.locomaze")
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs ogbench: pip install 'foreworld[ogbench]'") from fault
    name = env_id.partition("/")[2]
    known = [each for each in gym.registry if each.startswith(STARTS) and "singletask" not in each]
    if name not in known:
        raise UnknownName(unknown("maze", env_id, [f"ogbench/{each}" for each in known]))
    try:
        return OGBenchMaze(name, image_size=image_size or 64, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault
