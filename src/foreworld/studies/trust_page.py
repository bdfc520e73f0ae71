"""The part of a report that says how far a model may be trusted, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreworld.eval import Calibration, Counterfactual, Evaluation, Trust
from foreworld.eval.chosen import root_mean_square
from foreworld.eval.probe import in_words as probes_in_words
from foreworld.ops import Interval
from foreworld.ops.compounding import cumulative_error
from foreworld.report import Html, Line, Marker, Plot, figure, grid, paragraph, section, table
from foreworld.studies.answers import Answers

STEPS = (1, 10, 50)


def trust_sections(found: Evaluation, answers: Answers) -> list[Html]:
    """Compose what an evaluation means for someone who wants to use the model.

    Args:
        found: the evaluation.
        answers: its conclusions.

    Returns:
        Sections: horizon and growth, spread, ranking of plans, probes; where one is missing it says why.
    """
    trust = (
        [paragraph(f"There is no safe horizon: {answers.no_trust}.")]
        if answers.trust is None
        else _horizon(answers.trust)
    )
    spread = (
        [paragraph(f"Not measured: {answers.no_calibration}.")]
        if answers.calibration is None
        else _spread(answers.calibration, answers.calibrated, found)
    )
    ranked = (
        [paragraph(f"Not measured: {answers.no_counterfactual}.")]
        if answers.counterfactual is None
        else _ranked(answers.counterfactual, answers)
    )
    blocks = [
        section("How far may it be trusted?", *trust),
        section("Does it know when it is wrong?", *spread),
        section("Does it rank plans as the world would?", *ranked),
    ]
    if found.probes:
        blocks.append(section("Does it hold the true state?", *_probes(found)))
    return blocks


def _horizon(trust: Trust) -> list[Html]:
    bands, horizon = trust.bands, trust.horizon
    steps = np.arange(1, len(bands.mean) + 1)
    level = f"{bands.level:.0%} of new episodes stay under"
    lines = [
        Line(steps, np.full(len(steps), horizon.max_error), "the limit", style="real"),
        Line(steps, _finite(bands.pointwise), f"{level}, at that step", style="series"),
        Line(steps, _finite(bands.trajectory), f"{level}, at all steps", style="series"),
        Line(steps, bands.mean, "mean error", style="model"),
    ]
    safe = horizon.safe.steps
    markers = (Marker(safe, f"safe horizon: {horizon.safe}"),) if 0 < safe <= len(steps) else ()
    return [
        *(paragraph(line) for line in trust.in_words().split("\n")),
        figure(
            Plot(
                lines=tuple(lines),
                x_label="imagined step",
                y_label="error / deviation",
                markers=markers,
                y_range=(0, None),
            ),
            "Error by step with conformal bands: they hold for new episodes without any assumption on the errors.",
        ),
        *_growth(trust),
    ]


def _growth(trust: Trust) -> list[Html]:
    if trust.growth is None:
        return []
    growth = trust.growth
    steps = np.arange(1, len(growth.curve) + 1)
    lines = [
        Line(steps, growth.law.curve, f"fitted: {growth.law.law.formula}", style="series"),
        Line(steps, growth.curve, "measured", style="model"),
    ]
    first = float(growth.curve[0])
    if first < 1:
        closed = np.array([cumulative_error(first, int(step)) for step in steps])
        lines.insert(0, Line(steps, closed, "1 − (1 − e)^T, e after one step", style="baseline"))
    laws = sorted(growth.laws.values(), key=lambda law: law.heldout)
    rows: list[list[str | float | None]] = [
        [law.law.name.replace("_", " "), law.law.formula, law.heldout] for law in laws
    ]
    return [
        figure(
            Plot(lines=tuple(lines), x_label="imagined step", y_label="error / deviation", y_log=True),
            "The law by which errors grow, beside the closed form, which assumes independent errors that never heal.",
        ),
        table(
            ["law", "form", "miss on held-out episodes"], rows, "Laws tried; the miss is of the logarithm of the error."
        ),
    ]


def _spread(found: Calibration, key: str, evaluation: Evaluation) -> list[Html]:
    steps = np.arange(1, len(found.correlation) + 1)
    one = Line(steps, np.ones(len(steps)), "calibrated", style="baseline")
    plots = [
        Plot(
            lines=(one, _band(steps, found.spread_skill, "spread / error")),
            title="spread / error",
            x_label="imagined step",
        ),
        Plot(
            lines=(_band(steps, found.factor, "error of the mean / of one"),),
            title="error of the mean / of one",
            x_label="imagined step",
        ),
    ]
    rows: list[list[str | float | None]] = []
    for level, share in found.coverage.items():
        for step in [s for s in STEPS if s <= len(steps)]:
            at = step - 1
            rows.append(
                [
                    f"{level:.0%}",
                    f"{step}",
                    float(share[at]),
                    float(found.recalibration[level][at]),
                    float(found.recalibrated[level][at]),
                ]
            )
    heads = ["interval", "steps ahead", "covers", "widened by", "then covers, on other episodes"]
    return [
        paragraph(found.in_words()),
        grid(
            plots,
            f"{found.members} predictions per start of {key}. Bands: {evaluation.confidence:.0%} intervals.",
        ),
        table(heads, rows, "How often the truth lies inside the interval that the spread claims."),
    ]


def _ranked(found: Counterfactual, answers: Answers) -> list[Html]:
    chosen = _chosen(found, answers)
    if found.tau is None or found.regret is None or found.gap is None:
        return [paragraph(found.in_words()), *chosen]
    rows: list[list[str | float | None]] = [
        ["Kendall tau: 0 for a coin, 1 for the world itself", *_cells(found.tau)],
        ["regret of its favourite: 0 for the best sequence, 1 for a random one", *_cells(found.regret)],
        ["exploitation gap: how much more it overrates its favourite than others, as a return", *_cells(found.gap.gap)],
    ]
    if found.actor is not None:
        measure = "exploitation gap of the actor: how much more its own plans are overrated than others, as a return"
        rows.append([measure, *_cells(found.actor.gap)])
    many = f"{found.predicted.shape[1]} random sequences were played from each of {found.starts} restored states."
    return [paragraph(found.in_words()), table(["measure", "value", "low", "high"], rows, many), *chosen]


def _chosen(found: Counterfactual, answers: Answers) -> list[Html]:
    """Show errors along the plans that the model chose, beside random ones."""
    if found.errors is None:
        return []
    said = f"{answers.no_chosen}." if answers.chosen is None else answers.chosen.in_words()
    steps = np.arange(1, found.errors.chosen.shape[1] + 1)
    lines = [
        Line(steps, root_mean_square(found.errors.random), "random plans", style="baseline"),
        Line(steps, root_mean_square(found.errors.chosen), "plans that the model chose", style="model"),
    ]
    caption = f"Error in {found.errors.key} along plans from the same restored states."
    plot = Plot(lines=tuple(lines), x_label="imagined step", y_label="error / deviation", y_range=(0, None))
    return [paragraph(said), figure(plot, caption)]


def _probes(found: Evaluation) -> list[Html]:
    rows: list[list[str | float | None]] = []
    for name, probe in found.probes.items():
        for kind, r2 in probe.r2s.items():
            there = r2[np.isfinite(r2)]
            if len(there):
                used = "used" if kind == probe.kind else ""
                rows.append([name, kind, float(np.median(there)), float(there.min()), len(there), used])
    heads = ["simulator state", "probe", "R² of the median variable", "R² of the worst", "variables that vary", ""]
    said = probes_in_words(found.probes)
    return [*([paragraph(f"{said}.")] if said else []), table(heads, rows, "Read off features of real held-out rows.")]


def _cells(interval: Interval) -> Sequence[float]:
    return [float(interval.value), float(interval.low), float(interval.high)]


def _band(steps: np.ndarray, interval: Interval, label: str) -> Line:
    return Line(steps, interval.value, label, interval.low, interval.high, style="model")


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
