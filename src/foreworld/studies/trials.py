"""Trials: policies play the same episodes, from the same starts to the same goals, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from foreworld.envs import Rows, Vector
from foreworld.envs.episodes import OpenEpisode
from foreworld.rollout.policies import Policy

Judge = Callable[[Rows], tuple[np.ndarray | None, np.ndarray]]
"""Rows of N environments to whether the goal is reached [N] bool (None: nobody can tell) and how far it is [N]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """What a policy did in E episodes.

    Attributes:
        returns: [E] sums of rewards.
        lengths: [E] actions.
        success: [E] bool, whether the goal was reached at some row; None where there is no goal, or nobody can tell.
        far: [E, 2] distance to the goal at the first and at the last row; None where there is no goal.
    """

    returns: np.ndarray
    lengths: np.ndarray
    success: np.ndarray | None
    far: np.ndarray | None


class Scoreboard:
    """Which of E episodes is played where, and what came of it.

    Environment i plays the episodes i, i + N, i + 2 N, ...: a fixed share, so that short ones are not favoured. An
    episode is over at its last row, where the goal is reached, or where a fault cut it off.
    """

    def __init__(self, num_envs: int, episodes: int, judge: Judge | None) -> None:
        """Begin before the first row."""
        self._step, self._judge, self._episodes = num_envs, judge, episodes
        self._playing = np.arange(num_envs) - num_envs
        self._open = np.zeros(num_envs, bool)
        self._over = np.zeros(episodes, bool)
        self.returns, self.lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        self.success, self.told = np.zeros(episodes, bool), judge is not None
        self.far = np.full((episodes, 2), np.nan)

    @property
    def done(self) -> int:
        """Episodes that are over."""
        return int(self._over.sum())

    def add(self, rows: Rows) -> np.ndarray:
        """Take rows in; return [N] bool, where an episode goes on that counts, its last row included."""
        first = rows.arrived & rows.is_first
        self._over[self._playing[first & self._open]] = True  # cut off by a fault
        self._playing[first] += self._step
        self._open = np.where(first, self._playing < self._episodes, self._open)
        counts = self._open & rows.arrived
        at = self._playing[counts]
        self.returns[at] += rows.reward[counts]
        self.lengths[at] += ~rows.is_first[counts]
        ended = counts & rows.is_last
        if self._judge is not None:
            success, far = self._judge(rows)
            begun = counts & rows.is_first
            self.far[self._playing[begun], 0] = far[begun]
            self.far[at, 1] = far[counts]
            self.told = success is not None
            if success is not None:
                self.success[at] |= success[counts]
                ended |= counts & success
        self._over[self._playing[ended]] = True
        self._open &= ~ended
        return counts

    def trials(self) -> Trials:
        """Return what came of the episodes."""
        judged = self._judge is not None
        return Trials(
            returns=self.returns,
            lengths=self.lengths,
            success=self.success if judged and self.told else None,
            far=self.far if judged else None,
        )


def play(
    env: Vector,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    judge: Judge | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Rows], None] | None = None,
) -> Trials:
    """Let a policy play episodes that depend on the seed alone: whoever plays them next begins alike.

    Args:
        env: environments that `make` opened; they are reset.
        policy: is shown no row after the end of an episode that counts.
        episodes: E.
        seed: of the episodes.
        judge: says how near the goal is; an episode is over where it is reached.
        progress: called with (episodes done, episodes).
        watch: shown all rows, after the policy has chosen; the very last ones too, for which nothing is chosen.

    Returns:
        What came of the episodes.
    """
    board = Scoreboard(env.num_envs, episodes, judge)
    rows = env.reset(seed, [OpenEpisode()] * env.num_envs)
    while True:
        shown = masked(rows, board.add(rows))
        if progress is not None:
            progress(board.done, episodes)
        if board.done == episodes:
            if watch is not None:
                watch(shown)
            return board.trials()
        actions = policy(shown)
        if watch is not None:
            watch(shown)
        rows = env.step(actions)


def masked(rows: Rows, counts: np.ndarray) -> Rows:
    """Return rows [N] of which only some arrived: where [N] says so."""
    return replace(rows, arrived=counts)
