"""`foreworld horizon`: how far a model may be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.core.errors import ConfigError
from foreworld.data import load
from foreworld.eval.horizon import require_episodes
from foreworld.eval.trajectories import load_trajectories
from foreworld.eval.trust import Trust, measure_trust
from foreworld.ops.compounding import (
    ASSUMES,
    cumulative_error,
    effective_members,
    ensemble_error,
    probability,
    safe_horizon,
)
from foreworld.studies.answers import Limits, chosen_horizon, rank_plans
from foreworld.studies.latency import planning_latency
from foreworld.studies.openloop import judge
from foreworld.train import actor_of, load_run
from foreworld.train.log import Display

STEPS = (1, 5, 10, 20, 50, 100)
SHOWN = (0.01, 0.005, 0.001)
BANDS = (1, 10, 50)


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Say how many steps of a model's predictions may be trusted.

    Measured on trajectories, the answer is a guarantee: with a stated confidence, at most a stated share of new
    episodes exceed the largest error within so many steps. It needs 29 episodes for 95 % and 10 %. From an error per
    step alone, the answer is a closed form with strong assumptions, which are printed.

    example: foreworld horizon --run runs/first --max-error 0.2 --confidence 0.95

    example: foreworld horizon --run runs/first --states 64

    example: foreworld horizon --trajectories mine.npz

    example: foreworld horizon --per-step-error 0.01
    """

    run: Path | None = None
    """Run folder of a trained model."""
    data: Path | None = None
    """Dataset to judge the run on; by default the one it was trained on. Rows trained on are left out."""
    key: str | None = None
    """What of a run is judged: an observation, `truth/<key>`, some numbers of it (`truth/state[0:2]`), `return`; by
    default the first image or observation."""
    steps: int = 100
    """How far the run is asked to predict; fewer where no episode is long enough."""
    context: int = 10
    """Rows that the model sees first."""
    samples: int = 8
    """Futures averaged for one prediction."""
    states: int = 0
    """Restored states from which a run chooses among random plans of 15 steps itself, which a safe horizon is then
    found for too; a planner seeks the errors of its model. 29 at least for 95 % and 10 %; 0 for none."""
    trajectories: Path | None = None
    """An .npz file: `true` and `predicted` [episodes, steps, dimensions]; perhaps `dt`, `lengths`, `episode`, `cut`."""
    per_step_error: float | None = None
    """Probability that one step is wrong; 0.01 is 1 %."""
    max_error: float = 0.2
    """Largest error that can be tolerated; measured: in deviations of what is true."""
    confidence: float = 0.95
    """Of the measured horizon and all intervals."""
    violation_rate: float = 0.1
    """Share of new episodes that may exceed the largest error within the horizon."""
    latency: float | None = None
    """Seconds that planning takes, at its slow end; for the replanning interval. Of a run, by default the measured time
    to imagine 512 candidates of 15 steps. Needs the seconds a step takes: `dt` in a file, the frame rate of data."""
    seed: int = 0
    """Of choices and resamples."""
    members: int = 5
    """Closed form: members of the ensemble in the table."""
    correlation: float = 0.2
    """Closed form: correlation of the members' errors; 0.2 to 0.6 has been measured for small networks."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Horizon, argv, "horizon")
    ways = [args.run, args.trajectories, args.per_step_error]
    if sum(way is not None for way in ways) != 1:
        raise ConfigError(
            "give one of --run DIR, --trajectories FILE.npz (both measure) or --per-step-error E (assumes)"
        )
    if args.per_step_error is not None:
        closed_form(args, args.per_step_error)
    elif args.trajectories is not None:
        found = load_trajectories(args.trajectories)
        measured(args, found.errors, found.episode, found.dt, found.cut, args.latency)
    elif args.run is not None:
        of_run(args, args.run)


def of_run(args: Horizon, folder: Path) -> None:
    """Measure a run's errors on rows that it was not trained on, and print what they tell."""
    trained = load_run(folder)
    data = load(args.data or trained.data)
    with Display("horizon", "stretches", quiet=args.json) as display:
        found = judge(
            trained,
            data,
            args.key,
            horizon=args.steps,
            context=args.context,
            samples=args.samples,
            seed=args.seed,
            progress=display.show,
        )
    dt, latency = found.seconds_per_step, args.latency
    if latency is None and dt is not None:
        latency = planning_latency(trained.model)
    head: dict[str, Any] = {"run": str(folder), "steps_trained": trained.step, "key": found.key}
    head["plan_latency_seconds"] = latency
    require_episodes(np.unique(found.episode).size, args.violation_rate, args.confidence)
    chosen = actor = None
    if args.states:
        require_episodes(args.states, args.violation_rate, args.confidence, "state")
        limits = Limits(
            max_error=args.max_error,
            confidence=args.confidence,
            violation_rate=args.violation_rate,
            states=args.states,
        )
        ranked = rank_plans(trained.model, data, found, limits, args.seed, actor_of(folder))
        chosen, actor = chosen_horizon(ranked, limits), ranked.actor
        head["chosen_plans"] = chosen.to_json()
        head |= {} if actor is None else {"actor_exploitation": actor.to_json()}
    measured(args, found.main.errors, found.episode, dt, ~found.ended, None if dt is None else latency, head)
    if chosen is not None and not args.json:
        say(chosen.in_words())
        if actor is not None:
            say(actor.in_words("The actor", "its own plans"))


