"""`Fleet`: N environments that may fail one by one; `Local` runs them in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.envs.contract import leaves
from foreworld.envs.driver import MOST_IN_A_ROW, Builder, Driver, Outcome

STEPS_TO_JUDGE = 100
"""Steps before the share of bad ones says anything."""

Field = tuple[tuple[int, ...], str]
"""Shape and type of one array."""


@dataclass(kw_only=True)
class Tally:
    """What went wrong so far.

    Attributes:
        steps: actions that were taken, bad ones included.
        refused: transitions that broke the contract of their environment.
        failed: exceptions that an environment raised.
        died: worker processes that ended.
        hung: worker processes that did not answer in time and were killed.
        first: what the first refused or failed one said.
    """

    steps: int = 0
    refused: int = 0
    failed: int = 0
    died: int = 0
    hung: int = 0
    first: str = ""

    @property
    def restarts(self) -> int:
        """Worker processes that were started again."""
        return self.died + self.hung

    @property
    def faults(self) -> dict[str, int]:
        """Every kind of fault by name."""
        return {"refused": self.refused, "failed": self.failed, "died": self.died, "hung": self.hung}


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrivals:
    """What one call brought; where not `arrived`, the other values mean nothing.

    Attributes:
        obs: name to [N, ...], a view that the next call overwrites.
        reward: [N] float64.
        first: [N] bool, first row of an episode, also of one that replaces an episode cut off by a fault.
        terminal: [N] bool.
        last: [N] bool.
        arrived: [N] bool, false while an environment is being started again.
    """

    obs: Mapping[str, np.ndarray]
    reward: np.ndarray
    first: np.ndarray
    terminal: np.ndarray
    last: np.ndarray
    arrived: np.ndarray


class Fleet(ABC):
    """Environments that are stepped together and fail one by one.

    The step after the last row of an episode begins the next one. A fault costs the row that it
    belongs to and nothing else: the next row of that environment is the first of a new episode.

    Args:
        env_id: name for messages.
        probe: one of the environments, for its spaces.
        count: N, of the environments.
        fault_rate: share of refused and failed steps above which the run stops.
    """

    def __init__(self, env_id: str, probe: gym.Env, count: int, fault_rate: float) -> None:
        """Read the spaces."""
        if not 0 <= fault_rate <= 1:
            raise ConfigError(f"fault_rate is a share between 0 and 1, found {fault_rate}")
        self.env_id, self.num_envs, self.fault_rate = env_id, count, fault_rate
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        self.metadata: dict[str, Any] = {**probe.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.tally = Tally()

    @abstractmethod
    def reset(self, seed: int | None = None) -> Arrivals:
        """Begin a new episode everywhere; environment i is seeded with `seed + i`."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Arrivals:
        """Take one action everywhere, [N, ...]; where an episode ended, begin the next.

        Raises:
            EnvironmentFault: faults became too many; the first one is quoted.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""

    def _blank(self, slots: Mapping[str, np.ndarray]) -> Arrivals:
        first, terminal, last, arrived = np.zeros((4, self.num_envs), bool)
        reward = np.zeros(self.num_envs)
        return Arrivals(obs=slots, reward=reward, first=first, terminal=terminal, last=last, arrived=arrived)

    def _take(self, arrivals: Arrivals, index: int, outcome: Outcome) -> None:
        """Write an outcome into the batch, and stop when there were too many faults."""
        arrivals.reward[index], arrivals.first[index] = outcome.reward, outcome.first
        arrivals.terminal[index], arrivals.last[index] = outcome.terminal, outcome.last
        arrivals.arrived[index] = True
        tally = self.tally
        tally.steps += not outcome.first or bool(outcome.text)
        if outcome.text:
            tally.refused += outcome.refused
            tally.failed += outcome.failed
            tally.first = tally.first or f"{self.env_id}, environment {index}: {outcome.text}"
        bad = tally.refused + tally.failed
        if not bad:
            return
        remedy = f"first fault: {tally.first}; mend the environment"
        if outcome.in_a_row >= MOST_IN_A_ROW:
            raise EnvironmentFault(f"{self.env_id}, environment {index}: {outcome.in_a_row} faults in a row; {remedy}")
        if tally.steps >= STEPS_TO_JUDGE and bad > self.fault_rate * tally.steps:
            share = f"{bad} of {tally.steps} steps were bad, more than {self.fault_rate:.3g} of all"
            raise EnvironmentFault(f"{self.env_id}: {share}; {remedy}, or allow more with fault_rate")


class Local(Fleet):
    """Run the environments in this process, one after the other.

    Args:
        builders: one for each environment.
        env_id: name for messages.
        fault_rate: share of refused and failed steps above which the run stops.
    """

    def __init__(self, builders: Sequence[Builder], env_id: str, *, fault_rate: float = 0.01) -> None:
        """Open the environments."""
        opened: list[gym.Env] = []
        try:
            opened += (build() for build in builders)
            super().__init__(env_id, opened[0], len(opened), fault_rate)
            fields = observation_fields(opened[0].observation_space, len(opened))
        except BaseException:
            for env in opened:
                env.close()
            raise
        self._slots = {key: np.zeros(shape, dtype) for key, (shape, dtype) in fields.items()}
        pairs = enumerate(zip(builders, opened, strict=True))
        self.drivers = [Driver(build, self._slots, index, env) for index, (build, env) in pairs]
        self._ended = np.ones(self.num_envs, bool)

    def reset(self, seed: int | None = None) -> Arrivals:
        """Begin a new episode everywhere."""
        arrivals = self._blank(self._slots)
        for index, driver in enumerate(self.drivers):
            self._take(arrivals, index, driver.reset(None if seed is None else seed + index))
        self._ended = arrivals.last
        return arrivals

    def step(self, actions: np.ndarray) -> Arrivals:
        """Take one action everywhere."""
        arrivals = self._blank(self._slots)
        for index, driver in enumerate(self.drivers):
            self._take(arrivals, index, driver.reset() if self._ended[index] else driver.step(own(actions, index)))
        self._ended = arrivals.last
        return arrivals

    def close(self) -> None:
        """Close the environments."""
        for driver in self.drivers:
            driver.close()


def observation_fields(space: gym.Space[Any], count: int) -> dict[str, Field]:
    """Lay out the observations of `count` environments: shape and type by name.

    What has no array form (texts, graphs) is left out; `Spec.from_space` refuses it with a reason.
    """
    found = {key: inner for key, inner in leaves(space).items() if inner.shape is not None and inner.dtype is not None}
    return {key: ((count, *(inner.shape or ())), np.dtype(inner.dtype).str) for key, inner in found.items()}


def own(actions: np.ndarray, index: int) -> Any:
    """Copy out one action: an array, or a scalar of NumPy."""
    action = actions[index]
    return action.copy() if isinstance(action, np.ndarray) else action
