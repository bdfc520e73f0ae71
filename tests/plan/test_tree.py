"""Tree search: exact where it can be, better than drawing where it cannot, and faithful to prior, ends and chance."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_planners import Recorded
from torch import Tensor

import foreworld as fw
from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.models.finite import Finite
from foreworld.models.simulated import Simulated
from foreworld.plan import CategoricalCEM, GoalDistance, PredictedReturn, TreeSearch
from foreworld.plan.tree import halving
from foreworld.testing import specs
from foreworld.worlds import build

RETURN = PredictedReturn()


class Counted:
    """A model that counts its steps, and the pairs of place and action that it was asked for."""

    def __init__(self, model: Any) -> None:
        self.model, self.spec, self.provides, self.steps, self.rows = model, model.spec, model.provides, 0, []

    def step(self, state: Any, action: Tensor) -> Any:
        self.steps += len(action)
        self.rows += [*zip(state.at.argmax(-1).tolist(), action.argmax(-1).tolist(), strict=True)]
        return self.model.step(state, action)

    def read(self, state: Any) -> Any:
        return self.model.read(state)


def living(model: Finite) -> Tensor:
    """Return the states with a future."""
    return model.futures[:-1].nonzero()[:, 0]


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([1.0, 0.7]))
def test_a_tree_that_the_budget_covers_is_solved_exactly(
    seed: int, horizon: int, share: float, discount: float
) -> None:
    model = Finite(seed=seed, states=5, terminal=1)
    at = living(model)
    planner = TreeSearch(horizon=horizon, simulations=3**horizon + horizon, cover=share)
    plan = planner(model, model.at(at), PredictedReturn(discount=discount))
    torch.testing.assert_close(plan.score, model.optimum(at, horizon, discount)[1])
    again = PredictedReturn(discount=discount)(fw.imagine(model, model.at(at), plan.actions))
    torch.testing.assert_close(plan.score, again)
    assert plan.rollouts <= planner.budget


@pytest.mark.parametrize("seed", range(5))
def test_equal_states_are_looked_at_once(seed: int) -> None:
    """3^16 plans are 43 million; but no more than 36 ways lead to the twelve states at each step."""
    model = Finite(seed=seed)
    at = living(model)
    plan = TreeSearch(horizon=16, simulations=400)(model, model.at(at), RETURN)
    torch.testing.assert_close(plan.score, model.optimum(at, 16)[1])
    assert plan.rollouts <= 110


def test_no_plan_is_followed_twice_and_none_is_left_out() -> None:
    model = Counted(Finite(seed=3, states=8, terminal=0))
    model.model.chances.copy_(torch.eye(9)[torch.arange(1, 10).clamp(max=8)][:, None].expand(9, 3, 9))
    planner = TreeSearch(horizon=3, simulations=1000, cover=0.0)
    planner(model, model.model.at(torch.tensor([0])), RETURN)
    assert model.steps == 3 + 9 + 27
    assert sorted(model.rows) == sorted(itertools.chain(*([(h, a)] * 3**h for h in range(3) for a in range(3))))


def test_the_search_beats_the_cross_entropy_method_where_not_everything_can_be_seen() -> None:
    lost = {"tree": 0.0, "cem": 0.0}
    for seed in range(30, 32):
        model = Finite(seed=seed)
        at, best = living(model), model.optimum(living(model), 8)[1]
        with fw.seeded(seed):
            found = TreeSearch(horizon=8, simulations=80, cover=0.0)(model, model.at(at), RETURN)
            drawn = CategoricalCEM(horizon=8, candidates=40, elites=5, iterations=2)(model, model.at(at), RETURN)
        assert found.rollouts <= drawn.rollouts == 80
        lost["tree"] += float((best - found.score).mean())
        lost["cem"] += float((best - drawn.score).mean())
    assert lost["tree"] < lost["cem"] / 2, lost


def test_a_value_follows_the_horizon() -> None:
    model = Finite(seed=4)
    at, values = living(model), torch.from_numpy(model.values(6)[0][6]).float()
    objective = PredictedReturn(value=lambda feat: feat @ values)
    for share in (0.0, 1.0):
        plan = TreeSearch(horizon=2, simulations=40, cover=share)(model, model.at(at), objective)
        torch.testing.assert_close(plan.score, model.optimum(at, 8)[1])


def test_a_prior_that_knows_leads_the_first_plans() -> None:
    """With logits of the best policy, the second plan (the first is the warm start) is the best one."""
    model = Finite(seed=5)
    at, policy = living(model), torch.from_numpy(model.values(50)[1][49])
    sure = TreeSearch(
        horizon=8, simulations=2, considered=1, cover=0.0, prior=lambda feat: 50 * torch.eye(3)[policy[feat.argmax(-1)]]
    )
    plan = sure(model, model.at(at), RETURN)
    followed, state = torch.zeros(len(at)), model.at(at)
    going = torch.ones(len(at))
    for _ in range(8):
        state = model.step(state, torch.eye(3)[policy[state.at.argmax(-1)]])
        followed, going = followed + going * state.reward, going * model.read(state).cont
    assert (plan.score >= followed - 1e-5).all()
    assert plan.rollouts == 2


def test_environments_are_searched_as_if_each_were_alone() -> None:
    model = Finite(seed=6)
    at, seeds = living(model)[:3], [5, 6, 7]
    for share, simulations in ((0.0, 20), (0.5, 30)):
        make = partial(TreeSearch, horizon=6, simulations=simulations, cover=share)
        warm, warms = None, [None] * 3
        for _ in range(2):
            whole = make(noise=Recorded(seeds))(model, model.at(at), RETURN, warm=warm)
            for i, seed in enumerate(seeds):
                one = make(noise=Recorded([seed]))(model, model.at(at[i : i + 1]), RETURN, warm=warms[i])
                warms[i] = one.after(1)
                torch.testing.assert_close(one.score[0], whole.score[i])
                torch.testing.assert_close(one.actions[0], whole.actions[i])
            warm = whole.after(1)


def test_a_plan_is_never_worse_than_its_warm_start_and_one_hot() -> None:
    model = Finite(seed=7)
    state = model.at(living(model))
    before = CategoricalCEM(horizon=8)(model, state, RETURN)
    plan = TreeSearch(horizon=8, simulations=2, cover=0.0)(model, state, RETURN, warm=before.after(0))
    assert (plan.score >= before.score - 1e-5).all()
    assert torch.equal(plan.actions, model.spec.action.one_hot(model.spec.action.from_one_hot(plan.actions)))


def test_a_budget_is_kept_and_counted() -> None:
    model = Counted(Finite(seed=8))
    for share, simulations in itertools.product((0.0, 0.25), (1, 5, 60)):
        model.steps = 0
        planner = TreeSearch(horizon=8, simulations=simulations, cover=share)
        plan = planner(model, model.model.at(living(model.model)[:1]), RETURN)
        assert -(-model.steps // 8) == plan.rollouts <= planner.budget == simulations
        assert plan.score.isfinite().all()


def test_the_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    model = Finite(seed=9)
    planner = TreeSearch(horizon=8, simulations=50, cover=0.0)
    plan = planner(model, model.at(living(model)), RETURN, seconds=0.5)
    assert plan.iterations == 1 and plan.rollouts == 1
    assert plan.score.isfinite().all()
    assert planner(model, model.at(living(model)), RETURN, seconds=9.5).iterations == 8


class Broken(Counted):
    """A model in which some actions earn what is no number."""

    def __init__(self, model: Any, bad: float, actions: list[int]) -> None:
        super().__init__(model)
        self.bad, self.actions = bad, actions

    def step(self, state: Any, action: Tensor) -> Any:
        after = self.model.step(state, action)
        return replace(
            after, reward=torch.where(action[:, self.actions].sum(-1) > 0, torch.tensor(self.bad), after.reward)
        )


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_broken_rewards_are_never_elected(bad: float, share: float) -> None:
    exact = Finite(seed=11)
    state, planner = exact.at(living(exact)), TreeSearch(horizon=4, simulations=100, cover=share)
    plan = planner(Broken(exact, bad, [1]), state, RETURN)
    assert plan.score.isfinite().all()
    exact.rewards[1] = -1e6  # which is never worth it
    torch.testing.assert_close(plan.score, exact.optimum(living(exact), 4)[1])
    lost = planner(Broken(exact, bad, [0, 1, 2]), state, RETURN)
    assert lost.fell_back.all()
    assert torch.equal(lost.actions, torch.eye(3)[[0]].expand(len(lost.actions), 4, 3))


def test_joint_choices_and_any_family() -> None:
    spec = specs()["vector_multi_discrete"]
    model = fw.RSSM(spec, deter=16, units=8, latents=2, classes=4)
    with fw.seeded(0), fw.deterministic():
        plan = TreeSearch(horizon=3, simulations=20)(model, model.initial(2), RETURN)
        torch.testing.assert_close(plan.score, RETURN(fw.imagine(model, model.initial(2), plan.actions)))
    assert torch.equal(plan.actions, spec.action.one_hot(spec.action.from_one_hot(plan.actions)))


def test_a_bundled_world_is_solved_by_looking_at_everything() -> None:
    """In an empty room many ways lead to the same place."""
    world = Simulated(build("foreworld/Reach-v0"), seed=1)
    assert world.spec.action.kind == "discrete"
    plan = TreeSearch(horizon=4, simulations=300, cover=1.0)(world, world.initial(2), RETURN)
    best = torch.full((2,), -torch.inf)
    for choices in itertools.product(range(5), repeat=4):
        actions = torch.eye(5)[list(choices)].expand(2, 4, 5)
        best = best.maximum(RETURN(fw.imagine(world, world.initial(2), actions)))
    torch.testing.assert_close(plan.score, best)


def test_a_model_that_draws_its_states_is_planned_for_as_it_was_drawn() -> None:
    model = Finite(seed=12, slip=0.5)
    with fw.seeded(0):
        plan = TreeSearch(horizon=4, simulations=20, cover=0.0)(model, model.at(living(model)), RETURN)
    assert plan.score.isfinite().all()


def test_half_of_the_first_actions_are_given_up_in_every_phase() -> None:
    assert list(itertools.islice(halving(48, 8), 14)) == [8, 8, 4, 4, 4, 4, *[2] * 8]
    assert list(itertools.islice(halving(10, 1), 3)) == [1, 1, 1]
    assert list(itertools.islice(halving(3, 4), 4)) == [4, 2, 2, 2]


def test_what_cannot_be_searched_is_refused() -> None:
    model = Finite(seed=1)
    goal = GoalDistance(goal=torch.zeros(1, 13), space="feat")
    with pytest.raises(ConfigError, match="PredictedReturn"):
        TreeSearch()(model, model.initial(1), goal)
    with pytest.raises(ConfigError, match="simulations"):
        TreeSearch(simulations=0)
    model.provides = frozenset({"cont"})
    with pytest.raises(MissingCapability, match="reward"):
        TreeSearch()(model, model.initial(1), RETURN)
