"""`foreworld imagine`: a video of a dream beside the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foreworld.cli.options import parse, print_json, say
from foreworld.core.errors import DataError
from foreworld.core.files import refuse_existing
from foreworld.data import load
from foreworld.studies.dreams import dream, spread_starts
from foreworld.studies.filming import FPS, write_dream
from foreworld.train import load_run


@dataclass(frozen=True, kw_only=True)
class Imagine:
    """Write a video: the model sees some rows, then dreams on under the true actions, beside the truth.

    Images become clips (real, dreamed, error), vectors become plots.

    example: foreworld imagine --run runs/first --data episodes --out dream.mp4
    """

    run: Path
    """Run folder of the model."""
    data: Path
    """Dataset that the start and the actions come from."""
    out: Path
    """The video, .mp4 or .gif."""
    episode: int | None = None
    """Episode, counted from 0; by default one that is long enough."""
    start: int | None = None
    """First row shown."""
    context: int = 10
    """Rows that the model sees first."""
    horizon: int = 50
    """Steps to imagine."""
    key: str | None = None
    """Image to show; the first one by default. Data without images is drawn as plots."""
    fps: float = FPS
    """Frames per second of the video."""
    seed: int = 0
    """Of the sampled future."""
    overwrite: bool = False
    """Replace an existing video."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Imagine, argv, "imagine")
    trained = load_run(args.run)
    data = load(args.data).with_spec(trained.model.spec)
    episodes, starts = spread_starts(data, args.context, args.horizon, 1)
    episode = episodes[0] if args.episode is None else args.episode
    if not 0 <= episode < data.episodes:
        raise DataError(f"{args.data}: episode {episode} of {data.episodes}; count from 0")
    start = (starts[0] if args.episode is None else 0) if args.start is None else args.start
    rows = int(data.lengths[episode])
    if rows - start <= args.context:
        raise DataError(
            f"episode {episode} has {rows} rows; from row {start} none is left after --context {args.context}"
        )
    refuse_existing(args.out, args.overwrite)
    found = dream(trained.model, data, [episode], [start], args.context, args.horizon, args.seed)[0]
    write_dream(found, args.out, args.key, args.fps)
    if args.json:
        print_json({"out": str(args.out), "episode": episode, "start": start, "context": args.context})
    else:
        say(f"{args.out}: episode {episode} from row {start}, {args.context} rows seen, then imagined")
