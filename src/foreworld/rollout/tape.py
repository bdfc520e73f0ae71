"""`Tape`: the rows of N environments in order of arrival, from which episodes are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.data.episode import Episode
from foreworld.envs.vector import Rows

PAGE = 64
"""Rows of every environment that lie in one piece of memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Page:
    """Some rows of all environments: every array is [PAGE, N, ...]."""

    obs: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]
    prev_action: np.ndarray
    reward: np.ndarray
    kept: np.ndarray


class Tape:
    """The rows of N environments in order of arrival, as many as an open episode needs.

    They lie in pages of all environments: to add a row is one copy an array, however many environments
    there are, and nothing moves again until its episode is cut out.

    Args:
        envs: N.

    Attributes:
        length: how many rows of each environment were added.
    """

    def __init__(self, envs: int) -> None:
        """Begin with nothing."""
        self.length = 0
        self._starts: list[int | None] = [None] * envs
        self._pages: dict[int, _Page] = {}

    def add(self, rows: Rows, kept: np.ndarray) -> None:
        """Add a row of every environment; where `kept` [N] is false, it will be left out of the episode."""
        number, at = divmod(self.length, PAGE)
        if at == 0:
            oldest = min((start for start in self._starts if start is not None), default=self.length)
            self._pages = {n: page for n, page in self._pages.items() if (n + 1) * PAGE > oldest}
            self._pages[number] = _page(rows)
        page = self._pages[number]
        for key, value in rows.obs.items():
            page.obs[key][at] = value
        for key, value in rows.truth.items():
            page.truth[key][at] = value
        page.prev_action[at], page.reward[at], page.kept[at] = rows.prev_action, rows.reward, kept
        self.length += 1

    def begin(self, index: int) -> None:
        """Open an episode of environment `index`, whose first row is the last that was added."""
        self._starts[index] = self.length - 1

    def cut(self, index: int, stop: int, *, is_terminal: bool = False) -> Episode | None:
        """Close the open episode of environment `index`, if there is one, and copy out its kept rows before `stop`."""
        start, self._starts[index] = self._starts[index], None
        if start is None:
            return None
        numbers = range(start // PAGE, (stop - 1) // PAGE + 1)
        spans = [(self._pages[n], slice(max(start - n * PAGE, 0), min(stop - n * PAGE, PAGE))) for n in numbers]

        def column(find: Callable[[_Page], np.ndarray]) -> np.ndarray:
            return np.concatenate([find(page)[rows, index] for page, rows in spans])

        kept = column(lambda page: page.kept)
        pick = slice(None) if kept.all() else kept
        page = spans[0][0]
        return Episode(
            obs={key: column(lambda page, key=key: page.obs[key])[pick] for key in page.obs},
            prev_action=column(lambda page: page.prev_action)[pick],
            reward=column(lambda page: page.reward)[pick],
            is_terminal=is_terminal,
            truth={key: column(lambda page, key=key: page.truth[key])[pick] for key in page.truth},
        )


def _page(rows: Rows) -> _Page:
    def empty(array: np.ndarray) -> np.ndarray:
        return np.empty((PAGE, *array.shape), array.dtype)

    return _Page(
        obs={key: empty(value) for key, value in rows.obs.items()},
        truth={key: empty(value) for key, value in rows.truth.items()},
        prev_action=empty(rows.prev_action),
        reward=empty(rows.reward),
        kept=empty(rows.arrived),
    )
