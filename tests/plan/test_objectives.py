"""Objectives by hand, and their refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_planners import dream

import foreworld as fw
from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.models.linear import Linear
from foreworld.plan import CEM, GoalDistance, PredictedReturn, SpreadPenalty, Sum
from foreworld.testing import specs

REWARD = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
CONT = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.0, 1.0]])


def test_return_of_several_objectives_is_their_weighted_sum() -> None:
    one = dream(reward=REWARD, cont=CONT, spread=REWARD)
    both = Sum([PredictedReturn(), SpreadPenalty()], [1.0, 0.5])
    torch.testing.assert_close(both(one), torch.tensor([3.5, 1.0]))
    torch.testing.assert_close(Sum([PredictedReturn(), SpreadPenalty()])(one), torch.zeros(2))


def test_without_a_continue_head_nothing_ends() -> None:
    torch.testing.assert_close(PredictedReturn(discount=0.5)(dream(reward=REWARD)), torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(SpreadPenalty()(dream(spread=REWARD)), torch.tensor([-7.0, -7.0]))


def test_what_a_dream_lacks_is_named_with_a_remedy() -> None:
    blank = dream(feat=torch.zeros(2, 3, 1))
    goal = torch.zeros(1, 1)
    cases: list[tuple[Any, str]] = [
        (PredictedReturn(), "reward head"),
        (SpreadPenalty(), "ensemble"),
        (GoalDistance(goal=goal), "embedding space"),
    ]
    for objective, remedy in cases:
        with pytest.raises(MissingCapability, match=remedy):
            objective(blank)


def test_a_model_without_spread_is_refused_before_any_dream() -> None:
    model = Linear(specs()["vector_box"])
    with pytest.raises(MissingCapability, match="spread"):
        CEM()(model, model.initial(2), SpreadPenalty())


def test_an_ensemble_plans_carefully() -> None:
    spec = specs()["vector_box"]
    model = fw.Ensemble(spec, member="rssm", members=2, each={"deter": 16, "units": 8, "latents": 2, "classes": 4})
    careful = Sum([PredictedReturn(), SpreadPenalty()], [1.0, 0.5])
    plan = CEM(horizon=3, candidates=8, elites=2, iterations=2)(model, model.initial(2), careful)
    assert plan.actions.shape == (2, 3, spec.action_width)
    assert plan.score.isfinite().all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: PredictedReturn(discount=1.5),
        lambda: GoalDistance(goal=torch.zeros(3)),
        lambda: GoalDistance(goal=torch.zeros(1, 3), over="first"),  # type: ignore[arg-type]
        lambda: Sum([]),
        lambda: Sum([PredictedReturn()], [1.0, 2.0]),
    ],
)
def test_what_has_no_meaning_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_goals_that_do_not_fit_are_refused() -> None:
    for goal in (torch.zeros(4, 2), torch.zeros(2, 3)):
        with pytest.raises(ConfigError, match="do not fit"):
            GoalDistance(goal=goal, space="feat")(dream(feat=torch.zeros(6, 3, 2)))
