"""Prediction errors: how wrong is a model after k steps, and is that better than a trivial guess?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.core import require
from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.registry import unknown
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval.errors import MODEL, SHUFFLED, Measured, Sums, Table, measure
from foreworld.eval.predictors import Predictor
from foreworld.eval.probe import Probe
from foreworld.eval.quantities import LATENT, RETURN, Quantity, find_quantities, split_key
from foreworld.eval.spread import SpreadSums
from foreworld.eval.windows import choose_windows, sum_by_episode
from foreworld.ops import Interval, bootstrap_ratio

LEAST_EPISODES = 5
"""Fewer episodes than this give no interval worth printing."""

NUMBERS, MOST_WINDOWS = 50_000_000, 32
"""Decoded numbers and windows held at a time."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Errors by step of a model and its baselines, with intervals over episodes.

    Attributes:
        errors: name to an interval of arrays [H]: root mean square, in units of the deviation.
        skill: 1 - error of the model / error of the best baseline, an interval of arrays [H].
    """

    errors: dict[str, Interval]
    skill: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """How well one quantity is predicted.

    Attributes:
        quantity: what it is, and the unit of its errors.
        baselines: the names that skill is measured against.
        every: over all entries; besides the baselines with what the model predicts from one row
            (`model_from_one_row`), one step ahead of every row (`teacher_forced`), and what it knows once it has
            seen the row (`floor`).
        changed: images: over the pixels that changed since the context; else None.
        actions: with actions: shuffled against true, over the entries that the actions decide; else None.
        energy: name to an interval of arrays [H]: energy score in units of the deviation, less is better; it
            rewards samples that are spread as widely as the truth, and is the plain error of a single guess.
        psnr: images: name to [H], decibels.
        ssim: images: name to [H].
        errors: [W, H] root mean square error of the model in every window; NaN after its end.
        spread: what the samples say about the error.
        useful_horizon: last step at which the interval of the skill lies above 0; 0 if none.
    """

    quantity: Quantity
    baselines: Sequence[str]
    every: Comparison
    changed: Comparison | None
    actions: Comparison | None
    energy: Mapping[str, Interval]
    psnr: Mapping[str, np.ndarray]
    ssim: Mapping[str, np.ndarray]
    errors: np.ndarray
    spread: SpreadSums
    useful_horizon: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        key: the quantity that headlines, tables and horizon are about.
        judgements: by name of the quantity; what the model does not predict is absent.
        missing: name of a quantity to the reason why it is absent.
        probes: `truth/<key>` to the probe that reads it.
        context: rows that the model saw before it predicted.
        horizon: steps predicted.
        samples: futures per prediction.
        episode: [W] held-out episode of each window.
        ended: [W] bool, whether a terminal state ends the window; one that is merely cut off would go on.
        episodes: [H] held-out episodes that reach each step.
        seconds_per_step: of the world, where its frame rate is known.
        confidence: of the intervals.
    """

    key: str
    judgements: Mapping[str, Judgement]
    missing: Mapping[str, str]
    probes: Mapping[str, Probe]
    context: int
    horizon: int
    samples: int
    episode: np.ndarray
    ended: np.ndarray
    episodes: np.ndarray
    seconds_per_step: float | None
    confidence: float

    @property
    def main(self) -> Judgement:
        """Of the key."""
        return self.judgements[self.key]

    @property
    def windows(self) -> int:
        """W, the number of stretches looked at."""
        return len(self.episode)


