"""`Collector`: act in environments, and keep what arrives in a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from foreworld.agents import AgentPolicy
from foreworld.core import tree
from foreworld.core.errors import CheckpointError, DataError, SpecError, WriteFailed
from foreworld.core.spaces import TRUTH
from foreworld.data import Replay
from foreworld.envs import Rows, Vector
from foreworld.envs.episodes import OpenEpisode, from_arrays, not_reopened, to_arrays
from foreworld.train.ahead import Ahead
from foreworld.train.log import complain

RECENT = 20
"""Finished episodes that the reported return is the mean of."""
PATIENCE = 5.0
"""Seconds that the end waits for a step that is under way in another thread."""
OPEN = "open/"
"""Before the names of what `episodes.to_arrays` returned, in a saved state."""


class Arrival(NamedTuple):
    """Rows that arrived, and what the policy's filter made of them: its state after each, [N, K]."""

    rows: Rows
    carry: np.ndarray


class Collector:
    """Step N environments under a policy; every row goes to the replay with the state of the policy's filter.

    `begin` or `restore` comes first. With a `lead`, environments and policy run in a thread of their own from then on;
    all else, the replay too, is touched by the caller's thread alone. Used as a context, it ends that thread.

    Args:
        env: open environments.
        policy: chooses actions, and keeps the states; with a lead, one with weights of its `own`.
        replay: takes the rows.
        lead: steps of all environments together that may be taken before they are asked for; 0 for none, and no thread.
        most: actions after which no step is taken before it is asked for, those before a resume included.

    Attributes:
        steps: actions that `step` has returned, those before a resume included.
        episodes: finished ones, likewise.
    """

    def __init__(
        self, env: Vector, policy: AgentPolicy, replay: Replay, *, lead: int = 0, most: int | None = None
    ) -> None:
        """Wait for the first step."""
        self.env, self.policy, self.replay = env, policy, replay
        self.steps = self.episodes = 0
        self._lead, self._most = lead, most
        self._ahead: Ahead[Arrival] | None = None
        self._early: deque[int] = deque()  # actions of steps that are in the replay before `step` comes to them
        self._uncounted = 0  # the same of the run that goes on here
        self._acted = 0  # actions that were taken, which may be more than were returned
        self._action: np.ndarray | None = None
        self._earned, self._length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        self._returns: deque[float] = deque(maxlen=RECENT)
        self._lengths: deque[int] = deque(maxlen=RECENT)
        self._faults_before = np.zeros(len(env.tally.faults), np.int64)
        self._complained = False

    def begin(self, seed: int) -> None:
        """Begin an episode in every environment.

        Args:
            seed: an episode depends on it, its environment's number, its own number and its actions alone.
        """
        self._keep(self._seen(self.env.reset(seed, [OpenEpisode()] * self.env.num_envs)))

    def step(self) -> int:
        """Take one action in every environment, and return how many of them led to a row.

        With a lead it may be one that was taken before it was asked for.

        Raises:
            EnvironmentFault: the environments failed too often.
        """
        if self._uncounted:
            taken, self._uncounted = self._uncounted, 0
        else:
            arrival = self._next()
            taken = self._early.popleft() if self._early else self._keep(arrival)
        self.steps += taken
        return taken

    @contextmanager
    def still(self) -> Iterator[None]:
        """Take no step for a while; all that were taken are in the replay."""
        if self._ahead is None:
            yield
            return
        with self._ahead.held() as waiting:
            self._early.extend([self._keep(arrival) for arrival in waiting[len(self._early) :]])
            yield

    def __enter__(self) -> Self:
        """Return the collector."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its thread."""
        if self._ahead is not None:
            self._ahead.close(PATIENCE)

    @property
    def faults(self) -> dict[str, int]:
        """What went wrong in the environments so far, by kind (`envs.fleet.Tally`), before a resume included."""
        tally = self.env.tally.faults
        return dict(zip(tally, (self._faults_before + list(tally.values())).tolist(), strict=True))

    def numbers(self) -> dict[str, float]:
        """Return what to log: steps, episodes, return and length of the last ones, and faults where there were any."""
        found: dict[str, float] = {"env_steps": self.steps, "episodes": self.episodes}
        if self._returns:
            found |= {"episode_return": float(np.mean(self._returns)), "episode_length": float(np.mean(self._lengths))}
        return found | {f"env_{kind}": count for kind, count in self.faults.items() if count}

    def save(self) -> dict[str, Tensor]:
        """Return everything that `restore` needs but the replay, which is saved by itself; only while it is `still`."""
        assert self._action is not None, "begin or restore comes before save"
        arrays = {
            "action": self._action,
            "earned": self._earned,
            "length": self._length,
            "returns": np.array(self._returns, np.float64),
            "lengths": np.array(self._lengths, np.int64),
            "counts": np.array([self.steps, self.episodes, self._uncounted + sum(self._early)]),
            "faults": np.array(list(self.faults.values())),
        }
        arrays |= {OPEN + name: array for name, array in to_arrays(self.env.episodes()).items()}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"state": self.policy.carry()}

    def restore(self, saved: Mapping[str, Tensor], seed: int) -> str:
        """Go on where `save` was called: open episodes are opened again, and their actions repeated.

        An environment that was being started again at that moment begins its next episode.

        Args:
            saved: what `save` returned.
            seed: of the environments, as for `begin`.

        Returns:
            Which environments could not be brought back, as they are not deterministic: there, new episodes begin.
            Empty when all were.

        Raises:
            CheckpointError: saved by a run with other environments or another model.
        """
        episodes = self._restored(saved)
        try:
            rows = self.env.reset(seed, episodes)
        except SpecError as fault:
            raise CheckpointError(f"the state of collection does not fit this run ({fault})") from fault
        begun = ~self.env.reopened | [episode.obs is None for episode in episodes]
        if begun.any():
            self._begin_anew(replace(rows, arrived=begun))
        return not_reopened(self.env.env_id, self.env.reopened)

    def _restored(self, saved: Mapping[str, Tensor]) -> list[OpenEpisode]:
        """Take everything over but the environments, and return where these stood."""
        arrays = {name: tensor.numpy() for name, tensor in saved.items() if not name.startswith(OPEN)}
        opened = {name.removeprefix(OPEN): saved[name].numpy() for name in saved.keys() - arrays.keys()}
        count, action = self.env.num_envs, self.env.action
        recent = min(len(arrays.get("returns", ())), RECENT)
        forms: dict[str, tuple[str, tuple[int, ...]]] = {
            "action": (action.dtype, (count, *action.shape)),
            "earned": ("float64", (count,)),
            "length": ("int64", (count,)),
            "returns": ("float64", (recent,)),
            "lengths": ("int64", (recent,)),
            "counts": ("int64", (3,)),
            "faults": ("int64", self._faults_before.shape),
            "state": ("float32", tuple(self.policy.carry().shape)),
        }
        found = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
        if found != forms or arrays["counts"].min() < 0:
            odd = [name for name in sorted(forms.keys() | found.keys()) if forms.get(name) != found.get(name)]
            raise CheckpointError(f"the state of collection is of another run: {odd or ['counts']} differ")
        try:
            episodes = from_arrays(opened)
        except DataError as fault:
            raise CheckpointError(f"the state of collection is of another run: {fault}") from fault
        if len(episodes) != count or not all(map(self._could_be, episodes)):
            raise CheckpointError(f"the state of collection does not say where each of {count} environments stood")
        self._action = arrays["action"].copy()
        self._earned, self._length = arrays["earned"].copy(), arrays["length"].copy()
        self._returns.extend(arrays["returns"].tolist())
        self._lengths.extend(arrays["lengths"].tolist())
        self.steps, self.episodes, self._uncounted = arrays["counts"].tolist()
        self._faults_before = arrays["faults"].copy()
        self.policy.state = tree.from_vector(self.policy.state, saved["state"].to(self.policy.device))
        return episodes

    def _could_be(self, episode: OpenEpisode) -> bool:
        """Say whether what was seen last in an episode has the form of an observation; nothing, in one not begun."""
        if episode.obs is None:
            return episode.actions is None
        spaces = {**self.env.spec.obs, **{TRUTH + name: space for name, space in self.env.truth.items()}}
        found = {name: (str(array.dtype), array.shape) for name, array in episode.obs.items()}
        return found == {name: (space.dtype, space.shape) for name, space in spaces.items()}

    def _begin_anew(self, rows: Rows) -> None:
        """Take the first rows of environments in which new episodes began; the others stay as they are."""
        before = self._action
        self._keep(self._seen(rows))
        assert before is not None and self._action is not None
        new = rows.arrived.reshape(rows.arrived.shape + (1,) * (before.ndim - 1))
        self._action = np.where(new, self._action, before)

    def _next(self) -> Arrival:
        """Wait for the rows of the next step."""
        if self._ahead is None and self._lead:
            self._acted = self.steps  # nothing is uncounted here
            self._ahead = Ahead(self._act_unasked, self._lead)
        return self._act() if self._ahead is None else self._ahead.take()

    def _act_unasked(self) -> Arrival | None:
        """Take one action in every environment, unless enough were taken."""
        return None if self._most is not None and self._acted >= self._most else self._act()

    def _act(self) -> Arrival:
        """Take one action in every environment."""
        assert self._action is not None, "begin or restore comes before step"
        rows = self.env.step(self._action)
        self._acted += _taken(rows)
        return self._seen(rows)

    def _seen(self, rows: Rows) -> Arrival:
        """Choose the next actions; only then has the policy's filter seen the rows, whose states go with them."""
        self._action = self.policy(rows)
        return Arrival(rows, self.policy.carry().numpy())

    def _keep(self, arrival: Arrival) -> int:
        """Put rows into the replay, note what they say of episodes, and return how many an action led to."""
        rows = arrival.rows
        try:
            self.replay.add(rows, arrival.carry)
        except WriteFailed as fault:  # the rows are kept in memory, and the next episode tries again
            if not self._complained:
                complain(f"episodes are not stored ({fault}); training goes on, and they are kept in memory")
            self._complained = True
        begun = rows.is_first & rows.arrived
        self._earned[begun], self._length[begun] = 0.0, 0
        going = rows.arrived & ~rows.is_first
        self._earned[going] += rows.reward[going]
        self._length[going] += 1
        for index in np.flatnonzero(rows.is_last & rows.arrived).tolist():
            self.episodes += 1
            self._returns.append(float(self._earned[index]))
            self._lengths.append(int(self._length[index]))
        return _taken(rows)


def _taken(rows: Rows) -> int:
    """Count the actions that led to a row."""
    return int(np.count_nonzero(rows.arrived & ~rows.is_first))
