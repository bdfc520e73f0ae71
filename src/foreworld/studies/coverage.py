"""How often do 95 % intervals hold the truth? Counted over simulated studies whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foreworld.ops.aggregate import interquartile_mean, interquartile_mean_error
from foreworld.ops.bootstrap import Interval, Method, Statistic, Units, bootstrap
from foreworld.ops.proportion import binomial_tail, wilson
from foreworld.ops.ratio import bootstrap_ratio, ratio_error

Way = Method | Literal["ratio"]
"""A method of `bootstrap`, or `bootstrap_ratio` of the two samples that are drawn."""

BATCH = 100
"""Studies side by side, on the same resamples; every batch has its own."""

SHORTEST, LONGEST = 20, 100
"""Fewest and most steps of an episode."""

LEVEL, CARRY = 0.5, 0.8
"""Deviation of what is an episode's or a seed's own, and how much of an error is left after a step."""

STARTS = 100
"""Starts that every training seed plays."""

MODEL, RIVALS = 0.5, (1.0, 1.02, 1.04)
"""Mean squared errors of a model and of its baselines, which are so near each other that any may look best."""

TAIL = 1.0
"""Deviation of the logarithm of squared errors, between episodes and within them, much as in measured evaluations."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals of one kind held the truth.

    Attributes:
        case: what was drawn, and what was estimated.
        units: independent units of a study: episodes, runs.
        method: of the interval.
        studies: how many were simulated.
        covered: share of intervals that held the truth.
        low: lower end of the 95 % interval of that share.
        high: upper end.
        width: median width, in the unit of the estimate.
    """

    case: str
    units: int
    method: str
    studies: int
    covered: float
    low: float
    high: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """Data with a known truth.

    Attributes:
        name: what is drawn, and what is estimated.
        draw: maps a generator, the number of units E and of studies K to samples [E, ..., K].
        statistic: what is estimated.
        error: its standard error; None for the jackknife.
        truth: what it estimates.
        drawn: what the bootstrap draws.
    """

    name: str
    draw: Callable[[np.random.Generator, int, int], tuple[np.ndarray, ...]]
    statistic: Statistic
    error: Statistic | None
    truth: float
    drawn: Units = "rows"


def mean(x: np.ndarray) -> np.ndarray:
    """Return the mean over axis 1: [R, E, ...] to [R, ...]."""
    return x.mean(1)


def mean_error(x: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over axis 1: [R, E, ...] to [R, ...]."""
    return x.std(1, ddof=1) / math.sqrt(x.shape[1])


