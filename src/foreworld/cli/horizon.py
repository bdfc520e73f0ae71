"""`foreworld horizon`: how far a model may be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foreworld.cli.options import parse, print_json, print_table, say
from foreworld.ops.compounding import (
    ASSUMES,
    cumulative_error,
    effective_members,
    ensemble_error,
    probability,
    safe_horizon,
)

STEPS = (1, 5, 10, 20, 50, 100)
SHOWN = (0.01, 0.005, 0.001)


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Say how many steps may be trusted when every step is wrong with a known probability.

    The answer is a closed form with strong assumptions, which are printed. Where there is a model
    and data, measure instead: foreworld eval.

    example: foreworld horizon --per-step-error 0.01 --max-error 0.2
    """

    per_step_error: float
    """Probability that one step is wrong; 0.01 is 1 %."""
    max_error: float = 0.2
    """Largest error that can be tolerated at the end."""
    members: int = 5
    """Members of the ensemble in the table."""
    correlation: float = 0.2
    """Correlation of the members' errors; 0.2 to 0.6 has been measured for small networks."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Horizon, argv, "horizon")
    steps = safe_horizon(args.per_step_error, args.max_error)
    table = rows(args)
    if args.json:
        answer = {"per_step_error": args.per_step_error, "max_error": args.max_error}
        answer |= {"safe_horizon": steps, "unbounded": steps is None}
        print_json(answer | {"formula": "1 - (1 - e)^T", "assumes": list(ASSUMES), "table": table})
        return
    if steps is None:
        say(f"No horizon is too long: the error never exceeds {args.max_error:.4g}.")
    else:
        after, beyond = (_percent(cumulative_error(args.per_step_error, t)) for t in (steps, steps + 1))
        say(f"{steps} steps: after them the error is {after}, after one more {beyond}.")
    columns = ["cumulative error in % after T =", *map(str, STEPS), f"steps to {_percent(args.max_error)}"]
    cells = [[row["label"], *row["percent"].values(), row["safe_horizon"]] for row in table]
    print_table("1 - (1 - e)^T", columns, cells)
    say("This assumes that " + "; that ".join(ASSUMES) + ".")
    say("It fits discrete states; for continuous ones it is no bound in either direction: measure with foreworld eval.")


def rows(args: Horizon) -> list[dict[str, Any]]:
    """Return the table: the given error, the usual ones, and an ensemble of such members."""
    given = probability("per-step error", args.per_step_error)
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
