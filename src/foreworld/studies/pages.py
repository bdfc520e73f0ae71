"""The report of an open-loop evaluation: clips, curves and tables on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from foreworld.eval import Evaluation
from foreworld.eval.errors import FLOOR, FROM_ONE, MODEL, MODES, SHUFFLED, TEACHER
from foreworld.eval.prediction import Comparison, Judgement
from foreworld.eval.summary import in_words, reason_missing
from foreworld.ops import Interval
from foreworld.report import (
    Html,
    Line,
    Marker,
    Page,
    Plot,
    details,
    figure,
    filmstrip,
    gallery,
    grid,
    paragraph,
    section,
    strip,
    table,
    trace_plots,
)
from foreworld.studies.answers import Answers
from foreworld.studies.dreams import Dream
from foreworld.studies.trust_page import trust_sections

LABELS = {
    MODEL: "the model",
    FROM_ONE: "the model after one row",
    TEACHER: "one step ahead of every row",
    FLOOR: "having seen the row",
    "copy_last": "copy last row",
    "mean": "training mean",
    "linear": "linear model",
    "noisy_simulator": "the simulator, 1 % wrong",
}
"""What a reader calls the predictors."""

SHOWN = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Story:
    """What a report says besides the measured numbers.

    Attributes:
        title: what this is about.
        facts: the exact command, seed, versions and sizes.
        history: metrics of the training, one entry a line.
        intro: a paragraph before the first clip.
    """

    title: str
    facts: Mapping[str, str | int | float | None]
    history: Sequence[Mapping[str, float]] = ()
    intro: str = ""


def build_page(story: Story, found: Evaluation, dreams: Sequence[Dream], answers: Answers) -> Page:
    """Compose the report of an evaluation.

    Args:
        story: title, facts and training metrics.
        found: the evaluation.
        dreams: stretches to show; none of a model that cannot decode.
        answers: the conclusions.

    Returns:
        A page, to be written with `write`.
    """
    blocks = [
        *([_looks(story, found, dreams, answers.safe_steps)] if dreams else []),
        section("How wrong, and is that better than a guess?", *_accuracy(found)),
        *trust_sections(found, answers),
    ]
    if found.main.actions is not None:
        blocks.append(section("Does the dream obey the actions?", *_obedience(found, found.main.actions)))
    if story.history:
        blocks.append(section("Training", *training_curves(story.history)))
    blocks.append(section("How this was made", details("Command, seed, versions, sizes", story.facts)))
    return Page(title=story.title, headline=in_words(found), blocks=tuple(blocks))


def filmstrip_picture(dreams: Sequence[Dream], key: str, steps: Sequence[int] = (1, 10, 20, 35, 50)) -> np.ndarray:
    """Picture the first dream as rows of real, dreamed and error, for the README."""
    return filmstrip(dreams[0].clip(key), steps, scale=3)


def _looks(story: Story, found: Evaluation, dreams: Sequence[Dream], trusted: int | None) -> Html:
    intro = paragraph(story.intro) if story.intro else Html("")
    pictures = [name for name, space in dreams[0].spec.obs.items() if space.kind == "image"]
    if pictures:
        key = found.key if found.key in pictures else pictures[0]
        clips = [dream.clip(key, trusted if key == found.key else None) for dream in dreams]
        strips = [strip(clip, (0, *SHOWN)) for clip in clips[:2]]
        return section("Real beside dreamed", intro, gallery(clips), *strips)
    traces = [dream.trace() for dream in dreams]
    markers = (Marker(trusted, "safe horizon"),) if trusted else ()
    plots = [grid([replace(plot, markers=markers) for plot in trace_plots(trace)], trace.title) for trace in traces]
    return section("Real beside dreamed", intro, *plots)


def _accuracy(found: Evaluation) -> list[Html]:
    part = found.main
    unit = "1 is the deviation of the held-out rows; a guess at their mean scores about 1"
    blocks = [
        _table(found, part.every, f"Root mean square error of {_named(part)}; {unit}."),
        figure(_curves(found, part.every), f"Error by step; bands are {found.confidence:.0%} intervals over episodes."),
        figure(_modes(found, part), "The same model, asked in other ways; the lowest is what it says after the fact."),
    ]
    if part.changed is not None:
        blocks += [
            paragraph("The same on the pixels that have changed since the last frame the model saw: what moves."),
            _table(found, part.changed, "Error on changed pixels, in the same unit."),
            figure(_curves(found, part.changed), "Error by step on the pixels that changed."),
        ]
    blocks.append(figure(_skill(found, part), "Skill: 0 is as good as the best baseline at that step, 1 is perfect."))
    blocks += [_scores(found, part), _others(found)]
    return blocks


def _obedience(found: Evaluation, part: Comparison) -> list[Html]:
    errors, steps = part.errors, np.arange(1, found.horizon + 1)
    lines = (
        _line(steps, errors[MODEL], "under the true actions", "model"),
        _line(steps, errors[SHUFFLED], "under another episode's actions", "baseline"),
    )
    what = "pixels" if found.main.quantity.kind == "image" else "numbers"
    return [
        paragraph(
            f"The same start, dreamed twice: once under the actions really taken, once under those of another episode. "
            f"The curves compare both with the truth on the {what} where the two dreams differ."
        ),
        figure(
            Plot(lines=lines, x_label="imagined step", y_label="error", y_range=(0.0, None)),
            f"A dream that ignored its actions would show two equal lines. Bands: {found.confidence:.0%} intervals.",
        ),
    ]


def _table(found: Evaluation, compared: Comparison, caption: str) -> Html:
    names = [MODEL, *(name for name in compared.errors if name not in MODES)]
    rows: list[list[str | float | None]] = []
    for step in [s for s in SHOWN if s <= found.horizon]:
        if (reason := reason_missing(found, step)) is not None:
            rows.append([f"{step}", *[None] * len(names), reason])
            continue
        at = step - 1
        skill = f"{compared.skill.value[at]:+.2f} ({compared.skill.low[at]:+.2f} to {compared.skill.high[at]:+.2f})"
        rows.append([f"{step}", *(float(compared.errors[name].value[at]) for name in names), skill.replace("-", "−")])
    heads = ["steps ahead", *(LABELS.get(name, name) for name in names), "skill (interval)"]
    return table(heads, rows, caption)


def _scores(found: Evaluation, part: Judgement) -> Html:
    """Show what only some quantities have: scores of samples and of pictures."""
    names = [MODEL, *part.baselines]
    kinds = {"energy score": {name: part.energy[name].value for name in names}}
    if part.psnr:
        kinds |= {"PSNR in dB": part.psnr, "SSIM": part.ssim}
    rows: list[list[str | float | None]] = []
    for kind, values in kinds.items():
        for step in [s for s in SHOWN if s <= found.horizon and reason_missing(found, s) is None]:
            rows.append([kind, f"{step}", *(float(values[name][step - 1]) for name in names)])
    heads = ["score", "steps ahead", *(LABELS.get(name, name) for name in names)]
    what = (
        "The energy score judges all samples of the model and not their mean: it is smaller where they are spread as "
        "widely as the truth; of a single guess it is the plain error."
    )
    return table(heads, rows, what)


def _others(found: Evaluation) -> Html:
    """Show one line for every quantity and step, and why some are missing."""
    rows: list[list[str | float | None]] = []
    for name, part in found.judgements.items():
        for step in [s for s in (1, 10, 50) if s <= found.horizon and reason_missing(found, s) is None]:
            at, best = step - 1, [part.every.errors[rival].value[step - 1] for rival in part.baselines]
            floor = part.every.errors[FLOOR].value[at]
            rows.append(
                [
                    name,
                    f"{step}",
                    float(part.every.errors[MODEL].value[at]),
                    float(min(best)) if best else None,
                    float(part.every.errors[TEACHER].value[at]),
                    float(floor),
                    _note(found, part, step),
                ]
            )
    for name, reason in found.missing.items():
        rows.append([name, "", None, None, None, None, reason])
    heads = ["quantity", "steps ahead", "the model", "best baseline", LABELS[TEACHER], LABELS[FLOOR], "note"]
    return table(heads, rows, "Everything that the model predicts, each in units of its own deviation.")


def _curves(found: Evaluation, compared: Comparison) -> Plot:
    steps = np.arange(1, found.horizon + 1)
    names = [name for name in compared.errors if name not in MODES]
    lines = [_line(steps, compared.errors[name], LABELS.get(name, name), "baseline") for name in names]
    lines.append(_line(steps, compared.errors[MODEL], LABELS[MODEL], "model"))
    return Plot(lines=tuple(lines), x_label="imagined step", y_label="error / deviation", y_range=(0.0, None))


def _modes(found: Evaluation, part: Judgement) -> Plot:
    steps = np.arange(1, found.horizon + 1)
    lines = [_line(steps, part.every.errors[name], LABELS[name], "series") for name in (FROM_ONE, TEACHER, FLOOR)]
    lines.append(_line(steps, part.every.errors[MODEL], LABELS[MODEL], "model"))
    return Plot(lines=tuple(lines), x_label="imagined step", y_label="error / deviation", y_range=(0.0, None))


def _skill(found: Evaluation, part: Judgement) -> Plot:
    steps = np.arange(1, found.horizon + 1)
    lines = [_line(steps, part.every.skill, "all entries", "model")]
    if part.changed is not None:
        lines.append(_line(steps, part.changed.skill, "changed pixels", "series"))
    last = part.useful_horizon
    markers = (Marker(last, "useful up to here"),) if 0 < last < found.horizon else ()
    zero = Line(steps, np.zeros(len(steps)), "best baseline", style="baseline")
    lowest = max(-1.0, float(np.nanmin(part.every.skill.low, initial=0.0)))  # far below 0, how far says little
    ends = (lowest, None)
    return Plot(lines=(*lines, zero), x_label="imagined step", y_label="skill", markers=markers, y_range=ends)


def _note(found: Evaluation, part: Judgement, step: int) -> str:
    """Say why there is no number, and beside the first step what a reader must know about a quantity."""
    if np.isnan(part.every.errors[MODEL].value[step - 1]):
        return "it does not vary at this step"
    if step > 1:
        return ""
    probe = found.probes.get(part.quantity.column)
    if probe is None:
        return part.quantity.note
    r2 = part.quantity.pick(torch.from_numpy(probe.r2)).numpy()
    median, worst = np.nanmedian(r2), np.nanmin(r2)
    return f"read by a probe: R² of the median variable {median:.2f}, of the worst {worst:.2f}"


def _named(part: Judgement) -> str:
    return {"return": "the return", "embedding": "the embedding", "latent": "the latent"}.get(
        part.quantity.name, part.quantity.name
    )


def _line(steps: np.ndarray, values: Interval, label: str, style: str) -> Line:
    return Line(steps, values.value, label, values.low, values.high, style=style)  # type: ignore[arg-type]


def training_curves(history: Sequence[Mapping[str, float]]) -> list[Html]:
    """Draw every loss term over the updates; `history` has one entry a line of metrics."""
    names = [name for name in history[0] if name.startswith("loss/") or name in ("kl", "explained")]
    steps = [line["step"] for line in history]
    plots = []
    for name in names:
        values = [line.get(name, float("nan")) for line in history]
        positive = min((v for v in values if np.isfinite(v)), default=0.0) > 0
        spread = positive and max(values) > 20 * min(values)
        line = Line(steps, values, "", style="model")
        plots.append(Plot(lines=(line,), title=name, x_label="update", y_log=spread, legend=False))
    return [grid(plots, "Loss terms over the updates, in nats or squared deviations.")]
