"""What holds for every planner: bounds, independence, budgets, deadlines, and what happens to broken scores."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_planners import HORIZON, Counted, Recorded, choices, numbers, starts
from torch import Tensor

import foreworld as fw
from foreworld.core import tree
from foreworld.core.errors import ConfigError, MissingCapability, SpecError
from foreworld.models.finite import Finite
from foreworld.models.linear import Linear
from foreworld.models.quadratic import Quadratic
from foreworld.models.simulated import Simulated
from foreworld.plan import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Coloured,
    Gradient,
    Hybrid,
    PredictedReturn,
    QuasiNewton,
    RandomShooting,
    Warm,
    white,
)
from foreworld.plan.sampling import softmax_weights
from foreworld.testing import specs
from foreworld.worlds import build

QUADRATIC, FINITE = Quadratic(seed=3), Finite(seed=1, states=6)
RETURN = PredictedReturn()
ALONE = torch.arange(6)[FINITE.futures[:6] > 0][:3]


def problems() -> list[tuple[Any, Any, Any]]:
    """Return planners with a model and three states."""
    wide = QUADRATIC.at(starts(QUADRATIC, 3))
    plain = lambda: white  # noqa: E731 - a maker of noise
    return [(p, QUADRATIC, wide) for p in numbers(plain)] + [(p, FINITE, FINITE.at(ALONE)) for p in choices(plain)]


PROBLEMS = problems()
NAMES = [f"{type(p).__name__}-{type(m).__name__}" for p, m, _ in PROBLEMS]
every = pytest.mark.parametrize(("planner", "model", "state"), PROBLEMS, ids=NAMES)


@every
def test_the_budget_is_exact_and_known_before(planner: Any, model: Any, state: Any) -> None:
    plan = planner(model, state, RETURN)
    assert plan.rollouts == planner.budget
    assert plan.actions.shape == (3, HORIZON, model.spec.action_width)
    counted = Counted(model)
    planner(counted, state, RETURN)
    assert counted.steps == 3 * HORIZON * planner.budget


@every
def test_the_score_is_that_of_the_actions(planner: Any, model: Any, state: Any) -> None:
    plan = planner(model, state, RETURN)
    torch.testing.assert_close(plan.score, RETURN(fw.imagine(model, state, plan.actions)))
    assert not plan.fell_back.any()
    assert not plan.actions.requires_grad


@every
def test_a_plan_is_never_worse_than_its_warm_start(planner: Any, model: Any, state: Any) -> None:
    before = planner(model, state, RETURN)
    again = planner(model, state, RETURN, warm=before.after(0))
    assert (again.score >= before.score).all()


@every
def test_bad_scores_everywhere_give_the_warm_start_back(planner: Any, model: Any, state: Any) -> None:
    warm = planner(model, state, RETURN).after(0)
    for bad in (torch.nan, torch.inf, -torch.inf):
        plan = planner(model, state, lambda dream, bad=bad: RETURN(dream) * 0 + bad, warm=warm)
        assert plan.fell_back.all()
        assert (plan.score == -torch.inf).all()
        torch.testing.assert_close(plan.actions, warm.actions)


@every
def test_the_time_is_kept(planner: Any, model: Any, state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    soon = planner(model, state, RETURN, seconds=0.5)
    assert soon.iterations == 1
    assert 0 < soon.rollouts < planner.budget
    assert soon.score.isfinite().all()
    if not isinstance(planner, Hybrid):  # two planners that look at one clock
        assert planner(model, state, RETURN, seconds=3.5).iterations == 2  # a third would end after 4 s
    late = planner(model, state, RETURN, seconds=1e6)
    assert late.rollouts == planner.budget
    assert late.iterations > 1


@every
def test_gradients_and_modes_of_the_caller_do_not_matter(planner: Any, model: Any, state: Any) -> None:
    plans = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with fw.seeded(0), mode():
            plans.append(planner(model, tree.map(torch.clone, state), RETURN).actions.clone())
    torch.testing.assert_close(plans[0], plans[1])
    torch.testing.assert_close(plans[0], plans[2])


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.booleans())
def test_actions_stay_within_their_bounds(seed: int, far: float, warm: bool) -> None:
    model, source = QUADRATIC, torch.Generator().manual_seed(seed)
    x = far * torch.randn(2, 4, generator=source)
    start = Warm(actions=far * torch.randn(2, HORIZON, 2, generator=source)) if warm else None
    seen: list[Tensor] = []

    def judge(dream: Any) -> Tensor:
        seen.append(dream.actions.detach())
        return RETURN(dream)

    with fw.seeded(seed):
        for planner in numbers(lambda: white):
            seen.append(planner(model, model.at(x), judge, warm=start).actions)
    assert all(float(actions.abs().max()) <= 1 for actions in seen)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_choices_are_one_hot(seed: int) -> None:
    spec = specs()["vector_multi_discrete"]
    model = fw.RSSM(spec, deter=16, units=8, latents=2, classes=4)
    source = torch.Generator().manual_seed(seed)
    warm = Warm(actions=torch.rand(2, HORIZON, spec.action_width, generator=source).round())
    with fw.seeded(seed):
        for planner in choices(lambda: white):
            for start in (None, warm):
                plan = planner(model, model.initial(2), RETURN, warm=start).actions
                assert torch.equal(plan, spec.action.one_hot(spec.action.from_one_hot(plan)))


@settings(max_examples=4)
@given(st.integers(0, 10_000))
def test_environments_are_planned_for_as_if_each_were_alone(seed: int) -> None:
    seeds = [seed, seed + 1, seed + 2]
    cases = [(numbers, QUADRATIC, QUADRATIC.at(starts(QUADRATIC, 3))), (choices, FINITE, FINITE.at(ALONE))]
    for make, model, state in cases:
        together = make(partial(Recorded, seeds))
        alone = [make(partial(Recorded, [one])) for one in seeds]
        for k, planner in enumerate(together):
            warm, found = None, []
            for _ in range(2):  # the second time with a warm start
                plan = planner(model, state, RETURN, warm=warm)
                warm = plan.after(1)
                found.append(plan)
            for i, planners in enumerate(alone):
                warm = None
                for whole in found:
                    one = planners[k](model, tree.index(state, slice(i, i + 1)), RETURN, warm=warm)
                    warm = one.after(1)
                    torch.testing.assert_close(one.actions[0], whole.actions[i], rtol=1e-4, atol=1e-4)
                    torch.testing.assert_close(one.score[0], whole.score[i], rtol=1e-4, atol=1e-4)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_bad_scores_are_never_elected(seed: int, bad: float) -> None:
    broken: list[Tensor] = []

    def judge(dream: Any) -> Tensor:
        wrong = dream.actions[:, 0, 0] > 0.1
        broken.append(wrong)
        return torch.where(wrong, bad, RETURN(dream))

    x = starts(QUADRATIC, 3)
    with fw.seeded(seed):
        for planner in numbers(lambda: white):
            broken.clear()
            plan = planner(QUADRATIC, QUADRATIC.at(x), judge)
            assert (plan.actions[:, 0, 0] <= 0.1).all()
            assert plan.score.isfinite().all()
            if not isinstance(planner, Gradient | QuasiNewton | Hybrid):
                assert any(bool(one.any()) for one in broken)


def test_one_environment_may_fall_back_alone() -> None:
    def judge(dream: Any) -> Tensor:
        score = RETURN(dream).reshape(3, -1).clone()
        score[1] = torch.nan
        return score.flatten()

    for planner in numbers(lambda: white):
        plan = planner(QUADRATIC, QUADRATIC.at(starts(QUADRATIC, 3)), judge)
        assert plan.fell_back.tolist() == [False, True, False]
        assert not plan.actions[1].any()


@settings(max_examples=30)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9), st.integers(-30, 30), st.integers(-100, 100))
def test_weights_of_mppi_do_not_know_the_scale_of_returns(raw: list[int], power: int, offset: int) -> None:
    score = torch.tensor([raw, raw[::-1]], dtype=torch.float64)
    weights = softmax_weights(score, 0.3)
    torch.testing.assert_close(softmax_weights((score + offset) * 2.0**power, 0.3), weights)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(-40, 40))
def test_mppi_plans_the_same_for_returns_of_any_scale(seed: int, power: int) -> None:
    model = Quadratic(seed=3, dtype=torch.float64)
    planner, state = MPPI(horizon=HORIZON, candidates=20, iterations=4), model.at(starts(model, 2))
    with fw.seeded(seed):
        plain = planner(model, state, RETURN)
    with fw.seeded(seed):
        scaled = planner(model, state, lambda dream: RETURN(dream) * 2.0**power)
    torch.testing.assert_close(scaled.actions, plain.actions)


def test_steps_carried_out_are_dropped_and_elites_go_along() -> None:
    planner = ICEM(horizon=HORIZON, candidates=20, elites=4, keep=3, iterations=2)
    plan = planner(QUADRATIC, QUADRATIC.at(starts(QUADRATIC, 2)), RETURN)
    for steps in range(HORIZON + 2):
        warm, left = plan.after(steps), max(HORIZON - steps, 0)
        torch.testing.assert_close(warm.actions[:, :left], plan.actions[:, steps:])
        torch.testing.assert_close(warm.elites[:, :, :left], plan.elites[:, :, steps:])
        assert not warm.actions[:, left:].any()
        assert not warm.elites[:, :, left:].any()
    assert plan.elites.shape == (2, 3, HORIZON, 2)
    with pytest.raises(ValueError, match="-1 steps"):
        plan.after(-1)


def test_environments_that_began_anew_are_cleared_by_the_tree() -> None:
    plan = ICEM(horizon=HORIZON, candidates=20, elites=4)(QUADRATIC, QUADRATIC.at(starts(QUADRATIC, 2)), RETURN)
    warm = plan.after(1)
    cleared = tree.where(torch.tensor([True, False]), tree.map(torch.zeros_like, warm), warm)
    assert not cleared.actions[0].any()
    torch.testing.assert_close(cleared.actions[1], warm.actions[1])


def test_the_weights_of_a_model_get_no_gradient() -> None:
    model = fw.RSSM(specs()["vector_box"], deter=16, units=8, latents=2, classes=4)
    Gradient(horizon=3, iterations=2)(model, model.initial(2), RETURN)
    assert all(weight.grad is None for weight in model.parameters())


def test_coloured_noise_is_standard_and_lasts() -> None:
    for exponent, least, most in ((0.0, -0.05, 0.05), (1.0, 0.3, 0.7), (2.0, 0.8, 1.0)):
        noise = Coloured(exponent)((1, 4000, 12, 1), torch.device("cpu"))[0, :, :, 0]
        torch.testing.assert_close(noise.mean(0), torch.zeros(12), atol=0.08, rtol=0)
        torch.testing.assert_close(noise.std(0), torch.ones(12), atol=0.06, rtol=0)
        assert least < float((noise[:, 5] * noise[:, 6]).mean()) < most
        assert float((noise[:, 0] * noise[:, -1]).mean()) < max(least, 0.1)  # the end does not know the beginning
    assert Coloured(2.0)((2, 3, 1, 2), torch.device("cpu")).isfinite().all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomShooting(candidates=0),
        lambda: CEM(candidates=10, elites=6),
        lambda: CEM(std=-1.0),
        lambda: CEM(momentum=1.0),
        lambda: ICEM(keep=9),
        lambda: MPPI(temperature=0.0),
        lambda: MPPI(candidates=1),
        lambda: Gradient(lr=0.0),
        lambda: QuasiNewton(first=0.0),
        lambda: CategoricalCEM(unimix=0.0),
        lambda: CategoricalCEM(elites=0),
        lambda: Hybrid(first=CEM(horizon=3)),
        lambda: Coloured(-1.0),
    ],
)
def test_settings_without_meaning_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_actions_of_another_kind_are_refused_with_the_planner_to_use() -> None:
    with pytest.raises(SpecError, match="CategoricalCEM"):
        CEM()(FINITE, FINITE.initial(1), RETURN)
    with pytest.raises(SpecError, match="MPPI"):
        CategoricalCEM()(QUADRATIC, QUADRATIC.initial(1), RETURN)
    video = Linear(specs()["plain_video"])
    with pytest.raises(SpecError, match="no actions"):
        CEM()(video, video.initial(1), RETURN)


def test_a_warm_start_or_objective_of_another_shape_is_refused() -> None:
    state = QUADRATIC.initial(2)
    with pytest.raises(ConfigError, match="warm start"):
        CEM()(QUADRATIC, state, RETURN, warm=Warm(actions=torch.zeros(2, 3, 2)))
    with pytest.raises(ValueError, match="one score each"):
        CEM()(QUADRATIC, state, lambda dream: dream.reward)


def test_a_model_without_gradients_is_refused_by_those_who_need_them() -> None:
    model = Simulated(build("foreworld/Pendulum-v0"))
    for planner in (Gradient(horizon=2), QuasiNewton(horizon=2)):
        with pytest.raises(MissingCapability, match="use CEM"):
            planner(model, model.initial(1), RETURN)
