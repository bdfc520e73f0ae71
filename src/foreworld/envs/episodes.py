"""Episodes that depend on nothing but a seed, their number and their actions, so that they can be opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from foreworld.core.errors import DataError


class EpisodeKey(NamedTuple):
    """What the random numbers of an episode depend on."""

    seed: int
    index: int
    number: int

    def derived(self) -> int:
        """Return the seed of 31 bits with which the environment is reset.

        Example:
            >>> EpisodeKey(0, 0, 0).derived() == EpisodeKey(0, 0, 0).derived()
            True
            >>> len({EpisodeKey(seed, index, 7).derived() for seed in range(3) for index in range(4)})
            12
        """
        spread = np.random.SeedSequence(abs(self.seed), spawn_key=(self.index, self.number))
        return int(spread.generate_state(1)[0]) >> 1

    def next(self) -> Self:
        """Return the key of the episode after this one, in the same environment."""
        return self._replace(number=self.number + 1)

    def pack(self) -> bytes:
        """Write the key as bytes, for a pipe."""
        return " ".join(map(str, self)).encode()

    @classmethod
    def unpack(cls, message: bytes) -> Self:
        """Read what `pack` wrote."""
        return cls(*map(int, message.split()))


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenEpisode:
    """Where an environment stands: in which of its episodes, and after which actions.

    Attributes:
        number: of the episode in this environment, from 0 on.
        actions: [T, ...], those taken in it so far, as the environment takes them; None for none.
        obs: name to the newest observation [...] as it is stored, `truth/*` included, with which the one that is
            found at the same place again is compared; None to compare nothing.
    """

    number: int = 0
    actions: np.ndarray | None = None
    obs: Mapping[str, np.ndarray] | None = None

    def __len__(self) -> int:
        """Return T, how many actions were taken."""
        return 0 if self.actions is None else len(self.actions)

    def shows(self, obs: Mapping[str, np.ndarray]) -> bool:
        """Tell whether an observation, name to [...], is the one that was kept, bit by bit."""
        if self.obs is None:
            return True
        return self.obs.keys() == obs.keys() and all(_same(kept, obs[key]) for key, kept in self.obs.items())


def to_arrays(episodes: Sequence[OpenEpisode]) -> dict[str, np.ndarray]:
    """Turn open episodes into arrays, for a checkpoint.

    Args:
        episodes: of N environments.

    Returns:
        `number` [N] and, where there are any, `<i>/actions` [T, ...] and `<i>/obs/<name>` [...].
    """
    found = {"number": np.array([episode.number for episode in episodes], np.int64)}
    for index, episode in enumerate(episodes):
        if episode.actions is not None:
            found[f"{index}/actions"] = episode.actions
        found |= {f"{index}/obs/{key}": value for key, value in (episode.obs or {}).items()}
    return found


def from_arrays(arrays: Mapping[str, np.ndarray]) -> list[OpenEpisode]:
    """Turn what `to_arrays` returned into open episodes again.

    Args:
        arrays: name to array, with the shapes given there.

    Returns:
        One for every environment.

    Raises:
        DataError: something else.

    Example:
        >>> import numpy as np
        >>> episode = OpenEpisode(number=3, actions=np.array([0, 1]), obs={"obs": np.zeros(2)})
        >>> again = from_arrays(to_arrays([episode, OpenEpisode()]))
        >>> again[0].number, again[0].actions.tolist(), again[1].actions
        (3, [0, 1], None)
    """
    numbers = arrays.get("number")
    if numbers is None or numbers.ndim != 1 or numbers.dtype != np.int64 or ((numbers < 0) | (numbers > 2**40)).any():
        raise DataError("open episodes need 'number', int64 [N] from 0 on; give what to_arrays returned")
    known = {"number"}
    episodes = []
    for index, number in enumerate(numbers.tolist()):
        prefix = f"{index}/obs/"
        obs = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        known |= {f"{index}/actions", *(prefix + name for name in obs)}
        episodes.append(OpenEpisode(number=number, actions=arrays.get(f"{index}/actions"), obs=obs or None))
    if unknown := sorted(set(arrays) - known):
        raise DataError(f"open episodes of {len(episodes)} environments do not hold {unknown[0]!r}")
    return episodes


def not_reopened(env_id: str, reopened: np.ndarray) -> str:
    """Say in one sentence which environments could not be brought back; nothing where all were.

    Args:
        env_id: name for the message.
        reopened: [N] bool, as `Vector.reopened`.

    Returns:
        The sentence, or an empty string.

    Example:
        >>> not_reopened("Weather-v0", np.array([True, False, False]))
        'Weather-v0: the same seed and actions led elsewhere in environments 1, 2: new episodes begin there'
    """
    lost = np.flatnonzero(~reopened).tolist()
    if not lost:
        return ""
    which = f"environment{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}"
    return f"{env_id}: the same seed and actions led elsewhere in {which}: new episodes begin there"


def _same(kept: np.ndarray, found: np.ndarray) -> bool:
    alike = (kept.shape, kept.dtype) == (found.shape, found.dtype)
    return alike and kept.tobytes() == found.tobytes()