def evaluate_open_loop(
    model: Any,
    data: Dataset,
    baselines: Mapping[str, Predictor],
    *,
    references: Mapping[str, Predictor] | None = None,
    probes: Mapping[str, Probe] | None = None,
    key: str | None = None,
    horizon: int = 50,
    context: int = 10,
    samples: int = 8,
    per_episode: int = 2,
    batch: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model's errors on held-out episodes against baselines, for everything that it predicts.

    Args:
        model: any family.
        data: held-out episodes; never those it was trained on.
        baselines: by name; skill is measured against the best of them at every step.
        references: shown beside them and not counted, such as a simulator that is slightly wrong.
        probes: from `fit_probes`, to judge simulator state.
        key: the quantity to put first, or some entries of a vector (`truth/state[0:2]`); by default the first image,
            else the first observation; of a model without decoder the first simulator state, else its latent.
        horizon: H, steps to predict; fewer where no episode is long enough.
        context: rows to filter first.
        samples: futures per prediction; their mean is what squared errors are taken of.
        per_episode: stretches per episode.
        batch: windows at a time; by default as many as fit into some 200 MB.
        confidence: of the intervals, which come from a bootstrap over episodes.
        seed: of the samples and the bootstrap.
        progress: called with (stretches done, stretches).

    Returns:
        Errors, skill and intervals for every step 1..H.

    Raises:
        ConfigError: a count below 1, or a confidence that is no share.
        MissingCapability: the key is an observation and the model cannot decode.
        DataError: no episode is long enough.
        SpecError: no such quantity.
    """
    if min(horizon, context, samples, per_episode) < 1 or not 0 < confidence < 1 or (batch is not None and batch < 1):
        raise ConfigError("eval: horizon, context, samples, per_episode and batch must be at least 1")
    batch = _batch(data, samples * horizon) if batch is None else batch
    horizon = min(horizon, max(1, int(data.lengths.max()) - context))
    windows = choose_windows(data, context, horizon, per_episode)
    quantities = find_quantities(model, data, windows, batch, key)
    chosen = _key(model, data, quantities, probes or {}, key)
    found = measure(
        model, data, windows, quantities, {**baselines, **(references or {})},
        samples=samples, seed=seed, probes=probes or {}, batch=batch, progress=progress,
    )  # fmt: skip
    if chosen not in found.tables:
        raise SpecError(f"{chosen!r} cannot be judged: {_why_missing(model, chosen)}")
    counted = [np.unique(windows.episode[reached]).size for reached in found.reached.T]
    judge = _Judge(found, np.array(counted), list(baselines), data.episodes, confidence, seed)
    return Evaluation(
        key=chosen,
        judgements={name: judge(table) for name, table in found.tables.items()},
        missing=_missing(model, data, quantities, found),
        probes=dict(probes or {}),
        context=context,
        horizon=horizon,
        samples=samples,
        episode=windows.episode,
        ended=found.ended,
        episodes=np.array(counted),
        seconds_per_step=1 / data.spec.fps if data.spec.fps else None,
        confidence=confidence,
    )


@dataclass(frozen=True)
class _Judge:
    """Turn sums of squared errors into errors, skill and intervals over episodes."""

    found: Measured
    reach: np.ndarray
    baselines: list[str]
    episodes: int
    confidence: float
    seed: int

    def __call__(self, table: Table) -> Judgement:
        """Judge one quantity."""
        names = [name for name in table.every.error if name != SHUFFLED]
        rivals = [name for name in self.baselines if name in names]
        every = self._compare(table.every, names, rivals)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.sqrt(table.every.error[MODEL] / table.every.count)
        good = np.flatnonzero((every.skill.low > 0) & (self.reach >= LEAST_EPISODES))
        return Judgement(
            quantity=table.quantity,
            baselines=rivals,
            every=every,
            changed=self._compare(table.changed, names, rivals) if table.changed.error else None,
            actions=self._compare(table.decided, [MODEL, SHUFFLED], [SHUFFLED]) if table.decided.error else None,
            energy={name: self._mean(value) for name, value in table.energy.items()},
            psnr={name: self._mean(value).value for name, value in table.psnr.items()},
            ssim={name: self._mean(value).value for name, value in table.ssim.items()},
            errors=errors,
            spread=table.spread,
            useful_horizon=int(good[-1]) + 1 if len(good) else 0,
        )

    def _by_episode(self, cells: np.ndarray) -> np.ndarray:
        return sum_by_episode(cells, self.found.windows.episode, self.episodes)

    def _compare(self, sums: Sums, names: Sequence[str], rivals: Sequence[str]) -> Comparison:
        count = self._by_episode(sums.count)
        error = np.stack([self._by_episode(sums.error[name]) for name in names], -1)
        used = count.sum(1) > 0
        if used.sum() < 2:
            nothing = np.full(count.shape[1], np.nan)
            blank = Interval(nothing, nothing, nothing)
            return Comparison(errors=dict.fromkeys(names, blank), skill=blank)
        error, count = error[used], count[used]
        both = self._interval(error, count[..., None], root=True)
        return Comparison(
            errors={name: Interval(both.value[:, i], both.low[:, i], both.high[:, i]) for i, name in enumerate(names)},
            skill=self._skill(error[..., names.index(MODEL)], error[..., [names.index(name) for name in rivals]]),
        )

    def _skill(self, own: np.ndarray, rivals: np.ndarray) -> Interval:
        """Compare sums of squared errors [E, H] with those of the best of [E, H, rivals] at every step.

        The best is chosen once: the best of every resample is better than any, and its interval lies too low.
        """
        if not rivals.shape[-1]:
            nothing = np.full(own.shape[1], np.nan)
            return Interval(nothing, nothing, nothing)
        best = np.take_along_axis(rivals, rivals.sum(0).argmin(-1)[None, :, None], -1)[..., 0]
        share = self._interval(own, best, root=True)
        return Interval(1 - share.value, 1 - share.high, 1 - share.low)

    def _interval(self, top: np.ndarray, bottom: np.ndarray, *, root: bool = False) -> Interval:
        return bootstrap_ratio(top, bottom, root=root, confidence=self.confidence, seed=self.seed)

    def _mean(self, cells: np.ndarray) -> Interval:
        """Average windows [W, H] where they have a value."""
        count, total = self._by_episode(np.isfinite(cells)), self._by_episode(np.nan_to_num(cells, posinf=0.0))
        return self._interval(total, count)


def _batch(data: Dataset, states: int) -> int:
    """Choose how many windows of so many imagined states are held at a time."""
    widest = max(space.width for space in data.spec.obs.values())
    return int(np.clip(NUMBERS // (states * widest), 1, MOST_WINDOWS))


def _key(
    model: Any, data: Dataset, quantities: Sequence[Quantity], probes: Mapping[str, Probe], key: str | None
) -> str:
    names = [quantity.name for quantity in quantities]
    if key is not None and key not in names:
        raise SpecError(unknown("quantity", key, names))
    if key is not None and split_key(key)[0] in data.spec.obs:
        require(model, "decode", "open-loop evaluation in observations")
    if key is not None:
        return key
    if "decode" in model.provides:
        return (data.spec.images or sorted(data.spec.obs))[0]
    return next(iter(probes), LATENT)


def _missing(model: Any, data: Dataset, quantities: Sequence[Quantity], found: Measured) -> dict[str, str]:
    missing = {quantity.name: _why_missing(model, quantity.name) for quantity in found.silent}
    if all(quantity.name != RETURN for quantity in quantities):
        acts = data.spec.action is not None
        missing[RETURN] = "all rows earn the same: there is nothing to predict" if acts else "plain video earns nothing"
    return missing


def _why_missing(model: Any, name: str) -> str:
    if name == RETURN:
        return f"{type(model).__name__} predicts no reward"
    if name.startswith(TRUTH):
        return "no probe reads it: only numbers are probed, and only where the training data hold them too"
    return f"{type(model).__name__} has no decoder"
