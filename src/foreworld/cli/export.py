"""`foreworld export`: write a dataset in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foreworld.cli.options import existing, parse, print_json, say
from foreworld.data import load
from foreworld.data.formats import export_episodes
from foreworld.train.log import Display


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a dataset for other tools: one HDF5 file of robomimic, a folder of Minari, or a folder of .npz files.

    `foreworld import` makes the same dataset of it again.

    example: foreworld export --data episodes --format robomimic --out episodes.hdf5

    example: foreworld export --data episodes --format minari --out episodes-minari
    """

    data: Path
    """Folder of the dataset."""
    format: str
    """To write: robomimic, minari, npz, or one that an installed package adds."""
    out: Path
    """File (robomimic) or folder (minari, npz) to write."""
    overwrite: bool = False
    """Replace what is there, once the new file is whole."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Export, argv, "export")
    data = load(existing(args.data, "folder"))
    with Display(f"export {args.format}", "episodes", quiet=args.json) as display:
        notes = export_episodes(data, out=args.out, format=args.format, progress=display.show, overwrite=args.overwrite)
    if args.json:
        print_json(
            {
                "out": str(args.out),
                "format": args.format,
                "episodes": data.episodes,
                "steps": data.steps,
                "notes": list(notes),
            }
        )
        return
    for note in notes:
        say(f"warning: {note}")
    say(f"{data.episodes} episodes, {data.steps} steps as {args.format} in {args.out}")
