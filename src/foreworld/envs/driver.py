"""`Driver`: run one environment, refuse its bad transitions, and begin a new episode after each."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np

from foreworld.core.errors import EnvironmentFault
from foreworld.core.spaces import flat_values

Builder = Callable[[], gym.Env]
"""Opens one environment; for worker processes it must be picklable."""

MOST_IN_A_ROW = 10
"""Faults without a single good step between them, after which one environment is given up."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call gave; the observation lies in the slot of the environment.

    Attributes:
        reward: earned by arriving; zero where `first`.
        first: a new episode began, whether it was asked for or the transition was refused.
        terminal: no future exists.
        last: the episode ended.
        refused: transitions that broke the contract.
        failed: exceptions that the environment raised.
        in_a_row: faults since the last good step; at `MOST_IN_A_ROW` no observation came.
        text: the first fault of this call.
    """

    reward: float = 0.0
    first: bool = False
    terminal: bool = False
    last: bool = False
    refused: int = 0
    failed: int = 0
    in_a_row: int = 0
    text: str = ""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<d???HHH")

    def pack(self) -> bytes:
        """Write the outcome as bytes, for a pipe."""
        numbers = (self.reward, self.first, self.terminal, self.last, self.refused, self.failed, self.in_a_row)
        return self.LAYOUT.pack(*numbers) + self.text.encode()

    @classmethod
    def unpack(cls, message: bytes) -> Self:
        """Read what `pack` wrote."""
        reward, first, terminal, last, refused, failed, in_a_row = cls.LAYOUT.unpack_from(message)
        text = message[cls.LAYOUT.size :].decode(errors="replace")
        return cls(
            reward=reward,
            first=first,
            terminal=terminal,
            last=last,
            refused=refused,
            failed=failed,
            in_a_row=in_a_row,
            text=text,
        )


class Driver:
    """Run one environment.

    A transition that breaks the contract is refused: it is not delivered, and a new episode
    begins in its place. After an exception the environment is also built anew.

    Args:
        build: opens the environment.
        slots: name to [N, ...], where observations are put.
        index: which row of the slots is this environment's.
        env: the environment, when it is open already.
    """

    def __init__(self, build: Builder, slots: Mapping[str, np.ndarray], index: int, env: gym.Env | None = None) -> None:
        """Take the environment over."""
        self.env = env
        self._build, self._slots, self._index = build, slots, index
        self._seed: int | None = None
        self._given_up = 0
        self._in_a_row = 0

    def reset(self, seed: int | None = None) -> Outcome:
        """Begin a new episode; without a seed the random numbers go on."""
        self._seed = self._seed if seed is None else seed
        return self._begin(seed, refused=0, failed=0, text="")

    def step(self, action: Any) -> Outcome:
        """Take an action."""
        try:
            assert self.env is not None
            obs, reward, terminated, truncated, _ = self.env.step(action)
            self._put(obs)
        except Exception as fault:
            return self._recover(fault)
        self._in_a_row = 0
        return Outcome(reward=float(reward), terminal=terminated, last=terminated or truncated)

    def close(self) -> None:
        """Close the environment, whatever state it is in."""
        if self.env is not None:
            with suppress(Exception):
                self.env.close()
            self.env = None

    def _recover(self, fault: Exception) -> Outcome:
        refused = self._note(fault)
        return self._begin(None, refused=int(refused), failed=int(not refused), text=_text(fault))

    def _begin(self, seed: int | None, *, refused: int, failed: int, text: str) -> Outcome:
        while self._in_a_row < MOST_IN_A_ROW:
            try:
                if self.env is None:
                    self.env = self._build()
                    if seed is None and self._seed is not None:  # a fresh one, or it would play the same episodes again
                        seed = derived_seed(self._seed, self._given_up)
                obs, _ = self.env.reset(seed=seed)
                self._put(obs)
            except Exception as fault:
                bad = self._note(fault)
                refused, failed, text = refused + bad, failed + (not bad), text or _text(fault)
            else:
                return Outcome(first=True, refused=refused, failed=failed, in_a_row=self._in_a_row, text=text)
        return Outcome(refused=refused, failed=failed, in_a_row=self._in_a_row, text=text)

    def _note(self, fault: Exception) -> bool:
        """Count a fault; say whether the contract was broken, rather than an exception raised."""
        self._in_a_row += 1
        if isinstance(fault, EnvironmentFault):
            return True
        self.close()
        self._given_up += 1
        return False

    def _put(self, obs: Any) -> None:
        for key, value in flat_values(obs).items():
            self._slots[key][self._index] = value


def derived_seed(*numbers: int) -> int:
    """Derive a seed of 31 bits from other numbers."""
    return int(np.random.SeedSequence([abs(number) for number in numbers]).generate_state(1)[0]) >> 1


def _text(fault: Exception) -> str:
    return str(fault) if isinstance(fault, EnvironmentFault) else f"{type(fault).__name__}: {fault}"
