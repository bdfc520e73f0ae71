"""`Dataset`: a memory-mapped store, its episodes, splits and seeded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from foreworld.core.errors import DataError, SpecError
from foreworld.core.files import MANIFEST, sha256
from foreworld.core.spaces import TRUTH, Spec
from foreworld.core.types import Segment
from foreworld.data.dropped import Dropped
from foreworld.data.sampling import Piece, cumulative_starts, draw_starts, generator, pieces
from foreworld.data.schema import ACTION, OBS, Column, Schema, Source
from foreworld.data.shard import Shard, open_shards, shard_paths, verify_shards

RANGE_QUANTILES = (0.01, 0.99)
RANGE_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """Counts and averages of a dataset.

    Attributes:
        episodes: how many.
        rows: of all episodes.
        steps: actions of all episodes, one fewer than rows in each.
        bytes: size of all rows.
        length_min: rows of the shortest episode.
        length_mean: rows of an episode on average.
        length_max: rows of the longest episode.
        return_min: least undiscounted sum of rewards of an episode.
        return_mean: the same on average.
        return_std: their standard deviation.
        return_max: the largest.
        terminal: share of episodes that ended in a terminal state; the others were truncated.
        columns: name to type and shape.
        source: where the rows came from.
    """

    episodes: int
    rows: int
    steps: int
    bytes: int
    length_min: int
    length_mean: float
    length_max: int
    return_min: float
    return_mean: float
    return_std: float
    return_max: float
    terminal: float
    columns: Mapping[str, Column]
    source: Source


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """Which rows of which store: what a run was trained on, so that nothing else is judged by mistake.

    Attributes:
        fingerprint: of the store; it stays when episodes are appended.
        rows: (episode in the store, first row, row after the last) of each stretch.
    """

    fingerprint: str
    rows: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Index:
    """Where the episodes of a whole store lie.

    Attributes:
        dropped: episodes that the store no longer has: those here are numbered from this on.
        lengths: [E] rows of each.
        shard: [E] its shard.
        start: [E] its first row there.
        fingerprint: of the store.
    """

    dropped: int
    lengths: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes of a native store as arrival rows; `load` opens one.

    It is a snapshot: episodes appended later appear when the store is loaded again. Pixels
    stay on disk until they are asked for.

    Attributes:
        path: folder of the store.
        schema: what the store holds.
        spec: what a model is told; an unbounded action has the range of the training rows.
        shards: the open shards.
        index: where the store's episodes lie.
        numbers: [E] which of them these are.
        first: [E] first row of each that belongs to this dataset.
        lengths: [E] rows of each; of a whole episode its actions plus one.
    """

    path: Path
    schema: Schema
    spec: Spec
    shards: tuple[Shard, ...]
    index: Index
    numbers: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    _cumulative: dict[tuple[int, bool], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.lengths)

    @cached_property
    def rows(self) -> int:
        """Number of rows of all episodes."""
        return int(self.lengths.sum())

    @property
    def steps(self) -> int:
        """Number of actions of all episodes: rows that are not the first of theirs."""
        return self.rows - self.episodes

    @property
    def source(self) -> Source:
        """Where the rows came from."""
        return self.schema.source

    @property
    def fingerprint(self) -> str:
        """Hash that tells this store from others; it stays when episodes are appended."""
        return self.index.fingerprint

    @property
    def stretches(self) -> Stretches:
        """Which rows of the store this dataset holds."""
        ends = self.first + self.lengths
        rows = zip(self.numbers.tolist(), self.first.tolist(), ends.tolist(), strict=True)
        return Stretches(fingerprint=self.fingerprint, rows=tuple(rows))

    def subset(self, episodes: Sequence[int] | np.ndarray) -> Dataset:
        """Keep some episodes, in the order given; the spec stays as it is.

        Raises:
            DataError: none, or a number outside the dataset.
        """
        chosen = np.asarray(episodes, np.int64)
        if not chosen.size or chosen.min() < 0 or chosen.max() >= self.episodes:
            raise DataError(f"{self.path}: cannot keep episodes {list(episodes)[:5]} of {self.episodes}")
        return self._stretch(self.numbers[chosen], self.first[chosen], self.lengths[chosen])

    def seen(self, stretches: Stretches) -> Dataset:
        """Keep the rows that a run was trained on, those of them that the store has not dropped.

        Raises:
            DataError: they are rows of another store, or all were dropped.
        """
        if stretches.fingerprint != self.fingerprint:
            raise DataError(f"{self.path}: is not the store that the run was trained on")
        dropped, lengths = self.index.dropped, self.index.lengths
        for row in stretches.rows or ((),):
            known = len(row) == 3 and 0 <= row[0] < dropped + len(lengths)
            if not known or not 0 <= row[1] < row[2] or (row[0] >= dropped and row[2] > lengths[row[0] - dropped]):
                raise DataError(
                    f"{self.path}: has fewer rows than the run was trained on, or its config.json is damaged"
                )
        left = [row for row in stretches.rows if row[0] >= dropped]
        if not left:
            raise DataError(f"{self.path}: the rows that the run was trained on were all dropped to make room")
        number, first, stop = np.array(left, np.int64).T
        return self._stretch(number, first, stop - first)

    def unseen(self, stretches: Stretches) -> Dataset:
        """Leave out the rows that a run was trained on; of another store, all rows are unseen.

        Raises:
            DataError: nothing is left.
        """
        if stretches.fingerprint != self.fingerprint:
            return self
        taken: dict[int, list[tuple[int, int]]] = {}
        for number, first, stop in stretches.rows:
            taken.setdefault(number, []).append((first, stop))
        left: list[tuple[int, int, int]] = []
        for number, start, stop in self.stretches.rows:
            for used_from, used_to in sorted(taken.get(number, [])):
                if used_from > start:
                    left.append((number, start, min(used_from, stop) - start))
                start = max(start, used_to)
            if start < stop:
                left.append((number, start, stop - start))
        if not left:
            raise DataError(f"{self.path}: the run was trained on all of it; collect new episodes to judge it on")
        return self._stretch(*np.array(left, np.int64).T)

    def split(
        self, heldout: float = 0.1, seed: int = 0, by: Literal["episode", "time"] = "episode"
    ) -> tuple[Dataset, Dataset]:
        """Split into a training and a held-out part, the same way every time.

        An unbounded action gets its range from the training part alone.

        Args:
            heldout: share to hold out, in (0, 1); at least one episode (or row) each is kept.
            seed: which episodes.
            by: hold out whole episodes; or the end of every episode, for worlds whose
                episodes all run alike.

        Returns:
            Training and held-out dataset, with the same spec.

        Raises:
            DataError: fewer than two episodes; or, by time, an episode of a single row.
        """
        if not 0 < heldout < 1:
            raise DataError(f"heldout is a share between 0 and 1, found {heldout}")
        if by == "time":
            if self.lengths.min() < 2:
                raise DataError(f"{self.path}: an episode of one row cannot be split by time; split by episode")
            kept = np.clip(np.round(self.lengths * (1 - heldout)).astype(np.int64), 1, self.lengths - 1)
            train = self._stretch(self.numbers, self.first, kept).fit_action_range()
            return train, replace(self._stretch(self.numbers, self.first + kept, self.lengths - kept), spec=train.spec)
        if self.episodes < 2:
            raise DataError(f"{self.path}: a split needs at least 2 episodes, it has {self.episodes}; collect more")
        order = generator(seed, 0).permutation(self.episodes)
        count = min(max(round(heldout * self.episodes), 1), self.episodes - 1)
        train = self.subset(np.sort(order[count:])).fit_action_range()
        return train, replace(self.subset(np.sort(order[:count])), spec=train.spec)

    def with_spec(self, spec: Spec) -> Dataset:
        """Read the same rows under the spec of a trained model, which fixes the action range.

        A model of plain video reads rows with actions too, without them.

        Raises:
            SpecError: other observations or actions; ranges and frame rates may differ.
        """
        stored = self.schema.spec if spec.action is not None else replace(self.schema.spec, action=None)
        if _form(spec) != _form(stored):
            raise SpecError(f"{self.path}: its observations or actions differ from the model's; use data of its world")
        return replace(self, spec=spec, _cumulative={})

    def fit_action_range(self) -> Dataset:
        """Give an unbounded action the range between its 1 % and 99 % quantiles; else change nothing."""
        action = self.schema.spec.action
        if action is None or action.kind == "discrete" or action.bounded:
            return self
        taken = np.concatenate([self.raw(i)[ACTION][1:] for i in range(self.episodes)])
        taken = taken[:: -(-len(taken) // RANGE_ROWS)].reshape(-1, action.width)
        low, high = np.quantile(taken, RANGE_QUANTILES, axis=0)
        return replace(self, spec=self.schema.spec.with_action_range(low, high), _cumulative={})

    def raw(self, episode: int) -> dict[str, np.ndarray]:
        """Return the stored columns of one episode, [T+1, ...], without a copy.

        Raises:
            DataError: no such episode.
        """
        if not 0 <= episode < self.episodes:
            raise DataError(f"{self.path}: episode {episode} of {self.episodes}")
        shard, start = self._place(episode)
        stop = start + int(self.lengths[episode])
        return {name: array[start:stop] for name, array in shard.columns.items()}

    def column(self, name: str) -> np.ndarray:
        """Return one column of all episodes, [rows, ...], as a copy.

        Raises:
            DataError: no such column.
        """
        if name not in self.schema.columns:
            raise DataError(f"{self.path}: no column {name!r}; it has {', '.join(self.schema.columns)}")
        return np.concatenate([self.raw(i)[name] for i in range(self.episodes)])

    def truth(
        self, episodes: Sequence[int] | np.ndarray, starts: Sequence[int] | np.ndarray, length: int
    ) -> dict[str, Tensor]:
        """Return the simulator state of windows: what models are judged by and never see.

        Args:
            episodes: [B] episode of each.
            starts: [B] its first row there.
            length: T, rows of each; those after the end of an episode are zero.

        Returns:
            Name without `truth/` to [B, T, ...]; empty when none was recorded.

        Raises:
            DataError: a row outside the dataset.
        """
        cut = self._cut(*self._inside(episodes, starts), length, across=False)
        return {key: cut.fill(TRUTH + key) for key in self.schema.truth}

    def episode(self, episode: int) -> Segment:
        """Return one whole episode, [1, T, ...].

        Raises:
            DataError: no such episode.
        """
        if not 0 <= episode < self.episodes:
            raise DataError(f"{self.path}: episode {episode} of {self.episodes}")
        return self.windows([episode], [0], int(self.lengths[episode]))

    def windows(self, episodes: Sequence[int] | np.ndarray, starts: Sequence[int] | np.ndarray, length: int) -> Segment:
        """Return the windows that begin at given rows; they stop at the end of their episode.

        Args:
            episodes: [B] episode of each.
            starts: [B] its first row there.
            length: T, rows of each.

        Returns:
            [B, T, ...]; `mask` is None unless an episode ended early.

        Raises:
            DataError: a row outside the dataset.
        """
        return self._gather(*self._inside(episodes, starts), length, across=False)

    def sample(
        self,
        batch: int,
        length: int,
        *,
        seed: int = 0,
        step: int = 0,
        rank: int = 0,
        across: bool = False,
        out: Segment | None = None,
    ) -> Segment:
        """Draw windows of rows, all starts equally likely: a pure function of its arguments and the rows.

        Args:
            batch: B, number of windows.
            length: T, rows of each.
            seed: which sequence of batches.
            step: which batch of it.
            rank: which worker; each draws its own.
            across: let windows run into the next episode (its first row has `is_first`);
                otherwise they stay in one, and episodes shorter than `length` are padded.
            out: a segment of the same size that is no longer needed: its observations are overwritten
                and given back, which spares the allocation of large pictures.

        Returns:
            [B, T, ...]; `mask` is None unless rows were padded.

        Raises:
            DataError: no window, or `out` has another size or type.
        """
        if batch < 1 or length < 1:
            raise DataError(f"a batch needs at least one window of one row, found {batch} of {length}")
        key = (length, across)
        if key not in self._cumulative:
            self._cumulative[key] = cumulative_starts(self.lengths, length, across)
        chosen, starts = draw_starts(self._cumulative[key], batch, generator(seed, step, rank))
        return self._gather(chosen, starts, length, across, out)

    def batches(
        self,
        batch: int,
        length: int,
        *,
        seed: int = 0,
        first_step: int = 0,
        rank: int = 0,
        across: bool = False,
    ) -> Iterator[Segment]:
        """Draw batches for ever; starting at `first_step` resumes exactly."""
        step = first_step
        while True:
            yield self.sample(batch, length, seed=seed, step=step, rank=rank, across=across)
            step += 1

    def summary(self) -> DatasetSummary:
        """Count rows, bytes, lengths and returns."""
        returns = np.array([self.raw(i)["reward"].sum(dtype=np.float64) for i in range(self.episodes)])
        terminal = np.array([self.raw(i)["is_terminal"][-1] for i in range(self.episodes)])
        return DatasetSummary(
            episodes=self.episodes,
            rows=self.rows,
            steps=self.steps,
            bytes=self.rows * self.schema.bytes_per_row,
            length_min=int(self.lengths.min()),
            length_mean=float(self.lengths.mean()),
            length_max=int(self.lengths.max()),
            return_min=float(returns.min()),
            return_mean=float(returns.mean()),
            return_std=float(returns.std()),
            return_max=float(returns.max()),
            terminal=float(terminal.mean()),
            columns=self.schema.columns,
            source=self.source,
        )

    def _inside(
        self, episodes: Sequence[int] | np.ndarray, starts: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen, first = np.asarray(episodes, np.int64), np.asarray(starts, np.int64)
        inside = (chosen >= 0) & (chosen < self.episodes) & (first >= 0)
        if not (inside & (first < self.lengths[np.where(inside, chosen, 0)])).all():
            raise DataError(f"{self.path}: a window begins outside its {self.episodes} episodes")
        return chosen, first

    def _stretch(self, numbers: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> Dataset:
        return replace(self, numbers=numbers, first=first, lengths=lengths, _cumulative={})

    def _place(self, episode: int) -> tuple[Shard, int]:
        """Return the shard of an episode, and the row there at which its stretch begins."""
        number = self.numbers[episode] - self.index.dropped
        return self.shards[self.index.shard[number]], int(self.index.start[number] + self.first[episode])

    def _gather(
        self, episodes: np.ndarray, starts: np.ndarray, length: int, across: bool, out: Segment | None = None
    ) -> Segment:
        """Copy windows, run by run, from the mapped columns into fresh tensors, or observations into those of `out`."""
        cut = self._cut(episodes, starts, length, across)
        is_first = cut.fill("is_first")
        for run, _, _ in cut.sources:
            # a stretch may begin inside an episode: where a window runs into it, the past is cut off too
            is_first[run.window, run.at] |= run.at > 0
        mask = cut.mask()
        return Segment(
            obs={key: cut.fill(OBS + key, None if out is None else out.obs[key]) for key in self.spec.obs},
            prev_action=self._model_ready(cut.fill(ACTION), is_first, mask) if self.spec.action is not None else None,
            reward=cut.fill("reward"),
            is_first=is_first,
            is_terminal=cut.fill("is_terminal"),
            is_last=cut.fill("is_last"),
            mask=mask,
        )

    def _cut(self, episodes: np.ndarray, starts: np.ndarray, length: int, across: bool) -> _Cut:
        runs = pieces(episodes, starts, length, self.lengths, across)
        return _Cut(self.schema, len(episodes), length, [(run, *self._place(run.episode)) for run in runs])

    def _model_ready(self, taken: Tensor, is_first: Tensor, mask: Tensor | None) -> Tensor:
        """Turn stored actions into model-ready ones; where no action was taken, zero."""
        assert self.spec.action is not None
        none = is_first if mask is None else is_first | ~mask
        return self.spec.action.to_model(taken).masked_fill_(none[..., None], 0.0)


@dataclass(frozen=True, eq=False)
class _Cut:
    """Where the rows of a batch of windows lie."""

    schema: Schema
    batch: int
    length: int
    sources: list[tuple[Piece, Shard, int]]

    @cached_property
    def padded(self) -> bool:
        """Whether some window runs over the end of its episode."""
        return sum(run.count for run, _, _ in self.sources) < self.batch * self.length

    def mask(self) -> Tensor | None:
        """Return which rows are real, [B, T]; None when all are."""
        if not self.padded:
            return None
        mask = torch.zeros(self.batch, self.length, dtype=torch.bool)
        for run, _, _ in self.sources:
            mask[run.window, run.at : run.at + run.count] = True
        return mask

    def fill(self, name: str, tensor: Tensor | None = None) -> Tensor:
        """Copy one column into a tensor [B, T, ...], a fresh one unless given."""
        column = self.schema.columns[name]
        shape, dtype = (self.batch, self.length, *column.shape), getattr(torch, column.dtype)
        if tensor is None:
            tensor = (torch.zeros if self.padded else torch.empty)(shape, dtype=dtype)
        elif (tensor.shape, tensor.dtype) != (shape, dtype):
            raise DataError(f"{name}: `out` holds {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
        elif self.padded:
            tensor.zero_()
        into = tensor.numpy()
        for run, shard, start in self.sources:
            rows = slice(start + run.start, start + run.start + run.count)
            into[run.window, run.at : run.at + run.count] = shard.columns[name][rows]
        return tensor


def _form(spec: Spec) -> dict[str, tuple[object, ...]]:
    """Return what rows must share to be read under one spec or another."""
    spaces = dict(spec.obs) if spec.action is None else {**spec.obs, ACTION: spec.action}
    return {name: (s.kind, s.shape, s.dtype, s.classes, s.start) for name, s in spaces.items()}


def load(path: str | Path) -> Dataset:
    """Open a native store.

    Every shard is checked against its hashes when it is first seen, and by size and time after that.

    Args:
        path: the folder.

    Raises:
        DataError: not a store, empty, damaged or of another version; the file is named.

    Example:
        >>> import tempfile, numpy as np, foreworld as fw
        >>> from foreworld.core import Space
        >>> from foreworld.data import Episode, Writer
        >>> spec = fw.Spec(obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")}, action=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Writer(folder, spec) as writer:
        ...         writer.add(Episode(obs={"obs": np.zeros((9, 2), np.float32)}))
        ...     segment = fw.load(folder).sample(batch=4, length=5, seed=0)
        >>> segment.obs["obs"].shape
        torch.Size([4, 5, 2])
    """
    store = Path(path)
    while True:
        before = Dropped.read(store)
        try:
            return _load(store, before)
        except DataError:
            if Dropped.read(store) == before:
                raise  # else the store dropped a shard that was just about to be opened


def _load(store: Path, dropped: Dropped) -> Dataset:
    schema = Schema.read(store)
    paths = shard_paths(store)
    if not paths:
        raise DataError(f"{store}: holds no finished episode yet; collect or import some")
    if int(paths[0].name) != dropped.shards:
        raise DataError(f"{store}: changed while it was opened; open it again")
    verify_shards(store, paths)
    shards = open_shards(paths, schema)
    lengths = np.concatenate([shard.lengths for shard in shards])
    owner = np.concatenate([np.full(len(shard.lengths), i) for i, shard in enumerate(shards)])
    starts = np.concatenate([np.cumsum(shard.lengths) - shard.lengths for shard in shards])
    fingerprint = dropped.fingerprint or sha256(paths[0] / MANIFEST)
    index = Index(dropped.episodes, lengths, owner, starts, fingerprint)
    numbers = np.arange(len(lengths)) + dropped.episodes
    first = np.zeros_like(numbers)
    return Dataset(store, schema, schema.spec, shards, index, numbers, first, lengths).fit_action_range()
