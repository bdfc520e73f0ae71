"""An evaluation as JSON and in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np

from foreworld.eval.errors import MODEL, SHUFFLED
from foreworld.eval.prediction import LEAST_EPISODES, Comparison, Evaluation, Judgement
from foreworld.eval.probe import Probe
from foreworld.ops import Interval

SCHEMA = 3
"""Version of the JSON; it grows when a field changes its meaning. 2: many quantities instead of one key. 3: the
exploitation gap in the unit of the returns, and the safe horizon on plans that the model chose."""

METRIC = "nrmse"
"""Name of the error: root mean square over the deviation of the evaluation set."""


def to_json(found: Evaluation, horizons: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
    """Write an evaluation as plain values; a number that is missing is null and says why.

    Args:
        found: the evaluation.
        horizons: steps to list.
    """
    return {
        "schema": SCHEMA,
        "key": found.key,
        "metric": METRIC,
        "deviation": found.main.quantity.deviation,
        "context": found.context,
        "samples": found.samples,
        "windows": found.windows,
        "episodes": int(found.episodes[0]),
        "confidence": found.confidence,
        **_judged(found, found.main, horizons),
        "quantities": {
            name: {"kind": part.quantity.kind, "deviation": part.quantity.deviation, "note": part.quantity.note or None}
            | _judged(found, part, horizons)
            for name, part in found.judgements.items()
        }
        | {name: {"reason": reason} for name, reason in found.missing.items()},
        "probes": {name: probe_json(probe) for name, probe in found.probes.items()},
    }


def probe_json(probe: Probe) -> dict[str, Any]:
    """Write what a probe explains, variable by variable."""
    return {"kind": probe.kind, **{f"r2_{kind}": _list(r2) for kind, r2 in probe.r2s.items()}}


def reason_missing(found: Evaluation, step: int) -> str | None:
    """Say why there is no number for a step, or None when there is one."""
    if step > found.horizon:
        return f"only {found.horizon} steps were predicted; raise --horizon, or judge on longer episodes"
    count = int(found.episodes[step - 1])
    if count < LEAST_EPISODES:
        return f"{count} held-out episodes reach step {step} after {found.context} rows; {LEAST_EPISODES} are needed"
    return None


def in_words(found: Evaluation) -> str:
    """Say in one sentence how far the model beats every baseline."""
    part = found.main
    last, names = part.useful_horizon, ", ".join(name.replace("_", "-") for name in part.baselines)
    if last == 0:
        return f"The model beats none of its baselines ({names}) with confidence at any step up to {found.horizon}."
    low = part.every.skill.low[:last]
    first = int(np.flatnonzero(low > 0)[0]) + 1
    gap = "" if (low[first - 1 :] > 0).all() else ", with gaps"
    end = f"step {last}, the last one tested" if last == found.horizon else f"step {last}"
    percent = f"{found.confidence:.0%}".replace("%", " %")
    return f"From step {first} to {end}{gap}, the model beats {names} ({percent} interval of the skill above 0)."


def obedience_in_words(found: Evaluation, steps: tuple[int, ...] = (10, 50)) -> str:
    """Say whether the dream depends on the actions in the way that the truth does."""
    part = found.main.actions
    if part is None:
        return "There are no actions to obey."
    said = []
    for step in steps:
        if reason_missing(found, step) is None and not np.isnan(gain := part.skill.value[step - 1]):
            low, high = part.skill.low[step - 1], part.skill.high[step - 1]
            verdict = "obeys" if low > 0 else "does not clearly obey"
            said.append(f"at step {step} the dream {verdict} them ({gain:+.0%}, {low:+.0%} to {high:+.0%})")
    if not said:
        return "The dream does not depend on the actions."
    where = "pixels" if found.main.quantity.kind == "image" else "numbers"
    return f"Error under the true actions against another episode's, on the {where} they decide: {'; '.join(said)}."


def _judged(found: Evaluation, part: Judgement, horizons: tuple[int, ...]) -> dict[str, Any]:
    changed, actions = part.changed, part.actions
    return {
        "horizons": {str(h): _cell(found, part, part.every, h) | _scores(found, part, h) for h in horizons},
        "changed_pixels": None if changed is None else {str(h): _cell(found, part, changed, h) for h in horizons},
        "actions": None if actions is None else {str(h): _obeys(found, actions, h) for h in horizons},
        "useful_horizon": part.useful_horizon,
    }


def _cell(found: Evaluation, part: Judgement, compared: Comparison, step: int) -> dict[str, Any]:
    names = [name for name in compared.errors if name != SHUFFLED]
    reason = reason_missing(found, step)
    if reason is not None:
        empty = dict.fromkeys([*names, "skill", "skill_ci_low", "skill_ci_high"])
        return {**empty, "reason": reason}
    at = step - 1
    cell: dict[str, Any] = {name: _number(compared.errors[name], at) for name in names}
    cell |= {
        "skill": float(compared.skill.value[at]),
        "skill_ci_low": float(compared.skill.low[at]),
        "skill_ci_high": float(compared.skill.high[at]),
        "episodes": int(found.episodes[at]),
    }
    if np.isnan(cell["skill"]):
        nothing = "it does not vary at this step" if part.baselines else "it has no baseline"
        cell["reason"] = f"no skill: {nothing}"
    return cell


def _scores(found: Evaluation, part: Judgement, step: int) -> dict[str, Any]:
    """List what only some quantities have: scores of samples and of pictures."""
    if reason_missing(found, step) is not None:
        return {}
    at = step - 1
    scores: dict[str, Any] = {"energy": {name: _number(value, at) for name, value in part.energy.items()}}
    for name, table in (("psnr", part.psnr), ("ssim", part.ssim)):
        if table:
            scores[name] = {who: float(value[at]) for who, value in table.items()}
    return scores


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


def _number(value: Interval, at: int) -> float:
    return float(value.value[at])


def _list(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
