"""How many steps may be trusted: the horizon of each trajectory, and what new ones keep with a stated confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foreworld.core.errors import ConfigError, DataError, TooFewEpisodes
from foreworld.eval.curves import alive, checked
from foreworld.ops import conformal_lower, least_samples, order_statistic
from foreworld.ops.compounding import safe_horizon


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A number of steps.

    Attributes:
        steps: so many may be trusted.
        at_least: nothing speaks against more; the data end here.
        exceeded: share of the trajectories at hand whose error exceeded the limit within these steps.
    """

    steps: int
    at_least: bool
    exceeded: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"steps": self.steps, "at_least": self.at_least, "exceeded": self.exceeded}

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{'at least ' if self.at_least else ''}{self.steps} step{'' if self.steps == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class SafeHorizon:
    """How many steps may be trusted.

    Attributes:
        safe: with `confidence` over the episodes at hand, a new one exceeds the limit within these steps with a
            probability of at most `violation_rate`.
        marginal: the same probability on average over the episodes at hand, which is a weaker promise; None where
            they are too few.
        closed_form: rule of thumb: 1 - (1 - e)^T with e the mean error after one step. No guarantee.
        mean_curve: rule of thumb: while the mean error stays within the limit. No guarantee.
        max_error: the limit, in the unit of the errors.
        confidence: of `safe`.
        violation_rate: of `safe` and `marginal`.
        episodes: how many, with one trajectory of each.
        order: `safe` is the horizon of the trajectory with the so many shortest.
        chosen: [episodes] index of the trajectory taken from each.
        longest: steps that enough trajectories reach; nothing is said beyond.
        ended: how many ended by themselves before the last step, and so never exceeded the limit.
    """

    safe: Steps
    marginal: Steps | None
    closed_form: Steps
    mean_curve: Steps
    max_error: float
    confidence: float
    violation_rate: float
    episodes: int
    order: int
    chosen: np.ndarray
    longest: int
    ended: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "safe_horizon": self.safe.steps,
            "at_least": self.safe.at_least,
            "max_error": self.max_error,
            "confidence": self.confidence,
            "violation_rate": self.violation_rate,
            "episodes": self.episodes,
            "ended_early": self.ended,
            "marginal_horizon": None if self.marginal is None else self.marginal.to_json(),
            "naive": {"closed_form": self.closed_form.to_json(), "mean_curve": self.mean_curve.to_json()},
        }

    def in_words(self) -> str:
        """Say in a few sentences what is promised, and what the rules of thumb would have said."""
        sure, rate = _percent(self.confidence), _percent(self.violation_rate)
        if self.safe.steps == 0 and not self.safe.at_least:
            told = f"Trust no step: an error of {self.max_error:g} is exceeded too often after the first"
        else:
            told = f"Trust {self.safe}: with {sure} confidence, at most {rate} of new trajectories exceed an error of "
            told += f"{self.max_error:g} within them"
        rules = [("1 - (1 - e)^T", self.closed_form), ("the mean error", self.mean_curve)]
        said = "; ".join(f"{name} says {rule}, within which {_percent(rule.exceeded)} did" for name, rule in rules)
        ended = ""
        if self.ended:
            ended = f" {self.ended} ended early and count as never exceeding it; mark as `cut` if the recording did."
        return f"{told} ({self.episodes} episodes).{ended} Rules of thumb, for comparison: {said}."


def measure_horizon(
    errors: np.ndarray,
    episode: np.ndarray | None = None,
    *,
    max_error: float = 0.2,
    confidence: float = 0.95,
    violation_rate: float = 0.1,
    cut: np.ndarray | None = None,
    seed: int = 0,
) -> SafeHorizon:
    """Measure how many steps may be trusted, with a guarantee that needs no assumption on the errors' distribution.

    A trajectory's horizon is the last step before its error first exceeds the limit. One that ends before, by itself,
    never exceeds it; one that reaches the last step K without has a horizon of at least K. The guarantee is for new
    episodes that could be exchanged with these: the same world, and actions chosen in the same way.

    Args:
        errors: [N, K] error of trajectory n after k = 1..K steps; NaN after its end, infinite where it diverged.
        episode: [N] where several trajectories come from one episode. They are not independent, so one of each is
            taken, at random.
        max_error: the limit, in the unit of the errors.
        confidence: in (0, 1).
        violation_rate: share of new trajectories that may exceed the limit, in (0, 1).
        cut: [N] true where an end before step K is that of the recording, not of the world: such a trajectory counts
            as exceeding the limit right after it, the worst that can be.
        seed: of the choice within an episode.

    Returns:
        The horizon, with the rules of thumb beside it.

    Raises:
        TooFewEpisodes: as many episodes cannot give such a guarantee; says how many can.
        DataError: no error curves.
        ConfigError: a rate outside (0, 1), or a limit that is not positive.

    Reference:
        Wilks, Determination of sample sizes for setting tolerance limits, 1941 (order statistic); Vovk, Conditional
        validity of inductive conformal predictors, 2012 (the same for conformal prediction).

    Example:
        >>> import numpy as np
        >>> rate = np.random.default_rng(0).uniform(0.002, 0.02, size=(200, 1))
        >>> print(measure_horizon(rate * np.arange(1, 51)).safe)
        10 steps
    """
    errors, owner = checked(errors, episode)
    if not max_error > 0:
        raise ConfigError(f"the largest error must be above 0, found {max_error}")
    chosen = one_per_episode(owner, seed)
    used = errors[chosen]
    require_episodes(len(used), violation_rate, confidence)
    stopped = np.zeros(len(errors), bool) if cut is None else np.asarray(cut, bool)
    if stopped.shape != owner.shape:
        raise DataError(f"cut: expected one value for each of {len(errors)} trajectories, found {stopped.shape}")
    found = horizons(used, max_error, stopped[chosen])
    order = order_statistic(len(used), violation_rate, confidence)
    enough = alive(used) >= least_samples(violation_rate, confidence)
    longest = int(np.argmin(enough)) if not enough.all() else len(enough)

    marginal = float(conformal_lower(found, violation_rate))

    def steps(limit: float) -> Steps:
        within = min(limit, longest)
        return Steps(steps=int(within), at_least=bool(limit >= longest), exceeded=float((found < within).mean()))

    return SafeHorizon(
        safe=steps(np.sort(found)[order - 1]),
        marginal=steps(marginal) if marginal >= 0 else None,
        closed_form=steps(_closed_form(used, max_error)),
        mean_curve=steps(_mean_curve(used, max_error)),
        max_error=max_error,
        confidence=confidence,
        violation_rate=violation_rate,
        episodes=len(used),
        order=order,
        chosen=chosen,
        longest=longest,
        ended=int((np.isnan(used[:, -1]) & np.isinf(found)).sum()),
    )


def horizons(errors: np.ndarray, max_error: float, cut: np.ndarray | None = None) -> np.ndarray:
    """Return for each trajectory the last step before its error first exceeds a limit.

    Args:
        errors: [N, K], NaN after the end.
        max_error: the limit.
        cut: [N] true where an end before step K is that of the recording.

    Returns:
        [N]; infinite where the limit is never exceeded.

    Raises:
        DataError: `cut` does not fit.

    Example:
        >>> import numpy as np
        >>> horizons(np.array([[0.1, 0.3, 0.1], [0.1, np.nan, np.nan], [0.3, 0.1, 0.1]]), 0.2)
        array([ 1., inf,  0.])
    """
    above = np.where(np.isnan(errors), 0.0, errors) > max_error
    found = np.where(above.any(1), above.argmax(1), np.inf)
    if cut is None:
        return found
    if cut.shape != found.shape:
        raise DataError(f"cut: expected one value for each of {len(found)} trajectories, found {cut.shape}")
    length = (~np.isnan(errors)).sum(1)
    return np.where(cut & (length < errors.shape[1]), np.minimum(found, length), found)


def one_per_episode(episode: np.ndarray, seed: int) -> np.ndarray:
    """Choose one trajectory of every episode at random; their errors cannot influence the choice.

    Args:
        episode: [N].
        seed: fixes the choice.

    Returns:
        Indices, one per episode, rising.
    """
    order = np.random.default_rng(seed).permutation(len(episode))
    return np.sort(order[np.unique(episode[order], return_index=True)[1]])


def require_episodes(episodes: int, violation_rate: float, confidence: float, unit: str = "episode") -> None:
    """Refuse a guarantee that so few episodes cannot give.

    Args:
        episodes: how many there are.
        violation_rate: in (0, 1).
        confidence: in (0, 1).
        unit: what is counted.

    Raises:
        TooFewEpisodes: says how many are needed, and what these would do for.
    """
    needed = least_samples(violation_rate, confidence)
    if episodes >= needed:
        return
    surer = np.floor(100 * (1 - (1 - violation_rate) ** episodes)) / 100
    looser = np.ceil(100 * (1 - (1 - confidence) ** (1 / episodes))) / 100
    options = [f"collect {needed - episodes} more"]
    options += [f"lower the confidence to {_percent(surer)}"] if surer > 0 else []
    options += [f"allow violations of {_percent(looser)}"] if looser < 1 else []
    raise TooFewEpisodes(
        f"{episodes} {unit}{'' if episodes == 1 else 's'}, {needed} are needed for violations of at most "
        f"{_percent(violation_rate)} with {_percent(confidence)} confidence; {' or '.join(options)}"
    )


def _closed_form(errors: np.ndarray, max_error: float) -> float:
    """Take the mean error after one step for a probability of being wrong, as the rule of thumb does."""
    first = float(errors[:, 0].mean())
    steps = 0 if first >= 1 else safe_horizon(first, min(max_error, 1.0))
    return np.inf if steps is None else steps


def _mean_curve(errors: np.ndarray, max_error: float) -> float:
    count = alive(errors)
    mean = np.where(np.isnan(errors), 0.0, errors).sum(0) / np.maximum(count, 1)
    above = mean > max_error
    return float(above.argmax()) if above.any() else np.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
