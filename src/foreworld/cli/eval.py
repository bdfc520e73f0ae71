"""`foreworld eval`: measure open-loop error against trivial baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.core.files import claim_output
from foreworld.data import load
from foreworld.eval.summary import in_words, to_json
from foreworld.studies.openloop import rows_in_words, study
from foreworld.train import load_run
from foreworld.train.log import Display


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how wrong a model is after 1 to H steps, against copy-last, mean and a linear model.

    Rows that the run was trained on are left out. Writes a report with clips and curves.

    example: foreworld eval --run runs/first --data episodes
    """

    run: Path
    """Run folder of the model."""
    data: Path
    """Dataset to judge on."""
    out: Path | None = None
    """The report; by default report.html in the run folder, replaced when it is there."""
    horizon: int = 50
    """Steps to predict."""
    context: int = 10
    """Rows that the model sees first."""
    samples: int = 8
    """Futures averaged for one prediction."""
    per_episode: int = 2
    """Stretches per episode."""
    key: str | None = None
    """Observation to judge; the first image by default, else the first key."""
    seed: int = 0
    """Of samples and bootstrap."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Eval, argv, "eval")
    target = args.run / "report.html" if args.out is None else claim_output(args.out)
    trained = load_run(args.run)
    with Display("eval", "stretches", quiet=args.json) as display:
        found = study(
            trained,
            load(args.data),
            report=target,
            horizon=args.horizon,
            context=args.context,
            samples=args.samples,
            per_episode=args.per_episode,
            key=args.key,
            seed=args.seed,
            progress=display.show,
        )
    if args.json:
        head = {"run": str(args.run), "env": found.env, "steps_trained": trained.step}
        print_json(head | to_json(found.evaluation) | {"report": str(target)})
        return
    columns, rows = rows_in_words(found.evaluation)
    print_table(f"{found.env}: open-loop error of {args.run} (1 = the deviation of the observations)", columns, rows)
    say(in_words(found.evaluation))
    say(f"report: {target}")
