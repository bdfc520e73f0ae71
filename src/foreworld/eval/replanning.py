"""How often to plan anew: as seldom as the error allows, and not faster than a plan can be made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from foreworld.core.errors import ConfigError
from foreworld.eval.bands import Bands


@dataclass(frozen=True, kw_only=True)
class Replanning:
    """The recommended interval between plans.

    Attributes:
        every: steps; None when there is no interval that does.
        reason: why there is none.
        at_least: the error would allow more; the data end here.
        soonest: steps that pass while a plan is made; None when the latency was not given.
        max_error: the limit.
        level: share of new trajectories that are within the limit at any step until then.
        dt: seconds a step, if known.
    """

    every: int | None
    reason: str | None
    at_least: bool
    soonest: int | None
    max_error: float
    level: float
    dt: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "replan_every": self.every,
            "replan_every_seconds": None if self.every is None or self.dt is None else self.every * self.dt,
            "replan_reason": self.reason,
            "replan_latency_checked": self.soonest is not None,
        }

    def in_words(self) -> str:
        """Say it in one sentence."""
        if self.every is None:
            return f"No interval for replanning: {self.reason}."
        seconds = "" if self.dt is None else f" ({self.every * self.dt:.3g} s)"
        steps = "step" if self.every == 1 else f"{self.every} steps"
        end = ", where the data end" if self.at_least else ""
        fast = "the planning time was not given, so only the error was looked at"
        if self.soonest is not None:
            fast = f"a plan is made within {self.soonest} step{'' if self.soonest == 1 else 's'}"
        return (
            f"Replan every {steps}{seconds}{end}, or sooner: at each step until then, {100 * self.level:.3g} % of new "
            f"trajectories are within {self.max_error:g}; {fast}."
        )


def recommend_replanning(
    bands: Bands, max_error: float, dt: float | None = None, latency: float | None = None
) -> Replanning:
    """Recommend how many steps of a plan to carry out before planning anew.

    It is the largest r such that the pointwise band of the error stays within the limit up to step r, if a plan is made
    in at most r steps' time.

    Args:
        bands: of the error; their level says how surely.
        max_error: the limit.
        dt: seconds a step.
        latency: seconds that planning takes, at its slow end (such as the 95th percentile); None to leave it out.

    Returns:
        The interval, or why there is none.

    Raises:
        ConfigError: a latency without `dt`, or a negative one.

    Example:
        >>> import numpy as np
        >>> from foreworld.eval.bands import error_bands
        >>> bands = error_bands(np.random.default_rng(0).uniform(0.02, 0.03, size=(99, 1)) * np.arange(1, 51))
        >>> recommend_replanning(bands, 0.2, dt=0.05, latency=0.12).every
        6
    """
    if latency is not None and (dt is None or not 0 <= latency < math.inf):
        raise ConfigError(
            f"a planning latency of {latency} s needs dt, the seconds a step takes, and must not be negative"
        )
    above = ~(bands.pointwise <= max_error)
    most = int(above.argmax()) if above.any() else len(above)
    soonest = None if latency is None or dt is None else max(1, math.ceil(latency / dt - 1e-9))
    reason = None
    if most == 0:
        reason = f"the error may exceed {max_error:g} after one step already"
    elif soonest is not None and soonest > most:
        reason = f"a plan takes {soonest} steps to make, and the error stays within {max_error:g} for {most}"
    return Replanning(
        every=None if reason else most,
        reason=reason,
        at_least=not above.any(),
        soonest=soonest,
        max_error=max_error,
        level=bands.level,
        dt=dt,
    )
