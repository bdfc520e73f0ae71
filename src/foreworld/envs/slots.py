"""`Slots`: where N environments put their rows, and how what they put there is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from foreworld.core.errors import EnvironmentFault
from foreworld.envs.contract import Contract, broken, number

Field = tuple[tuple[int, ...], str]
"""Shape and type of one array."""

OBS = "obs/"


class Slots:
    """The rows of N environments side by side, each overwritten by the next of the same environment.

    Keys, types and shapes are checked before a value is copied: after that, nobody could tell. Bounds, NaN and
    infinities are looked for in all rows at once (`outside`), which costs little more than looking at one.

    Args:
        space: of the observations of one environment.
        arrays: memory laid out by `slot_fields`.

    Attributes:
        obs: name to [N, ...].
        reward: [N] float64, earned by arriving; zero in the first row of an episode.
        first: [N] bool, first row of an episode.
        terminal: [N] bool, no future exists.
        last: [N] bool, last row of an episode.
        episode: [N] int64, number of the newest episode that was begun, where they are numbered.
    """

    def __init__(self, space: gym.Space[Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take memory over."""
        self.obs = {name.removeprefix(OBS): array for name, array in arrays.items() if name.startswith(OBS)}
        self.reward, self.first = arrays["reward"], arrays["first"]
        self.terminal, self.last, self.episode = arrays["terminal"], arrays["last"], arrays["episode"]
        self._contract = Contract(space)
        self._leaves = [(key, leaf, self.obs[key]) for key, leaf in self._contract.leaves.items() if leaf is not None]
        # repeated for every row: to compare arrays of one shape takes a third of the time that broadcasting takes
        self._bounded = [
            (key, leaf, slot, *(np.repeat(bound[None], len(slot), 0) for bound in leaf.bounds))
            for key, leaf, slot in self._leaves
            if leaf.bounds is not None
        ]

    def begin(self, index: int, obs: Any) -> None:
        """Put the first row of an episode, wholly checked.

        Raises:
            EnvironmentFault: the observation is not as declared.
        """
        values = self._contract.checked(obs)
        for key, _, slot in self._leaves:
            slot[index] = values[key]
        self.reward[index], self.first[index], self.terminal[index], self.last[index] = 0, True, False, False

    def put(self, index: int, obs: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        """Put any other row; whether its observation lies inside the bounds is left to `outside`.

        Raises:
            EnvironmentFault: a key, a type, a shape or the reward is not as declared.
        """
        values = self._contract.named(obs)
        for key, leaf, slot in self._leaves:
            value = values[key]
            if not leaf.fits(value) and (fault := leaf.fault(value)):
                raise broken(key, fault)
            slot[index] = value
        self.reward[index], self.first[index] = number(reward), False
        if terminated or truncated:  # `begin` takes both back
            self.terminal[index], self.last[index] = bool(terminated), True

    def outside(self) -> dict[int, EnvironmentFault]:
        """Return what is wrong, by row, where a value is out of bounds, NaN or infinite: almost always nothing."""
        found: dict[int, EnvironmentFault] = {}
        for key, leaf, slot, low, high in self._bounded:
            inside = (slot >= low) & (slot <= high)  # false for NaN too
            if np.count_nonzero(inside) < inside.size:
                for index, row in enumerate(slot):
                    if fault := leaf.fault(row):
                        found.setdefault(index, broken(key, fault))
        return found


def slot_fields(space: gym.Space[Any], count: int) -> dict[str, Field]:
    """Lay out the rows of `count` environments: shape and type by name.

    What has no array form (texts, graphs) is left out; `Spec.from_space` refuses it with a reason.
    """
    found = {key: leaf for key, leaf in Contract(space).leaves.items() if leaf is not None}
    fields: dict[str, Field] = {OBS + key: ((count, *leaf.shape), leaf.dtype.str) for key, leaf in found.items()}
    fields |= {"reward": ((count,), "<f8"), "episode": ((count,), "<i8")}
    return fields | dict.fromkeys(("first", "terminal", "last"), ((count,), "|b1"))
