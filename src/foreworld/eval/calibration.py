"""Does the disagreement of members or samples say how wrong a prediction is, and what is averaging them worth?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from foreworld.core.errors import MissingCapability
from foreworld.eval.horizon import horizons, one_per_episode
from foreworld.eval.spread import BINS, HIGHEST, LOWEST, SpreadSums
from foreworld.eval.windows import sum_by_episode
from foreworld.ops import Interval, auroc, bootstrap_ratio, order_statistic

LEVELS = (0.5, 0.8, 0.9, 0.95)
FEW = 5
"""Fewer errors above (or below) the limit than this say nothing about telling them apart."""


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Stop a roll-out before the step at which the spread reaches a threshold: a horizon for every start.

    The threshold is the PAC order statistic of the largest spread that calibration roll-outs had shown when their
    error first exceeded the limit; so at most `violation_rate` of all roll-outs go on past that point.

    Attributes:
        threshold: of the spread, in units of the deviation; infinite when too few errors exceed the limit to matter.
        fixed: the horizon that one number for all starts allows, from the same episodes.
        steps: mean steps that the rule allows on the other half of the episodes.
        fixed_steps: the same of the fixed horizon.
        violations: share of the other half's roll-outs that the rule lets run past the limit.
        fixed_violations: the same of the fixed horizon.
        calibrated: episodes that the threshold comes from.
        judged: episodes that the shares come from.
    """

    threshold: float
    fixed: int
    steps: float
    fixed_steps: float
    violations: float
    fixed_violations: float
    calibrated: int
    judged: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the spread of M predictions is worth, by step.

    Attributes:
        members: M.
        factor: error of the mean / error of one prediction, an interval of arrays [H]; `sqrt(1/M)` if their
            errors were independent, 1 if they were the same.
        correlation: [H] of the errors of two predictions.
        effective: [H] number of independent predictions that the mean is worth.
        spread_skill: sqrt((M + 1) / M) * spread / error of the mean, an interval of arrays [H]; 1 is calibrated,
            less is over-confident.
        coverage: level to [H]: share of what happened inside the interval of that level around the mean, by Student's
            distribution with M - 1 degrees of freedom, since the spread is itself estimated from M.
        recalibration: level to [H]: factor that the spread needs at that level, from one half of the episodes.
        recalibrated: level to [H]: coverage after it, on the other half.
        limit: error that counts as too large, in units of the deviation.
        auroc: how well the spread tells errors above the limit from others at the same step: 0.5 is chance, 1 is
            perfect; the mean over the steps at which both occur, with its interval; None where there are none.
        rule: per-start horizons; None with too few episodes.
        rule_reason: why there is none.
    """

    members: int
    factor: Interval
    correlation: np.ndarray
    effective: np.ndarray
    spread_skill: Interval
    coverage: Mapping[float, np.ndarray]
    recalibration: Mapping[float, np.ndarray]
    recalibrated: Mapping[float, np.ndarray]
    limit: float
    auroc: Interval | None
    rule: StopRule | None
    rule_reason: str

    def to_json(self, steps: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
        """Return plain values.

        Args:
            steps: which to list.
        """
        listed = [step for step in steps if step <= len(self.correlation)]
        found: dict[str, Any] = {
            "members": self.members,
            "limit": self.limit,
            "steps": {str(step): self._cell(step - 1) for step in listed},
            "auroc": None if self.auroc is None else _plain(self.auroc),
        }
        if self.auroc is None:
            found["auroc_reason"] = f"no step has {FEW} errors on both sides of {self.limit:g}"
        rule = {"reason": self.rule_reason} if self.rule is None else asdict(self.rule)
        return found | {"per_start_horizon": rule}

    def in_words(self) -> str:
        """Say in two sentences what averaging is worth, and what the spread knows."""
        gain, ratio = float(np.nanmean(self.factor.value)), float(np.nanmean(self.spread_skill.value))
        kind = "over-confident" if ratio < 0.9 else "under-confident" if ratio > 1.1 else "calibrated"
        said = (
            f"The mean of {self.members} predictions has {gain:.2f} times the error of one, as {1 / gain**2:.1f} "
            f"independent ones would; their spread is {ratio:.2f} times the error: {kind}"
        )
        if self.auroc is not None:
            said += f"; it tells errors above {self.limit:g} with an AUROC of {float(self.auroc.value):.2f}"
        if self.rule is not None:
            said += (
                f". Stopping each roll-out where the spread reaches {self.rule.threshold:.2g} allows "
                f"{self.rule.steps:.1f} steps on average, one horizon for all {self.rule.fixed_steps:.1f}"
            )
        return said + "."

    def _cell(self, at: int) -> dict[str, Any]:
        return {
            "factor": _plain(self.factor, at),
            "correlation": float(self.correlation[at]),
            "effective_members": float(self.effective[at]),
            "spread_skill": _plain(self.spread_skill, at),
            "coverage": {f"{level:g}": float(share[at]) for level, share in self.coverage.items()},
            "recalibration": {f"{level:g}": float(scale[at]) for level, scale in self.recalibration.items()},
            "recalibrated": {f"{level:g}": float(share[at]) for level, share in self.recalibrated.items()},
        }


def calibrate(
    sums: SpreadSums,
    errors: np.ndarray,
    episode: np.ndarray,
    limit: float,
    *,
    violation_rate: float = 0.1,
    confidence: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Compare the spread of a model's samples or members with its errors.

    Args:
        sums: what the samples or members of an evaluation say, `Judgement.spread`.
        errors: [W, H] root mean square error of the mean in every window, `Judgement.errors`.
        episode: [W] of each window.
        limit: error that counts as too large, in units of the deviation.
        violation_rate: share of roll-outs that per-start horizons may let run past the limit.
        confidence: of the intervals and of the rule.
        seed: of the bootstrap.

    Returns:
        Factor, correlation, spread-skill ratio, coverage, and per-start horizons.

    Raises:
        MissingCapability: there was only one prediction.

    Reference:
        Fortin et al. 2014, "Why should ensemble spread match the RMSE of the ensemble mean?", for (M + 1) / M.
    """
    if sums.members < 2:
        raise MissingCapability("calibration needs several predictions per start: raise --samples, or use an ensemble")
    if not (sums.variance > 0).any():
        raise MissingCapability("all predictions of a start are the same: the model is deterministic, and no ensemble")
    mean, single, variance = (
        sum_by_episode(np.nan_to_num(part), episode) for part in (sums.mean, sums.single, sums.variance)
    )
    count = sum_by_episode(np.isfinite(sums.mean), episode)
    used = count.sum(1) > 0
    settings: dict[str, Any] = {"root": True, "confidence": confidence, "seed": seed}
    factor = bootstrap_ratio(mean[used], single[used], **settings)
    widened = variance[used] * (sums.members + 1) / sums.members
    spread = np.sqrt(sums.variance)
    rule, reason = stop_rule(
        spread, errors, episode, limit, violation_rate=violation_rate, confidence=confidence, seed=seed
    )
    half, other = sums.ratio
    wide = {level: student_quantile((1 + level) / 2, sums.members - 1) for level in LEVELS}
    scales = {level: quantile(half, level) / wide[level] for level in LEVELS}
    return Calibration(
        members=sums.members,
        factor=factor,
        correlation=(sums.members * factor.value**2 - 1) / (sums.members - 1),
        effective=1 / factor.value**2,
        spread_skill=bootstrap_ratio(widened, mean[used], **settings),
        coverage={level: share_below(half + other, wide[level]) for level in LEVELS},
        recalibration=scales,
        recalibrated={level: share_below(other, wide[level] * scales[level]) for level in LEVELS},
        limit=limit,
        auroc=_told_apart(spread, errors, episode, limit, confidence, seed),
        rule=rule,
        rule_reason=reason,
    )


