"""Policies that collecting knows by name, beside the random one: a walk with momentum, and who knows the truth."""

from __future__ import annotations

import numpy as np

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.spaces import Space
from foreworld.envs.vector import Rows, Vector
from foreworld.worlds.catalogue import WORLDS, rebuild
from foreworld.worlds.world import Guided

POLICIES = ("random", "walk", "oracle")
"""Names of policies; `random` is `RandomPolicy`."""


class WalkPolicy:
    """Go on in a direction that turns a little at every step: a random walk with momentum, which gets about.

    Args:
        action: the action space, a bounded box; directions are those of its components.
        seed: the same seed, the same actions.
        turn: how much a direction changes from step to step, rad along every axis of turning.
        mean: mean length of an action, as a share of the half range of the box.
        deviation: standard deviation of the length, which is kept between 0.08 and 0.75.

    Raises:
        ConfigError: discrete or unbounded actions.

    Reference:
        Sobal et al., 2025, "Learning from Reward-Free Offline Data"; the defaults are those of its walks in a room.
    """

    def __init__(
        self, action: Space, seed: int = 0, *, turn: float = 0.2, mean: float = 0.41, deviation: float = 0.16
    ) -> None:
        """Start the generator."""
        if action.kind != "vector" or not action.bounded:
            raise ConfigError(
                "a walk needs a bounded box of actions; use the random policy, with `repeat` to hold them"
            )
        self._action, self._turn, self._mean, self._deviation = action, turn, mean, deviation
        low, high = np.asarray(action.low), np.asarray(action.high)
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2])))
        self._heading: np.ndarray | None = None

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        shape = (len(rows.is_first), self._action.width)
        fresh, noise = self._rng.standard_normal(shape), self._rng.standard_normal(shape)
        heading = fresh if self._heading is None else self._heading + self._turn * noise
        heading = _unit(np.where(rows.is_first[:, None], fresh, heading))
        self._heading = heading if self._heading is None else np.where(rows.arrived[:, None], heading, self._heading)
        length = np.clip(self._rng.normal(self._mean, self._deviation, (len(heading), 1)), 0.08, 0.75)
        drawn = self._middle + self._half * length * heading
        return drawn.astype(self._action.dtype).reshape(len(heading), *self._action.shape)


class OraclePolicy:
    """Act as the world itself would: by `truth/state`, which no model is shown. The ceiling for agents and planners.

    Args:
        world: a bundled world that knows how to act in it.
    """

    def __init__(self, world: Guided) -> None:
        """Remember the world."""
        self.world = world

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        act = self.world.oracle(np.asarray(rows.truth["state"], np.float64))
        return act.astype(rows.prev_action.dtype)


def named_policy(name: str, env: Vector, seed: int) -> WalkPolicy | OraclePolicy:
    """Return the policy of a name other than `random`.

    Args:
        name: `walk` or `oracle`.
        env: in which it will act.
        seed: of its random numbers.

    Raises:
        EnvironmentFault: the oracle of an environment that has none.
        UnknownName: no policy has that name.
    """
    if name == "walk":
        return WalkPolicy(env.action, seed)
    if name != "oracle":
        raise UnknownName(unknown("policy", name, list(POLICIES)))
    world = rebuild(env.env_id, env.options) if env.env_id in WORLDS else None
    if not isinstance(world, Guided):
        known = ", ".join(sorted(key for key, one in WORLDS.items() if isinstance(one.world, Guided)))
        raise EnvironmentFault(f"{env.env_id}: nobody knows how to act well here; an oracle is there for {known}")
    return OraclePolicy(world)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12)