def measured(
    args: Horizon,
    errors: np.ndarray,
    episode: np.ndarray,
    dt: float | None,
    cut: np.ndarray | None,
    latency: float | None,
    head: Mapping[str, Any] | None = None,
) -> None:
    """Print what error curves tell.

    Args:
        args: the options.
        errors: [N, K] in deviations; NaN after the end.
        episode: [N] the episode that each comes from.
        dt: seconds a step, if known.
        cut: [N] true where the recording ended before the world did.
        latency: seconds that planning takes, if known.
        head: what the JSON begins with.
    """
    found = measure_trust(
        errors,
        episode,
        dt,
        max_error=args.max_error,
        confidence=args.confidence,
        violation_rate=args.violation_rate,
        latency=latency,
        cut=cut,
        seed=args.seed,
    )
    if args.json:
        print_json({**(head or {}), **found.to_json(BANDS)})
        return
    columns, rows = bands_in_words(found)
    print_table("error, in deviations of what is true", columns, rows)
    say(found.in_words())


def bands_in_words(found: Trust) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table of the bands."""
    level = _percent(found.bands.level)
    cells = found.bands.to_json(BANDS)
    rows = [[step, *(cell[name] for name in ("mean", "pointwise", "trajectory"))] for step, cell in cells.items()]
    return ["after step", "mean", f"{level} stay under, at this step", f"{level} stay under, at all steps"], rows


def closed_form(args: Horizon, per_step: float) -> None:
    """Print the closed form."""
    steps = safe_horizon(per_step, args.max_error)
    table = closed_rows(args, per_step)
    if args.json:
        answer = {"per_step_error": per_step, "max_error": args.max_error}
        answer |= {"safe_horizon": steps, "unbounded": steps is None}
        print_json(answer | {"formula": "1 - (1 - e)^T", "assumes": list(ASSUMES), "table": table})
        return
    if steps is None:
        say(f"No horizon is too long: the error never exceeds {args.max_error:.4g}.")
    else:
        after, beyond = (_percent(cumulative_error(per_step, t)) for t in (steps, steps + 1))
        say(f"{steps} steps: after them the error is {after}, after one more {beyond}.")
    columns = ["cumulative error in % after T =", *map(str, STEPS), f"steps to {_percent(args.max_error)}"]
    cells = [[row["label"], *row["percent"].values(), row["safe_horizon"]] for row in table]
    print_table("1 - (1 - e)^T", columns, cells)
    say("This assumes that " + "; that ".join(ASSUMES) + ".")
    say("It fits discrete states; for continuous ones it is no bound in either direction: measure with foreworld eval.")


def closed_rows(args: Horizon, per_step: float) -> list[dict[str, Any]]:
    """Return the table: the given error, the usual ones, and an ensemble of such members."""
    given = probability("per-step error", per_step)
    found = [_row(f"{_percent(e)} per step", e, args.max_error) for e in sorted({given, *SHOWN}, reverse=True)]
    for rho in dict.fromkeys((0.0, args.correlation)):
        kind = "independent" if rho == 0 else f"correlation {rho:g}"
        error = ensemble_error(given, args.members, rho)
        label = f"ensemble of {args.members} of {_percent(given)}, {kind}: {_percent(error)}"
        extra = {"members": args.members, "correlation": rho, "effective_members": effective_members(args.members, rho)}
        found.append(_row(label, error, args.max_error) | extra)
    return found


def _row(label: str, error: float, limit: float) -> dict[str, Any]:
    errors = {str(t): cumulative_error(error, t) for t in STEPS}
    steps = safe_horizon(error, limit)
    return {
        "label": label,
        "per_step_error": error,
        "error": errors,
        "percent": {t: round(100 * value, 2) for t, value in errors.items()},
        "safe_horizon": steps,
        "unbounded": steps is None,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