def stop_rule(
    spread: np.ndarray,
    errors: np.ndarray,
    episode: np.ndarray,
    limit: float,
    *,
    violation_rate: float,
    confidence: float,
    seed: int = 0,
) -> tuple[StopRule | None, str]:
    """Find per-start horizons on one window of every even episode, and judge them on those of odd ones.

    Returns:
        The rule, or None and why not.
    """
    chosen = one_per_episode(episode, seed)
    episodes, errors, spread = episode[chosen], errors[chosen], spread[chosen]
    exceeds = np.minimum(horizons(errors, limit), errors.shape[1]).astype(int)
    even = episodes % 2 == 0
    rank = order_statistic(int(even.sum()), violation_rate, confidence)
    if rank < 1 or not (~even).any():
        return None, (
            f"{int(even.sum())} episodes calibrate it, too few for violations of at most {violation_rate:.0%} with "
            f"{confidence:.0%} confidence"
        )
    shown = spread_when_exceeded(spread, exceeds)
    threshold = float(np.sort(shown[even])[rank - 1])
    fixed = int(np.sort(exceeds[even])[rank - 1])
    steps = steps_below(spread, threshold)[~even]
    alive = np.isfinite(errors[~even]).sum(1)
    return StopRule(
        threshold=threshold,
        fixed=fixed,
        steps=float(steps.mean()),
        fixed_steps=float(np.minimum(fixed, alive).mean()),
        violations=float((exceeds[~even] < steps).mean()),
        fixed_violations=float((exceeds[~even] < fixed).mean()),
        calibrated=int(even.sum()),
        judged=int((~even).sum()),
    ), ""


