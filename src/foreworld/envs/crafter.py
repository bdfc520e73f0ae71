"""Crafter, a survival game with 22 achievements, through the interface of Gymnasium."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from foreworld.core.errors import EnvironmentFault, MissingExtra, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH

TASKS = {"crafter/reward": True, "crafter/noreward": False}


class InOrder(dict[Any, None]):
    """A set that is walked in the order in which its members came."""

    def add(self, member: Any) -> None:
        """Add a member."""
        self[member] = None

    def remove(self, member: Any) -> None:
        """Drop a member."""
        del self[member]


def _ordered(world: Any) -> Any:
    """Return the package's world with creatures that have an order."""

    class Ordered(world):
        def reset(self, seed: int | None = None) -> None:
            super().reset(seed)
            self._chunks = defaultdict(InOrder)

    return Ordered


class Crafter(gym.Env[dict[str, np.ndarray], int]):
    """The game: `image`, and as truth how often each achievement was reached, what is carried, and where.

    An episode ends with death, or is cut off after 10,000 steps. The package draws creatures out of sets, in an order
    that changes from process to process; here the order is that of their birth, so that a seed decides everything.

    Reference:
        Hafner, 2021, "Benchmarking the Spectrum of Agent Capabilities".
    """

    def __init__(self, *, reward: bool = True, image_size: int = 64, length: int = 10_000) -> None:
        """Open the game.

        Args:
            reward: 1 for every achievement reached for the first time in an episode, and a tenth of the health won
                or lost; without it, 0.
            image_size: side of the square picture.
            length: steps after which an episode is cut off.
        """
        crafter: Any = import_module("crafter")
        self._env = crafter.Env(size=(image_size, image_size), reward=reward, length=length, seed=0)
        self._env._world.__class__ = _ordered(crafter.engine.World)
        self._achievements, self._items = list(crafter.constants.achievements), list(crafter.constants.items)
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.action_space: spaces.Space[Any] = spaces.Discrete(len(crafter.constants.actions))
        counts = {"achievements": len(self._achievements), "inventory": len(self._items), "position": 2}
        found: dict[str, spaces.Space[Any]] = {
            TRUTH + key: spaces.Box(0, 2**31 - 1, (count,), np.int32) for key, count in counts.items()
        }
        found["image"] = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: spaces.Space[Any] = spaces.Dict(found)

    @property
    def achievements(self) -> list[str]:
        """Names of the columns of `truth/achievements`."""
        return list(self._achievements)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Make a new world."""
        super().reset(seed=seed)
        self._env._seed, self._env._episode = int(self.np_random.integers(2**31)), 0
        return self._observe(self._env.reset()), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act."""
        image, reward, over, info = self._env.step(int(action))
        dead = info["discount"] == 0
        return self._observe(image), float(reward), dead, bool(over) and not dead, {}

    def render(self) -> np.ndarray:
        """Return the picture, uint8 [H, W, 3]."""
        return self._env.render()

    def _observe(self, image: np.ndarray) -> dict[str, np.ndarray]:
        player = self._env._player
        return {
            "image": image,
            TRUTH + "achievements": np.array([player.achievements[name] for name in self._achievements], np.int32),
            TRUTH + "inventory": np.array([player.inventory[name] for name in self._items], np.int32),
            TRUTH + "position": np.array(player.pos, np.int32),
        }


def make_crafter(env_id: str, *, image_size: int | None = 64, **options: Any) -> gym.Env:
    """Open Crafter by its id, `crafter/reward` or `crafter/noreward`.

    Args:
        env_id: one of the two.
        image_size: side of the picture; None for 64.
        **options: `length`, see `Crafter`.

    Returns:
        A `Crafter`.

    Raises:
        MissingExtra: crafter is not installed.
        UnknownName: another id.
        EnvironmentFault: an option that does not exist.
    """
    try:
        import_module("crafter")
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs crafter: pip install 'foreworld[crafter]'") from fault
    if env_id not in TASKS:
        raise UnknownName(unknown("task", env_id, list(TASKS)))
    try:
        return Crafter(reward=TASKS[env_id], image_size=image_size or 64, **options)
    except TypeError as fault:
        raise EnvironmentFault(f"{env_id}: an option was refused ({fault})") from fault
