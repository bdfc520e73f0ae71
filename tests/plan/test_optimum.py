"""Planners against problems whose best plan is known."""

from __future__ import annotations

import pytest
import torch
from plain_planners import HORIZON, Recorded, costs, drawing, elite_shares, plain_search, softmax_shares, starts

import foreworld as fw
from foreworld.models.finite import Finite
from foreworld.models.quadratic import Quadratic
from foreworld.plan import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Gradient,
    Hybrid,
    Planner,
    PredictedReturn,
    QuasiNewton,
    RandomShooting,
)

RETURN = PredictedReturn()


def ratio(planner: Planner, seed: int, horizon: int = 12) -> torch.Tensor:
    """Return cost over the least cost [4] on a random linear-quadratic problem."""
    model = Quadratic(seed=seed, radius=(0.95, 1.1)[seed % 2])
    x = model.starts(4, horizon, seed=seed)
    with fw.seeded(seed):
        plan = planner(model, model.at(x), RETURN)
    assert plan.rollouts <= 1000
    return plan.score / model.optimum(x, horizon)[1]


@pytest.mark.parametrize("seed", [*range(50, 54), 105, 213])
def test_a_broad_and_a_fine_search_reach_the_optimum_in_a_thousand_rollouts(seed: int) -> None:
    """The last two count actions 9,000 and 200,000 times more in one direction than in another."""
    found = ratio(Hybrid(), seed)
    assert (found > 1 - 1e-4).all()
    assert (found < 1.001).all()


def test_cem_and_adam_reach_the_optimum_where_directions_count_alike() -> None:
    found = ratio(Hybrid(second=Gradient(candidates=1, iterations=240)), 50)
    assert (found > 1 - 1e-4).all()
    assert (found < 1.01).all()


def test_the_curvature_is_learned_up_to_the_bounds() -> None:
    """Where the bounds bind: the fixed point of projected gradients, in double precision."""
    model = Quadratic(seed=3, dtype=torch.float64)
    x = starts(model, 3)
    plan = QuasiNewton(horizon=HORIZON, iterations=60)(model, model.at(x), RETURN)
    actions = torch.zeros(3, HORIZON, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(1000):
        (slope,) = torch.autograd.grad(RETURN(fw.imagine(model, model.at(x), actions)).sum(), actions)
        actions = (actions + 0.01 * slope).detach().clamp(-1, 1).requires_grad_()
    best = RETURN(fw.imagine(model, model.at(x), actions)).detach()
    assert ((actions.abs() == 1).sum((1, 2)) > 1).all()
    torch.testing.assert_close(plan.score.double(), best, rtol=1e-5, atol=0.0)


def test_every_planner_beats_random_shooting() -> None:
    planners = {
        "shooting": RandomShooting(candidates=960),
        "cem": CEM(iterations=15),
        "icem": ICEM(candidates=200, iterations=15),
        "mppi": MPPI(iterations=15),
        "gradient": Gradient(candidates=1, iterations=200),
    }
    mean = {name: torch.cat([ratio(p, seed) for seed in (60, 61)]).log().mean() for name, p in planners.items()}
    for name in ("cem", "icem", "mppi", "gradient"):
        assert mean[name] < mean["shooting"] - 0.7, mean
    assert mean["gradient"] < 0.02, mean


def test_a_shifted_plan_saves_work() -> None:
    model = Quadratic(seed=4)
    x, planner = model.starts(8, 12), CEM(iterations=4)
    with fw.seeded(0):
        first = Hybrid()(model, model.at(x), RETURN)
        state = model.step(model.at(x), first.actions[:, 0])
        cold = planner(model, state, RETURN)
        warm = planner(model, state, RETURN, warm=first.after(1))
    best = model.optimum(state.x, 12)[1]
    assert (warm.score > 1.05 * best).all()
    assert (cold.score < 1.05 * best).any()


@pytest.mark.parametrize("seed", range(4))
def test_categorical_cem_solves_small_processes(seed: int) -> None:
    model = Finite(seed=seed, states=6)
    at = torch.arange(6)[model.futures[:6] > 0]
    planner = CategoricalCEM(horizon=6, candidates=128, iterations=8, elites=12)
    with fw.seeded(seed):
        plan = planner(model, model.at(at), RETURN)
    torch.testing.assert_close(plan.score, model.optimum(at, 6)[1])


def test_categorical_cem_finds_one_plan_of_half_a_million() -> None:
    """In a corridor every action earns by itself, so there is something to learn from the good plans."""
    length, model = 12, Finite(seed=0, states=13, terminal=0)
    model.chances.zero_()
    for i in range(13):
        model.chances[i, :, i + 1] = 1
    model.chances[13, :, 13] = 1
    at = torch.tensor([0, 0])
    with fw.seeded(0):
        plan = CategoricalCEM(horizon=length, iterations=15)(model, model.at(at), RETURN)
        shot = RandomShooting(horizon=length, candidates=960)(model, model.at(at), RETURN)
    best, value = model.optimum(at, length)
    torch.testing.assert_close(plan.score, value)
    assert torch.equal(model.spec.action.from_one_hot(plan.actions), best)
    assert (shot.score < value - 0.1).all()


@pytest.mark.parametrize("keep", [0, 2])
def test_cem_is_that_of_plain_python(keep: int) -> None:
    model, seeds = Quadratic(seed=3, dtype=torch.float64), [5, 6, 7]
    x = starts(model, 3)
    planner = CEM(
        horizon=HORIZON,
        candidates=24,
        iterations=4,
        elites=4,
        momentum=0.2,
        decay=1.5,
        keep=keep,
        noise=Recorded(seeds),
    )
    plan = planner(model, model.at(x), RETURN)
    for i, seed in enumerate(seeds):
        best, top = plain_search(
            costs(model, x[i]),
            drawing(seed),
            [24, 16, 11, 8],
            lambda scores: elite_shares(scores, 4),
            std=0.5,
            least=0.05,
            momentum=0.2,
            keep=keep,
        )
        torch.testing.assert_close(plan.actions[i].double(), torch.from_numpy(best), atol=1e-4, rtol=1e-4)
        assert float(plan.score[i]) == pytest.approx(top, rel=1e-4)


def test_mppi_is_that_of_plain_python() -> None:
    model, seeds = Quadratic(seed=3, dtype=torch.float64), [5, 6, 7]
    x = starts(model, 3)
    plan = MPPI(horizon=HORIZON, candidates=24, iterations=4, noise=Recorded(seeds))(model, model.at(x), RETURN)
    for i, seed in enumerate(seeds):
        best, top = plain_search(
            costs(model, x[i]),
            drawing(seed),
            [24] * 4,
            lambda scores: softmax_shares(scores, 0.2),
            std=0.5,
            least=0.05,
            momentum=0.1,
        )
        torch.testing.assert_close(plan.actions[i].double(), torch.from_numpy(best), atol=1e-4, rtol=1e-4)
        assert float(plan.score[i]) == pytest.approx(top, rel=1e-4)