def root_mean_square(total: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the root mean square error over all steps of all episodes.

    Args:
        total: [R, E, ...] summed squared errors of each episode.
        steps: [R, E, ...] steps of each episode.

    Returns:
        [R, ...], in the unit of the errors.
    """
    return np.sqrt(total.sum(1) / steps.sum(1))


def root_mean_square_error(total: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the standard error of `root_mean_square` with episodes as units, to first order.

    Args:
        total: [R, E, ...] summed squared errors of each episode.
        steps: [R, E, ...] steps of each episode.

    Returns:
        [R, ...], in the unit of the errors.
    """
    summed = (part.sum(1) for part in (total, steps, total**2, total * steps, steps**2))
    return ratio_error(*summed, episodes=total.shape[1]) / (2 * root_mean_square(total, steps))


def squared_errors(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw errors that persist within an episode, of episodes that differ in level and in length.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        Squared errors [E, T, K] of mean 1 + 0.25, and which of them count [E, T, K]; the others are 0.
    """
    errors = np.empty((episodes, LONGEST, studies))
    errors[:, 0] = rng.normal(size=(episodes, studies))
    for t in range(1, LONGEST):
        fresh = math.sqrt(1 - CARRY**2) * rng.normal(size=(episodes, studies))
        errors[:, t] = CARRY * errors[:, t - 1] + fresh
    errors += LEVEL * rng.normal(size=(episodes, 1, studies))
    steps = rng.integers(SHORTEST, LONGEST + 1, size=(episodes, 1, studies))
    counted = np.arange(LONGEST)[:, None] < steps
    return errors**2 * counted, counted


def episode_sums(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw summed squared errors and steps of episodes, see `squared_errors`.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        [E, K] each.
    """
    squares, counted = squared_errors(rng, episodes, studies)
    return squares.sum(1), counted.sum(1)


def loose_steps(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the same, taken apart: every step is a unit, as if it were independent.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        [E T, K] each.
    """
    squares, counted = squared_errors(rng, episodes, studies)
    return squares.reshape(-1, studies), counted.reshape(-1, studies)


def seeds_by_starts(rng: np.random.Generator, seeds: int, studies: int) -> tuple[np.ndarray]:
    """Draw scores of training seeds on common starts: a seed's own level, a start's, and the rest.

    Args:
        rng: where they come from.
        seeds: E.
        studies: K.

    Returns:
        [E, 100, K].
    """
    level = LEVEL * rng.normal(size=(seeds, 1, studies))
    return (level + rng.normal(size=(1, STARTS, studies)) + rng.normal(size=(seeds, STARTS, studies)),)


def lognormal_errors(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw squared errors as evaluations have them: most are small, a few are large, and what is hard is so for all.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        Squared errors [E, 4, K] of the model and of three baselines, summed over the steps of each episode, and how
        many these were [E, K].
    """
    means = np.array([MODEL, *RIVALS])[:, None]
    steps = rng.integers(SHORTEST, LONGEST + 1, size=(episodes, studies))
    common, own = rng.normal(size=(episodes, 1, studies)), rng.normal(size=(episodes, len(means), studies))
    level = TAIL * (common + own) / math.sqrt(2)
    noise = rng.normal(size=level.shape)
    total = np.zeros(level.shape)
    for t in range(LONGEST):
        total += means * np.exp(level + TAIL * noise - TAIL**2) * (t < steps[:, None])
        noise = CARRY * noise + math.sqrt(1 - CARRY**2) * rng.normal(size=level.shape)
    return total, steps


def model_by_steps(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the summed squared errors of a model and the steps, see `lognormal_errors`.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        [E, K] each.
    """
    total, steps = lognormal_errors(rng, episodes, studies)
    return total[:, 0], steps


def model_by_best(rng: np.random.Generator, episodes: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the summed squared errors of a model and of the baseline that is best in the study.

    Args:
        rng: where they come from.
        episodes: E.
        studies: K.

    Returns:
        [E, K] each; 1 - their `root_mean_square` is the skill.
    """
    total, _ = lognormal_errors(rng, episodes, studies)
    best = total[:, 1:].sum(0).argmin(0)[None, None]
    return total[:, 0], np.take_along_axis(total[:, 1:], best, 1)[:, 0]


def share_of_best(total: np.ndarray) -> np.ndarray:
    """Return the root mean square error of a model as a share of that of its best baseline.

    Args:
        total: [R, E, 4, ...] summed squared errors of the model and of the baselines.

    Returns:
        [R, ...].
    """
    found = total.sum(1)
    return np.sqrt(found[:, 0] / found[:, 1:].min(1))


def crossed_mean_error(scores: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over rows and columns that are both drawn.

    Args:
        scores: [R, E, M, ...].

    Returns:
        [R, ...], a little too large, as the rest counts for both.
    """
    return np.hypot(mean_error(scores.mean(2)), mean_error(scores.mean(1)))


CASES = (
    Case(name="normal, mean", draw=lambda r, e, k: (r.normal(size=(e, k)),), statistic=mean, error=mean_error, truth=0),
    Case(
        name="normal, interquartile mean",
        draw=lambda r, e, k: (r.normal(size=(e, k)),),
        statistic=lambda x: interquartile_mean(x, axis=1),
        error=interquartile_mean_error,
        truth=0,
    ),
    Case(
        name="exponential, mean",
        draw=lambda r, e, k: (r.exponential(size=(e, k)),),
        statistic=mean,
        error=mean_error,
        truth=1,
    ),
    Case(
        name="lognormal, mean",
        draw=lambda r, e, k: (r.lognormal(size=(e, k)),),
        statistic=mean,
        error=mean_error,
        truth=math.exp(0.5),
    ),
    Case(
        name="episodes of correlated steps, root mean square",
        draw=episode_sums,
        statistic=root_mean_square,
        error=root_mean_square_error,
        truth=math.sqrt(1 + LEVEL**2),
    ),
)
"""Skewness 0, 2 and 6 (tails so heavy that few units say little of the mean), and what an evaluation sees."""

STEPS = Case(
    name="correlated steps as if independent, root mean square",
    draw=loose_steps,
    statistic=root_mean_square,
    error=root_mean_square_error,
    truth=math.sqrt(1 + LEVEL**2),
)
"""The usual mistake, to be shown beside the last of `CASES`."""

EVALUATED = (
    Case(
        name="lognormal errors of an evaluation, root mean square",
        draw=model_by_steps,
        statistic=root_mean_square,
        error=root_mean_square_error,
        truth=math.sqrt(MODEL),
    ),
    Case(
        name="lognormal errors of an evaluation, skill",
        draw=model_by_best,
        statistic=root_mean_square,
        error=root_mean_square_error,
        truth=math.sqrt(MODEL / RIVALS[0]),
    ),
)
"""What an evaluation asks of `bootstrap_ratio`; skill is 1 - that share."""

RECHOSEN = Case(
    name="lognormal errors of an evaluation, skill against the best baseline of each resample",
    draw=lambda r, e, k: lognormal_errors(r, e, k)[:1],
    statistic=share_of_best,
    error=None,
    truth=math.sqrt(MODEL / RIVALS[0]),
)
"""The best of a resample is better than any of the baselines is: to be shown beside the last of `EVALUATED`."""

SEEDS = Case(
    name="seeds by starts, mean",
    draw=seeds_by_starts,
    statistic=lambda x: x.mean((1, 2)),
    error=crossed_mean_error,
    truth=0,
    drawn="crossed",
)
"""Training seeds that all play the same starts: both are drawn, and both would be others next time."""


def interval_coverage(
    *,
    cases: Sequence[Case] = CASES,
    units: Sequence[int] = (10, 30, 100),
    methods: Sequence[Way] = ("percentile", "bca", "t"),
    studies: int = 10_000,
    repeats: int = 2000,
    seed: int = 0,
) -> list[Coverage]:
    """Count how often bootstrap intervals of 95 % hold the truth.

    Args:
        cases: what to draw and estimate.
        units: how many units a study has.
        methods: of the bootstrap; `ratio` for roots of ratios only, such as `EVALUATED`.
        studies: how many for each cell, rounded up to hundreds.
        repeats: resamples of a study.
        seed: of data and resamples.

    Returns:
        One row for each case, number of units and method.
    """
    cells = [(case, number, method) for case in cases for number in units for method in methods]
    return [_count(*cell, studies=studies, repeats=repeats, seed=seed) for cell in cells]


def proportion_coverage(
    interval: Callable[[int, int, float], Interval] = wilson, trials: int = 30, rates: int = 99
) -> tuple[float, float]:
    """Compute how often 95 % intervals of a share of successes hold the truth; exact, nothing is drawn.

    Args:
        interval: maps successes, trials and confidence to an interval.
        trials: of a study.
        rates: how many true rates, evenly spread over (0, 1).

    Returns:
        The coverage averaged over the rates, and the least.
    """
    found = [interval(k, trials, 0.95) for k in range(trials + 1)]
    covered = []
    for rate in np.arange(1, rates + 1) / (rates + 1):
        tails = [binomial_tail(k, trials, rate) for k in range(-1, trials + 1)]
        mass = np.diff(tails)
        covered.append(sum(m for m, ci in zip(mass, found, strict=True) if ci.low <= rate <= ci.high))
    return float(np.mean(covered)), float(min(covered))


def _interval(case: Case, samples: tuple[np.ndarray, ...], method: Way, repeats: int, seed: int) -> Interval:
    if method == "ratio":
        return bootstrap_ratio(*samples, root=True, repeats=repeats, seed=seed)
    return bootstrap(
        case.statistic, *samples, method=method, error=case.error, units=case.drawn, repeats=repeats, seed=seed
    )


def _count(case: Case, units: int, method: Way, *, studies: int, repeats: int, seed: int) -> Coverage:
    held, widths = 0, []
    for batch in range(math.ceil(studies / BATCH)):
        samples = case.draw(np.random.default_rng([seed, units, batch]), units, BATCH)
        ci = _interval(case, samples, method, repeats, seed * studies + batch)
        held += int(((ci.low <= case.truth) & (case.truth <= ci.high)).sum())
        widths.append(ci.high - ci.low)
    share = wilson(held, len(widths) * BATCH)
    return Coverage(
        case=case.name,
        units=units,
        method=method,
        studies=len(widths) * BATCH,
        covered=float(share.value),
        low=float(share.low),
        high=float(share.high),
        width=float(np.median(widths)),
    )
