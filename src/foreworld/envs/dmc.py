"""Tasks of the DeepMind Control Suite, felt, seen or both."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH
from foreworld.envs.mujoco import LEFT_OUT, RenderQuality, draw_without_screen, is_fast, lighten_model

CAMERAS = {"quadruped": 2}
"""The camera that follows, where it is not number 0."""

PLAIN = {"shadow": False, "reflection": False}
"""Flags of a picture that is drawn fast."""


class ControlSuite(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One task: what the suite observes by name, `image`, or both, and `truth/state`, positions and velocities.

    An episode lasts 1000 steps of the suite and is then cut off; few tasks end before by themselves.

    Reference:
        Tunyasuvunakool et al., 2020, "dm_control: Software and tasks for continuous control".
    """

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        proprio: bool = True,
        image: bool = False,
        flat: bool = False,
        image_size: int = 64,
        repeat: int = 1,
        camera: int | None = None,
        plain: bool = False,
        render_quality: RenderQuality = "full",
    ) -> None:
        """Open a task.

        Args:
            domain: the body, for example `walker`.
            task: what it is to do, for example `walk`.
            proprio: observe what the suite observes, every part by its name.
            image: observe a picture.
            flat: join what the suite observes into one vector, `proprio`, in its order.
            image_size: side of the square picture.
            repeat: steps of the suite that one action lasts.
            camera: which camera looks; None for the one that is usual.
            plain: draw without shadows, reflections and smooth edges: 3 to 12 times faster without a GPU, and not the
                pictures of published results.
            render_quality: `full`, or `fast`: as `plain`, and without the sky.
        """
        if not (proprio or image) or repeat < 1:
            raise ConfigError(f"dmc/{domain}-{task}: observe at least one of proprio and image, and repeat at least 1")
        from dm_control import suite

        self._env: Any = suite.load(domain, task, task_kwargs={"random": 0})
        self._repeat, self._image, self._proprio, self._flat = repeat, image, proprio, flat
        self._camera = CAMERAS.get(domain, 0) if camera is None else camera
        fast = is_fast(f"dmc/{domain}-{task}", render_quality)
        self._size, self._flags = image_size, dict.fromkeys(LEFT_OUT, False) if fast else PLAIN if plain else {}
        if fast:
            lighten_model(self._env.physics.model)
        elif plain:
            self._env.physics.model.vis.quality.offsamples = 0
        fps = 1 / (self._env.control_timestep() * repeat)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps, "frame_skip": repeat}
        self.render_mode = "rgb_array"
        act = self._env.action_spec()
        self.action_space = spaces.Box(act.minimum.astype(np.float32), act.maximum.astype(np.float32))
        state = self._env.physics.get_state().shape
        found: dict[str, spaces.Space[Any]] = {TRUTH + "state": spaces.Box(-np.inf, np.inf, state, np.float64)}
        if proprio:
            felt = self._felt(self._env.reset().observation)
            found |= {key: spaces.Box(-np.inf, np.inf, value.shape, np.float32) for key, value in felt.items()}
        if image:
            found["image"] = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
            self._try_to_draw()
        self.observation_space: spaces.Space[Any] = spaces.Dict(found)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Put the body where an episode begins."""
        super().reset(seed=seed)
        self._env.task.random.seed(int(self.np_random.integers(2**32)))
        return self._observe(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold an action for `repeat` steps of the suite."""
        reward, act = 0.0, np.asarray(action, np.float64)
        for _ in range(self._repeat):
            found = self._env.step(act)
            reward += found.reward or 0.0
            if found.last():
                break
        over = found.last() and found.discount == 0
        return self._observe(found.observation), reward, over, found.last() and not over, {}

    def render(self) -> np.ndarray:
        """Draw the body, uint8 [H, W, 3]."""
        size, flags = self._size, self._flags
        _forget_context()
        return self._env.physics.render(size, size, camera_id=self._camera, render_flag_overrides=flags)

    def close(self) -> None:
        """Give the simulator and what draws back."""
        _forget_context()
        self._env.physics.free()
        self._env.close()

    def __del__(self) -> None:
        """Give it back also where nobody closed the environment."""
        with suppress(Exception):
            self.close()

    def _observe(self, observed: dict[str, Any]) -> dict[str, np.ndarray]:
        found = {TRUTH + "state": self._env.physics.get_state()}
        if self._proprio:
            found |= self._felt(observed)
        if self._image:
            found["image"] = self.render()
        return found

    def _try_to_draw(self) -> None:
        try:
            self.render()
        except Exception as fault:
            said = f"no picture can be drawn ({type(fault).__name__}: {fault})"
            raise EnvironmentFault(f"dmc: {said}; set MUJOCO_GL to egl, osmesa or glfw, or leave image out") from fault

    def _felt(self, observed: dict[str, Any]) -> dict[str, np.ndarray]:
        """Give what the suite observes as vectors; what is empty is left out."""
        parts = {key: np.atleast_1d(value).astype(np.float32) for key, value in observed.items() if np.size(value)}
        return {"proprio": np.concatenate([part.ravel() for part in parts.values()])} if self._flat else parts


def _forget_context() -> None:
    """Let the suite make its own context current: it remembers whose turn it was, and knows of no others who draw."""
    remembered: Any = import_module("dm_control._render.base")
    remembered._CURRENT_CONTEXT_FOR_THREAD.clear()
    remembered._CURRENT_THREAD_FOR_CONTEXT.clear()


def make_dmc(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open a task of the DeepMind Control Suite by its id, `dmc/<domain>-<task>`.

    Args:
        env_id: for example `dmc/walker-walk`, `dmc/cartpole-swingup_sparse` or `dmc/cup-catch`.
        image_size: side of the picture; None for 64.
        **options: `proprio`, `image`, `flat`, `repeat`, `camera`, `plain` and `render_quality`, see `ControlSuite`.

    Returns:
        A `ControlSuite`.

    Raises:
        MissingExtra: dm_control is not installed.
        UnknownName: no such task.
        EnvironmentFault: an option that does not exist, or no way to draw.
    """
    draw_without_screen()
    try:
        from dm_control import suite
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs dm_control: pip install 'foreworld[dmc]'") from fault
    tasks = {f"{domain}-{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    short = {_plain(name): found for name, found in tasks.items()}
    asked = _plain(env_id.partition("/")[2])
    if asked.startswith("cup_"):
        asked = f"ball_in_{asked}"
    if asked not in short:
        raise UnknownName(unknown("task", env_id, [f"dmc/{name}" for name in tasks]))
    try:
        return ControlSuite(*short[asked], image_size=image_size or 64, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault


def _plain(name: str) -> str:
    return name.replace("-", "_")
