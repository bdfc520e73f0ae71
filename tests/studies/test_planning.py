"""Trials from the same starts, and what planning is set beside."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core import Step, state
from foreworld.core.errors import ConfigError, DataError, MissingCapability, SpecError
from foreworld.core.files import finite
from foreworld.envs import Rows, Vector, make
from foreworld.envs.fleet import Local
from foreworld.models.simulated import Simulated
from foreworld.plan import CEM, CategoricalCEM, GoalDistance, PredictedReturn, RandomShooting
from foreworld.report.png import encode
from foreworld.rollout.policies import RandomPolicy
from foreworld.studies.aiming import Control, Player, Worth, picture, refuse_other_world
from foreworld.studies.planning import shooting, study_planning
from foreworld.studies.trials import play
from foreworld.worlds import build

sys.path.append(str(Path(__file__).parents[1] / "agents"))

from mazes import CORRIDOR, ENV, Seeing, corridor

PLANNER = CEM(horizon=8, candidates=32, iterations=3)


class Noted:
    """A policy that remembers the rows that it was shown."""

    def __init__(self, env: Any, seed: int) -> None:
        self.inner, self.seen = RandomPolicy(env.action, seed), list[Rows]()

    def __call__(self, rows: Rows) -> np.ndarray:
        self.seen.append(rows)
        return self.inner(rows)


def test_every_policy_begins_alike_and_plays_its_share() -> None:
    env = make("CartPole-v1", num_envs=3)
    begins, lengths = [], []
    for seed in (0, 1):
        policy = Noted(env, seed)
        found = play(env, policy, episodes=7, seed=5)
        shown = [[rows.obs["obs"][i] for rows in policy.seen if (rows.arrived & rows.is_first)[i]] for i in range(3)]
        assert [len(one) for one in shown] == [3, 2, 2]  # episodes 0, 3, 6; 1, 4; 2, 5
        begins.append(np.concatenate(shown))
        lengths.append(found.lengths)
        assert (found.returns == found.lengths).all() and found.success is None and found.far is None
        # all rows of an episode are shown, its last one too, and no others; those of the very end are not acted on
        steps = sum(int((rows.arrived & ~rows.is_first).sum()) for rows in policy.seen)
        assert steps <= found.lengths.sum() <= steps + 3
    assert np.array_equal(*begins) and not np.array_equal(*lengths)
    env.close()


def test_an_attempt_is_over_where_the_goal_is_reached() -> None:
    env = corridor(2, stop=False, steps=30)
    world: Any = build(ENV, layout=["..."])

    def judge(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        return world.success(rows.truth["state"]), world.distance(rows.truth["state"])

    right = lambda rows: world.oracle(rows.truth["state"]).astype(np.float32)  # noqa: E731
    found = play(env, right, episodes=6, seed=2, judge=judge)
    assert found.success is not None and found.far is not None and found.success.all()
    assert (found.lengths < 30).all() and (found.far[:, 1] <= world.tolerance).all()
    assert (found.far[:, 0] >= found.far[:, 1]).all()
    stay = play(env, lambda rows: np.zeros((2, 2), np.float32), episodes=6, seed=2, judge=judge)
    assert stay.success is not None and stay.far is not None
    near = stay.far[:, 0] <= world.tolerance  # already there
    assert np.array_equal(stay.success, near) and (stay.lengths[~near] == 30).all() and (stay.lengths[near] == 0).all()
    np.testing.assert_array_equal(stay.far[:, 0], found.far[:, 0])
    env.close()


def test_planning_reaches_what_chance_does_not_and_the_result_says_how() -> None:
    env = corridor(4, steps=30)
    player = Player(Seeing(), env, "own", Worth())
    found = study_planning(player, PLANNER, Control(execute=2), episodes=6, seed=3)
    told = json.loads(json.dumps(finite(found.to_json())))
    assert (told["measure"], told["success"], told["oracle"]) == ("success", 1.0, 1.0)
    assert told["random_floor"] < 1 and told["ci_low"] < 1 == told["ci_high"]
    assert set(told["every"]) == {"planner", "random", "shooting", "oracle"}
    assert told["latency_ms_p50"] <= told["latency_ms_p95"] <= 1000 * told["planning_seconds"]
    assert told["rollouts"] == told["plans"] * PLANNER.budget
    assert [far[0] for far in told["every"]["planner"]["distance"]] == [
        far[0] for far in told["every"]["random"]["distance"]
    ]
    assert told["against"]["random"]["difference"] == pytest.approx(1 - told["random_floor"])
    assert "goals reached 1 " in found.in_words() and "the oracle 1" in found.in_words()
    env.close()


def test_the_world_itself_plans_to_states_and_for_reward() -> None:
    env = corridor(4, steps=30)
    exact = Simulated(build(ENV, **CORRIDOR))  # type: ignore[arg-type]
    to_goal = study_planning(Player(exact, env, "own", Worth()), PLANNER, Control(), episodes=4, floors=False)
    assert to_goal.to_json()["success"] == 1.0 and list(to_goal.arms) == ["planner"]
    assert to_goal.to_json()["random_floor"] is None
    for_reward = study_planning(Player(exact, env, "reward", Worth()), PLANNER, Control(), episodes=4, floors=False)
    assert for_reward.measure == "mean_return" and for_reward.to_json()["success"] is None
    with pytest.raises(ConfigError, match="at least 2 episodes"):
        study_planning(Player(exact, env, "own", Worth()), PLANNER, Control(), episodes=1)
    env.close()


SIDE = 16


class Lamp(gym.Env[np.ndarray, np.int64]):
    """One lit column of a picture, which moves left, stays, or moves right."""

    observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.taken = int(self.np_random.integers(0, 6)), 0
        return lit(self.at), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.at, self.taken = int(np.clip(self.at + int(action) - 1, 0, SIDE - 1)), self.taken + 1
        return lit(self.at), 0.0, False, self.taken == 12, {}


def lit(at: int) -> np.ndarray:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:, at] = 200
    return picture


@state
class LampState:
    at: torch.Tensor


class LampModel:
    """Knows where the lamp is, and where it goes."""

    provides = frozenset({"embed"})

    def __init__(self, spec: fw.Spec) -> None:
        self.spec = spec

    def initial(self, batch: int) -> LampState:
        return LampState(at=torch.zeros(batch))

    def observe(self, state: LampState, segment: fw.Segment) -> LampState:
        return LampState(at=segment.obs["image"][..., 0, 0, :].argmax(-1).float())

    def step(self, state: LampState, action: torch.Tensor) -> LampState:
        return LampState(at=(state.at + action.argmax(-1) - 1).clamp(0, SIDE - 1))

    def read(self, state: LampState) -> Step:
        return Step(feat=state.at[..., None], embed=state.at[..., None])

    def embed(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return obs["image"][:, 0, 0].argmax(-1, keepdim=True).float()


def test_a_picture_is_a_goal_and_how_far_it_is_at_the_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "goal.png"
    path.write_bytes(encode(np.repeat(np.repeat(lit(9), 2, 0), 2, 1)))  # of another size
    env = Vector(Local([Lamp] * 2, "lamp"), "lamp")
    model = LampModel(env.spec)
    assert np.array_equal(picture(path, env.spec)["image"], np.moveaxis(lit(9), -1, 0))
    player = Player(model, env, path, Worth())
    found = study_planning(player, CategoricalCEM(horizon=5), Control(), episodes=4)
    told = found.to_json()
    assert told["measure"] == "goal_distance" and told["success"] is None and told["oracle"] is None
    assert found.value.value == 0 < told["random_floor"]
    assert told["against"]["random"]["difference"] < 0 and "distance to the goal 0 " in found.in_words()
    with pytest.raises(ConfigError, match="no goal of its own"):
        Player(model, env, "own", Worth())
    with pytest.raises(MissingCapability, match="reward"):
        Player(model, env, "reward", Worth())
    with pytest.raises(DataError, match="no such picture"):
        picture(tmp_path / "none.png", env.spec)
    with pytest.raises(SpecError, match="a picture alone is no goal"):
        picture(path, corridor(1).spec)
    exact = Simulated(build(ENV, **CORRIDOR))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="plans to states, not to pictures"):
        Player(exact, corridor(1), path, Worth())
    env.close()


def test_random_shooting_has_the_same_budget_and_horizon() -> None:
    for planner in (PLANNER, CategoricalCEM(horizon=5, candidates=30, iterations=7)):
        floor = shooting(planner, Control())
        assert (floor.horizon, floor.budget, floor.iterations) == (planner.horizon, planner.budget, 1)
        quick = shooting(planner, Control(deadline=0.1))
        assert 0.9 * planner.budget <= quick.budget <= planner.budget
        assert quick.iterations == max(1, planner.budget // 64)


def test_the_critic_and_the_spread_count_only_where_they_are() -> None:
    env = make("CartPole-v1", num_envs=2)
    model = fw.RSSM(env.spec, deter=16, units=8, latents=2, classes=4)
    agent = fw.Dreamer(model, units=8)
    worth = Worth().of_reward(agent)
    assert worth.value == agent.value and worth.discount == agent.config.discount
    assert Worth(critic=False).of_reward(agent) == PredictedReturn(discount=0.99)
    assert Worth(discount=0.5).of_reward(None) == PredictedReturn(discount=0.5)
    with pytest.raises(ConfigError, match="the critic was trained with a discount"):
        Worth(discount=0.5).of_reward(agent)
    with pytest.raises(MissingCapability, match="'spread', which RSSM lacks"):
        Player(model, env, "reward", Worth(spread=1.0))
    pair = fw.Ensemble(env.spec, members=2, each={"deter": 16, "units": 8, "latents": 2, "classes": 4})
    played = study_planning(
        Player(pair, env, "reward", Worth(spread=0.1)),
        RandomShooting(horizon=2, candidates=4),
        Control(),
        episodes=2,
        floors=False,
    )
    assert played.to_json()["mean_return"] >= 8
    env.close()


def test_what_does_not_fit_is_refused_before_anything_is_played() -> None:
    env = make("CartPole-v1", num_envs=2)
    other = make("Pendulum-v1")
    model = fw.RSSM(other.spec, deter=16, units=8, latents=2, classes=4)
    with pytest.raises(SpecError, match="the model knows actions as vector"):
        Player(model, env, "reward", Worth())
    with pytest.raises(SpecError, match="takes no actions"):
        refuse_other_world(replace(env.spec, action=None), env)
    with pytest.raises(SpecError, match="knows 'more' as vector"):
        refuse_other_world(replace(env.spec, obs={**env.spec.obs, "more": env.spec.obs["obs"]}), env)
    fitting = fw.RSSM(env.spec, deter=16, units=8, latents=2, classes=4)
    with pytest.raises(MissingCapability, match="embed"):
        Player(fitting, env, "own", Worth())
    with pytest.raises(ConfigError, match="discount lies in"):
        Worth(discount=1.5)
    env.close()
    other.close()


def test_goals_are_those_of_the_episodes(tmp_path: Path) -> None:
    env = corridor(2, goal=[2.5, 0.5])
    env.reset(seed=0)
    assert [env.goal(i)["goal"].tolist() for i in range(2)] == [[2.5, 0.5]] * 2
    assert GoalDistance(goal=torch.from_numpy(env.goal(0)["goal"])[None]).keep == ("embed",)
    env.close()