def spread_when_exceeded(spread: np.ndarray, exceeds: np.ndarray) -> np.ndarray:
    """Return the largest spread until the error first exceeds the limit, after `exceeds` [N] steps; else infinity."""
    highest = np.maximum.accumulate(np.nan_to_num(spread, nan=-np.inf), 1)
    at = np.minimum(exceeds, spread.shape[1] - 1)
    return np.where(exceeds < spread.shape[1], highest[np.arange(len(spread)), at], np.inf)


def steps_below(spread: np.ndarray, threshold: float) -> np.ndarray:
    """Return how many steps a roll-out goes before its spread reaches a threshold, [N]; an end stops it too."""
    on = np.nan_to_num(spread, nan=np.inf) < threshold
    return np.where(on.all(1), spread.shape[1], on.argmin(1))


def share_below(counts: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
    """Return the share of |error| / spread below a bound from its histogram [H, BINS], interpolated in its bin."""
    place = (np.log10(np.maximum(bound, 10**LOWEST)) - LOWEST) / (HIGHEST - LOWEST) * BINS
    unknown = np.isnan(np.broadcast_to(place, len(counts)))
    place = np.clip(np.where(unknown, 0, place), 0, BINS - 1e-9)
    whole = place.astype(int)
    rows = np.arange(len(counts))
    below = np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(1)], 1)
    found = below[rows, whole] + (place - whole) * counts[rows, whole]
    total = counts.sum(1)
    return np.where((total > 0) & ~unknown, found / np.maximum(total, 1), np.nan)


def quantile(counts: np.ndarray, level: float) -> np.ndarray:
    """Return a quantile of |error| / spread from its histogram [H, BINS], interpolated in its bin."""
    total = counts.sum(1, keepdims=True)
    below = np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(1)], 1)
    whole = np.clip((below < level * total).sum(1) - 1, 0, BINS - 1)
    rows = np.arange(len(counts))
    inside = np.maximum(counts[rows, whole], 1)
    place = whole + np.clip((level * total[:, 0] - below[rows, whole]) / inside, 0, 1)
    return np.where(total[:, 0] > 0, 10 ** (LOWEST + place / BINS * (HIGHEST - LOWEST)), np.nan)


def _plain(interval: Interval, at: int | tuple[()] = ()) -> dict[str, float]:
    return {name: float(getattr(interval, name)[at]) for name in ("value", "low", "high")}


def student_quantile(level: float, degrees: int) -> float:
    """Return a quantile of Student's distribution, from its density over the angle atan(t / sqrt(degrees))."""
    angle = np.linspace(0, np.pi / 2, 20_001)
    density = np.cos(angle) ** (degrees - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(degrees) * np.tan(np.interp(2 * level - 1, below / below[-1], angle)))


def _told_apart(
    spread: np.ndarray,
    errors: np.ndarray,
    episodes: np.ndarray,
    limit: float,
    confidence: float,
    seed: int,
    repeats: int = 200,
) -> Interval | None:
    """Average over the steps how well the spread tells errors above the limit from others; resample episodes."""

    def mean_auroc(rows: np.ndarray) -> float:
        values = []
        for step in range(errors.shape[1]):
            there = rows[np.isfinite(errors[rows, step]) & np.isfinite(spread[rows, step])]
            above = errors[there, step] > limit
            if min(above.sum(), (~above).sum()) >= FEW:
                values.append(float(auroc(spread[there, step], above)))
        return float(np.mean(values)) if values else np.nan

    value = mean_auroc(np.arange(len(episodes)))
    if np.isnan(value):
        return None
    rng, names = np.random.default_rng(seed), np.unique(episodes)
    groups = [np.flatnonzero(episodes == name) for name in names]
    drawn = [
        mean_auroc(np.concatenate([groups[i] for i in rng.integers(len(names), size=len(names))]))
        for _ in range(repeats)
    ]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(np.asarray(value), low, high)
