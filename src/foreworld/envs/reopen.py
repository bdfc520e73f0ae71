"""Bring environments back into the middle of their episodes, by resetting them in the same way and acting the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.envs.episodes import EpisodeKey, OpenEpisode
from foreworld.envs.fleet import Fleet

KEEP_BACK = 1024
"""Actions of all environments that are kept, though no open episode needs them, before they are dropped together."""


class Played:
    """The actions of the open episodes of N environments.

    Args:
        episodes: N, with the actions taken so far.
        idle: [N, ...] actions of the right shape and type.
    """

    def __init__(self, episodes: Sequence[OpenEpisode], idle: np.ndarray) -> None:
        """Begin with what was played already."""
        longest = max(map(len, episodes))
        self._taken = [idle.copy() for _ in range(longest)]
        self._starts = [longest - len(episode) for episode in episodes]
        for index, (start, episode) in enumerate(zip(self._starts, episodes, strict=True)):
            for at in range(len(episode)):
                assert episode.actions is not None
                self._taken[start + at][index] = episode.actions[at]

    def add(self, taken: np.ndarray, is_first: np.ndarray) -> None:
        """Note an action of every environment, [N, ...]; where [N] an episode began, it was none."""
        self._taken.append(taken)
        for index in is_first.nonzero()[0].tolist():
            self._starts[index] = len(self._taken)
        unused = min(self._starts)
        if unused > max(KEEP_BACK, len(self._taken) // 2):
            del self._taken[:unused]
            self._starts = [start - unused for start in self._starts]

    def actions(self, index: int) -> np.ndarray | None:
        """Return the actions [T, ...] of the open episode of one environment; None for none."""
        taken = [actions[index] for actions in self._taken[self._starts[index] :]]
        return np.stack(taken) if taken else None


def repeat_actions(
    fleet: Fleet, seed: int, episodes: Sequence[OpenEpisode], idle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Open episodes and repeat their actions; an environment that has caught up waits for the others.

    Args:
        fleet: N environments.
        seed: from which, with the environment's number and the episode's, each episode is seeded.
        episodes: one for every environment.
        idle: [N, ...] actions of the right shape and type.

    Returns:
        The last action of each, [N, ...], zero where there was none; and [N] bool, false where the episode ended too
        early, by itself or by a fault.

    Raises:
        ConfigError: not one episode for every environment.
    """
    if len(episodes) != fleet.num_envs:
        raise ConfigError(f"{fleet.env_id}: {len(episodes)} open episodes for {fleet.num_envs} environments")
    numbers, counts = _numbers(episodes), np.array([len(episode) for episode in episodes])
    fleet.open([EpisodeKey(seed, index, number) for index, number in enumerate(numbers.tolist())])
    taken, same = np.zeros_like(idle), fleet.slots.episode == numbers
    for at in range(counts.max()):
        if not (who := same & (at < counts)).any():
            break
        for index in who.nonzero()[0].tolist():
            taken[index] = episodes[index].actions[at]  # type: ignore[index]
        fleet.step(taken.astype(fleet.single_action_space.dtype), who)
        same &= (fleet.slots.episode == numbers) & ~(fleet.slots.last & (at + 1 < counts))
    return taken, same


def begin_next(fleet: Fleet, who: np.ndarray, episodes: Sequence[OpenEpisode]) -> None:
    """Give up what is left of open episodes, and begin the next.

    Args:
        fleet: N environments.
        who: [N] bool, in which of them; where a fault has begun the next episode already, nothing is done.
        episodes: those that were to be opened.
    """
    who = who & (fleet.slots.episode == _numbers(episodes))
    if who.any():
        fleet.slots.last[who] = True
        idle = np.zeros((fleet.num_envs, *(fleet.single_action_space.shape or ())), fleet.single_action_space.dtype)
        fleet.step(idle, who)


def _numbers(episodes: Sequence[OpenEpisode]) -> np.ndarray:
    return np.array([episode.number for episode in episodes], np.int64)
