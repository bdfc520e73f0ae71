"""`Collector`: act in environments, and keep what arrives in a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from foreworld.agents import AgentPolicy
from foreworld.core import tree
from foreworld.core.errors import CheckpointError
from foreworld.data import Replay
from foreworld.envs import Rows, Vector
from foreworld.envs.episodes import OpenEpisode, from_arrays, not_reopened, to_arrays

RECENT = 20
"""Finished episodes that the reported return is the mean of."""


class Collector:
    """Step N environments under a policy; every row goes to the replay with the state of the policy's filter.

    Args:
        env: open, seeded environments.
        policy: chooses actions, and keeps the states.
        replay: takes the rows.

    Attributes:
        steps: actions taken, those before a resume included.
        episodes: finished ones, likewise.
        replayed: steps that updates were owed for, and how many updates, when the run was saved; zeros before.
    """

    def __init__(self, env: Vector, policy: AgentPolicy, replay: Replay) -> None:
        """Wait for the first step."""
        self.env, self.policy, self.replay = env, policy, replay
        self.steps = self.episodes = 0
        self.replayed = (0, 0)
        self._action: np.ndarray | None = None
        self._earned, self._length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        self._returns: deque[float] = deque(maxlen=RECENT)
        self._lengths: deque[int] = deque(maxlen=RECENT)

    def step(self, seed: int) -> int:
        """Take one action in every environment; the first call resets them.

        Args:
            seed: of the environments: an episode depends on it, its environment, its number and its actions alone.

        Returns:
            How many actions led to a row.
        """
        if self._action is None:
            rows = self.env.reset(seed, [OpenEpisode()] * self.env.num_envs)
        else:
            rows = self.env.step(self._action)
        self._take(rows)
        taken = int(np.count_nonzero(rows.arrived & ~rows.is_first))
        self.steps += taken
        return taken

    def numbers(self) -> dict[str, float]:
        """Return what to log: steps, episodes, and return and length of the last ones."""
        found: dict[str, float] = {"env_steps": self.steps, "episodes": self.episodes}
        if self._returns:
            found |= {"episode_return": float(np.mean(self._returns)), "episode_length": float(np.mean(self._lengths))}
        return found

    @property
    def started(self) -> bool:
        """Whether there was a first step."""
        return self._action is not None

    def save(self, replayed: tuple[int, int]) -> dict[str, Tensor]:
        """Return everything that `restore` needs but the replay, which is saved by itself.

        Args:
            replayed: steps that updates were owed for so far, and how many updates.
        """
        assert self._action is not None, "step comes before save"
        arrays = {
            "action": self._action,
            "earned": self._earned,
            "length": self._length,
            "returns": np.array(self._returns, np.float64),
            "lengths": np.array(self._lengths, np.int64),
            "counts": np.array([self.steps, self.episodes, *replayed]),
        }
        arrays |= {f"open/{name}": array for name, array in to_arrays(self.env.episodes()).items()}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"state": self.policy.carry()}

    def restore(self, saved: Mapping[str, Tensor], seed: int) -> str:
        """Go on where `save` was called: open episodes are opened again, and their actions repeated.

        Args:
            saved: what `save` returned.
            seed: of the environments.

        Returns:
            Which environments could not be brought back, as they are not deterministic: there, new episodes begin.
            Empty when all were.

        Raises:
            CheckpointError: saved by a run with other environments or another model.
        """
        try:
            prefix = "open/"
            opened = {n.removeprefix(prefix): t.numpy() for n, t in saved.items() if n.startswith(prefix)}
            arrays = {name: tensor.numpy() for name, tensor in saved.items()}
            self._action = arrays["action"].copy()
            self._earned, self._length = arrays["earned"].copy(), arrays["length"].copy()
            self._returns.extend(arrays["returns"].tolist())
            self._lengths.extend(arrays["lengths"].tolist())
            self.steps, self.episodes, *replayed = arrays["counts"].tolist()
            self.replayed = (replayed[0], replayed[1])
            self.policy.state = tree.from_vector(self.policy.state, saved["state"].to(self.policy.device))
            episodes = from_arrays(opened)
        except (KeyError, RuntimeError, ValueError) as fault:
            raise CheckpointError(f"the state of collection does not fit this run ({fault!s:.200})") from fault
        rows = self.env.reset(seed, episodes)
        lost = ~self.env.reopened
        if lost.any():
            self._begin_anew(replace(rows, arrived=lost))
        return not_reopened(self.env.env_id, self.env.reopened)

    def _begin_anew(self, rows: Rows) -> None:
        """Take the first rows of environments that could not be brought back; the others stay as they are."""
        before = self._action
        self._take(rows)
        assert before is not None and self._action is not None
        new = rows.arrived.reshape(rows.arrived.shape + (1,) * (before.ndim - 1))
        self._action = np.where(new, self._action, before)

    def _take(self, rows: Rows) -> None:
        self._action = self.policy(rows)
        self.replay.add(rows, self.policy.carry().numpy())
        begun = rows.is_first & rows.arrived
        self._earned[begun], self._length[begun] = 0.0, 0
        going = rows.arrived & ~rows.is_first
        self._earned[going] += rows.reward[going]
        self._length[going] += 1
        for index in np.flatnonzero(rows.is_last & rows.arrived).tolist():
            self.episodes += 1
            self._returns.append(float(self._earned[index]))
            self._lengths.append(int(self._length[index]))
