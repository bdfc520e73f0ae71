"""`foreworld eval`: measure open-loop error against trivial baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.core.files import claim_output
from foreworld.data import load
from foreworld.eval.summary import in_words, to_json
from foreworld.studies.answers import Limits
from foreworld.studies.openloop import rows_in_words, study
from foreworld.train import actor_of, load_run
from foreworld.train.log import Display


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how wrong a model is after 1 to H steps, against copy-last, mean and a linear model, and what that means.

    Everything that it predicts is judged: observations, the true state of the simulator where the data hold it,
    returns. Then: how many steps to trust, how surely; how the error grows; what the spread knows; whether plans are
    ranked as the world would. Rows that the run was trained on are left out. Writes a report with clips and curves.

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
    """What to put first: an observation, `truth/<key>`, some numbers of it (`truth/state[0:2]`), `return`, `embedding`
    or `latent`; by default the first image, else the first observation."""
    max_error: float = 0.2
    """Largest error that can be tolerated, in deviations: for the safe horizon."""
    confidence: float = 0.95
    """Of the safe horizon and all intervals."""
    violation_rate: float = 0.1
    """Share of new episodes that may exceed the largest error within the safe horizon."""
    latency: float | None = None
    """Seconds that planning takes; for the replanning interval, where the frame rate is known."""
    states: int = 32
    """Restored states from which action sequences are ranked, and a safe horizon is found for those that the model
    likes best; 0 for none."""
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
            confidence=args.confidence,
            limits=Limits(
                max_error=args.max_error,
                confidence=args.confidence,
                violation_rate=args.violation_rate,
                latency=args.latency,
                states=args.states,
            ),
            agent=actor_of(args.run),
            seed=args.seed,
            progress=display.show,
        )
    if args.json:
        head = {"run": str(args.run), "env": found.env, "steps_trained": trained.step}
        print_json(head | to_json(found.evaluation) | found.answers.to_json() | {"report": str(target)})
        return
    columns, rows = rows_in_words(found.evaluation, found.answers)
    key = found.evaluation.key
    print_table(f"{found.env}: open-loop error of {args.run} in {key} (1 = its deviation)", columns, rows)
    say(in_words(found.evaluation))
    say(found.answers.in_words())
    say(f"report: {target}")
