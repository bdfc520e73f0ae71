"""`DreamEnv`: a world model as a Gymnasium environment, so that any RL library can train inside a dream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from foreworld.core import WorldModel, shows
from foreworld.core.errors import ConfigError
from foreworld.data import Dataset
from foreworld.rollout.dreams import Dreams, End, Show
from foreworld.rollout.starts import Starts, recorded_starts

S = TypeVar("S")


class DreamEnv(gym.Env[Any, Any], Generic[S]):
    """Act in what a model predicts, without looking at the world again.

    Observations and actions are those of the environment that the model learned from. The reward is the predicted one.
    A dream is over (`terminated`) when the model says that the episode would be, and cut off (`truncated`) at its
    horizon: how far a model can be trusted is what `foreworld eval` measures, and a horizon beyond it is a game of its
    own. Equal seeds give equal dreams, as they do in any Gymnasium environment; torch's global generator is left alone.

    Args:
        model: predicts reward and, unless `end` is `never`, when an episode is over.
        starts: where dreams begin: recorded episodes, of which a stretch of `context` rows is filtered, or a function
            of a generator and N that returns N states.
        horizon: steps after which a dream is cut off.
        context: rows that the model sees before a dream begins.
        show: `obs` for decoded observations, `feat` for the model's features.
        end: when a dream is over before its horizon: `drawn` by the predicted probability, where that is above one
            half (`likely`), or `never`.
        render_mode: None or `rgb_array`, for a model that can show pictures.

    Raises:
        ConfigError: no horizon or context, plain video, an unknown word, or a render mode without pictures.
        MissingCapability: the model lacks what is shown, rewards, or ends.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/cartpole")
        ...     model = fw.RSSM(data.spec, deter=64, units=32, classes=4)
        ...     env = fw.DreamEnv(model, data, horizon=5)
        ...     obs, _ = env.reset(seed=0)
        >>> obs.shape, env.action_space
        ((4,), Discrete(2))
        >>> obs, reward, terminated, truncated, _ = env.step(1)
    """

    def __init__(
        self,
        model: WorldModel[S],
        starts: Starts[S] | Dataset,
        horizon: int,
        *,
        context: int = 8,
        show: Show = "obs",
        end: End = "drawn",
        render_mode: str | None = None,
    ) -> None:
        self.dreams = Dreams(model, _starts(model, starts, context), horizon, count=1, show=show, end=end)
        self.observation_space, self.action_space = self.dreams.observation_space, self.dreams.action_space
        self.metadata = _metadata(model)
        self.render_mode = _render_mode(render_mode, self.metadata)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a dream."""
        super().reset(seed=seed)
        self.dreams.begin(self.np_random)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act."""
        reward, over, cut = self.dreams.step(self.np_random, np.asarray(action)[None])
        return self._seen(), float(reward[0]), bool(over[0]), bool(cut[0]), {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return what is seen as a picture, uint8 [H, W, 3], if that was asked for."""
        pictures = self.dreams.pictures() if self.render_mode else None
        return None if pictures is None else pictures[0]

    def _seen(self) -> Any:
        seen = self.dreams.observe()
        return {key: value[0] for key, value in seen.items()} if isinstance(seen, dict) else seen[0]


class DreamVectorEnv(VectorEnv[Any, Any, np.ndarray], Generic[S]):
    """Act in N dreams at once: one batched call of the model a step.

    After the end of a dream, the next step ignores the action there and begins another (NEXT_STEP), the timing of
    arrival rows: `foreworld.envs.Vector` drives it as it drives environments. A seed decides about all N together.

    Args:
        model: as for `DreamEnv`.
        starts: as for `DreamEnv`.
        horizon: steps after which a dream is cut off.
        num_envs: N.
        context: rows that the model sees before a dream begins.
        show: `obs` for decoded observations, `feat` for the model's features.
        end: when a dream is over before its horizon: `drawn`, `likely` or `never`.
        render_mode: None or `rgb_array`.

    Raises:
        ConfigError: as for `DreamEnv`.
        MissingCapability: as for `DreamEnv`.
    """

    def __init__(
        self,
        model: WorldModel[S],
        starts: Starts[S] | Dataset,
        horizon: int,
        *,
        num_envs: int,
        context: int = 8,
        show: Show = "obs",
        end: End = "drawn",
        render_mode: str | None = None,
    ) -> None:
        self.dreams = Dreams(model, _starts(model, starts, context), horizon, count=num_envs, show=show, end=end)
        self.num_envs = num_envs
        self.single_observation_space = self.dreams.observation_space
        self.single_action_space = self.dreams.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**_metadata(model), "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = _render_mode(render_mode, self.metadata)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin N dreams.

        Raises:
            ConfigError: several seeds.
        """
        if seed is not None and not isinstance(seed, int):
            raise ConfigError("N dreams are drawn together from one seed; give one integer")
        super().reset(seed=seed)
        self.dreams.begin(self.np_random)
        self._ended = np.zeros(self.num_envs, bool)
        return self.dreams.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every dream, [N, ...]; where one ended, begin the next."""
        fresh = self._ended
        reward, over, cut = self.dreams.step(self.np_random, actions)
        if fresh.any():
            self.dreams.begin(self.np_random, fresh)
            reward, over, cut = np.where(fresh, 0.0, reward), over & ~fresh, cut & ~fresh
        self._ended = over | cut
        return self.dreams.observe(), reward, over, cut, {}

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """Return what is seen as N pictures, uint8 [H, W, 3] each, if that was asked for."""
        pictures = self.dreams.pictures() if self.render_mode else None
        return None if pictures is None else tuple(pictures)


def _starts(model: WorldModel[S], starts: Starts[S] | Dataset, context: int) -> Starts[S]:
    return recorded_starts(model, starts, context) if isinstance(starts, Dataset) else starts


def _metadata(model: WorldModel[Any]) -> dict[str, Any]:
    pictured = bool(model.spec.images) and shows(model)
    found: dict[str, Any] = {"render_modes": ["rgb_array"] if pictured else [], "frame_skip": model.spec.frame_skip}
    return found | ({} if model.spec.fps is None else {"render_fps": model.spec.fps})


def _render_mode(mode: str | None, metadata: dict[str, Any]) -> str | None:
    if mode is not None and mode not in metadata["render_modes"]:
        raise ConfigError(f"a dream cannot be rendered as {mode!r}; it can as {metadata['render_modes'] or 'nothing'}")
    return mode
