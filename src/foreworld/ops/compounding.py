"""How an error per step adds up over a roll-out, in closed form, and what such a form assumes."""

from __future__ import annotations

import math

from foreworld.core.errors import ConfigError

ASSUMES = (
    "every step is wrong with the same probability, independently of the others",
    "a wrong state never becomes right again",
    "the actions do not seek out the model's errors, as those of a planner do",
)
"""Under these, and only then, `cumulative_error` is the probability that a roll-out has gone wrong.

They fit exact match on discrete states. For continuous states the formula is neither an upper nor
a lower bound: with 1 % per step, errors after 50 steps between 3 % and 105 % have been measured,
depending on the system. Measure instead where there is data.
"""


def cumulative_error(per_step: float, steps: int) -> float:
    """Return 1 - (1 - e)^T, the probability that at least one of T independent steps is wrong.

    Args:
        per_step: e, a probability.
        steps: T, at least 0.

    Returns:
        A probability.

    Raises:
        ConfigError: `per_step` is no probability, or `steps` is negative.

    Example:
        >>> round(cumulative_error(0.01, 50), 4)
        0.395
    """
    error = probability("per-step error", per_step)
    if steps < 0:
        raise ConfigError(f"steps must not be negative, found {steps}")
    if error == 1:
        return float(steps > 0)
    # log1p and expm1 keep errors of 1e-12 per step exact, where 1 - (1 - e) would lose them
    return -math.expm1(steps * math.log1p(-error))


def safe_horizon(per_step: float, most: float) -> int | None:
    """Return the largest T whose cumulative error stays within a limit.

    Args:
        per_step: error per step, a probability.
        most: the limit, a probability.

    Returns:
        Steps; None when no number of steps ever exceeds the limit.

    Raises:
        ConfigError: an argument is no probability.

    Example:
        >>> safe_horizon(0.01, 0.2), safe_horizon(0.0, 0.2)
        (22, None)
    """
    error, limit = probability("per-step error", per_step), probability("largest error", most)
    if error == 0 or limit == 1:
        return None
    if error == 1:
        return 0
    steps = math.log1p(-limit) / math.log1p(-error)
    if math.isinf(steps):  # an error as small as 1e-310: no number can count the steps
        return None
    # a limit that some T meets exactly must not be missed by a rounding error
    nearest = round(steps)
    exact = math.isclose(cumulative_error(error, nearest), limit, rel_tol=1e-14)
    return nearest if exact else math.floor(steps)


def effective_members(members: int, correlation: float) -> float:
    """Return how many independent members an ensemble is worth: M / (1 + (M - 1) rho).

    Args:
        members: M, at least 1.
        correlation: rho of the members' errors, at least -1 / (M - 1) and at most 1.

    Returns:
        A number between 1 and M when rho is not negative; infinite when errors cancel exactly.

    Raises:
        ConfigError: such members cannot exist.

    Example:
        >>> effective_members(5, 0.0), round(effective_members(5, 0.2), 2)
        (5.0, 2.78)
    """
    if members < 1:
        raise ConfigError(f"an ensemble needs at least 1 member, found {members}")
    least = -1 / (members - 1) if members > 1 else -1.0
    if not least <= correlation <= 1:
        raise ConfigError(f"errors of {members} members can correlate by {least:.3g} to 1, found {correlation}")
    shared = 1 + (members - 1) * correlation
    return math.inf if shared == 0 else members / shared


def ensemble_error(per_step: float, members: int, correlation: float) -> float:
    """Return the per-step error of the mean of equally good members: e / sqrt(effective members).

    Args:
        per_step: error of one member, as a root mean square.
        members: how many.
        correlation: of their errors.

    Returns:
        The error of their mean.

    Example:
        >>> round(ensemble_error(0.01, 5, 0.0), 5)
        0.00447
    """
    return probability("per-step error", per_step) / math.sqrt(effective_members(members, correlation))


def probability(name: str, value: float) -> float:
    """Return a number that must lie in [0, 1].

    Args:
        name: what to call it in the message.
        value: the number.

    Raises:
        ConfigError: it does not, or it is not a number.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must lie between 0 and 1 (0.01 is 1 %), found {value}")
    return value
