"""Acting by planning: whose turn it is, what is counted, and that it gets somewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mazes import Seeing, corridor

import foreworld as fw
from foreworld.agents import MPC, GoalMPC
from foreworld.core.errors import ConfigError, MissingCapability, SpecError
from foreworld.envs import Rows, make
from foreworld.plan import CEM, CategoricalCEM, GoalDistance, PredictedReturn, RandomShooting

SMALL = CategoricalCEM(horizon=4, candidates=8, iterations=2, elites=2)


def cartpole(num_envs: int = 3) -> tuple[Any, fw.RSSM]:
    env = make("CartPole-v1", num_envs=num_envs)
    torch.manual_seed(0)
    return env, fw.RSSM(env.spec, deter=16, units=8, latents=2, classes=4).eval()


def test_actions_are_legal_and_everything_is_counted() -> None:
    env, model = cartpole()
    policy = MPC(model, SMALL, PredictedReturn(), 3, execute=2)
    rows, firsts, lasts, steps = env.reset(seed=0), 0, 0, 60
    for _ in range(steps):
        firsts, lasts = firsts + rows.is_first.sum(), lasts + rows.is_last.sum()
        action = policy(rows)
        assert action.dtype == rows.prev_action.dtype and set(action.tolist()) <= {0, 1}
        rows = env.step(action)
    log = policy.log
    assert lasts > 3  # episodes ended, at different times
    # an episode of T actions has ceil(T / 2) plans, and the action after its end is not planned
    assert (3 * steps - lasts) / 2 <= log.planned <= (3 * steps - lasts + firsts) / 2
    assert log.rollouts == SMALL.budget * log.planned
    assert len(log.seconds) <= steps and min(log.seconds) > 0
    assert log.fell_back == log.missed == 0
    env.close()


def test_the_first_action_is_that_of_the_planner() -> None:
    env, model = cartpole()
    rows = env.reset(seed=0)
    with fw.seeded(1):
        action = MPC(model, SMALL, PredictedReturn(), 3)(rows)
    segment = fw.Segment(
        obs={"obs": torch.from_numpy(rows.obs["obs"])[:, None]},
        prev_action=torch.zeros(3, 1, 2),
        reward=torch.zeros(3, 1),
        is_first=torch.ones(3, 1, dtype=torch.bool),
        is_terminal=torch.zeros(3, 1, dtype=torch.bool),
        is_last=torch.zeros(3, 1, dtype=torch.bool),
    )
    with fw.seeded(1), fw.deterministic(), torch.no_grad():
        state = fw.tree.index(model.observe(model.initial(3), segment), (slice(None), 0))
        plan = SMALL(model, state, PredictedReturn())
    assert action.tolist() == plan.actions[:, 0].argmax(-1).tolist()


def test_plans_that_fall_back_are_counted_and_late_ones_too() -> None:
    env, model = cartpole()
    rows = env.reset(seed=0)
    lost = MPC(model, SMALL, lambda dream: dream.reward.sum(1) * torch.nan, 3)
    lost(rows)
    assert lost.log.fell_back == lost.log.planned == 3

    def slow(dream: Any) -> torch.Tensor:
        time.sleep(0.02)
        return dream.reward.sum(1)

    late = MPC(model, replace(SMALL, iterations=50), slow, 3, deadline=0.01)
    late(rows)
    assert (late.log.missed, len(late.log.seconds)) == (1, 1)
    assert late.log.rollouts == 3 * 8  # one round, and no more
    easy = MPC(model, SMALL, PredictedReturn(), 3, deadline=60.0)
    easy(rows)
    assert easy.log.missed == 0 and easy.log.rollouts == 3 * SMALL.budget
    env.close()


def test_chance_is_only_taken_where_asked_for() -> None:
    env, model = cartpole()
    seen: list[bool] = []

    def judge(dream: Any) -> torch.Tensor:
        seen.append(fw.core.is_deterministic())
        return dream.reward.sum(1)

    rows = env.reset(seed=0)
    MPC(model, RandomShooting(horizon=2, candidates=4), judge, 3)(rows)
    MPC(model, RandomShooting(horizon=2, candidates=4), judge, 3, chance=True)(rows)
    with fw.deterministic():
        MPC(model, RandomShooting(horizon=2, candidates=4), judge, 3, chance=True)(rows)
    assert seen == [True, False, True]
    env.close()


def test_what_cannot_be_is_refused() -> None:
    env, model = cartpole()
    with pytest.raises(ConfigError, match="5 actions shall be carried out of plans of 4"):
        MPC(model, SMALL, PredictedReturn(), 3, execute=5)
    with pytest.raises(ConfigError, match="deadline"):
        MPC(model, SMALL, PredictedReturn(), 3, deadline=0.0)
    with pytest.raises(MissingCapability, match="'embed', which RSSM lacks"):
        GoalMPC(model, SMALL, env.goal, 3)
    with pytest.raises(SpecError, match="discrete"):
        MPC(model, CEM(), PredictedReturn(), 3)(env.reset(seed=0))
    env.close()


def test_goals_are_reached_by_the_environment_that_they_are_of() -> None:
    env, model = corridor(6, steps=40), Seeing()
    looked: list[int] = []

    def see(index: int) -> Any:
        looked.append(index)
        return env.goal(index)

    policy = GoalMPC(model, CEM(horizon=8, candidates=32, iterations=3), see, 6, execute=2)
    rows, reached = env.reset(seed=1), np.zeros(6, bool)
    with fw.seeded(0):
        for _ in range(40):
            reached |= rows.is_terminal
            rows = env.step(policy(rows))
            goals = np.stack([env.goal(i)["obs"][:2] for i in range(6)])
            on = ~rows.is_first
            assert np.array_equal(policy.goals.numpy()[on], goals[on])
    assert reached.all()
    assert looked[:6] == list(range(6)) and len(looked) > 6  # once for each episode
    env.close()


def test_a_goal_may_be_looked_for_among_features_and_beside_something_else() -> None:
    env, model = corridor(2, steps=40), Seeing()
    rows = env.reset(seed=1)
    policy = GoalMPC(
        model,
        RandomShooting(horizon=3, candidates=16),
        env.goal,
        2,
        over="last",
        beside=lambda dream: 0.5 * dream.reward.sum(1),
        locate=lambda seen: seen["truth/state"],
    )
    action = policy(rows)
    assert action.shape == (2, 2)
    dream = fw.imagine(model, policy.state, torch.zeros(2, 3, 2))
    goals = torch.stack([torch.from_numpy(env.goal(i)["truth/state"]) for i in range(2)]).float()
    near = GoalDistance(goal=goals, space="feat", over="last")(dream)
    assert dream.reward is not None
    torch.testing.assert_close(policy.nearness(dream), near + 0.5 * dream.reward.sum(1))
    env.close()


def test_rows_that_did_not_arrive_change_nothing() -> None:
    env, model = cartpole()
    policy = MPC(model, SMALL, PredictedReturn(), 3)
    rows = env.reset(seed=0)
    policy(rows)
    before = fw.tree.map(torch.clone, policy.state)
    gone: Rows = replace(env.step(np.zeros(3, np.int64)), arrived=np.array([True, False, True]))
    policy(gone)
    assert policy.log.planned == 5
    assert torch.equal(policy.state.deter[1], before.deter[1]) and not torch.equal(policy.state.deter, before.deter)
    env.close()
