"""Open-loop evaluation: how wrong is a model after k steps, and is that better than a trivial guess?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.registry import unknown
from foreworld.data import Dataset
from foreworld.eval.errors import MODEL, SHUFFLED, ErrorTable, Sums, measure
from foreworld.eval.predictors import Predictor, open_loop
from foreworld.eval.windows import choose_windows
from foreworld.ops import Interval, bootstrap

LEAST_EPISODES = 5
"""Fewer episodes than this give no interval worth printing."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Errors by step of a model and its baselines, with intervals over episodes.

    Attributes:
        errors: name to an interval of arrays [H]: root mean square, in units of the deviation.
        skill: 1 - error of the model / error of the best baseline, an interval of arrays [H].
    """

    errors: dict[str, Interval]
    skill: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found, for one observation key.

    Attributes:
        key: the observation judged.
        kind: its kind: `image`, `vector` or `discrete`.
        metric: name of the error: `nrmse`, root mean square over the deviation.
        deviation: that deviation, in [0, 1] for images, else in source units.
        context: rows that the model saw before it predicted.
        horizon: steps predicted.
        samples: futures averaged for one prediction.
        windows: stretches looked at.
        episodes: [H] held-out episodes that reach each step.
        every: over all entries.
        changed: images: over the pixels that changed since the context.
        actions: with actions: shuffled against true, over the entries that the actions decide.
        confidence: of the intervals.
    """

    key: str
    kind: str
    metric: str
    deviation: float
    context: int
    horizon: int
    samples: int
    windows: int
    episodes: np.ndarray
    every: Comparison
    changed: Comparison | None
    actions: Comparison | None
    confidence: float

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines."""
        return [name for name in self.every.errors if name not in (MODEL, SHUFFLED)]

    @property
    def useful_horizon(self) -> int:
        """Last step at which the interval of the skill lies above 0; 0 if none."""
        good = np.flatnonzero((self.every.skill.low > 0) & (self.episodes >= LEAST_EPISODES))
        return int(good[-1]) + 1 if len(good) else 0


def evaluate_open_loop(
    model: Any,
    data: Dataset,
    baselines: Mapping[str, Predictor],
    *,
    key: str | None = None,
    horizon: int = 50,
    context: int = 10,
    samples: int = 8,
    per_episode: int = 2,
    batch: int = 8,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model's open-loop error on held-out episodes against baselines.

    Args:
        model: any family that decodes.
        data: held-out episodes; never those it was trained on.
        baselines: by name.
        key: observation to judge; by default the first image, else the first key.
        horizon: H, steps to predict.
        context: rows to filter first.
        samples: futures averaged for one prediction.
        per_episode: stretches per episode.
        batch: stretches at a time.
        confidence: of the intervals, which come from a bootstrap over episodes.
        seed: of the samples and the bootstrap.
        progress: called with (stretches done, stretches).

    Returns:
        Errors, skill and intervals for every step 1..H.

    Raises:
        ConfigError: a count below 1, or a confidence that is no share.
        MissingCapability: the model cannot decode.
        DataError: no episode is long enough.
        SpecError: no such observation key.
    """
    if min(horizon, context, samples, per_episode, batch) < 1 or not 0 < confidence < 1:
        raise ConfigError("eval: horizon, context, samples, per_episode and batch must be at least 1")
    chosen = _key(data, key)
    windows = choose_windows(data, context, horizon, per_episode)
    table = measure(data, windows, chosen, open_loop(model, samples, seed), baselines, batch, progress)
    return summarise(table, data, chosen, context, samples, list(baselines), confidence, seed)


def summarise(
    table: ErrorTable,
    data: Dataset,
    key: str,
    context: int,
    samples: int,
    baselines: Sequence[str],
    confidence: float,
    seed: int,
) -> Evaluation:
    """Turn sums of squared errors into errors, skill and intervals."""
    names = [MODEL, *baselines]
    return Evaluation(
        key=key,
        kind=data.spec.obs[key].kind,
        metric="nrmse",
        deviation=float(np.sqrt(table.variance)),
        context=context,
        horizon=table.rows.shape[1],
        samples=samples,
        windows=int(table.rows[:, 0].sum()),
        episodes=(table.rows > 0).sum(0),
        every=_compare(table.every, names, confidence, seed),
        changed=None if table.changed is None else _compare(table.changed, names, confidence, seed),
        actions=None if table.decided is None else _compare(table.decided, [MODEL, SHUFFLED], confidence, seed),
        confidence=confidence,
    )


def _compare(sums: Sums, names: Sequence[str], confidence: float, seed: int) -> Comparison:
    """Judge the first name against the best of the others."""
    used = sums.count.sum(1) > 0
    count = sums.count[used]
    stacked = np.stack([sums.error[name][used] for name in names], -1)
    if len(count) < 2:
        nothing = np.full(sums.count.shape[1], np.nan)
        blank = Interval(nothing, nothing, nothing)
        return Comparison(errors=dict.fromkeys(names, blank), skill=blank)

    def rms(error: np.ndarray, seen: np.ndarray) -> np.ndarray:
        total = seen.sum(1)[..., None]
        return np.sqrt(np.divide(error.sum(1), total, out=np.full_like(error.sum(1), np.nan), where=total > 0))

    def skill(error: np.ndarray, seen: np.ndarray) -> np.ndarray:
        found = rms(error, seen)
        best = found[..., 1:].min(-1)
        ratio = np.divide(found[..., 0], best, out=np.full_like(best, np.nan), where=best > 0)
        return 1 - ratio

    both = bootstrap(rms, stacked, count, confidence=confidence, seed=seed)
    errors = {name: Interval(both.value[:, i], both.low[:, i], both.high[:, i]) for i, name in enumerate(names)}
    return Comparison(errors=errors, skill=bootstrap(skill, stacked, count, confidence=confidence, seed=seed))


def _key(data: Dataset, key: str | None) -> str:
    if key is None:
        return (data.spec.images or sorted(data.spec.obs))[0]
    if key not in data.spec.obs:
        raise SpecError(unknown("observation", key, list(data.spec.obs)))
    return key
