"""`foreworld demo`: from nothing to a dream in minutes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.eval.summary import in_words, obedience_in_words
from foreworld.studies.demo import QUICK, DemoConfig, cut_short, demo
from foreworld.studies.openloop import rows_in_words
from foreworld.train.log import Display

STAGES = {"play": "1/3 play", "learn": "2/3 learn", "judge": "3/3 judge"}
UNITS = {"play": "games", "learn": "updates", "judge": "stretches"}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Play real Atari, train a small world model, and write a report with its dreams beside the truth.

    Takes about a quarter of an hour on two cores; --quick takes about a minute.

    example: foreworld demo

    example: foreworld demo --env ALE/Pong-v5 --out runs/pong
    """

    out: Path = Path("runs/demo")
    """Run folder: episodes, model, report.html, result.json."""
    env: str = DemoConfig.env
    """Game to play."""
    steps: int | None = None
    """Updates of the world model."""
    minutes: float | None = None
    """Most minutes of training; 0 for no limit."""
    seed: int = 0
    """Of everything."""
    quick: bool = False
    """A minute's worth: every part runs, the dream is still blurred."""
    overwrite: bool = False
    """Replace an earlier demo."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Demo, argv, "demo")
    started = time.monotonic()
    given = {name: getattr(args, name) for name in ("steps", "minutes") if getattr(args, name) is not None}
    config = replace(QUICK if args.quick else DemoConfig(), env=args.env, seed=args.seed, **given)
    with ExitStack() as stack:
        displays: dict[str, Display] = {}

        def show(stage: str, done: int, total: int, note: str) -> None:
            if stage not in displays:
                stack.close()
                displays[stage] = stack.enter_context(Display(STAGES[stage], UNITS[stage], quiet=args.json))
            displays[stage].show(done, total, note)

        result, found = demo(args.out, config, show, args.overwrite)
    if args.json:
        print_json(result)
        return
    columns, rows = rows_in_words(found.evaluation, found.answers)
    print_table(f"{found.env}: error on frames never trained on (1 = their deviation)", columns, rows)
    say(in_words(found.evaluation))
    say(obedience_in_words(found.evaluation))
    say(found.answers.in_words())
    if cut := cut_short(config, result["steps_trained"]):
        say(cut)
    say(f"report: {result['report']}   ({(time.monotonic() - started) / 60:.1f} minutes)")
