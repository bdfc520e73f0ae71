"""Laws by which an error can grow over the steps of a roll-out, and their fit by least squares.

A fit compares logarithms: what counts is by how many percent a law misses, at every step alike. Errors are positive,
they span orders of magnitude, and their scatter grows with them; absolute squares would see the last steps alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 60
"""Steps of Gauss-Newton at most; a curve that the law can follow needs about ten."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """A law of growth with its parameters, which a fit moves freely on a logarithmic scale.

    Attributes:
        name: how it is called in results.
        formula: for people; T counts steps.
        parameters: their names.
        log_shape: (shape parameters [..., P], steps [K]) to the logarithm of the law [..., K], up to a factor.
        values: (logarithm of the factor [...], shape parameters [..., P]) to the parameters as named, each [...].
        grid: steps [K] to shape parameters to start from, [G, P].
        free: P + 1, how many numbers a fit chooses.
        low: the least value of a shape parameter that is tried.
        high: the largest.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    log_shape: Callable[[np.ndarray, np.ndarray], np.ndarray]
    values: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
    grid: Callable[[np.ndarray], np.ndarray]
    low: float
    high: float
    free: int = 2


@dataclass(frozen=True, kw_only=True)
class LawFit:
    """A law fitted to R curves at once.

    Attributes:
        law: the law.
        scale: [R] logarithm of its factor.
        shape: [R, P] shape parameters.
        loss: [R] mean squared difference of the logarithms; NaN where a curve has no weight at all.
    """

    law: Law
    scale: np.ndarray
    shape: np.ndarray
    loss: np.ndarray

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Parameters by name, each [R]."""
        values = self.law.values(self.scale, self.shape)
        none = np.isnan(self.loss)
        return {name: np.where(none, np.nan, value) for name, value in zip(self.law.parameters, values, strict=True)}

    def log_curve(self, steps: np.ndarray) -> np.ndarray:
        """Return the logarithm of the fitted law.

        Args:
            steps: [K], at least 1.

        Returns:
            [R, K].
        """
        return self.scale[:, None] + self.law.log_shape(self.shape, steps)


def fit_law(law: Law, log_curves: np.ndarray, weights: np.ndarray, steps: np.ndarray) -> LawFit:
    """Fit a law to many curves at once: the best of a grid, then damped Gauss-Newton.

    The factor of a law is an offset of its logarithm, whose best value is a mean; so only the shape is searched.

    Args:
        law: one of `LAWS`.
        log_curves: [R, K] logarithms of positive errors.
        weights: [R, K], not negative; a step of weight 0 is left out.
        steps: [K] after how many steps.

    Returns:
        The fits.

    Reference:
        Golub and Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
        separate, 1973; Levenberg, A method for the solution of certain non-linear problems in least squares, 1944.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(1.0, 51)
        >>> found = fit_law(POWER, np.log(0.01 * steps**0.5)[None], np.ones((1, 50)), steps)
        >>> {name: round(float(value[0]), 4) for name, value in found.parameters.items()}
        {'factor': 0.01, 'power': 0.5}
    """
    total = weights.sum(1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1.0)
    log_curves = np.where(weights > 0, log_curves, 0.0)
    shape = _best_of_grid(law, log_curves, steps, weights)
    loss, residual = _loss(law, shape, log_curves, steps, weights)
    damping = np.full(len(shape), 1e-3)
    for _ in range(ROUNDS):
        step = _gauss_newton(law, shape, residual, steps, weights, damping)
        tried = np.clip(shape + step, law.low, law.high)
        tried_loss, tried_residual = _loss(law, tried, log_curves, steps, weights)
        better = tried_loss < loss
        done = bool((np.abs(tried_loss - loss) <= 1e-12 * (loss + 1e-20)).all())
        shape = np.where(better[:, None], tried, shape)
        loss, residual = np.where(better, tried_loss, loss), np.where(better[:, None], tried_residual, residual)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-12, 1e12)
        if done or float(damping.min()) >= 1e12:
            break
    scale = (weights * (log_curves - law.log_shape(shape, steps))).sum(1)
    return LawFit(law=law, scale=scale, shape=shape, loss=np.where(total[:, 0] > 0, loss, np.nan))


def _best_of_grid(law: Law, log_curves: np.ndarray, steps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the grid's best shape [R, P]; all curves meet all shapes in three matrix products."""
    grid = law.grid(steps)
    form = law.log_shape(grid, steps)
    form = form - form.mean(1, keepdims=True)  # keeps the products small, so that nothing cancels
    cross = (weights * log_curves) @ form.T
    mean, square = weights @ form.T, weights @ (form**2).T
    centre = (weights * log_curves).sum(1, keepdims=True)
    loss = square - 2 * cross - (mean**2 - 2 * centre * mean)
    return grid[loss.argmin(1)]


