"""Atari 2600 games by the standard protocol, as pictures and as the console's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.envs.area import resize_area

SCREEN_HZ = 60
TIME_LIMIT = 108_000
"""Raw frames after which an episode is cut off: half an hour of play."""

BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue are (ITU-R BT.601)."""


class Atari(gym.Env[dict[str, np.ndarray], Any]):
    """One game: `image`, averaged to a square, and `truth/ram`, the 128 bytes of the console.

    An action lasts `frame_skip` frames; the picture is the maximum of the last two, since games
    draw some objects on every other frame only. Losing a life does not end an episode.

    Reference:
        Machado et al., 2018, "Revisiting the Arcade Learning Environment", section 5, without
        sticky actions by default; no-op starts as in Mnih et al., 2015.
    """

    def __init__(
        self,
        env_id: str,
        *,
        image_size: int | None = 64,
        frame_skip: int = 4,
        noop_max: int = 30,
        sticky: float = 0.0,
        full_actions: bool = False,
        grey: bool = False,
        **options: Any,
    ) -> None:
        """Open a game.

        Args:
            env_id: `ALE/<Game>-v5`.
            image_size: side of the square picture; None keeps 210 x 160.
            frame_skip: frames that one action lasts.
            noop_max: largest number of idle frames at the start, drawn uniformly from 0 on.
            sticky: probability that the console repeats the action before.
            full_actions: all 18 actions instead of those that the game uses.
            grey: one channel, the brightness, instead of three.
            **options: `mode` and `difficulty` of the game.
        """
        self._console = gym.make(
            env_id,
            frameskip=1,
            obs_type="ram",
            repeat_action_probability=sticky,
            full_action_space=full_actions,
            disable_env_checker=True,
            **options,
        )
        inner: Any = self._console.unwrapped
        self._ale = inner.ale
        self._actions = list(inner._action_set)
        self._frame_skip, self._noop_max, self._grey = frame_skip, noop_max, grey
        height, width = self._ale.getScreenDims()
        self._size = (image_size, image_size) if image_size else (height, width)
        self._screens = np.zeros((2, height, width, 3), np.uint8)
        self._frames = 0
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": SCREEN_HZ / frame_skip, "frame_skip": frame_skip}
        self.render_mode = "rgb_array"
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(self._actions))
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (*self._size, 1 if grey else 3), np.uint8),
                "truth/ram": spaces.Box(0, 255, (self._ale.getRAMSize(),), np.uint8),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start a game after up to `noop_max` idle frames."""
        super().reset(seed=seed)
        self._console.reset(seed=seed)
        idle = int(self.np_random.integers(self._noop_max + 1))
        for _ in range(idle):
            self._ale.act(self._actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        self._frames = idle
        self._ale.getScreenRGB(self._screens[0])
        self._screens[1] = self._screens[0]
        return self._observe(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold one action for `frame_skip` frames."""
        taken, reward = self._actions[int(action)], 0.0
        for frame in range(self._frame_skip):
            reward += self._ale.act(taken)
            self._frames += 1
            if frame >= self._frame_skip - 2:
                self._ale.getScreenRGB(self._screens[self._frames % 2])
            if self._ale.game_over(with_truncation=False):
                # The console stands still now: what it shows is the last picture.
                self._ale.getScreenRGB(self._screens[0])
                self._screens[1] = self._screens[0]
                return self._observe(), reward, True, False, {}
        return self._observe(), reward, False, self._frames >= TIME_LIMIT, {}

    def render(self) -> np.ndarray:
        """Return the screen as it is, uint8 [210, 160, 3]."""
        return self._ale.getScreenRGB()

    def save(self) -> dict[str, np.ndarray]:
        """Return this moment: console and last two screens, frames played, random numbers of both."""
        console = np.frombuffer(self._ale.cloneState(include_rng=True).serialize(), np.uint8).copy()
        return {
            "console": console,
            "screens": self._screens.copy(),
            "frames": np.array(self._frames),
            "random": generator_words(self.np_random),
        }

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Put back a moment that the same game, with the same options, saved.

        Raises:
            DataError: saved by something else.
        """
        from ale_py import ALEState

        shapes = {"console": None, "screens": self._screens.shape, "frames": (), "random": (6,)}
        fields = saved_fields(saved, shapes)
        self._ale.restoreState(ALEState(fields["console"].tobytes()))
        self._screens[:] = fields["screens"]
        self._frames = int(fields["frames"])
        self.np_random = generator_from(fields["random"])

    def close(self) -> None:
        """Switch the console off."""
        self._console.close()

    def _observe(self) -> dict[str, np.ndarray]:
        screen = np.maximum(self._screens[0], self._screens[1])
        if self._grey:
            screen = np.rint(screen @ BRIGHTNESS).astype(np.uint8)[..., None]
        return {"image": resize_area(screen, *self._size), "truth/ram": self._ale.getRAM()}


def make_atari(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open an Atari game by its id, `ALE/<Game>-v5`.

    Raises:
        MissingExtra: ale-py is not installed.
        UnknownName: no such game.
        EnvironmentFault: an option that the game refuses.
    """
    try:
        import ale_py
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs ale-py: pip install 'foreworld[atari]'") from fault
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gym.register_envs(ale_py)
    if env_id not in gym.registry:
        games = [name for name in gym.registry if name.startswith("ALE/")]
        raise UnknownName(unknown("Atari game", env_id, games))
    try:
        return Atari(env_id, image_size=image_size, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault
