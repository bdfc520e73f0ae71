"""By which law does the error grow, and what does that say about the model and its world?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.core.errors import DataError
from foreworld.eval.curves import LEAST_EPISODES, checked, pooled, require_some, resample
from foreworld.eval.lyapunov import Rate, exponential_rate
from foreworld.ops import Interval
from foreworld.ops.growth import LAWS, Law, LawFit, fit_law

LEAST_STEPS = 5
"""Fewer steps cannot tell one law from another."""

FOLDS = 5
SAME = 0.01
"""Laws whose held-out errors differ by less than a hundredth (of the logarithm) count as equally good."""

FEW_ZEROS = 0.01
"""Up to this share of errors may be exactly 0 and be left out of a mean of logarithms."""

CLOSE, LOOSE = 0.05, 0.15
"""A law that misses the curve by no more than the first tells about the system; one that misses by more than the second
is only the least bad."""

REACHED = 1.5
"""A plateau above so many times the largest error seen is an extrapolation, not a measurement."""


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """One law, fitted to the pooled curve.

    Attributes:
        law: which.
        parameters: by name, with intervals from a bootstrap over episodes.
        heldout: root mean square difference of the logarithms on episodes that were left out.
        heldout_folds: the mean square on each fold.
        misfit: the same root mean square on the pooled curve that was fitted: what the law cannot follow.
        curve: [K] the fitted law.
    """

    law: Law
    parameters: Mapping[str, Interval]
    heldout: float
    heldout_folds: np.ndarray
    misfit: float
    curve: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How errors grow with the number of steps.

    Attributes:
        law: the law that predicts held-out episodes best; of equally good ones the simplest.
        laws: every law, by name.
        curve: [K] pooled error of the trajectories that reach a step.
        typical: pooled by the mean of logarithms; else by the mean, as more than a few errors are 0.
        rate: rate of exponential growth, if there is any.
        episodes: how many.
        confidence: of the intervals.
    """

    law: FittedLaw
    laws: Mapping[str, FittedLaw]
    curve: np.ndarray
    typical: bool
    rate: Rate
    episodes: int
    confidence: float

    @property
    def name(self) -> str:
        """The name of the law."""
        return self.law.law.name

    @property
    def plateau(self) -> Interval | None:
        """Where the errors level off, in their own unit; None where they do not, or not yet."""
        found = self.law.parameters.get("plateau")
        return None if found is None or found.value > REACHED * np.nanmax(self.curve) else found

    @property
    def no_plateau(self) -> str | None:
        """Why there is no plateau."""
        if self.plateau is not None:
            return None
        if "plateau" in self.law.parameters:
            return f"not reached within {len(self.curve)} steps"
        return f"a law of the form {self.law.law.formula} has none"

    @property
    def adds_up(self) -> str | None:
        """How the errors of single steps add up: as a bias, or as independent noise; None where both fit alike."""
        bias, noise = self.laws["closed_form"].heldout, self.laws["root_closed_form"].heldout
        return None if abs(bias - noise) <= SAME else "a bias" if bias < noise else "independent noise"

    @property
    def contraction(self) -> Interval | None:
        """By which factor the system shrinks an error in one step; None where the curve does not tell."""
        values = self.law.parameters
        if self.name == "exponential":
            return values["growth"] if values["growth"].value < 1 else None
        told = self.name in ("closed_form", "root_closed_form") and self.adds_up and self.law.misfit <= CLOSE
        return values["factor"] if told and values["factor"].value < 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is missing is None, with a reason beside it."""
        rate, plateau = self.rate, self.plateau
        doubling = rate.doubling
        return {
            "growth_law": self.name,
            "growth_formula": self.law.law.formula,
            "growth_parameters": {name: _plain(value) for name, value in self.law.parameters.items()},
            "growth_misfit": self.law.misfit,
            "growth_laws": {name: {"heldout": law.heldout, "misfit": law.misfit} for name, law in self.laws.items()},
            "growth_rate": None if rate.per_step is None else float(rate.per_step.value),
            "growth_rate_interval": None if rate.per_step is None else _ends(rate.per_step),
            "growth_rate_per_second": None if rate.per_second is None else float(rate.per_second.value),
            "growth_rate_reason": rate.reason,
            "doubling_time": None if doubling is None else float(doubling.value),
            "doubling_time_interval": None if doubling is None else _ends(doubling),
            "doubling_time_reason": rate.no_doubling,
            "plateau": None if plateau is None else float(plateau.value),
            "plateau_interval": None if plateau is None else _ends(plateau),
            "plateau_reason": self.no_plateau,
            "contraction": None if self.contraction is None else float(self.contraction.value),
            "meaning": self.in_words(),
        }

    def in_words(self) -> str:
        """Say in one sentence what the law means, and whether it is more than the least bad."""
        if self.law.misfit <= LOOSE:
            return self._meaning()
        return f"{self._meaning()} No law follows the errors closely: this one is off by {100 * self.law.misfit:.2g} %."

    def _meaning(self) -> str:
        seen = self.curve[np.isfinite(self.curve)]
        low, high = float(seen.min()), float(seen.max())
        if high < 1.1 * low:
            return f"Errors stay at {seen.mean():.3g}: they do not grow."
        values = {name: float(value.value) for name, value in self.law.parameters.items()}
        if self.name == "power":
            return _power_in_words(values["power"])
        if self.name == "linear":
            return _linear_in_words(values["offset"], values["slope"], len(self.curve))
        if self.name == "exponential":
            steps = np.log(2) / abs(np.log(values["growth"]))
            if values["growth"] > 1:
                return f"Errors double every {steps:.3g} steps: chaotic or unstable."
            return f"Errors halve every {steps:.3g} steps: contracting."
        end = "" if self.plateau is None else f" and level off at {values['plateau']:.3g}"
        if self.name in ("logistic", "sourced_logistic"):
            return _bounded_in_words(np.log(2) / values["rate"], len(self.curve), self.name == "logistic", end)
        by = "" if self.adds_up is None else f"{self.adds_up} in "
        if values["factor"] > 1:
            steps = np.log(2) / np.log(values["factor"])
            return f"Errors come to double every {steps:.3g} steps: {by}a chaotic or unstable system."
        return f"Errors add up{end or ', ever more slowly'}: {by}a system that contracts."


def measure_growth(
    errors: np.ndarray,
    episode: np.ndarray | None = None,
    dt: float | None = None,
    *,
    confidence: float = 0.95,
    repeats: int = 1000,
    seed: int = 0,
) -> Growth:
    """Find the law by which errors grow: fitted to the pooled curve, chosen on episodes left out.

    Steps that fewer than 5 episodes reach, and all after the first infinite error, are left aside.

    Args:
        errors: [N, K] error of trajectory n after k = 1..K steps, in deviations; NaN after its end.
        episode: [N] where several trajectories come from one episode; by default each has its own.
        dt: seconds a step, for rates per second.
        confidence: of the intervals.
        repeats: resamples of episodes, each fitted again.
        seed: of resamples and folds.

    Returns:
        The law, its parameters with intervals, and what they mean.

    Raises:
        TooFewEpisodes: fewer than 5.
        DataError: no error curves, fewer than 5 steps, or errors that are 0 throughout.

    Reference:
        Lambert, Pister and Calandra, Investigating compounding prediction errors in learned dynamics models, 2022.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(400, 60, 3)).cumsum(1)  # a random walk
        >>> found = measure_growth(0.01 * np.sqrt((noise**2).mean(-1)))
        >>> found.name, round(float(found.law.parameters["power"].value), 1), found.in_words()
        ('power', 0.5, 'Errors grow like the square root of time: independent noise.')
    """
    errors, owner = checked(errors, episode)
    require_some(owner)
    used = errors[:, : _usable_steps(errors, owner)]
    steps = np.arange(1.0, used.shape[1] + 1)
    typical = bool((used == 0).sum() <= FEW_ZEROS * np.isfinite(used).sum())
    curves, weights = pooled(used, np.concatenate([np.ones((1, len(used))), resample(owner, repeats, seed)]), typical)
    fitted = [fit_law(law, curves, weights, steps) for law in LAWS]
    missed = _heldout(used, _folds(owner, seed), steps, typical)
    laws = {fit.law.name: _described(fit, steps, missed[fit.law.name], confidence) for fit in fitted}
    return Growth(
        law=_choose(list(laws.values())),
        laws=laws,
        curve=np.where(weights[0] > 0, np.exp(curves[0]), np.nan),
        typical=typical,
        rate=exponential_rate(used, owner, dt, confidence=confidence, repeats=repeats, seed=seed),
        episodes=int(owner.max()) + 1,
        confidence=confidence,
    )


def _usable_steps(errors: np.ndarray, owner: np.ndarray) -> int:
    """Count the steps before too few episodes are left, or an error is infinite."""
    episodes = np.array([len(np.unique(owner[~np.isnan(column)])) for column in errors.T])
    good = (episodes >= LEAST_EPISODES) & ~np.isinf(errors).any(0)
    steps = len(good) if good.all() else int(np.argmin(good))
    if steps < LEAST_STEPS:
        raise DataError(
            f"{steps} steps with finite errors in {LEAST_EPISODES} episodes; the law of growth needs {LEAST_STEPS}"
        )
    if not (errors[:, :steps] > 0).any(0).sum() >= LEAST_STEPS:
        raise DataError("the errors are 0: there is no growth to measure")
    return steps


def _folds(owner: np.ndarray, seed: int) -> np.ndarray:
    """Deal the episodes out to folds at random: [N] the fold of each trajectory."""
    groups = int(owner.max()) + 1
    return (np.random.default_rng(seed).permutation(groups) % min(FOLDS, groups))[owner]


def _heldout(errors: np.ndarray, folds: np.ndarray, steps: np.ndarray, typical: bool) -> dict[str, np.ndarray]:
    """Fit on all folds but one, judge on that one: by law, mean squared difference of the logarithms, [F]."""
    left_out = (folds == np.arange(folds.max() + 1)[:, None]).astype(float)
    curves, weights = pooled(errors, 1 - left_out, typical)
    target, weight = pooled(errors, left_out, typical)
    total = weight.sum(1)
    found = {}
    for law in LAWS:
        miss = (weight * (target - fit_law(law, curves, weights, steps).log_curve(steps)) ** 2).sum(1)
        found[law.name] = np.divide(miss, total, out=np.zeros_like(miss), where=total > 0)
    return found


def _described(fit: LawFit, steps: np.ndarray, heldout: np.ndarray, confidence: float) -> FittedLaw:
    """Read a fit whose first row is the data and whose others are resamples."""
    tail = (1 - confidence) / 2
    parameters = {
        name: Interval(drawn[0], *np.nanquantile(drawn[1:], [tail, 1 - tail], method="nearest"))
        for name, drawn in fit.parameters.items()
    }
    return FittedLaw(
        law=fit.law,
        parameters=parameters,
        heldout=float(np.sqrt(heldout.mean())),
        heldout_folds=heldout,
        misfit=float(np.sqrt(fit.loss[0])),
        curve=np.exp(fit.log_curve(steps)[0]),
    )


def _choose(laws: list[FittedLaw]) -> FittedLaw:
    """Return the law with the least held-out error, or a simpler one that is as good.

    As good is a law within `SAME`, or one of fewer parameters within one standard error of the difference over folds
    (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).
    """
    best = min(laws, key=lambda law: law.heldout)
    for law in laws:
        worse = law.heldout_folds - best.heldout_folds
        fewer = law.law.free < best.law.free
        within = worse.mean() <= worse.std(ddof=1) / np.sqrt(len(worse))
        if law.heldout <= best.heldout + SAME or (fewer and within):
            return law
    return best


def _power_in_words(power: float) -> str:
    if 0.4 <= power <= 0.6:
        return "Errors grow like the square root of time: independent noise."
    if 0.9 <= power <= 1.1:
        return "Errors grow in proportion to time: a bias."
    if power <= 0:
        return f"Errors shrink like time to the power {power:.2g}: contracting."
    if power < 0.9:
        kind = "slower than independent noise: the system forgets" if power < 0.4 else "between noise and bias"
        return f"Errors grow like time to the power {power:.2g}, {kind}."
    return f"Errors grow like time to the power {power:.2g}, faster than a constant bias would."


def _linear_in_words(offset: float, slope: float, steps: int) -> str:
    if slope * steps < offset / 4:
        return f"Errors stay near {offset:.3g} from the first steps on: they do not add up."
    if offset < slope / 2:
        return "Errors grow in proportion to time: a bias."
    return f"Errors start at {offset + slope:.3g} and grow by {slope:.3g} every step: a bias."


def _bounded_in_words(doubling: float, steps: int, from_start: bool, end: str) -> str:
    if doubling > steps / 2:
        return f"Errors add up{end or ', ever more slowly'}, with no sign of doubling."
    when = "at first" if from_start else "once they are there"
    return f"Errors double every {doubling:.3g} steps {when}{end}: chaotic or unstable, within bounds."


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": float(interval.value), "low": float(interval.low), "high": float(interval.high)}


def _ends(interval: Interval) -> list[float]:
    return [float(interval.low), float(interval.high)]
