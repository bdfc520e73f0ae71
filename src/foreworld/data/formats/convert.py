"""`import_episodes` and `export_episodes`: datasets from files of other formats, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from foreworld.core import registry
from foreworld.core.disk import discard, held, make_folder, partial_name, sync, writing
from foreworld.core.errors import DataError
from foreworld.core.files import claim_output, refuse_existing
from foreworld.core.spaces import Space, Spec
from foreworld.data.dataset import Dataset, load
from foreworld.data.formats.recording import Format, Progress, Recording, Selection
from foreworld.data.schema import Source
from foreworld.data.store import Writer


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """A dataset made out of files, and what of them could not be kept.

    Attributes:
        data: the dataset, opened.
        format: in which the files were.
        notes: what was left out, or understood in one way of several; one sentence each.
    """

    data: Dataset
    format: str
    notes: tuple[str, ...]


def import_episodes(
    sources: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    format: str = "auto",
    keys: Sequence[str] | None = None,
    subset: str | None = None,
    cut: bool = False,
    states: bool = False,
    fps: float | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    overwrite: bool = False,
) -> Imported:
    """Make a dataset out of episodes in another format; it appears under its name when it is whole, or not at all.

    Args:
        sources: files or folders, all of one format.
        out: folder of the dataset.
        format: a registered name such as `robomimic`, `minari` or `npz`; `auto` finds out.
        keys: observation keys to keep; None keeps all. Simulator state is always kept.
        subset: a named part of the source: a filter key of robomimic, such as `train`.
        cut: take every end as a truncation, whatever the source says of it.
        states: robomimic only: keep the simulator's states as `truth/states`. There is none of the last observation,
            so that the last action of every episode is dropped for it.
        fps: frames per second, where the source does not say.
        progress: called with (done, total), in episodes.
        stop: asked after every episode; when it says yes, nothing is kept.
        overwrite: replace what is at `out`, once the new dataset is whole.

    Returns:
        The dataset, opened, and what of the source could not be kept.

    Raises:
        DataError: a source is missing, damaged, of an unknown form, or unlike the others; or `stop` said yes.
        MissingExtra: the package that reads the format is not installed.
        OutputExists: `out` is there and `overwrite` is false.

    Example:
        >>> import tempfile, numpy as np, foreworld as fw
        >>> from foreworld.data.formats import import_episodes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     where = {"obs/position": np.zeros((11, 2)), "action": np.ones((10, 1))}
        ...     np.savez(f"{folder}/one.npz", **where)
        ...     data = import_episodes(f"{folder}/one.npz", out=f"{folder}/data").data
        ...     data.rows, data.raw(0)["prev_action"][:2].tolist()
        (11, [[0.0], [1.0]])
    """
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not paths:
        raise DataError("nothing to import; name at least one file or folder")
    out, chosen = Path(out), _format(paths, format)
    refuse_existing(out, overwrite)
    selection = Selection(keys=None if keys is None else tuple(keys), subset=subset, cut=cut, states=states)
    make_folder(out.parent)
    partial = partial_name(out)
    try:
        with ExitStack() as stack:
            recordings = [stack.enter_context(chosen.opened(path, selection)) for path in paths]
            agreed = _agreed(paths, recordings)
            spec = replace(agreed.spec, fps=fps if agreed.spec.fps is None else agreed.spec.fps)
            make_folder(partial)
            with held(partial):
                _fill(partial, recordings, spec, agreed.source, progress, stop)
                claim_output(out, overwrite)
                _rename(partial, out)
    except BaseException:
        discard(partial)
        raise
    notes = [line for recording in recordings for line in recording.notes.lines()]
    return Imported(data=load(out), format=chosen.name, notes=tuple(dict.fromkeys(notes)))


def export_episodes(
    data: Dataset, *, out: str | Path, format: str, progress: Progress | None = None, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a dataset in another format; it appears under its name when it is whole, or not at all.

    Args:
        data: the episodes.
        out: file (robomimic) or folder (minari, npz) to write.
        format: a registered name.
        progress: called with (done, total), in episodes.
        overwrite: replace what is at `out`, once the new file is whole.

    Returns:
        What the format cannot hold, one sentence each.

    Raises:
        DataError: the format cannot hold such episodes at all.
        MissingExtra: the package that writes the format is not installed.
        OutputExists: `out` is there and `overwrite` is false, or it is a folder of somebody else's.
        UnknownName: no format has that name.
        WriteFailed: the disk refused.

    Example:
        >>> import tempfile, foreworld as fw
        >>> from foreworld.data.formats import export_episodes, import_episodes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=2, out=f"{folder}/data")
        ...     left_out = export_episodes(data, out=f"{folder}/files", format="npz")
        ...     again = import_episodes(f"{folder}/files", out=f"{folder}/again").data
        ...     left_out, bool((again.column("obs/obs") == data.column("obs/obs")).all())
        ((), True)
    """
    out, chosen = Path(out), registry.load("formats", format)
    refuse_existing(out, overwrite)
    make_folder(out.parent)
    partial = partial_name(out)
    try:
        notes = chosen.write(data, partial, progress)
        with writing(out), held(partial):
            for file in [*partial.rglob("*"), partial]:
                sync(file)
            claim_output(out, overwrite)
            _rename(partial, out)
    except BaseException:
        discard(partial)
        raise
    return notes


