"""Planners in plain NumPy, one environment at a time, and what tests of the real ones share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.core import Rollout, Step
from foreworld.models.quadratic import Quadratic, QuadraticState
from foreworld.plan import CEM, ICEM, MPPI, CategoricalCEM, Gradient, Hybrid, Planner, QuasiNewton, RandomShooting

Score = Callable[[np.ndarray], float]
HORIZON, WIDTH = 4, 2


class Recorded:
    """Noise that every environment draws from a generator of its own, so that neighbours change nothing."""

    def __init__(self, seeds: list[int]) -> None:
        self.sources = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
        assert shape[0] == len(self.sources)
        return torch.stack([torch.randn(shape[1:], generator=source) for source in self.sources])


def numbers(noise: Any) -> list[Planner]:
    """Return a small planner of every kind for actions that are numbers."""
    return [
        RandomShooting(horizon=HORIZON, candidates=20, iterations=2, noise=noise()),
        CEM(horizon=HORIZON, candidates=20, iterations=3, elites=4, noise=noise()),
        ICEM(horizon=HORIZON, candidates=24, iterations=3, elites=4, noise=noise()),
        MPPI(horizon=HORIZON, candidates=20, iterations=3, noise=noise()),
        Gradient(horizon=HORIZON, candidates=3, iterations=3, noise=noise()),
        QuasiNewton(horizon=HORIZON, candidates=3, iterations=6, noise=noise()),
        Hybrid(
            first=CEM(horizon=HORIZON, candidates=20, iterations=2, elites=4, noise=noise()),
            second=Gradient(horizon=HORIZON, candidates=2, iterations=3, noise=noise()),
        ),
    ]


def choices(noise: Any) -> list[Planner]:
    """Return a small planner of every kind for actions that are choices."""
    return [
        RandomShooting(horizon=HORIZON, candidates=20, iterations=2, noise=noise()),
        CategoricalCEM(horizon=HORIZON, candidates=20, iterations=3, elites=4, noise=noise()),
    ]


def starts(model: Quadratic, batch: int) -> Tensor:
    """Draw states so far out that the bounds of actions bind."""
    return 4 * torch.randn(batch, model.config.states, generator=torch.Generator().manual_seed(1)).to(model.system)


def costs(model: Quadratic, x: Tensor) -> Score:
    """Return what a plan [H, A] earns from `x` [S], by hand."""
    system, inputs, cost, effort = (m.double().numpy() for m in (model.system, model.inputs, model.cost, model.effort))

    def score(plan: np.ndarray) -> float:
        at, total = x.double().numpy(), 0.0
        for u in plan.astype(np.float64):
            at = system @ at + inputs @ u
            total -= at @ cost @ at + u @ effort @ u
        return total

    return score


def elite_shares(scores: list[float], elites: int) -> np.ndarray:
    """Weigh the best equally."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:elites]
    return np.array([1 / elites if i in order else 0.0 for i in range(len(scores))])


def softmax_shares(scores: list[float], temperature: float) -> np.ndarray:
    """Weigh all by how many deviations they are better."""
    raw = np.exp((np.array(scores) - max(scores)) / np.std(scores) / temperature)
    return raw / raw.sum()


def plain_search(
    score: Score,
    draws: Iterator[int] | Any,
    sizes: list[int],
    shares: Callable[[list[float]], np.ndarray],
    *,
    std: float,
    least: float,
    momentum: float,
    keep: int = 0,
) -> tuple[np.ndarray, float]:
    """Return the best plan and its score: CEM or MPPI from the middle, by the book."""
    mean, spread = np.zeros((HORIZON, WIDTH)), np.full((HORIZON, WIDTH), std)
    best, top, kept = mean, -np.inf, []
    for size in sizes:
        tried = [mean, *kept]
        fresh = draws(size - len(tried))
        tried += [np.clip(mean + spread * one, -1, 1) for one in fresh]
        scores = [score(one) for one in tried]
        share = shares(scores)
        new = sum(w * one for w, one in zip(share, tried, strict=True))
        deviation = np.sqrt(sum(w * (one - new) ** 2 for w, one in zip(share, tried, strict=True)))
        mean = momentum * mean + (1 - momentum) * new
        spread = momentum * spread + (1 - momentum) * np.maximum(deviation, least)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        kept = [tried[i] for i in order[:keep]]
        if scores[order[0]] > top:
            best, top = tried[order[0]], scores[order[0]]
    return best, top


def drawing(seed: int) -> Callable[[int], np.ndarray]:
    """Return the noise that `Recorded` gives to an environment with this seed."""
    source = torch.Generator().manual_seed(seed)
    return lambda number: torch.randn((number, HORIZON, WIDTH), generator=source).double().numpy()


def dream(**fields: Any) -> Rollout[Any]:
    """Return a dream by hand; what is not given is None."""
    size = next(value.shape[:2] for value in fields.values() if value is not None)
    blank: dict[str, Any] = {"reward": None, "cont": None, "feat": torch.zeros(*size, 1), "actions": None}
    return Rollout(**(blank | {"start": Step(feat=torch.zeros(size[0], 1)), "final": None} | fields))


class Counted:
    """A model that counts the steps that it takes for each row, and those with a gradient threefold."""

    def __init__(self, model: Quadratic) -> None:
        self.model, self.spec, self.provides, self.steps = model, model.spec, model.provides, 0

    def step(self, state: QuadraticState, action: Tensor) -> QuadraticState:
        self.steps += len(action) * (3 if action.requires_grad else 1)
        return self.model.step(state, action)

    def read(self, state: QuadraticState) -> Step:
        return self.model.read(state)
