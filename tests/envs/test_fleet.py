from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.envs import Local, Rows, Vector, Workers, make
from foreworld.envs.driver import Faults
from foreworld.testing.watching import BAD_TRANSITIONS, Trouble, troubled

FLEETS = {"local": Local, "workers": partial(Workers, timeout=30.0)}


@pytest.fixture(params=list(FLEETS))
def env(request: pytest.FixtureRequest) -> Iterator[Vector]:
    """Three environments that misbehave on request."""
    vector = Vector(FLEETS[request.param]([troubled] * 3, "Troubled", fault_rate=1.0), "Troubled")
    yield vector
    vector.close()


def numbers(rows: Rows) -> list[int]:
    """Say which episode each environment plays."""
    return rows.truth["episode"].tolist()


def test_a_bad_transition_costs_its_own_episode_the_rest_and_nothing_else(env: Vector) -> None:
    rows = env.reset(seed=0)
    for made, trouble in enumerate(BAD_TRANSITIONS, 1):
        before = env.step(np.array([1, 2, 3]))
        rows = env.step(np.array([1, trouble, 3]))
        assert rows.arrived.all()
        assert rows.is_first.tolist() == [False, True, False] and not rows.is_last.any()
        assert (rows.prev_action[1], rows.reward[1]) == (0, 0)
        assert rows.obs["count"][:, 0].tolist() == [2 * made, 0, 2 * made]
        assert [old == new for old, new in zip(numbers(before), numbers(rows), strict=True)] == [True, False, True]
        if made == 2:
            break  # the shortest episode has five steps
    assert env.tally.steps == 4 * 3 and env.tally.refused == 2


@pytest.mark.parametrize("trouble", BAD_TRANSITIONS)
def test_every_kind_of_fault_is_counted_and_quoted(trouble: Trouble) -> None:
    env = Vector(Local([troubled] * 3, "Troubled", fault_rate=1.0), "Troubled")
    env.reset(seed=0)
    env.step(np.array([0, 0, trouble]))
    raised = trouble is Trouble.RAISE
    assert env.tally.faults == {"refused": not raised, "failed": raised, "died": 0, "hung": 0}
    said = {
        Trouble.NAN: "'count' is NaN or infinite",
        Trouble.SHAPE: "'count' is float32 (2,), declared as float32 (3,)",
        Trouble.DTYPE: "'truth/episode' is float64 (), declared as int64 ()",
        Trouble.OUTSIDE: "'count' is 100.0, outside its declared bounds, -0.0001 to 99.0099",
        Trouble.REWARD: "its reward is nan",
        Trouble.KEY: "observed ['count'], declared ['count', 'truth/episode']",
        Trouble.RAISE: "RuntimeError: told to",
    }
    assert env.tally.first == f"Troubled, environment 2: {said[trouble]}"


def test_both_fleets_give_the_same_rows_through_every_fault() -> None:
    found = []
    for fleet in FLEETS.values():
        env = Vector(fleet([troubled] * 3, "Troubled", fault_rate=1.0))
        random = np.random.default_rng(0)
        rows = [env.reset(seed=3)]
        for step in range(150):
            actions = random.integers(0, 5, 3)
            if step % 4 == 0:
                actions[step % 3] = BAD_TRANSITIONS[step % len(BAD_TRANSITIONS)]
            rows.append(env.step(np.where(rows[-1].is_last, 0, actions)))
        found.append([(numbers(r), r.obs["count"].tolist(), r.is_first.tolist(), r.is_last.tolist()) for r in rows])
        found[-1].append(env.tally)
        env.close()
    assert found[0] == found[1]
    assert found[0][-1].failed > 0 and found[0][-1].refused > 10
    assert len({episode for row in found[0][:-1] for episode in row[0]}) > 25, "a rebuilt one plays other episodes"


def test_ten_faults_in_a_row_stop_the_run(env: Vector) -> None:
    env.reset(seed=0)
    for _ in range(9):
        env.step(np.array([0, Trouble.NAN, 0]))
    env.step(np.array([0, 0, 0]))
    said = "environment 1: 10 faults in a row; first fault: Troubled, environment 1: 'count' is NaN or infinite; mend"
    with pytest.raises(EnvironmentFault, match=said):
        for _ in range(12):
            env.step(np.array([0, Trouble.NAN, 0]))
    assert env.tally.refused == 19


def play(env: Vector, bad: int, steps: int) -> None:
    """Make the first step of the first environment bad, so often."""
    rows = env.reset(seed=0)
    while env.tally.steps < steps:
        trouble = not rows.is_last[0] and not rows.is_first[0] and env.tally.refused < bad
        rows = env.step(np.array([Trouble.NAN if trouble else 0]))


def test_a_rate_above_the_limit_stops_the_run_once_enough_steps_were_taken() -> None:
    env = Vector(Local([troubled], "Troubled"))
    play(env, bad=1, steps=300)  # one of a hundred is not above one percent
    assert env.tally.refused == 1
    env = Vector(Local([troubled], "Troubled"))
    with pytest.raises(
        EnvironmentFault, match=r"Troubled: 2 of 100 steps were bad, more than 0.01 of all; first fault"
    ):
        play(env, bad=2, steps=300)
    env = Vector(Local([troubled], "Troubled", fault_rate=0.5))
    play(env, bad=20, steps=300)
    assert env.tally.refused == 20


class Stubborn(gym.Env[Any, Any]):
    """Fail in `reset`, so many times."""

    fail = 0
    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if Stubborn.fail:
            Stubborn.fail -= 1
            raise OSError("no simulator")
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1), 0.0, True, False, {}


def test_a_failing_reset_is_tried_again_with_a_new_environment() -> None:
    fleet = Local([Stubborn], "Stubborn", fault_rate=1.0)
    env, first = Vector(fleet), fleet.drivers[0].env
    Stubborn.fail = 3
    assert env.reset(seed=0).arrived.all() and fleet.drivers[0].env is not first
    assert env.tally.failed == 3
    env.step(np.array([0]))
    Stubborn.fail = 99
    with pytest.raises(EnvironmentFault, match=r"10 faults in a row; first fault: .*OSError: no simulator"):
        env.step(np.array([0]))
    Stubborn.fail = 0


def test_faults_survive_the_pipe() -> None:
    faults = Faults(refused=2, failed=10, in_a_row=9, text="größer als 9")
    assert Faults.unpack(faults.pack()) == faults


@pytest.mark.parametrize("options", [{"fault_rate": -0.1}, {"fault_rate": 2}, {"timeout": 0, "workers": True}])
def test_limits_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="found"):
        make("CartPole-v1", **options)
