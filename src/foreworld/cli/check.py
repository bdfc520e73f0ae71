"""`foreworld check`: whether a dataset can be trained on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foreworld.cli.options import existing, parse, print_json, print_table, say
from foreworld.data.schema import ACTION
from foreworld.studies.alignment import Alignment
from foreworld.studies.audit import Audit, Statistics, check
from foreworld.train.log import Display

FAULTY = 1

STAGES = {
    "verify": ("compare with hashes", "shards"),
    "read": ("read", "rows"),
    ACTION: ("align actions", "folds"),
    "reward": ("align rewards", "folds"),
}

WHERE = {-1: "stored one row earlier", 0: "stored there", 1: "stored one row later"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say whether a dataset can be trained on: shifted actions or rewards, damage, NaN, frozen or copied episodes.

    Exits with 1 when something is wrong, with 0 when there are only warnings.

    example: foreworld check episodes
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset."""
    window: int = 16
    """Rows that training will sample; shorter episodes are counted."""
    seed: int = 0
    """Which rows the alignment is judged on."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> int:
    """Run the verb; return 1 when the dataset is at fault."""
    args = parse(Check, argv, "check")
    folder = existing(args.data, "folder")
    with ExitStack() as stack:
        displays: dict[str, Display] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in displays:
                stack.close()
                title, unit = STAGES[stage]
                displays[stage] = stack.enter_context(Display(title, unit, quiet=args.json))
            displays[stage].show(done, total)

        found = check(folder, window=args.window, seed=args.seed, progress=show)
    if args.json:
        print_json({"ok": found.ok} | asdict(found))
    else:
        _print(found)
    return 0 if found.ok else FAULTY


def _print(found: Audit) -> None:
    if found.statistics is not None:
        print_table(found.path, ["what", "value"], _facts(found.statistics))
    for scan in found.alignments:
        if scan.shifts:
            _print_shifts(scan)
        elif scan.reason:
            say(f"{scan.column}: {scan.reason}")
    for finding in found.findings:
        say(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in found.findings)
    warnings = sum(finding.severity == "warning" for finding in found.findings)
    counted = ", ".join(
        f"{count} {name}{'s' if count > 1 else ''}"
        for count, name in ((errors, "error"), (warnings, "warning"))
        if count
    )
    say(f"{found.path}: {'fit' if found.ok else 'not fit'} to train on{f' ({counted})' if counted else ''}")


def _facts(found: Statistics) -> list[list[str]]:
    return [
        ["episodes", f"{found.episodes}, of them {found.terminal} terminal, {found.truncated} truncated"],
        ["steps", f"{found.steps} ({found.rows} rows)"],
        ["episode rows (min, median, max)", f"{found.length_min}, {found.length_median:g}, {found.length_max}"],
        ["return (min, median, max)", f"{found.return_min:.4g}, {found.return_median:.4g}, {found.return_max:.4g}"],
        ["rows that repeat the one before", f"{found.repeated:.1%}"],
    ]


def _print_shifts(found: Alignment) -> None:
    rows = [[WHERE[s.shift], s.share, f"{s.low:.2f} to {s.high:.2f}"] for s in found.shifts]
    columns = ["the change on arriving at a row tells of the one", "share", "99 % interval"]
    print_table(f"{found.column}: {found.verdict}, judged on {found.rows} rows", columns, rows)
