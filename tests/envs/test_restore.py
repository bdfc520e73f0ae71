"""Save, play on, restore, play the same again: identical observations, rewards and ends, bit by bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation

from foreworld.core import Restorable
from foreworld.core.errors import DataError, EnvironmentFault
from foreworld.envs import builder, restorable

WORLDS = [f"foreworld/{name}-v0" for name in ("Pendulum", "DoublePendulum", "Linear", "PushBalls", "Catch")]
WORLDS += [f"foreworld/{name}-v0" for name in ("PointMaze", "PushT", "Reach", "TwoRooms")]
CLASSIC = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
MUJOCO = ["HalfCheetah-v5", "Ant-v5", "Reacher-v5", "InvertedDoublePendulum-v5", "Humanoid-v5"]
ATARI = ["ALE/Pong-v5", "ALE/Breakout-v5"]
OGBENCH = ["ogbench/pointmaze-medium-v0", "ogbench/pointmaze-teleport-v0", "ogbench/antmaze-medium-v0"]
ROBOTICS = ["PointMaze_UMaze-v3", "AntMaze_UMaze-v5"]
PUSHT = ["gym_pusht/PushT-v0"]


def needs(package: str, ids: list[str]) -> list[Any]:
    """Skip ids whose package is not installed."""
    missing = importlib.util.find_spec(package) is None
    return [pytest.param(one, marks=pytest.mark.skipif(missing, reason=f"needs {package}")) for one in ids]


def played(env: gym.Env, actions: list[Any]) -> Iterator[bytes]:
    """Play, begin anew after an end, and give all that comes as bytes."""
    for action in actions:
        obs, reward, terminal, cut, _ = env.step(action)
        obs = [obs] if not terminal and not cut else [obs, env.reset()[0]]
        arrays = [array for one in obs for array in (one.values() if isinstance(one, dict) else [one])]
        yield b"".join(np.asarray(array).tobytes() for array in arrays) + repr((reward, terminal, cut)).encode()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "env_id",
    [
        *WORLDS,
        *CLASSIC,
        *needs("mujoco", MUJOCO),
        *needs("ale_py", ATARI),
        *needs("ogbench", OGBENCH),
        *needs("gymnasium_robotics", ROBOTICS),
        *needs("gym_pusht", PUSHT),
    ],
)
def test_the_same_fifty_steps_come_again(env_id: str) -> None:
    options = {"sticky": 0.25} if env_id.startswith("ALE/") else {}
    build = builder(env_id, max_steps=70, **options)
    env, other = build(), build()
    env.action_space.seed(0)
    env.reset(seed=1)
    list(played(env, [env.action_space.sample() for _ in range(37)]))
    keeper, elsewhere = restorable(env), restorable(other)
    assert isinstance(keeper, Restorable) and elsewhere is not None
    saved = keeper.save()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in saved.values())
    kept = {name: value.tobytes() for name, value in saved.items()}
    actions = [env.action_space.sample() for _ in range(50)]  # the time limit and a reset are among them
    went = list(played(env, actions))
    assert len(set(went)) > 10, "something happened"
    assert {name: value.tobytes() for name, value in saved.items()} == kept, "a saved moment stays as it is"
    keeper.restore(saved)
    assert list(played(env, actions)) == went
    list(played(env, actions[:9]))
    keeper.restore(saved)
    assert list(played(env, actions)) == went, "as often as wanted"
    elsewhere.restore(saved)
    assert list(played(other, actions)) == went, "also in another one of its kind"
    env.close()
    other.close()


def test_different_futures_from_one_moment() -> None:
    env = builder("foreworld/PushBalls-v0", image_size=32)()
    env.reset(seed=0)
    keeper = restorable(env)
    assert keeper is not None
    saved, ends = keeper.save(), []
    for push in ([6, 0], [-6, 0], [6, 0]):
        keeper.restore(saved)
        ends.append(list(played(env, [np.array(push, np.float32)] * 5))[-1])
    assert ends[0] == ends[2] != ends[1]


def test_what_is_not_known_is_not_promised() -> None:
    assert restorable(FrameStackObservation(gym.make("CartPole-v1"), 2)) is None

    class Unknown(gym.Env[Any, Any]):
        observation_space = action_space = gym.spaces.Discrete(2)

    assert restorable(Unknown()) is None

    class Own(Unknown):
        def save(self) -> dict[str, np.ndarray]:
            return {"x": np.zeros(1)}

        def restore(self, saved: Any) -> None:
            self.restored = saved

    own = Own()
    keeper = restorable(own)
    assert keeper is not None
    keeper.restore(keeper.save())
    assert set(own.restored) == {"x"}


@pytest.mark.parametrize("env_id", ["foreworld/Linear-v0", "CartPole-v1"])
def test_wrong_moments_are_refused(env_id: str) -> None:
    env = builder(env_id)()
    keeper = restorable(env)
    assert keeper is not None
    with pytest.raises(EnvironmentFault, match="call reset first"):
        keeper.save()
    env.reset(seed=0)
    saved = keeper.save()
    with pytest.raises(DataError, match="expected"):
        keeper.restore({name: value for name, value in saved.items() if name != "state"})
    with pytest.raises(DataError, match="time limits"):
        keeper.restore(saved | {"elapsed": np.zeros(5, int)})
    if env_id == "foreworld/Linear-v0":
        with pytest.raises(DataError, match="'state' has shape"):
            keeper.restore(saved | {"state": np.zeros((1, 3))})
