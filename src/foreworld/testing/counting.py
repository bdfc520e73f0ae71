"""An environment that counts: each observation tells its own step index and the action that led to it.

Whoever shifts a reward, an action or a continuation by one row is found out at once.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from foreworld.core import Segment, Space, Spec
from foreworld.testing.samples import random_actions

ACTIONS = 3
REWARDS = torch.tensor([0.0, 1.0, -1.0, -0.5, 1.5, 0.5, -1.5, 2.0])
"""What arriving at each index earns, besides the bonus for the action; the last one ends the episode."""
STEPS = len(REWARDS) - 1
BONUS = torch.tensor([-1.0, 0.0, 1.0])
SIDE = 16

ActionKind = Literal["discrete", "box"]


def bonus_of(action: Tensor) -> Tensor:
    """Return what model-ready actions [..., A] earn by themselves, [...]."""
    return action @ BONUS if action.shape[-1] == ACTIONS else action[..., 0]


def rewards_of(index: Tensor, action: Tensor) -> Tensor:
    """Return the rewards [...] of arriving at `index` [...] by model-ready actions [..., A]; nothing at index 0."""
    return (REWARDS[index] + bonus_of(action)) * (index > 0)


def observation_of(index: Tensor, action: Tensor, image: bool) -> Tensor:
    """Show indices [...] and the model-ready actions [..., A] that led there, as the environment does."""
    if not image:
        return torch.cat([F.one_hot(index, STEPS + 1).float(), action], -1)
    column = torch.arange(SIDE) // (SIDE // (STEPS + 1))
    pixels = (column == index[..., None]).float()[..., None, :].repeat_interleave(SIDE, -2)
    strength = action @ torch.linspace(0, 1, ACTIONS) if action.shape[-1] == ACTIONS else (action[..., 0] + 1) / 2
    pixels[..., -1, :] = strength[..., None]
    return (255 * pixels).round().to(torch.uint8)[..., None]


class CountingEnv(gym.Env[np.ndarray, Any]):
    """Count from 0 to the last index, whatever is done.

    Args:
        action: `discrete` (three choices) or `box` (one number in [-2, 2]).
        image: show the index as a bright column of a small image, the action as the
            brightness of the lowest row, instead of a vector.

    Example:
        >>> env = CountingEnv()
        >>> env.reset()[0]
        array([1., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.], dtype=float32)
        >>> env.step(2)[0]
        array([0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 1.], dtype=float32)
    """

    def __init__(self, action: ActionKind = "discrete", image: bool = False) -> None:
        self.image = image
        self.index = 0
        width = ACTIONS if action == "discrete" else 1
        self.action_space = (
            spaces.Discrete(ACTIONS) if action == "discrete" else spaces.Box(-2.0, 2.0, (1,), np.float32)
        )
        self.observation_space = (
            spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
            if image
            else spaces.Box(-1.0, 1.0, (STEPS + 1 + width,), np.float32)
        )
        self.ready = Space.from_gym(self.action_space, "action")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at index 0; no action led here."""
        super().reset(seed=seed)
        self.index = 0
        return self._show(torch.zeros(self.ready.width)), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Count one on; the last index is terminal."""
        self.index += 1
        ready = self.ready.to_model(torch.as_tensor(action))
        reward = float(rewards_of(torch.tensor(self.index), ready))
        return self._show(ready), reward, self.index == STEPS, False, {}

    def _show(self, action: Tensor) -> np.ndarray:
        return observation_of(torch.tensor(self.index), action, self.image).numpy()


def counting_spec(action: ActionKind = "discrete", image: bool = False) -> Spec:
    """Return what a model is told about the counting environment.

    Args:
        action: kind of action.
        image: whether it shows pictures instead of vectors.
    """
    env = CountingEnv(action, image)
    return Spec.from_space(env.observation_space, env.action_space)


def counting_segment(
    batch: int,
    length: int,
    *,
    action: ActionKind = "discrete",
    image: bool = False,
    seed: int = 0,
    start: int | None = 0,
) -> Segment:
    """Make the rows that the counting environment gives under random actions, episode after episode.

    Args:
        batch: B, how many.
        length: T, rows of each.
        action: kind of action.
        image: show pictures instead of vectors.
        seed: of the actions, and of where sequences begin.
        start: index of the first row; None for a random one in each sequence.

    Returns:
        [B, T] rows, as a store of this environment would give them.
    """
    generator = torch.Generator().manual_seed(seed)
    spec = counting_spec(action, image)
    starts = (
        torch.randint(STEPS + 1, (batch, 1), generator=generator) if start is None else torch.full((batch, 1), start)
    )
    index = (starts + torch.arange(length)) % (STEPS + 1)
    prev_action = random_actions(spec, batch, length, generator)
    assert prev_action is not None
    prev_action = prev_action * (index > 0)[..., None]
    shown = observation_of(index, prev_action, image)
    terminal = index == STEPS
    return Segment(
        obs={name: shown.movedim(-1, -3) if image else shown for name in spec.obs},
        prev_action=prev_action,
        reward=rewards_of(index, prev_action),
        is_first=index == 0,
        is_terminal=terminal,
        is_last=terminal.clone(),
    )


def counting_index(segment: Segment) -> Tensor:
    """Read the step index [B, T] off the observations of the counting environment."""
    if "image" in segment.obs:
        return segment.obs["image"][..., 0, 0, :].long().argmax(-1) // (SIDE // (STEPS + 1))
    return segment.obs["obs"][..., : STEPS + 1].argmax(-1)
