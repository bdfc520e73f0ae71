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
from foreworld.envs.driver import MOST_IN_A_ROW, Builder, Driver, Faults, step_together
from foreworld.envs.episodes import EpisodeKey
from foreworld.envs.slots import Slots, slot_fields

STEPS_TO_JUDGE = 100
"""Steps before the share of bad ones says anything."""


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


class Fleet(ABC):
    """Environments of one kind that are stepped together and fail one by one.

    The step after the last row of an episode begins the next one. A fault costs the row that it
    belongs to and nothing else: the next row of that environment is the first of a new episode.

    Args:
        env_id: name for messages.
        probe: one of the environments, for its spaces.
        count: N, of the environments.
        fault_rate: share of refused and failed steps above which the run stops.
    """

    slots: Slots
    """The rows that came; the next call overwrites them."""

    def __init__(self, env_id: str, probe: gym.Env, count: int, fault_rate: float) -> None:
        """Read the spaces."""
        if not 0 <= fault_rate <= 1:
            raise ConfigError(f"fault_rate is a share between 0 and 1, found {fault_rate}")
        self.env_id, self.num_envs, self.fault_rate = env_id, count, fault_rate
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        self.metadata: dict[str, Any] = {**probe.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.tally = Tally()

    @abstractmethod
    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin a new episode everywhere; environment i is seeded with `seed + i`.

        Returns:
            [N] bool, whether a row came; where none did, its slot means nothing.
        """

    @abstractmethod
    def open(self, keys: Sequence[EpisodeKey]) -> np.ndarray:
        """Begin the episodes of N keys, and after them those that come next, each seeded by its own key.

        Returns:
            [N] bool, whether a row came: everywhere.
        """

    @abstractmethod
    def step(self, actions: np.ndarray, who: np.ndarray | None = None) -> np.ndarray:
        """Take one action everywhere, [N, ...], an array of the fleet's own; where an episode ended, begin the next.

        Args:
            actions: [N, ...].
            who: [N] bool, where to act; the other environments stay as they are. They are waited for, all of them.

        Returns:
            [N] bool, whether a row came: false while an environment is being started again.

        Raises:
            EnvironmentFault: faults became too many; the first one is quoted.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""

    def _count(self, arrived: np.ndarray, found: Mapping[int, Faults]) -> np.ndarray:
        """Count the steps and the faults of one call, and stop when these became too many."""
        tally = self.tally
        tally.steps += int(np.count_nonzero(arrived & ~self.slots.first)) + len(found)
        for index, faults in sorted(found.items()):
            tally.refused += faults.refused
            tally.failed += faults.failed
            tally.first = tally.first or f"{self.env_id}, environment {index}: {faults.text}"
            if faults.in_a_row >= MOST_IN_A_ROW:
                many = f"{self.env_id}, environment {index}: {faults.in_a_row} faults in a row"
                raise EnvironmentFault(f"{many}; first fault: {tally.first}; mend the environment")
        bad = tally.refused + tally.failed
        if bad and tally.steps >= STEPS_TO_JUDGE and bad > self.fault_rate * tally.steps:
            share = f"{bad} of {tally.steps} steps were bad, more than {self.fault_rate:.3g} of all"
            remedy = f"first fault: {tally.first}; mend the environment, or allow more with fault_rate"
            raise EnvironmentFault(f"{self.env_id}: {share}; {remedy}")
        return arrived


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
            fields = slot_fields(opened[0].observation_space, len(opened))
        except BaseException:
            for env in opened:
                env.close()
            raise
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()}
        self.slots = Slots(self.single_observation_space, arrays)
        self._everyone = np.ones(self.num_envs, bool)
        pairs = enumerate(zip(builders, opened, strict=True))
        self.drivers = [Driver(build, self.slots, index, env) for index, (build, env) in pairs]

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin a new episode everywhere."""
        found = {
            index: faults
            for index, driver in enumerate(self.drivers)
            if (faults := driver.reset(None if seed is None else seed + index))
        }
        return self._count(self._everyone.copy(), found)

    def open(self, keys: Sequence[EpisodeKey]) -> np.ndarray:
        """Begin the episodes of N keys."""
        pairs = enumerate(zip(self.drivers, keys, strict=True))
        found = {index: faults for index, (driver, key) in pairs if (faults := driver.open(key))}
        return self._count(self._everyone.copy(), found)

    def step(self, actions: np.ndarray, who: np.ndarray | None = None) -> np.ndarray:
        """Take one action everywhere, or where [N] told so."""
        if who is None:
            return self._count(self._everyone.copy(), step_together(self.drivers, self.slots, actions))
        return self._count(who.copy(), step_together(self.drivers, self.slots, actions, who.tolist()))

    def close(self) -> None:
        """Close the environments."""
        for driver in self.drivers:
            driver.close()
