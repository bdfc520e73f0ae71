"""`check`: whether a dataset can be trained on, and if not, why and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from foreworld.core.errors import DataError
from foreworld.core.files import verify_folder
from foreworld.core.spaces import TRUTH, Space
from foreworld.data import Dataset, load
from foreworld.data.schema import ACTION, OBS, SCHEMA_FILE, Schema
from foreworld.data.shard import shard_paths
from foreworld.studies.alignment import Alignment, scan
from foreworld.studies.survey import Range, Survey, survey

Severity = Literal["error", "warning", "note"]

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done and how much there is to do."""

FROZEN_ROWS = 8
"""A shorter episode may well stand still."""
UNLIKELY = 1e-3
MANY_REPEATS = 0.5
LISTED = 5

RESHIFT = {
    -1: "prev_action[t] seems to have been taken after obs[t], not before it; "
    "import again with Episode.from_transitions(obs, action), whose action[t] leads from obs[t] to obs[t+1]",
    1: "prev_action[t+1] seems to have led to obs[t]; import again with every action one row earlier",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: with an `error` the dataset should not be trained on.
        check: what was checked, in one or two words.
        message: one sentence: what, where, and what to do.
    """

    severity: Severity
    check: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts; lengths are in rows, returns undiscounted, repeated rows a share of all."""

    episodes: int
    rows: int
    steps: int
    length_min: int
    length_median: float
    length_max: int
    return_min: float
    return_median: float
    return_max: float
    terminal: int
    truncated: int
    repeated: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a check found; statistics and scans are missing when the dataset could not be read."""

    path: str
    findings: tuple[Finding, ...]
    statistics: Statistics | None = None
    alignments: tuple[Alignment, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no error was found."""
        return all(finding.severity != "error" for finding in self.findings)


def check(path: str | Path, *, window: int = 16, seed: int = 0, progress: Progress | None = None) -> Audit:
    """Check a dataset: damage, alignment of actions and rewards, values, frames, episodes.

    Args:
        path: folder of a native store.
        window: rows that training will sample; shorter episodes are counted.
        seed: which rows the alignment is judged on.
        progress: called with (stage, done, total).

    Returns:
        Findings, the worst first, with statistics and the scans of both columns.

    Raises:
        DataError: there is no dataset at all.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fw.collect("CartPole-v1", episodes=30, out=f"{folder}/d")
        ...     found = fw.check(f"{folder}/d")
        >>> found.ok, [(scan.column, scan.verdict) for scan in found.alignments]
        (True, [('prev_action', 'aligned'), ('reward', 'absent')])
    """
    store = Path(path)
    if not (store / SCHEMA_FILE).is_file():
        Schema.read(store)
    tell = progress or (lambda stage, done, total: None)
    if damage := _damage(store, tell):
        return Audit(path=str(path), findings=tuple(damage))
    try:
        data = load(store)
    except DataError as error:
        return Audit(path=str(path), findings=(Finding(severity="error", check="store", message=str(error)),))
    facts = survey(data, lambda done, total: tell("read", done, total))
    findings = [*_values(data, facts), *_frames(data, facts, window), *_actions(data, facts)]
    alignments: tuple[Alignment, ...] = ()
    if all(found.bad is None for found in facts.columns.values()):
        columns = (ACTION, "reward")
        alignments = tuple(
            scan(data, name, seed, lambda done, total, name=name: tell(name, done, total)) for name in columns
        )
        findings = [finding for found in alignments for finding in _shifts(found)] + findings
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Audit(path=str(path), findings=tuple(findings), statistics=_statistics(data, facts), alignments=alignments)


def _damage(store: Path, tell: Progress) -> list[Finding]:
    """Compare every file with its hash, also those that were remembered as whole."""
    found = []
    try:
        paths = shard_paths(store)
    except DataError as error:
        return [Finding(severity="error", check="damage", message=str(error))]
    for number, path in enumerate(paths):
        try:
            verify_folder(path)
        except DataError as error:
            found.append(Finding(severity="error", check="damage", message=str(error)))
        tell("verify", number + 1, len(paths))
    return found


def _shifts(found: Alignment) -> Iterator[Finding]:
    name = "actions" if found.column == ACTION else "rewards"
    shares = {shift.shift: shift for shift in found.shifts}
    if found.verdict == "shifted":
        best = shares[found.best]
        told = (
            f"{name} look shifted by one row: the change from obs[t-1] to obs[t] tells {best.share:.0%} of "
            f"{found.column}[t{found.best:+d}] and {max(shares[0].share, 0):.0%} of {found.column}[t]"
        )
        if found.column == ACTION:
            yield _finding("error", "alignment", f"{told}: {RESHIFT[found.best]}")
        else:
            where = "earned by leaving the row" if found.best < 0 else "stored one row late"
            yield _finding("error", "alignment", f"{told}: they seem {where}; import again, each with its arrival row")
    elif found.verdict == "unclear":
        yield _finding(
            "warning",
            "alignment",
            f"the change from obs[t-1] to obs[t] tells more of {found.column}[t{found.best:+d}] than of "
            f"{found.column}[t], but of both: the world answers late, or rows are shifted; compare with the source",
        )
    elif found.verdict == "unseen" and found.column == ACTION:
        yield _finding(
            "warning",
            "alignment",
            "no effect of the actions is seen at any shift: more rows may show one; else the world ignores them, or "
            "actions and observations are of different episodes",
        )
    elif found.verdict == "absent" and found.column == ACTION:
        yield _finding("note", "alignment", found.reason)


def _values(data: Dataset, facts: Survey) -> Iterator[Finding]:
    """Judge every column's values against the space that it declares."""
    spec = data.schema.spec
    spaces = {OBS + key: space for key, space in spec.obs.items()}
    spaces |= {TRUTH + key: space for key, space in data.schema.truth.items()}
    spaces |= {ACTION: spec.action} if spec.action is not None else {}
    for name, found in facts.columns.items():
        if found.bad is not None:
            episode, row = found.bad
            yield _finding(
                "error",
                "values",
                f"column {name!r}, episode {episode}, row {row}: NaN or infinite (in {found.bad_rows} rows); "
                "leave the episode out or mend it at the source",
            )
        space = spaces.get(name)
        if space is not None:
            yield from _outside(name, found, space)
            if not name.startswith(TRUTH):
                yield from _constant(name, found, space)


def _outside(name: str, found: Range, space: Space) -> Iterator[Finding]:
    least, most = found.low.min(), found.high.max()
    if space.kind == "image":
        if most <= 1 and least != most:
            yield _finding(
                "warning",
                "values",
                f"column {name!r}: uint8 pixels only use {least} to {most}, as if floats in [0, 1] had been cut to "
                "integers; multiply by 255 before storing",
            )
        return
    if space.kind == "discrete":
        low = np.asarray(space.start, np.float64)
        high = low + np.asarray(space.classes) - 1
    elif space.bounded:
        low, high = np.asarray(space.low), np.asarray(space.high)
    else:
        return
    slack = 0.0 if space.kind == "discrete" else 1e-5 * np.maximum(np.abs(low), np.abs(high)) + 1e-6
    under, over = found.low.ravel() < low - slack, found.high.ravel() > high + slack
    if (under | over).any():
        at = int((under | over).argmax())
        held = f"{float(found.low.ravel()[at]):.4g} to {float(found.high.ravel()[at]):.4g}"
        yield _finding(
            "error" if space.kind == "discrete" else "warning",
            "values",
            f"column {_component(name, found, at)}: holds {held}, its space says {low[at]:.4g} to {high[at]:.4g}; "
            "correct the space, or clip what the environment clipped",
        )


def _constant(name: str, found: Range, space: Space) -> Iterator[Finding]:
    same = (found.low == found.high).ravel()
    if space.kind == "image" and not same.all():
        return  # a background that never changes is no fault
    if same.all():
        yield _finding("warning", "constant", f"column {name!r} never changes; nothing can be learned from it")
    elif same.any():
        named = ", ".join(_component(name, found, int(i)) for i in np.flatnonzero(same)[:LISTED])
        more = f" and {same.sum() - LISTED} more" if same.sum() > LISTED else ""
        yield _finding("warning", "constant", f"{named}{more} never change; leave them out if they mean nothing")


def _component(name: str, found: Range, at: int) -> str:
    index = np.unravel_index(at, found.low.shape)
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if index else name


def _frames(data: Dataset, facts: Survey, window: int) -> Iterator[Finding]:
    """Judge rows and episodes as wholes."""
    for name, episode, row in facts.misplaced:
        yield _finding(
            "error",
            "rows",
            f"column {name!r}, episode {episode}, row {row}: not as arrival rows have it; write the store again "
            "with foreworld.data.Writer",
        )
    frozen = _frozen(facts)
    if len(frozen):
        yield _finding(
            "error",
            "frames",
            f"{_episodes(frozen)} never changes: all its rows hold the same observation; "
            "leave it out or read its frames again",
        )
    share = facts.repeated.sum() / max(data.steps, 1)
    if share > MANY_REPEATS and not len(frozen):
        yield _finding(
            "warning",
            "frames",
            f"{share:.0%} of the rows repeat the observation before them exactly; fine where actions often do nothing, "
            "else frames were dropped or stored twice",
        )
    if facts.copies:
        episode, known = facts.copies[0]
        yield _finding(
            "warning",
            "copies",
            f"{len(facts.copies)} of {data.episodes} episodes are copies of earlier ones (episode {episode} of episode "
            f"{known}); held-out rows may have been trained on, so leave them out",
        )
    if data.episodes < 2:
        yield _finding("warning", "episodes", "one episode only: hold out by time, or collect more to judge a model on")
    short = int((facts.lengths < window).sum())
    if short:
        yield _finding(
            "note",
            "episodes",
            f"{short} of {data.episodes} episodes are shorter than a window of {window} rows and will be padded",
        )


def _frozen(facts: Survey) -> np.ndarray:
    """Return the episodes that stand still where, by all other episodes, something should have moved."""
    steps = facts.lengths - 1
    still = facts.repeated == steps
    usual = facts.repeated[~still].sum() / max(steps[~still].sum(), 1)
    # in a world where many actions do nothing, a short episode of such actions is no fault
    return np.flatnonzero(still & (facts.lengths >= FROZEN_ROWS) & (usual**facts.choices < UNLIKELY))


def _actions(data: Dataset, facts: Survey) -> Iterator[Finding]:
    action = data.schema.spec.action
    if action is None:
        return
    for i, counts in enumerate(facts.taken):
        never = np.flatnonzero(counts == 0)
        if len(never) and len(counts) > 1:
            named = ", ".join(str(n + action.start[i]) for n in never[:LISTED]) + (
                ", ..." if len(never) > LISTED else ""
            )
            part = f" of component {i}" if len(facts.taken) > 1 else ""
            yield _finding(
                "warning",
                "actions",
                f"{len(never)} of {len(counts)} actions{part} were never taken ({named}); a model cannot know what "
                "they do, so collect some with them",
            )
    reward = facts.columns["reward"]
    if not reward.low.any() and not reward.high.any():
        yield _finding("note", "reward", "the reward is always zero: dynamics can be learned, but nothing to aim for")


def _episodes(numbers: np.ndarray) -> str:
    first = f"episode {numbers[0]}"
    return first if len(numbers) == 1 else f"{first} (and {len(numbers) - 1} more)"


def _finding(severity: Severity, topic: str, message: str) -> Finding:
    return Finding(severity=severity, check=topic, message=message)


def _statistics(data: Dataset, facts: Survey) -> Statistics:
    terminal = int(facts.terminal.sum())
    return Statistics(
        episodes=data.episodes,
        rows=data.rows,
        steps=data.steps,
        length_min=int(facts.lengths.min()),
        length_median=float(np.median(facts.lengths)),
        length_max=int(facts.lengths.max()),
        return_min=float(facts.returns.min()),
        return_median=float(np.median(facts.returns)),
        return_max=float(facts.returns.max()),
        terminal=terminal,
        truncated=data.episodes - terminal,
        repeated=float(facts.repeated.sum() / max(data.steps, 1)),
    )
