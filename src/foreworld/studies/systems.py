"""Systems with known truth beside a model that is a little wrong about them: as many error curves as one likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foreworld.worlds import DoublePendulum, Linear, Lorenz63, Pendulum, World


@dataclass(frozen=True, kw_only=True)
class System:
    """A source of error curves.

    Attributes:
        name: one or two words.
        wrong: what the model is wrong about.
        draw: maps a generator, N and K to errors [N, K] in deviations.
    """

    name: str
    wrong: str
    draw: Callable[[np.random.Generator, int, int], np.ndarray]


def model_errors(
    world: World, model: World, rng: np.random.Generator, n: int, steps: int, noise: float = 0.0
) -> np.ndarray:
    """Let a world and a model of it go on from the same starts, and compare what is seen.

    Args:
        world: the truth.
        model: a world with the same state and other parameters, without noise of its own.
        rng: of the starts and all noise.
        n: trajectories.
        steps: K.
        noise: what the model adds to every number of its state at every step, a deviation.

    Returns:
        [n, K] root mean square over what is seen, each number in its own deviation over all rows.
    """
    true = world.start(rng, n)
    predicted = true
    gaps, rows = [], []
    for _ in range(steps):
        true, predicted = world.step(true, rng=rng), model.step(predicted)
        if noise:
            predicted = predicted + noise * rng.standard_normal(predicted.shape)
        seen = world.observe(true)["obs"]
        gaps.append(model.observe(predicted)["obs"] - seen)
        rows.append(seen)
    return in_deviations(np.stack(gaps, 1), np.stack(rows, 1))


def twin_errors(world: World, state: np.ndarray, size: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Let states go on beside copies that differ a little in a random direction.

    Args:
        world: without noise; its state is compared.
        state: starts [N, S].
        size: deviation of the difference at the start.
        steps: K.
        rng: of the directions.

    Returns:
        [N, K].
    """
    true, twin = state, state + size * rng.standard_normal(state.shape)
    gaps, rows = [], []
    for _ in range(steps):
        true, twin = world.step(true), world.step(twin)
        gaps.append(twin - true)
        rows.append(true)
    return in_deviations(np.stack(gaps, 1), np.stack(rows, 1))


def in_deviations(gap: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return errors in deviations of what is true.

    Args:
        gap: [N, K, D] predicted less true.
        true: [N, K, D].

    Returns:
        [N, K].
    """
    return np.sqrt(((gap / true.std((0, 1))) ** 2).mean(-1))


def heavy_tailed(rng: np.random.Generator, n: int, steps: int) -> np.ndarray:
    """Draw errors that grow by a power of time, each at a rate of its own, some of them much faster than most.

    Args:
        rng: where they come from.
        n: trajectories.
        steps: K.

    Returns:
        [n, K]; the logarithm of the rate follows Student's t with 4 degrees of freedom.
    """
    rate = 0.011 * np.exp(0.2 * rng.standard_t(4, size=(n, 1)))
    shake = np.exp(0.15 * rng.standard_normal((n, steps)))
    return rate * np.arange(1, steps + 1) ** (2 / 3) * shake


def _against(world: World, model: World, noise: float = 0.0) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    return lambda rng, n, steps: model_errors(world, model, rng, n, steps, noise)


SYSTEMS = (
    System(
        name="stable linear",
        wrong="eigenvalues, by half a per cent, and noise",
        draw=_against(
            Linear(modes=((0.97, 0.25), (0.9, 1.0)), noise=0.005), Linear(modes=((0.967, 0.255), (0.9, 1.0)))
        ),
    ),
    System(
        name="integrator",
        wrong="independent noise in 8 numbers",
        draw=_against(Linear(modes=((1.0, 0.0),) * 8, noise=0.03), Linear(modes=((1.0, 0.0),) * 8)),
    ),
    System(
        name="unstable linear",
        wrong="eigenvalues, by a tenth of a per cent, and noise",
        draw=_against(Linear(modes=((1.03, 0.3), (0.9, 1.0)), noise=0.02), Linear(modes=((1.031, 0.301), (0.9, 1.0)))),
    ),
    System(
        name="damped pendulum",
        wrong="gravity by 2 %, damping by a tenth",
        draw=_against(Pendulum(damping=0.3), Pendulum(damping=0.33, gravity=10.0)),
    ),
    System(
        name="undamped pendulum",
        wrong="gravity by 5 %",
        draw=_against(Pendulum(), Pendulum(gravity=10.3)),
    ),
    System(
        name="double pendulum",
        wrong="gravity by 2 %",
        draw=_against(DoublePendulum(), DoublePendulum(gravity=10.0)),
    ),
    System(
        name="Lorenz-63",
        wrong="rho by a fiftieth of a per cent, and noise",
        draw=_against(Lorenz63(), Lorenz63(rho=28.005), noise=0.01),
    ),
    System(name="heavy tails", wrong="a process made up for its tails, no system", draw=heavy_tailed),
)
