"""What chooses actions while episodes are collected: chance, a walk, who knows the truth, or a mixture."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.core.registry import unknown
from foreworld.core.spaces import Space
from foreworld.envs.vector import Rows, Vector
from foreworld.worlds.catalogue import WORLDS, rebuild
from foreworld.worlds.world import Guided

POLICIES = ("random", "walk", "oracle")
"""Names of policies; `random` is `RandomPolicy`."""


class Policy(Protocol):
    """What chooses actions; it keeps its own memory, and clears it where `is_first`."""

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row, as the environment takes them.

        Where `is_last`, any value will do: it is ignored. Where `arrived` is false, nothing
        new was seen: memory must stay as it is, and the action is ignored or asked for again.
        """
        ...


class RandomPolicy:
    """Choose uniformly, and hold each action for a geometric number of steps.

    Args:
        action: the action space; an unbounded component is drawn from a standard normal.
        seed: the same seed, the same actions.
        repeat: mean number of steps that an action is held, >= 1. Holding makes a random
            agent go somewhere, where a fresh action every step only trembles.
    """

    def __init__(self, action: Space, seed: int = 0, repeat: float = 1.0) -> None:
        """Start the generator."""
        if repeat < 1:
            raise ConfigError(f"repeat is a mean number of steps and at least 1, found {repeat}")
        self._action, self._change = action, 1 / repeat
        self._low, self._high = np.asarray(action.low), np.asarray(action.high)
        if action.kind == "discrete":
            self._low = np.asarray(action.start)
            self._high = self._low + np.asarray(action.classes) - 1
        if self._low.size == 1:  # NumPy is twice as fast with one number as with an array of one
            self._low, self._high = self._low[0], self._high[0]
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
        self._held: np.ndarray | None = None

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        return self.draw(rows.is_first)

    def draw(self, is_first: np.ndarray) -> np.ndarray:
        """Choose an action [N, ...] for N rows, a new one where [N] an episode begins."""
        count = len(is_first)
        fresh = self._draw(count)
        change = (self._rng.random(count) < self._change) | is_first
        if self._held is not None and np.count_nonzero(change) < count:
            fresh[~change] = self._held[~change]
        self._held = fresh
        return fresh

    def _draw(self, count: int) -> np.ndarray:
        space = self._action
        if space.kind == "discrete":
            drawn = self._rng.integers(self._low, self._high, (count, len(space.classes)), endpoint=True)
        elif space.bounded:
            drawn = self._low + (self._high - self._low) * self._rng.random((count, space.width))
        else:
            drawn = self._rng.standard_normal((count, space.width))
        return drawn.astype(space.dtype).reshape(count, *space.shape)


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


class NoisyPolicy:
    """Follow a policy, but for stretches in which actions are random: it gets where chance does not, and errs there.

    Args:
        policy: what is followed.
        action: its action space.
        noise: share of the time that is random.
        repeat: mean number of steps of such a stretch, and that a random action is held.
        seed: the same seed, the same stretches and random actions.

    Raises:
        ConfigError: a share outside [0, 1].
    """

    def __init__(self, policy: Policy, action: Space, noise: float, repeat: float = 1.0, seed: int = 0) -> None:
        """Start the generators."""
        if not 0 <= noise <= 1:
            raise ConfigError(f"noise is the share of random actions, between 0 and 1, found {noise}")
        self._policy, self._random = policy, RandomPolicy(action, seed, repeat)
        self._noise, self._change = noise, 1 / repeat
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 3])))
        self._astray: np.ndarray | None = None

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        told, drawn = self._policy(rows), self._random(rows)
        chance = self._rng.random((2, len(told)))
        astray, change = chance[1] < self._noise, rows.arrived & (rows.is_first | (chance[0] < self._change))
        self._astray = astray if self._astray is None else np.where(change, astray, self._astray)
        astray = self._astray
        return np.where(astray.reshape(-1, *[1] * (told.ndim - 1)), drawn, told)


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
