"""Write down what rliable says, for tests to compare with: python benchmarks/peers/rliable_reference.py.

rliable 1.2 needs arch < 8, which needs pandas < 3 without saying so, and brings 270 MB of packages that foreworld has
no other use for. So it is no dependency of the tests; this was run once, in an environment of its own:

    python -m venv peers && peers/bin/pip install rliable==1.2.0 'pandas<3'
    peers/bin/python benchmarks/peers/rliable_reference.py

The result goes to benchmarks/results/rliable.json, with the scores themselves.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rliable import library, metrics

RESULT = Path(__file__).parents[1] / "results" / "rliable.json"
REPEATS = 50_000
THRESHOLDS = [0.0, 0.5, 1.0, 2.0]


def main() -> None:
    """Measure and keep."""
    rng = np.random.default_rng(0)
    arms = {
        "few runs": rng.gamma(2.0, 0.5, (5, 4)).round(4),
        "many tasks": rng.normal(1.0, 1.0, (10, 26)).round(4),
        "ties": rng.integers(0, 4, (7, 3)).astype(float),
        "one run": rng.normal(size=(1, 3)).round(4),
    }
    others = {
        name: (rng.permuted(scores, axis=0) + 0.3).round(4)[: max(1, len(scores) - 1)] for name, scores in arms.items()
    }
    others["ties"] = rng.integers(0, 4, (6, 3)).astype(float)
    found = {name: reference(scores, others[name]) for name, scores in arms.items()}
    made = {name: version(name) for name in ("rliable", "arch", "numpy", "scipy", "pandas")}
    result = {"made": made, "repeats": REPEATS, "seed_ignored": seed_ignored(arms["few runs"]), "scores": found}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def reference(scores: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return what rliable says of the scores [runs, tasks] of one arm, and of it against another."""
    functions = [
        metrics.aggregate_iqm,
        metrics.aggregate_median,
        metrics.aggregate_mean,
        metrics.aggregate_optimality_gap,
    ]
    profile, _ = library.create_performance_profile({"a": scores}, np.array(THRESHOLDS), reps=10)
    found: dict[str, Any] = {
        "first": scores.tolist(),
        "second": other.tolist(),
        "probability_of_improvement": float(metrics.probability_of_improvement(scores, other)),
        "thresholds": THRESHOLDS,
        "profile": profile["a"].tolist(),
        **{function.__name__: float(function(scores)) for function in functions},
    }
    if len(scores) > 1:
        np.random.seed(0)  # noqa: NPY002 - the only seed that rliable heeds
        _, intervals = library.get_interval_estimates(
            {"a": scores}, lambda x: np.array([f(x) for f in functions]), reps=REPEATS
        )
        found["intervals"] = {function.__name__: intervals["a"][:, i].tolist() for i, function in enumerate(functions)}
    return found


def seed_ignored(scores: np.ndarray) -> bool:
    """Tell whether the same random_state gives different intervals, as the draws come from NumPy's global generator."""
    drawn = []
    for _ in range(2):
        resampled = library.StratifiedBootstrap(scores, random_state=np.random.RandomState(0))
        drawn.append(resampled.conf_int(np.mean, reps=200, method="percentile").tolist())
    return drawn[0] != drawn[1]


if __name__ == "__main__":
    main()
