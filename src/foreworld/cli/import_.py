"""`foreworld import`: make a dataset out of files of another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foreworld.cli.options import parse, print_json, say
from foreworld.core.errors import ConfigError, DataError
from foreworld.core.interrupt import Interrupted, graceful
from foreworld.data.formats import import_episodes
from foreworld.train.log import Display


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a dataset out of files: robomimic's HDF5, a folder of Minari, or .npz files.

    It appears under its name when it is whole; what cannot be kept is said. Run `foreworld check` on it afterwards.

    example: foreworld import lift.hdf5 --out lift

    example: foreworld import lift.hdf5 --subset train --keys agentview_image robot0_eef_pos --out lift-train

    example: foreworld import recordings/*.npz --out recordings
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files or folders, all of one format."""
    out: Path
    """Folder of the new dataset."""
    format: str = "auto"
    """Of the files: robomimic, minari, npz, or one that an installed package adds; auto finds out."""
    keys: tuple[str, ...] = ()
    """Observation keys to keep; all by default."""
    subset: str | None = None
    """Import a named part alone: a filter key of robomimic, such as train or valid."""
    cut: bool = False
    """Take every end as a truncation, whatever the source says of it."""
    states: bool = False
    """Keep robomimic's simulator states, and drop the last action of every episode, of whose outcome there is none."""
    fps: float | None = None
    """Frames per second, where the source does not say."""
    overwrite: bool = False
    """Replace an existing dataset, once the new one is whole."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Import, argv, "import")
    if args.fps is not None and args.fps <= 0:
        raise ConfigError(f"--fps {args.fps}: must be positive")
    with graceful() as interruption, Display("import", "episodes", quiet=args.json) as display:
        try:
            made = import_episodes(
                args.sources,
                out=args.out,
                format=args.format,
                keys=args.keys or None,
                subset=args.subset,
                cut=args.cut,
                states=args.states,
                fps=args.fps,
                progress=display.show,
                stop=lambda: interruption.requested,
                overwrite=args.overwrite,
            )
        except DataError:
            if interruption.signal is None:
                raise
            raise Interrupted(interruption.signal, f"stopped before the end; nothing is in {args.out}") from None
    found = made.data.summary()
    if args.json:
        print_json(
            {
                "out": str(args.out),
                "format": made.format,
                "episodes": found.episodes,
                "steps": found.steps,
                "columns": {name: f"{column.dtype} {list(column.shape)}" for name, column in found.columns.items()},
                "notes": list(made.notes),
            }
        )
        return
    for note in made.notes:
        say(f"warning: {note}")
    say(f"{found.episodes} episodes, {found.steps} steps of {made.format}, {found.bytes / 2**20:.1f} MiB in {args.out}")