def _format(paths: Sequence[Path], name: str) -> Format:
    """Return the format that was named, or the one that the first source looks like."""
    if name != "auto":
        return registry.load("formats", name)
    first = paths[0]
    if not first.exists():
        raise DataError(f"{first}: no such file or folder")
    known = [registry.load("formats", each) for each in registry.names("formats")]
    for each in known:
        if each.recognises(first):
            return each
    said = ", ".join(f"{each.name} ({each.about})" for each in known)
    raise DataError(f"{first}: is in no format that is known: {said}")


def _agreed(paths: Sequence[Path], recordings: Sequence[Recording]) -> Recording:
    """Return the first recording with a spec that all share; an action whose ranges differ has none."""
    first = recordings[0]
    for path, other in zip(paths, recordings, strict=True):
        spec = first.spec
        if other.spec.action != spec.action and _unbounded(other.spec) == _unbounded(spec):
            first = replace(first, spec=_unbounded(spec))
        elif (other.spec, dict(other.truth)) != (spec, dict(first.truth)):
            raise DataError(f"{path}: has other observations, actions or rates than {paths[0]}; import it by itself")
        if other.spec.action is not None and not other.spec.action.bounded:
            first = replace(first, spec=_unbounded(first.spec))
    if len(paths) > 1:
        options = {**first.source.options, "sources": [path.name for path in paths]}
        first = replace(first, source=replace(first.source, options=options))
    return first


def _unbounded(spec: Spec) -> Spec:
    action: Space | None = spec.action
    if action is None or action.kind != "vector":
        return spec
    return replace(spec, action=replace(action, low=(), high=()))


def _fill(
    store: Path,
    recordings: Sequence[Recording],
    spec: Spec,
    source: Source,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> None:
    done, total = 0, sum(recording.count for recording in recordings)
    with Writer(store, spec, truth=recordings[0].truth, source=source) as writer:
        for recording in recordings:
            for name, episode in recording.read():
                try:
                    writer.add(episode)
                except DataError as fault:
                    raise DataError(f"{name}: {fault}") from fault
                done += 1
                if progress is not None:
                    progress(done, total)
                if stop is not None and stop():
                    raise DataError("stopped; nothing is kept")
    if not writer.episodes:
        raise DataError(f"{source.env or 'the source'}: holds no episode of at least one step with its outcome")


def _rename(partial: Path, out: Path) -> None:
    with writing(out):
        os.rename(partial, out)  # noqa: PTH104 - the seam for faults is `os`
        sync(out.parent)
