"""The rate at which small errors grow, a step and a second, where they do grow exponentially."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreworld.eval.curves import checked, require_some
from foreworld.ops import Interval, bootstrap

LEAST_FACTOR = 20.0
"""By how much errors must grow or shrink at least, from the first step on, to tell by which law."""

LEAST_STEPS = 4
"""Steps in the regime at least."""

MIDDLE = (0.3, 0.8)
"""The regime, as shares of the way from the first step's error to the largest, on a logarithmic scale.

Below it an error has not yet turned into the direction that grows fastest, and the error that each step adds still
counts; above it the growth slows down towards the plateau.
"""

ROOM = 5.0
"""The regime ends, at the latest, so many times below the largest mean error, as some are far above the mean."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Growth of the mean logarithm of the error in the exponential regime.

    Attributes:
        per_step: slope, negative where errors shrink; None where there is no such regime.
        reason: why there is none.
        first: the step from which the slope was taken.
        last: the step up to which it was taken.
        low: mean error (geometric) at the first of them.
        high: mean error at the last.
        dt: seconds a step, if known.
    """

    per_step: Interval | None
    reason: str | None = None
    first: int | None = None
    last: int | None = None
    low: float | None = None
    high: float | None = None
    dt: float | None = None

    @property
    def per_second(self) -> Interval | None:
        """The Lyapunov exponent of the error, per second; None where `dt` is not known."""
        if self.per_step is None or self.dt is None:
            return None
        return Interval(self.per_step.value / self.dt, self.per_step.low / self.dt, self.per_step.high / self.dt)

    @property
    def doubling(self) -> Interval | None:
        """Steps in which an error doubles; the upper end is infinite where the rate may be 0; None if errors shrink."""
        if self.per_step is None or self.per_step.value <= 0:
            return None
        fastest, slowest = np.log(2) / self.per_step.high, np.inf
        if self.per_step.low > 0:
            slowest = np.log(2) / self.per_step.low
        return Interval(np.log(2) / self.per_step.value, fastest, np.asarray(slowest))

    @property
    def no_doubling(self) -> str | None:
        """Why there is no doubling time."""
        return self.reason or ("errors shrink" if self.doubling is None else None)

    def in_words(self) -> str:
        """Say in one sentence how fast small errors grow, or why that cannot be said."""
        if self.per_step is None:
            return f"No rate of exponential growth: {self.reason}."
        change = np.expm1([self.per_step.value, self.per_step.low, self.per_step.high])
        told = (
            f"Small errors change by {100 * change[0]:+.3g} % a step ({100 * change[1]:+.3g} to {100 * change[2]:+.3g})"
        )
        if self.per_second is not None:
            told += f", an exponent of {self.per_second.value:.3g} per second"
        return told + ("." if self.doubling is None else f", and double in {self.doubling.value:.3g} steps.")


def exponential_rate(
    errors: np.ndarray,
    episode: np.ndarray | None = None,
    dt: float | None = None,
    *,
    confidence: float = 0.95,
    repeats: int = 1000,
    seed: int = 0,
) -> Rate:
    """Measure the rate of exponential growth: the slope of the mean logarithm of the error.

    The mean of the logarithms, not the logarithm of the mean, grows by the Lyapunov exponent; it is taken by adding up
    mean increments, so that trajectories that end do not bend the curve.

    Args:
        errors: [N, K], NaN after the end.
        episode: [N], by default every trajectory has its own.
        dt: seconds a step.
        confidence: of the interval.
        repeats: resamples of episodes.
        seed: of the resamples.

    Returns:
        The rate, or why there is none.

    Raises:
        TooFewEpisodes: fewer than 5.
        DataError: no error curves.

    Reference:
        Rosenstein, Collins and De Luca, A practical method for calculating largest Lyapunov exponents from small data
        sets, 1993, equation 12.

    Example:
        >>> import numpy as np
        >>> start = np.random.default_rng(0).uniform(1e-6, 1e-5, (40, 1))
        >>> found = exponential_rate(np.minimum(start * 1.2 ** np.arange(1, 101), 1.4), dt=0.1)
        >>> round(float(found.per_step.value / np.log(1.2)), 3), round(float(found.doubling.value), 1)
        (1.0, 3.8)
    """
    errors, owner = checked(errors, episode)
    require_some(owner)
    usable = np.isfinite(errors) & (errors > 0)
    logs = np.log(np.where(usable, errors, 1.0))
    both = usable[:, 1:] & usable[:, :-1]
    rises = np.where(both, logs[:, 1:] - logs[:, :-1], 0.0)
    reach = _reach(usable, both)
    if reach < LEAST_STEPS:
        return Rate(per_step=None, reason="too few steps have errors that are neither 0 nor infinite", dt=dt)
    rises, both, start = rises[:, : reach - 1], both[:, : reach - 1], float(logs[usable[:, 0], 0].mean())
    curve = np.concatenate([[0.0], (rises.sum(0) / both.sum(0)).cumsum()])
    window = _regime(curve)
    if isinstance(window, str):
        return Rate(per_step=None, reason=window, dt=dt)
    return Rate(
        per_step=bootstrap(
            lambda x: x.mean(1),
            _slopes(rises, both, owner, window),
            confidence=confidence,
            repeats=repeats,
            seed=seed,
            method="t",
            error=lambda x: x.std(1, ddof=1) / np.sqrt(x.shape[1]),
        ),
        first=int(window[0]) + 1,
        last=int(window[-1]) + 1,
        low=float(np.exp(start + curve[window[0]])),
        high=float(np.exp(start + curve[window[-1]])),
        dt=dt,
    )


def _reach(usable: np.ndarray, both: np.ndarray) -> int:
    """Count the steps up to which at least half of the trajectories that begin can be followed."""
    enough = both.sum(0) * 2 >= usable[:, 0].sum()
    gaps = np.flatnonzero(~enough | (both.sum(0) == 0))
    return (int(gaps[0]) if len(gaps) else len(enough)) + 1


def _regime(curve: np.ndarray) -> np.ndarray | str:
    """Return the indices of the middle of the rise or fall, or why they are not exponential."""
    falls = -curve.min() > curve.max()
    way = -curve if falls else curve
    top = float(way.max())
    if top < np.log(LEAST_FACTOR):
        done = "shrink" if falls else "grow"
        return f"errors {done} by a factor of {np.exp(top):.2g} from the first step on; {LEAST_FACTOR:g} are needed"
    last = int(np.flatnonzero(way >= min(MIDDLE[1] * top, top - np.log(ROOM)))[0])
    below = np.flatnonzero(way[:last] < MIDDLE[0] * top)
    window = np.arange(int(below[-1]) + 1 if len(below) else 0, last + 1)
    if len(window) < LEAST_STEPS:
        return f"only {len(window)} steps lie between the first error and the plateau; {LEAST_STEPS} are needed"
    part, steps = way[window], window + 1.0
    if _misfit(part, steps) > _misfit(part, np.log(steps)):
        return "from the first error to the plateau, a power of time fits better than a constant factor a step"
    return window


def _slopes(rises: np.ndarray, both: np.ndarray, owner: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return what each episode says of the slope in the window, [G]; their mean is the slope of the mean curve.

    Where all trajectories reach the end of the window it is an episode's own slope; where some end, the slope is linear
    in the mean increments, and an episode's part in these is taken to first order.
    """
    steps = window - window.mean()
    weight = steps / (steps @ steps)
    # an increment raises all later points of the curve, so its weight is the sum of theirs
    later = np.array([weight[window > j].sum() for j in range(rises.shape[1])])
    mean, share = rises.sum(0) / both.sum(0), both.sum(0) / (owner.max() + 1)
    part = (rises - mean * both) @ (later / share)
    return float(later @ mean) + np.bincount(owner, part)


def _misfit(values: np.ndarray, by: np.ndarray) -> float:
    by, values = by - by.mean(), values - values.mean()
    return float(((values - by * (by @ values) / (by @ by)) ** 2).sum())
