"""What the environments on MuJoCo share: pictures, full or fast, and moments that can be put back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.core.registry import unknown
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.core.spaces import TRUTH

RenderQuality = Literal["full", "fast"]
"""How a picture is drawn. `fast` leaves out shadows, reflections, the sky and smooth edges. Such pictures differ from
those of published results and cannot be compared with them; without a GPU they take a fraction of the time."""

QUALITIES = ("full", "fast")
LEFT_OUT = ("shadow", "reflection", "skybox")
"""Flags of a scene that a fast picture does without."""

READ = ("xpos", "xipos", "site_xpos", "cinert", "cvel", "cfrc_ext", "qfrc_actuator", "qfrc_constraint")
READ += ("ten_length", "ten_velocity")
"""What environments read between two steps; MuJoCo leaves it as it was within the last one."""


def draw_without_screen() -> None:
    """Let MuJoCo draw where there is no screen; by itself it would look for one all the same."""
    if "MUJOCO_GL" not in os.environ and "DISPLAY" not in os.environ:
        os.environ["MUJOCO_GL"] = "egl"


def is_fast(env_id: str, quality: str, image: bool = True) -> bool:
    """Say whether pictures are to be drawn fast.

    Args:
        env_id: of the environment, for the message.
        quality: `full` or `fast`.
        image: whether a picture is observed at all.

    Raises:
        ConfigError: the quality is something else, or of pictures that nobody sees.
    """
    if quality != "full" and not image:
        raise ConfigError(f"{env_id}: render_quality is how the picture is drawn, and there is none; add image=True")
    if quality not in QUALITIES:
        raise ConfigError(f"{env_id}: {unknown('render_quality', str(quality), list(QUALITIES))}")
    return quality == "fast"


def lighten_model(model: Any) -> None:
    """Make a model draw without smooth edges; before the first picture.

    Args:
        model: of MuJoCo.
    """
    model.vis.quality.offsamples = 0


def lighten_scene(scene: Any) -> None:
    """Leave shadows, reflections and the sky out of a scene.

    Args:
        scene: of MuJoCo.
    """
    flags = import_module("mujoco").mjtRndFlag
    for name in LEFT_OUT:
        scene.flags[getattr(flags, f"mjRND_{name.upper()}")] = 0


class Painter:
    """Draw an environment of Gymnasium's `MujocoEnv`, from the camera that it is usually seen from.

    Args:
        env: made with `render_mode="rgb_array"` and the size of the picture.
        env_id: its name, for messages.
        fast: draw it fast.
    """

    def __init__(self, env: Any, env_id: str, fast: bool) -> None:
        """Draw once, so that a machine that cannot is found out."""
        self._env, self._fast = env, fast
        if fast:
            lighten_model(env.model)
        try:
            self.draw()
        except Exception as fault:
            said = f"no picture can be drawn ({type(fault).__name__}: {fault})"
            raise EnvironmentFault(
                f"{env_id}: {said}; set MUJOCO_GL to egl, osmesa or glfw, or leave image out"
            ) from fault

    def draw(self) -> np.ndarray:
        """Return the picture, uint8 [H, W, 3]."""
        viewer = self._env.mujoco_renderer._get_viewer("rgb_array")
        viewer.make_context_current()  # another environment may have drawn since, and Gymnasium does not look
        if self._fast:
            lighten_scene(viewer.scn)
        return np.ascontiguousarray(self._env.render())

    def close(self) -> None:
        """Give back what draws, within its own context: in another's it would delete what that one draws with."""
        for viewer in self._env.mujoco_renderer._viewers.values():
            viewer.make_context_current()
            viewer.con.free()
            viewer.free()
        self._env.mujoco_renderer._viewers.clear()

    def __del__(self) -> None:
        """Give it back also where nobody closed the environment."""
        with suppress(Exception):
            self.close()


class Pictured(gym.Wrapper):
    """Add to a vector of Gymnasium's MuJoCo its picture, `image`, and `truth/state`, positions and velocities.

    Args:
        env: made with `render_mode="rgb_array"` and the size of the picture.
        env_id: its name, for messages.
        fast: draw it fast.
    """

    def __init__(self, env: gym.Env, env_id: str, fast: bool) -> None:
        """Wrap an environment."""
        super().__init__(env)
        self._inner = cast(Any, env.unwrapped)
        self._painter = Painter(self._inner, env_id, fast)
        state, picture = positions(self._inner.data).shape, self._painter.draw().shape
        self.observation_space = spaces.Dict(
            {
                "obs": env.observation_space,
                "image": spaces.Box(0, 255, picture, np.uint8),
                TRUTH + "state": spaces.Box(-np.inf, np.inf, state, np.float64),
            }
        )

    def reset(self, **options: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode."""
        obs, known = self.env.reset(**options)
        return self._seen(obs), known

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Act."""
        obs, reward, over, cut, known = self.env.step(action)
        return self._seen(obs), reward, over, cut, known

    def close(self) -> None:
        """Give the simulator and what draws back."""
        self._painter.close()
        self.env.close()

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return {"obs": obs, "image": self._painter.draw(), TRUTH + "state": positions(self._inner.data)}


def make_mujoco(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open an environment of Gymnasium's MuJoCo, felt or also seen.

    Args:
        env_id: as Gymnasium registers it, for example `HalfCheetah-v5`.
        image_size: side of the square picture; None for the package's own, 480.
        **options: `image`, to add the picture and `truth/state`; `render_quality`, how it is drawn; and those of the
            environment.

    Returns:
        The environment as Gymnasium makes it, or one that is `Pictured`.

    Raises:
        ConfigError: an unknown quality, or a quality without a picture.
        EnvironmentFault: no way to draw.
    """
    image, quality = bool(options.pop("image", False)), options.pop("render_quality", "full")
    fast = is_fast(env_id, quality, image)
    if not image:
        return gym.make(env_id, disable_env_checker=True, **options)
    draw_without_screen()
    size: dict[str, Any] = {} if image_size is None else {"width": image_size, "height": image_size}
    made = gym.make(env_id, disable_env_checker=True, **(size | {"render_mode": "rgb_array"} | options))
    return Pictured(made, env_id, fast)


def positions(data: Any) -> np.ndarray:
    """Return positions and velocities [P + V] of a simulation.

    Args:
        data: of MuJoCo.
    """
    return np.concatenate([data.qpos, data.qvel])


@dataclass(frozen=True)
class Simulation:
    """A `MujocoEnv`: the whole state of its integrator, and what was computed within the last step.

    Attributes:
        env: the environment.
    """

    env: Any

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment, random numbers included."""
        mujoco = import_module("mujoco")
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.env.model, kind))
        mujoco.mj_getState(self.env.model, self.env.data, state, kind)
        read = {name: np.array(getattr(self.env.data, name)) for name in READ}
        return {"state": state, **read, "random": generator_words(self.env.np_random)}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that the same environment saved.

        Raises:
            DataError: saved by something else.
        """
        mujoco = import_module("mujoco")
        model, data, kind = self.env.model, self.env.data, mujoco.mjtState.mjSTATE_INTEGRATION
        shapes = {name: np.shape(getattr(data, name)) for name in READ}
        fields = saved_fields(saved, {"state": (mujoco.mj_stateSize(model, kind),), **shapes, "random": (6,)})
        mujoco.mj_setState(model, data, fields["state"], kind)
        mujoco.mj_forward(model, data)
        # once more: computing forces has moved the solver's first guess on
        mujoco.mj_setState(model, data, fields["state"], kind)
        for name in READ:
            getattr(data, name)[:] = fields[name]
        self.env.np_random = generator_from(fields["random"])
