from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from foreworld.core.errors import EnvironmentFault, SpecError
from foreworld.envs import Rows, Vector

_file = importlib.util.spec_from_file_location("counting", Path(__file__).with_name("counting.py"))
assert _file is not None and _file.loader is not None
counting = importlib.util.module_from_spec(_file)
_file.loader.exec_module(counting)
Counting = counting.Counting


def vector(mode: AutoresetMode, envs: int = 3, nested: bool = True) -> Vector:
    return Vector(SyncVectorEnv([partial(Counting, i, nested) for i in range(envs)], autoreset_mode=mode, copy=False))


def act(rows: Rows, key: str) -> np.ndarray:
    """Choose by what was seen, so that a row missed or seen twice changes the episode."""
    seen = rows.obs[key]
    return (1 + (seen[:, 0] + 2 * seen[:, 1] + seen[:, 2]) % 5).astype(int)


def play(env: Vector, key: str, calls: int = 60) -> list[list[tuple[float, ...]]]:
    """Return the rows of each environment."""
    rows, found = env.reset(seed=0), [[] for _ in range(env.num_envs)]
    for _ in range(calls):
        for i in np.flatnonzero(rows.arrived):
            flags = (rows.is_first[i], rows.is_terminal[i], rows.is_last[i])
            found[i].append((*rows.obs[key][i], rows.prev_action[i], rows.reward[i], *flags))
        rows = env.step(act(rows, key))
    return found


@pytest.mark.parametrize(("nested", "key"), [(True, "inner/count"), (False, "obs")])
def test_episodes_are_the_same_under_every_autoreset_mode(nested: bool, key: str) -> None:
    played = {mode: play(vector(mode, nested=nested), key) for mode in AutoresetMode}
    rows = min(len(env) for envs in played.values() for env in envs)
    assert rows > 30
    cut = {mode: [env[:rows] for env in envs] for mode, envs in played.items()}
    assert cut[AutoresetMode.NEXT_STEP] == cut[AutoresetMode.SAME_STEP] == cut[AutoresetMode.DISABLED]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_arrive_in_order_with_the_action_that_led_to_them(mode: AutoresetMode) -> None:
    for index, rows in enumerate(play(vector(mode), "inner/count")):
        episode, at = 0, -1
        for who, count, action, prev_action, reward, first, terminal, last in rows:
            episode, at = (episode + 1, 0) if first else (episode, at + 1)
            assert (who, count, action, reward) == (index, at, prev_action, at)
            assert last == (at == episode + 1)
            assert terminal == (last and episode % 2 == 1)
            assert (prev_action == 0) == first


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_action_after_the_last_row_is_ignored(mode: AutoresetMode) -> None:
    env = vector(mode, envs=1)
    env.reset()
    env.step(np.array([1]))
    assert env.step(np.array([1])).is_last.all()
    rows = env.step(np.array([-99]))
    assert rows.is_first.all() and rows.arrived.all()
    assert rows.obs["inner/count"].tolist() == [[0, 0, 0]]
    assert (rows.prev_action.tolist(), rows.reward.tolist()) == ([0], [0])


def test_only_the_modes_that_cannot_do_otherwise_make_environments_wait() -> None:
    for mode in AutoresetMode:
        env = Vector(SyncVectorEnv([partial(Counting, 0), partial(Counting, 1)], autoreset_mode=mode))
        env.reset()
        env._env.envs[1].played = 9  # type: ignore[attr-defined]
        for _ in range(2):
            rows = env.step(np.array([1, 1]))
        assert rows.is_last.tolist() == [True, False]
        rows = env.step(np.array([1, 2]))
        assert rows.arrived.tolist() == [True, mode is AutoresetMode.NEXT_STEP]
        rows = env.step(np.array([3, 4]))
        assert rows.arrived.all()
        assert rows.prev_action.tolist() == [3, 4]


