"""`Recorder`: cut the rows that arrive from N environments into episodes, and store these, up to a budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.files import claim_output
from foreworld.data.episode import Episode
from foreworld.data.schema import Source
from foreworld.data.store import Writer, rows_to_seal
from foreworld.envs.vector import Rows, Vector
from foreworld.rollout.tape import Tape


@dataclass(frozen=True)
class Budget:
    """How much to record, and in what it is counted.

    Attributes:
        total: how much.
        of_episodes: whether these are episodes; else steps.
    """

    total: int
    of_episodes: bool

    def share(self, index: int, envs: int) -> float:
        """Return how many episodes environment `index` may store."""
        return self.total // envs + (index < self.total % envs) if self.of_episodes else float("inf")


def budget_of(episodes: int | None, steps: int | None) -> Budget:
    """Return the budget of one of the two.

    Raises:
        ConfigError: not exactly one, or less than 1.
    """
    if (episodes is None) == (steps is None):
        raise ConfigError("say how much to collect: either episodes or steps")
    total = episodes if episodes is not None else steps
    assert total is not None
    if total < 1:
        raise ConfigError(f"episodes and steps must be at least 1, found {total}")
    return Budget(total, episodes is not None)


@contextmanager
def recording(env: Vector, out: Path, source: Source, budget: Budget, overwrite: bool) -> Iterator[Recorder]:
    """Open a dataset, and what records the rows of some environments in it.

    At the end the open episodes are stored as truncated; after an exception only those that were finished are kept. The
    dataset says how often environments failed.

    Args:
        env: whose rows will be recorded.
        out: folder of the dataset.
        source: of the dataset.
        budget: how much to record.
        overwrite: replace what is at `out`.

    Yields:
        To be shown all rows.

    Raises:
        OutputExists: `out` is there and `overwrite` is false.
    """
    claim_output(out, overwrite)
    with Writer(out, env.spec, truth=env.truth, source=source) as writer:
        recorder = Recorder(Shelf(writer), budget, env.num_envs)
        try:
            yield recorder
            recorder.finish()
        finally:
            if any(env.tally.faults.values()):
                noted = replace(source, options={**source.options, "faults": env.tally.faults})
                replace(writer.schema, source=noted).write(out)


class Shelf:
    """Add episodes to a writer, and seal them early while there are few.

    Args:
        writer: of the dataset.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def add(self, episode: Episode) -> None:
        """Add an episode."""
        self._writer.add(episode)
        gathered = self._writer.gathered
        if gathered >= rows_to_seal(self._writer.rows - gathered):
            self._writer.seal()


class Recorder:
    """Cut the rows that arrive into episodes, shelve those, and keep account of the budget.

    Of `episodes`, each environment stores a fixed share: what it plays after that is left out.

    Args:
        shelf: takes the episodes.
        budget: how much.
        envs: N, of the rows.

    Attributes:
        budget: as given.
        done: how much of it is spent, in episodes or steps.
    """

    def __init__(self, shelf: Shelf, budget: Budget, envs: int) -> None:
        self.budget, self.done = budget, 0
        self._shelf, self._tape = shelf, Tape(envs)
        self._left = [budget.share(index, envs) for index in range(envs)]  # episodes that each may still store

    def add(self, rows: Rows) -> None:
        """Record what arrived; where an episode ended or another began, shelve it."""
        kept = self._within_budget(rows)
        self._tape.add(rows, kept)
        now = self._tape.length
        for index in (rows.is_first | (rows.is_last & kept)).nonzero()[0].tolist():
            if rows.is_first[index]:
                self._shelve(self._tape.cut(index, now - 1), index)  # what followed the last row never came
                if self._left[index] > 0:
                    self._tape.begin(index)
            else:
                self._shelve(self._tape.cut(index, now, is_terminal=bool(rows.is_terminal[index])), index)

    def finish(self) -> None:
        """Shelve what there is of the episodes that will not go on."""
        for index in range(len(self._left)):
            self._shelve(self._tape.cut(index, self._tape.length), index)

    def _within_budget(self, rows: Rows) -> np.ndarray:
        """Return which rows are kept, [N] bool: those that arrived, unless they are steps beyond the budget."""
        if self.budget.of_episodes:
            return rows.arrived
        taken, left = rows.arrived & ~rows.is_first, self.budget.total - self.done
        count = int(np.count_nonzero(taken))
        self.done += min(count, left)
        if count <= left:
            return rows.arrived
        beyond = np.zeros_like(taken)
        beyond[np.flatnonzero(taken)[left:]] = True
        return rows.arrived & ~beyond

    def _shelve(self, episode: Episode | None, index: int) -> None:
        """Store an episode, if there is one; one row alone says nothing and is dropped."""
        if episode is None or len(next(iter(episode.obs.values()))) < 2:
            return
        self._shelf.add(episode)
        self._left[index] -= 1
        self.done += self.budget.of_episodes
