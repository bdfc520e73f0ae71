"""`Driver`: run one environment, refuse its bad transitions, and begin a new episode after each."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np

from foreworld.core.errors import EnvironmentFault
from foreworld.envs.episodes import EpisodeKey
from foreworld.envs.slots import Slots

Builder = Callable[[], gym.Env]
"""Opens one environment; for worker processes it must be picklable."""

MOST_IN_A_ROW = 10
"""Faults without a single good step between them, after which one environment is given up."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What went wrong in one call of a driver.

    Attributes:
        refused: transitions that broke the contract.
        failed: exceptions that the environment raised.
        in_a_row: faults since the last good step; at `MOST_IN_A_ROW` no observation came.
        text: the first fault of this call.
    """

    refused: int = 0
    failed: int = 0
    in_a_row: int = 0
    text: str = ""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<HHH")

    def pack(self) -> bytes:
        """Write the faults as bytes, for a pipe."""
        return self.LAYOUT.pack(self.refused, self.failed, self.in_a_row) + self.text.encode()

    @classmethod
    def unpack(cls, message: bytes) -> Self:
        """Read what `pack` wrote."""
        refused, failed, in_a_row = cls.LAYOUT.unpack_from(message)
        text = message[cls.LAYOUT.size :].decode(errors="replace")
        return cls(refused=refused, failed=failed, in_a_row=in_a_row, text=text)


class Driver:
    """Run one environment; its rows go into slots.

    A transition that breaks the contract is refused: it is not delivered, and a new episode
    begins in its place. After an exception the environment is also built anew.

    Args:
        build: opens the environment.
        slots: where its rows are put.
        index: which row of the slots is this environment's.
        env: the environment, when it is open already.
    """

    def __init__(self, build: Builder, slots: Slots, index: int, env: gym.Env | None = None) -> None:
        """Take the environment over."""
        self.env = env
        self._build, self._slots, self._index = build, slots, index
        self._seed: int | None = None
        self._next: EpisodeKey | None = None
        self._given_up = 0
        self._in_a_row = 0
        self._good = 0

    def reset(self, seed: int | None = None) -> Faults | None:
        """Begin a new episode; without a seed the random numbers go on."""
        self._seed, self._next = self._seed if seed is None else seed, None
        return self._begin(seed)

    def open(self, key: EpisodeKey) -> Faults | None:
        """Begin the episode of this key, and after it those that come next, each seeded by its own key."""
        self._next = key
        return self._begin(None)

    def step(self, action: Any) -> Faults | None:
        """Take an action, or begin a new episode after the last row of one; `step_together` looks at the bounds."""
        if self._slots.last[self._index]:
            return self._begin(None)
        try:
            assert self.env is not None
            obs, reward, terminated, truncated, _ = self.env.step(action)
            self._slots.put(self._index, obs, reward, terminated, truncated)
        except Exception as fault:
            return self._begin(None, fault)
        self._good += 1
        return None

    def refuse(self, fault: EnvironmentFault) -> Faults | None:
        """Take the row back that `step` put, and begin a new episode in its place."""
        self._good -= 1
        return self._begin(None, fault)

    def close(self) -> None:
        """Close the environment, whatever state it is in."""
        if self.env is not None:
            with suppress(Exception):
                self.env.close()
            self.env = None

    def _begin(self, seed: int | None, cause: Exception | None = None) -> Faults | None:
        """Begin a new episode, after a fault or not; return what went wrong until its first row was there."""
        noted: list[tuple[bool, str]] = [] if cause is None else [self._noted(cause)]
        while self._in_a_row < MOST_IN_A_ROW:
            try:
                if self.env is None:
                    self.env = self._build()
                    if seed is None and self._seed is not None:  # a fresh one, or it would play the same episodes again
                        seed = derived_seed(self._seed, self._given_up)
                if self._next is not None:
                    seed, self._slots.episode[self._index] = self._next.derived(), self._next.number
                    self._next = self._next.next()
                obs, _ = self.env.reset(seed=seed)
                self._slots.begin(self._index, obs)
            except Exception as fault:
                noted.append(self._noted(fault))
            else:
                break
        if not noted and self._in_a_row < MOST_IN_A_ROW:
            return None
        refused = sum(is_refused for is_refused, _ in noted)
        text = noted[0][1] if noted else ""
        return Faults(refused=refused, failed=len(noted) - refused, in_a_row=self._in_a_row, text=text)

    def _noted(self, fault: Exception) -> tuple[bool, str]:
        """Count a fault; return whether the contract was broken, rather than an exception raised, and what was said."""
        self._in_a_row = 1 if self._good else self._in_a_row + 1
        self._good = 0
        if isinstance(fault, EnvironmentFault):
            return True, str(fault)
        self.close()
        self._given_up += 1
        return False, f"{type(fault).__name__}: {fault}"


def step_together(
    drivers: Sequence[Driver], slots: Slots, actions: Iterable[Any], who: Iterable[bool] = repeat(True)
) -> dict[int, Faults]:
    """Let drivers that share slots take one action each, and refuse the rows that are out of bounds.

    Args:
        drivers: all that share the slots.
        slots: where their rows are put.
        actions: one for each.
        who: which of them act; the others stay where they are.

    Returns:
        Number of the driver to what went wrong: almost always nothing.
    """
    found: dict[int, Faults] = {}
    for index, (driver, action, acts) in enumerate(zip(drivers, actions, who, strict=False)):
        if acts and (faults := driver.step(action)):
            found[index] = faults
    for index, fault in slots.outside().items():
        if index not in found and (faults := drivers[index].refuse(fault)):
            found[index] = faults
    return found


def derived_seed(*numbers: int) -> int:
    """Derive a seed of 31 bits from other numbers."""
    return int(np.random.SeedSequence([abs(number) for number in numbers]).generate_state(1)[0]) >> 1
