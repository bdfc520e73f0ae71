"""From a run and a dataset to numbers, clips and a report: what `foreworld eval` and the demo share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreworld.agents import Dreamer
from foreworld.core import shows
from foreworld.core.files import read_json
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval import Evaluation, evaluate_open_loop, fit_probes
from foreworld.eval.errors import MODEL
from foreworld.eval.summary import reason_missing
from foreworld.studies.answers import Answers, Limits, answer
from foreworld.studies.dreams import Dream, dream, spread_starts
from foreworld.studies.evaluation import evaluate
from foreworld.studies.pages import LABELS, SHOWN, Story, build_page
from foreworld.train import Run
from foreworld.train.log import METRICS, read_metrics

CLIPS = 4


@dataclass(frozen=True)
class Study:
    """What an open-loop study found.

    Attributes:
        env: environment of the data, or its folder.
        evaluation: the numbers.
        answers: what they mean.
        dreams: the stretches shown in the report.
    """

    env: str
    evaluation: Evaluation
    answers: Answers
    dreams: list[Dream]


def study(
    run: Run,
    data: Dataset,
    *,
    report: Path,
    horizon: int = 50,
    context: int = 10,
    seed: int = 0,
    title: str | None = None,
    intro: str = "",
    limits: Limits | None = None,
    agent: Dreamer | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Study:
    """Evaluate a run on the rows that it has not seen, and write the report.

    Args:
        run: the trained model.
        data: any dataset of its world; rows trained on are left out.
        report: path of the HTML page.
        horizon: steps to predict.
        context: rows that the model sees first.
        seed: of samples and bootstrap.
        title: of the report.
        intro: a paragraph before the clips.
        limits: the error and the confidence that the safe horizon is for.
        agent: learned in the model; whether it exploits its errors is measured.
        progress: called with (stretches done, stretches).
        settings: further arguments of `foreworld.eval.evaluate_open_loop`.

    Returns:
        The numbers and the dreams.

    Raises:
        DataError: every row was trained on, or no episode is long enough.
        SpecError: the data are of another world.
    """
    heldout, train = parts(run, data)
    found = evaluate(
        run.model, heldout, train, horizon=horizon, context=context, seed=seed, progress=progress, **settings
    )
    answers = answer(run.model, found, heldout, limits, seed, agent)
    dreams: list[Dream] = []
    if shows(run.model):
        episodes, starts = spread_starts(heldout, context, horizon, CLIPS)
        dreams = dream(run.model, heldout, episodes, starts, context, horizon, seed)
    env = data.source.env or str(data.path)
    story = Story(
        title=title or f"{env}: dreams of a world model ({run.family})",
        facts=facts(run, heldout, train),
        history=read_metrics(run.path / METRICS),
        intro=intro,
    )
    build_page(story, found, dreams, answers).write(report)
    return Study(env, found, answers, dreams)


def parts(run: Run, data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the rows of a dataset that a run was not trained on, and those that it was.

    Raises:
        DataError: every row was trained on, or the training data have moved.
        SpecError: the data are of another world.
    """
    ours = data.with_spec(run.model.spec)
    heldout = ours.unseen(run.trained_on)
    return heldout, run.training_data() if run.trained_on.fingerprint != data.fingerprint else ours.seen(run.trained_on)


def judge(run: Run, data: Dataset, key: str | None = None, **settings: Any) -> Evaluation:
    """Measure a run's errors alone, without baselines: what a safe horizon needs, from one stretch of every episode.

    Args:
        run: the trained model.
        data: any dataset of its world; rows trained on are left out.
        key: the quantity; by default the first image or observation.
        settings: further arguments of `foreworld.eval.evaluate_open_loop`.

    Raises:
        DataError: every row was trained on, or no episode is long enough.
        SpecError: the data are of another world, or have no such quantity.
    """
    heldout, train = parts(run, data)
    probed = key is not None and key.startswith(TRUTH)
    probes = fit_probes(run.model, train, heldout) if probed else {}
    return evaluate_open_loop(run.model, heldout, {}, key=key, probes=probes, per_episode=1, **settings)


def facts(run: Run, heldout: Dataset, train: Dataset) -> Mapping[str, str | int | float | None]:
    """List what a reader needs to repeat a run."""
    made = read_json(run.path / "env.json")
    return {
        "command": made["command"],
        "seed": made["seed"],
        "foreworld": made["foreworld"],
        **{name: version for name, version in made["packages"].items() if version},
        "Python": made["python"],
        "processor": f"{made['processor']}, {made['cores']} cores, {made['threads']} threads",
        "GPU": made["gpu"],
        "git": made["git"],
        "family": run.family,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "updates": run.step,
        "rows trained on": train.rows,
        "rows held out": heldout.rows,
        "training settings": ", ".join(f"{name} {value}" for name, value in run.fit.items()),
    }


def rows_in_words(found: Evaluation, answers: Answers) -> tuple[list[str], list[list[str | float | None]]]:
    """Return the columns and rows of the table that the terminal shows; the last row is the safe horizon."""
    names = [MODEL, *found.main.baselines]
    columns = ["steps ahead", *(LABELS.get(name, name) for name in names), "skill", "95 % interval"]
    rows: list[list[str | float | None]] = []
    for step in SHOWN:
        reason = reason_missing(found, step)
        if reason is not None:
            rows.append([str(step), *[None] * (len(names) + 1), reason])
            continue
        at, every = step - 1, found.main.every
        skill, cells = every.skill, [float(every.errors[name].value[at]) for name in names]
        rows.append([str(step), *cells, float(skill.value[at]), f"{skill.low[at]:+.2f} to {skill.high[at]:+.2f}"])
    limits, trust = answers.limits, answers.trust
    safe = "none" if trust is None else str(trust.horizon.safe)
    sure = f"{limits.confidence:.0%} sure: at most {limits.violation_rate:.0%} exceed {limits.max_error:g}"
    why = sure if trust is not None else answers.no_trust
    return columns, [*rows, ["safe horizon", safe, *[None] * len(names), why]]
