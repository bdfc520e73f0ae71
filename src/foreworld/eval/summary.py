"""An evaluation as JSON and in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np

from foreworld.eval.errors import MODEL, SHUFFLED
from foreworld.eval.prediction import LEAST_EPISODES, Comparison, Evaluation

SCHEMA = 1
"""Version of the JSON; it grows when a field changes its meaning."""


def to_json(found: Evaluation, horizons: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
    """Write an evaluation as plain values; a number that is missing is null and says why.

    Args:
        found: the evaluation.
        horizons: steps to list.
    """
    return {
        "schema": SCHEMA,
        "key": found.key,
        "metric": found.metric,
        "deviation": found.deviation,
        "context": found.context,
        "samples": found.samples,
        "windows": found.windows,
        "episodes": int(found.episodes[0]),
        "confidence": found.confidence,
        "horizons": {str(h): _cell(found, found.every, h) for h in horizons},
        "changed_pixels": None if found.changed is None else {str(h): _cell(found, found.changed, h) for h in horizons},
        "actions": None if found.actions is None else {str(h): _obeys(found, found.actions, h) for h in horizons},
        "useful_horizon": found.useful_horizon,
    }


def reason_missing(found: Evaluation, step: int) -> str | None:
    """Say why there is no number for a step, or None when there is one."""
    if step > found.horizon:
        return f"only {found.horizon} steps were predicted; raise --horizon"
    count = int(found.episodes[step - 1])
    if count < LEAST_EPISODES:
        return f"{count} held-out episodes reach step {step} after {found.context} rows; {LEAST_EPISODES} are needed"
    return None


def in_words(found: Evaluation) -> str:
    """Say in one sentence how far the model beats every baseline."""
    last, names = found.useful_horizon, ", ".join(name.replace("_", "-") for name in found.baselines)
    if last == 0:
        return f"The model beats none of its baselines ({names}) with confidence at any step up to {found.horizon}."
    low = found.every.skill.low[:last]
    first = int(np.flatnonzero(low > 0)[0]) + 1
    gap = "" if (low[first - 1 :] > 0).all() else ", with gaps"
    end = f"step {last}, the last one tested" if last == found.horizon else f"step {last}"
    percent = f"{found.confidence:.0%}".replace("%", " %")
    return f"From step {first} to {end}{gap}, the model beats {names} ({percent} interval of the skill above 0)."


def obedience_in_words(found: Evaluation, steps: tuple[int, ...] = (10, 50)) -> str:
    """Say whether the dream depends on the actions in the way that the truth does."""
    if found.actions is None:
        return "There are no actions to obey."
    said = []
    for step in steps:
        if reason_missing(found, step) is None and not np.isnan(gain := found.actions.skill.value[step - 1]):
            low, high = found.actions.skill.low[step - 1], found.actions.skill.high[step - 1]
            verdict = "obeys" if low > 0 else "does not clearly obey"
            said.append(f"at step {step} the dream {verdict} them ({gain:+.0%}, {low:+.0%} to {high:+.0%})")
    if not said:
        return "The dream does not depend on the actions."
    where = "pixels" if found.kind == "image" else "numbers"
    return f"Error under the true actions against another episode's, on the {where} they decide: {'; '.join(said)}."


def _cell(found: Evaluation, part: Comparison, step: int) -> dict[str, Any]:
    names = [MODEL, *found.baselines]
    reason = reason_missing(found, step)
    if reason is not None:
        empty = dict.fromkeys([*names, "skill", "skill_ci_low", "skill_ci_high"])
        return {**empty, "reason": reason}
    at = step - 1
    cell: dict[str, Any] = {name: float(part.errors[name].value[at]) for name in names}
    cell |= {
        "skill": float(part.skill.value[at]),
        "skill_ci_low": float(part.skill.low[at]),
        "skill_ci_high": float(part.skill.high[at]),
        "episodes": int(found.episodes[at]),
    }
    if np.isnan(cell["skill"]):
        cell["reason"] = "nothing to compare at this step"
    return cell


def _obeys(found: Evaluation, part: Comparison, step: int) -> dict[str, Any]:
    reason = reason_missing(found, step)
    if reason is None and np.isnan(part.skill.value[step - 1]):
        reason = "the dreams under true and under shuffled actions do not differ"
    if reason is not None:
        return {**dict.fromkeys(["true", "shuffled", "gain", "gain_ci_low", "gain_ci_high"]), "reason": reason}
    at = step - 1
    return {
        "true": float(part.errors[MODEL].value[at]),
        "shuffled": float(part.errors[SHUFFLED].value[at]),
        "gain": float(part.skill.value[at]),
        "gain_ci_low": float(part.skill.low[at]),
        "gain_ci_high": float(part.skill.high[at]),
    }