def _loss(
    law: Law, shape: np.ndarray, log_curves: np.ndarray, steps: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    residual = log_curves - law.log_shape(shape, steps)
    residual = residual - (weights * residual).sum(1, keepdims=True)
    return (weights * residual**2).sum(1), residual


def _gauss_newton(
    law: Law, shape: np.ndarray, residual: np.ndarray, steps: np.ndarray, weights: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Return the damped step [R, P]; slopes by central differences, less their mean, as the factor follows."""
    slopes = []
    for i in range(shape.shape[1]):
        shift = np.zeros(shape.shape[1])
        shift[i] = 1e-5
        slope = (law.log_shape(shape + shift, steps) - law.log_shape(shape - shift, steps)) / 2e-5
        slopes.append(slope - (weights * slope).sum(1, keepdims=True))
    jacobian = np.stack(slopes, -1)
    weighted = weights[:, :, None] * jacobian
    matrix = np.einsum("rki,rkj->rij", weighted, jacobian)
    gradient = np.einsum("rki,rk->ri", weighted, residual)
    diagonal = np.einsum("rii->ri", matrix)
    ridge = damping[:, None] * diagonal + 1e-14
    return np.linalg.solve(matrix + ridge[:, :, None] * np.eye(shape.shape[1]), gradient[..., None])[..., 0]


def _column(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def _summed(power: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return log of (1 + f^n + ... + f^(n (T - 1)))^(1 / n), n = 1 / power, as a function of log f."""

    def log_shape(shape: np.ndarray, steps: np.ndarray) -> np.ndarray:
        size = np.maximum(np.abs(shape), 1e-9) / power
        series = np.log(np.expm1(-size * steps) / np.expm1(-size))
        return power * series + np.maximum(shape, 0) * (steps - 1)

    return log_shape


def _summed_values(power: float) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    def values(scale: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, ...]:
        first, log_factor = np.exp(scale), shape[..., 0]
        room = np.maximum(-np.expm1(log_factor / power), 1e-12) ** power
        return first, np.exp(log_factor), np.where(log_factor < 0, first / room, np.inf)

    return values


def _summed_grid(steps: np.ndarray) -> np.ndarray:
    sizes = np.geomspace(1e-4, 5, 28)
    return _column(np.concatenate([-sizes, [0.0], sizes]))


def _logistic(shape: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, shape[..., :1] - np.exp(shape[..., 1:]) * steps)


def _sourced(shape: np.ndarray, steps: np.ndarray) -> np.ndarray:
    rate = np.exp(shape[..., 1:])
    return np.log(-np.expm1(-rate * steps)) - np.logaddexp(0, shape[..., :1] - rate * steps)


def _sourced_values(scale: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, ...]:
    plateau, ratio, both = np.exp(scale), np.exp(shape[..., 0]), np.exp(shape[..., 1])
    return plateau, both * ratio / (1 + ratio), plateau * both / (1 + ratio)


def _logistic_grid(steps: np.ndarray) -> np.ndarray:
    rates = np.geomspace(0.5 / steps[-1], 3.0, 16)
    middles = np.concatenate([-np.geomspace(0.02, 1, 4) * steps[-1], np.linspace(0, 2, 17) * steps[-1]])
    rate, middle = (side.ravel() for side in np.meshgrid(rates, middles))
    return np.stack([np.clip(rate * middle, -20, 60), np.log(rate)], -1)


LINEAR = Law(
    name="linear",
    formula="a + b T",
    parameters=("offset", "slope"),
    log_shape=lambda shape, steps: np.logaddexp(0, shape + np.log(steps)),
    values=lambda scale, shape: (np.exp(scale), np.exp(scale + shape[..., 0])),
    grid=lambda steps: _column(np.linspace(-12, 12, 49)),
    low=-30,
    high=30,
)
POWER = Law(
    name="power",
    formula="a T^p",
    parameters=("factor", "power"),
    log_shape=lambda shape, steps: shape * np.log(steps),
    values=lambda scale, shape: (np.exp(scale), shape[..., 0]),
    grid=lambda steps: _column(np.linspace(-3, 6, 37)),
    low=-40,
    high=40,
)
EXPONENTIAL = Law(
    name="exponential",
    formula="a g^T",
    parameters=("factor", "growth"),
    log_shape=lambda shape, steps: shape * steps,
    values=lambda scale, shape: (np.exp(scale), np.exp(shape[..., 0])),
    grid=lambda steps: _column(np.linspace(-1, 1, 41)),
    low=-30,
    high=30,
)
CLOSED_FORM = Law(
    name="closed_form",
    formula="d (1 - f^T) / (1 - f)",
    parameters=("step", "factor", "plateau"),
    log_shape=_summed(1.0),
    values=_summed_values(1.0),
    grid=_summed_grid,
    low=-20,
    high=20,
)
ROOT_CLOSED_FORM = Law(
    name="root_closed_form",
    formula="d ((1 - f^(2 T)) / (1 - f^2))^(1/2)",
    parameters=("step", "factor", "plateau"),
    log_shape=_summed(0.5),
    values=_summed_values(0.5),
    grid=_summed_grid,
    low=-20,
    high=20,
)
LOGISTIC = Law(
    name="logistic",
    formula="dE/dT = l E (1 - E / Einf)",
    parameters=("plateau", "rate", "start"),
    log_shape=_logistic,
    values=lambda scale, shape: (
        np.exp(scale),
        np.exp(shape[..., 1]),
        np.exp(scale - np.logaddexp(0, shape[..., 0])),
    ),
    grid=_logistic_grid,
    low=-20,
    high=60,
    free=3,
)
SOURCED_LOGISTIC = Law(
    name="sourced_logistic",
    formula="dE/dT = (l E + s) (1 - E / Einf), E(0) = 0",
    parameters=("plateau", "rate", "source"),
    log_shape=_sourced,
    values=_sourced_values,
    grid=_logistic_grid,
    low=-20,
    high=60,
    free=3,
)

LAWS = (LINEAR, POWER, EXPONENTIAL, CLOSED_FORM, ROOT_CLOSED_FORM, LOGISTIC, SOURCED_LOGISTIC)
"""All laws, the simplest first. Where two do equally well on held-out episodes, the earlier is chosen.

`closed_form` is 1 - (1 - e)^T with a unit of its own: every step adds an error d, and carries the old one on with the
factor f = 1 - e. Without a unit (d = e) the form is a probability and ends at 1, while an error in deviations ends
wherever the system lets it: near 1.4 when two runs forget one another, far below when the system contracts, nowhere
when f is above 1. So unscaled it could fit by accident only. Its root is the same for independent errors, whose squares
add up.

`logistic` is the growth of an error that was there at the start; `sourced_logistic` that of a model which starts from
the true state and adds an error at every step.

Reference:
    Asadi, Misra and Littman, Lipschitz continuity in model-based reinforcement learning, 2018, theorem 1 (closed form);
    Dalcher and Kalnay, Error growth and predictability in operational ECMWF forecasts, 1987, equation 2 (sourced
    logistic; without the source, Lorenz 1982).
"""