def test_spec_and_truth_are_kept_apart() -> None:
    env = vector(AutoresetMode.NEXT_STEP)
    assert list(env.spec.obs) == ["inner/count"]
    assert (env.spec.fps, env.spec.frame_skip) == (10.0, 2)
    assert env.spec.obs["inner/count"].dtype == "float32"
    rows = env.reset()
    assert list(rows.truth) == ["played"] == list(env.truth)
    assert rows.truth["played"].tolist() == [1, 1, 1]


def test_rows_own_their_memory() -> None:
    env = vector(AutoresetMode.NEXT_STEP)
    before = env.reset()
    kept = before.obs["inner/count"].copy()
    env.step(np.array([3, 3, 3]))
    assert np.array_equal(before.obs["inner/count"], kept)


def test_an_unknown_mode_is_refused() -> None:
    inner = SyncVectorEnv([Counting])
    inner.metadata["autoreset_mode"] = "sometimes"
    with pytest.raises(EnvironmentFault, match=r"'sometimes'; declare one of NEXT_STEP"):
        Vector(inner)
    del inner.metadata["autoreset_mode"]
    with pytest.raises(EnvironmentFault, match="None"):
        Vector(inner)


def test_same_step_without_final_observations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = SyncVectorEnv([Counting], autoreset_mode=AutoresetMode.SAME_STEP)
    real = inner.step
    monkeypatch.setattr(inner, "step", lambda actions: (*real(actions)[:4], {}))
    env = Vector(inner)
    env.reset()
    env.step(np.array([1]))
    with pytest.raises(EnvironmentFault, match="no 'final_obs'"):
        env.step(np.array([1]))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 1, 1]), "environment 0: 0 is not a legal action"),
        (np.array([1, 1, 6]), "environment 2: 6 is not"),
        (np.array([1.0, 1.0, 1.0]), "expected integers"),
        (np.array([1, 1]), r"shape \(2,\), expected \(3,\)"),
    ],
)
def test_illegal_actions_are_refused(actions: np.ndarray, message: str) -> None:
    env = vector(AutoresetMode.NEXT_STEP)
    env.reset()
    with pytest.raises(SpecError, match=message):
        env.step(actions)


def test_step_needs_reset() -> None:
    with pytest.raises(EnvironmentFault, match="call reset"):
        vector(AutoresetMode.NEXT_STEP).step(np.array([1, 1, 1]))


class Boxed(gym.Env[Any, Any]):
    """Record the action it gets; observe what `fault` makes of it."""

    def __init__(self, fault: Callable[[np.ndarray], Any] = lambda x: x, reward: float = 0.0) -> None:
        self.fault, self.reward = fault, reward
        self.observation_space = spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float64
        return self.fault(action.astype(np.float32)), self.reward, False, False, {}


def test_a_box_action_is_clipped_and_stored_as_it_was_taken() -> None:
    env = Vector(SyncVectorEnv([Boxed]))
    env.reset()
    rows = env.step(np.array([[0.5, 7.0]]))
    assert rows.prev_action.tolist() == rows.obs["obs"].tolist() == [[0.5, 1.0]]
    assert rows.prev_action.dtype == np.float32
    with pytest.raises(SpecError, match="not a legal action"):
        env.step(np.array([[np.nan, 0.0]]))


def test_a_broken_environment_is_named_by_index_and_key() -> None:
    env = Vector(SyncVectorEnv([Boxed, lambda: Boxed(lambda x: x * np.nan)]), "Toy")
    env.reset()
    with pytest.raises(EnvironmentFault, match="Toy, environment 1: 'obs' is NaN"):
        env.step(np.zeros((2, 2)))
    env = Vector(SyncVectorEnv([Boxed, lambda: Boxed(reward=np.inf)]), "Toy")
    env.reset()
    with pytest.raises(EnvironmentFault, match="Toy, environment 1: its reward is inf"):
        env.step(np.zeros((2, 2)))
