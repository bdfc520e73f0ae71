from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from foreworld.core.errors import ConfigError, DataError, SpecError
from foreworld.envs import Local, OpenEpisode, Rows, Vector, Workers, make
from foreworld.envs.episodes import EpisodeKey, from_arrays, not_reopened, to_arrays
from foreworld.rollout.policies import RandomPolicy
from foreworld.testing.watching import Trouble, troubled

FRESH = [OpenEpisode(), OpenEpisode(), OpenEpisode()]
ENVS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "Pendulum-v1": {"max_steps": 7},
    "foreworld/Pendulum-v0": {"steps": 7},
    "foreworld/PushBalls-v0": {"steps": 7, "image_size": 16},
}
if find_spec("ale_py"):
    ENVS["ALE/Breakout-v5"] = {"max_steps": 7, "image_size": 16, "sticky": 0.25}


def same(one: Rows, other: Rows) -> bool:
    """Tell whether two rows are equal, bit by bit."""
    names = ("prev_action", "reward", "is_first", "is_terminal", "is_last", "arrived")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    pairs += [(one.obs[key], other.obs[key]) for key in one.obs]
    pairs += [(one.truth[key], other.truth[key]) for key in one.truth]
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def play(env: Vector, rows: Rows, actions: np.ndarray) -> list[Rows]:
    return [rows, *(env.step(action) for action in actions)]


def drawn(env: Vector, steps: int) -> np.ndarray:
    policy = RandomPolicy(env.action, seed=1)
    return np.stack([policy.draw(np.zeros(env.num_envs, bool)) for _ in range(steps)])


@pytest.mark.parametrize("workers", [False, True], ids=["here", "workers"])
@pytest.mark.parametrize(
    "env_id", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("ALE/")) for name in ENVS]
)
def test_interrupted_at_any_step_is_as_uninterrupted(env_id: str, workers: bool) -> None:
    steps, then = 24, 10
    env = make(env_id, num_envs=3, workers=workers, **ENVS[env_id])
    actions = drawn(env, steps + then)
    rows, stood = [env.reset(7, FRESH)], [env.episodes()]
    for action in actions:
        rows.append(env.step(action))
        stood.append(env.episodes())
    assert max(episode.number for episode in stood[-1]) >= 1, "some episode ended"
    env.close()
    env = make(env_id, num_envs=3, workers=workers, **ENVS[env_id])
    for at in range(0, steps, 7 if workers or env_id.startswith("ALE/") else 1):
        again = play(env, env.reset(7, from_arrays(to_arrays(stood[at]))), actions[at : at + then])
        assert env.reopened.all() and not not_reopened(env_id, env.reopened)
        assert all(map(same, again, rows[at : at + then + 1])), f"resumed at step {at}"
        for one, other in zip(env.episodes(), stood[at + then], strict=True):
            assert (one.number, len(one)) == (other.number, len(other))
    env.close()


def test_an_episode_depends_on_seed_environment_and_number_alone() -> None:
    env = make("CartPole-v1", num_envs=3)
    starts: dict[tuple[int, int, int], bytes] = {}
    for seed in (0, 1):
        rows, long = env.reset(seed, FRESH), 0
        while len(starts) < 12 * (seed + 1):
            for index in rows.is_first.nonzero()[0].tolist():
                starts[seed, index, env.episodes()[index].number] = rows.obs["obs"][index].tobytes()
            rows, long = env.step(np.full(3, long % 2)), long + 1
    assert len(set(starts.values())) == len(starts), "every start differs"
    for (seed, index, number), start in starts.items():
        rows = env.reset(seed, [OpenEpisode(number=number)] * 3)
        assert rows.obs["obs"][index].tobytes() == start and rows.is_first.all()
    env.close()


class Weather(gym.Env[Any, Any]):
    """Show numbers that no seed decides from step 2 on, or end too early, or remember how often they were reset."""

    trouble, played = "noise", 0

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Box(0, 255, (4,), np.float64), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.stop = 0, 9 if self.trouble == "early" else 99
        self.seen = self.np_random.integers(256, size=4).astype(float)
        self.played += 1
        if self.trouble == "count":
            self.seen = np.full(4, self.played, float)
        return self.seen, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += 1
        if self.trouble == "noise" and self.at >= 2:
            self.seen = np.frombuffer(os.urandom(4), np.uint8).astype(float)
        if self.trouble == "raise" and self.at >= 2:
            raise RuntimeError("no more")
        return self.seen, 0.0, self.at >= self.stop, False, {}


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vector]:
    monkeypatch.setattr(Weather, "trouble", "noise")
    env = Vector(Local([Weather] * 3, "Weather", fault_rate=1.0), "Weather")
    yield env
    env.close()


def test_what_is_not_deterministic_is_noticed_and_begins_its_next_episode(weather: Vector) -> None:
    rows = weather.reset(0, FRESH)
    weather.step(np.zeros(3, int))
    calm = weather.episodes()
    for _ in range(3):
        weather.step(np.ones(3, int))
    stood = [calm[0], *weather.episodes()[1:]]
    rows = weather.reset(0, stood)
    assert weather.reopened.tolist() == [True, False, False]
    assert rows.is_first.tolist() == [False, True, True] and rows.prev_action.tolist() == [0, 0, 0]
    assert [episode.number for episode in weather.episodes()] == [0, 1, 1]
    assert [len(episode) for episode in weather.episodes()] == [1, 0, 0]
    said = "Weather: the same seed and actions led elsewhere in environments 1, 2: new episodes begin there"
    assert not_reopened("Weather", weather.reopened) == said
    first = weather.reset(0, [OpenEpisode(number=1)] * 3)
    assert same_obs(first, rows, 1) and same_obs(first, rows, 2), "the next episode is the next one's own"
    assert not same_obs(weather.step(np.ones(3, int)), rows, 0)


def same_obs(one: Rows, other: Rows, index: int) -> bool:
    return one.obs["obs"][index].tobytes() == other.obs["obs"][index].tobytes()


@pytest.mark.parametrize("trouble", ["early", "raise"])
def test_an_episode_that_ends_before_its_actions_do_is_given_up(
    weather: Vector, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(Weather, "trouble", "")
    weather.reset(0, FRESH)
    for _ in range(11):
        weather.step(np.zeros(3, int))
    stood = [OpenEpisode(number=4), *weather.episodes()[1:]]
    monkeypatch.setattr(Weather, "trouble", trouble)
    rows = weather.reset(0, stood)
    assert weather.reopened.tolist() == [True, False, False] and rows.is_first.all()
    assert [episode.number for episode in weather.episodes()] == [4, 1, 1]


def test_a_start_that_differs_is_noticed_without_any_action(weather: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weather, "trouble", "count")
    weather.reset(0, FRESH)
    rows = weather.reset(0, weather.episodes())
    assert not weather.reopened.any() and rows.is_first.all()
    assert rows.obs["obs"][:, 0].tolist() == [3, 3, 3] and [e.number for e in weather.episodes()] == [1, 1, 1]


def test_an_episode_that_was_over_is_over_again() -> None:
    env = make("Pendulum-v1", max_steps=3)
    env.reset(0, FRESH[:1])
    rows = [env.step(np.full((1, 1), 0.3)) for _ in range(4)]
    env.reset(0, FRESH[:1])
    for _ in range(3):
        env.step(np.full((1, 1), 0.3))
    stood = env.episodes()
    again = env.reset(0, stood)
    assert again.is_last.all() and not again.is_terminal.any() and same(again, rows[2])
    assert same(env.step(np.ones((1, 1))), rows[3]), "the next call delivers the next episode's first row"


@pytest.mark.parametrize("trouble", [Trouble.NAN, Trouble.RAISE, Trouble.EXIT])
def test_no_episode_is_played_twice_after_a_fault(trouble: Trouble) -> None:
    fleet = Workers([troubled] * 2, "Troubled", fault_rate=1.0, timeout=30.0)
    env = Vector(fleet, "Troubled")
    rows = env.reset(3, FRESH[:2])
    seen = [set(), set()]
    told = 0
    while len(seen[0]) < 5:
        for index in range(2):
            if rows.arrived[index] and rows.is_first[index]:
                assert int(rows.truth["episode"][index]) not in seen[index]
                seen[index].add(int(rows.truth["episode"][index]))
        late = told < 3 and rows.arrived[0] and not rows.is_last[0] and rows.obs["count"][0, 0] >= 2
        told += late
        rows = env.step(np.array([trouble if late else 0, 1]))
    stood = env.episodes()
    env.close()
    assert stood[0].number == 4, "one number for each"
    here = Vector(Local([troubled] * 2, "Troubled", fault_rate=1.0), "Troubled")
    for number in range(5):
        seen[0].remove(int(here.reset(3, [OpenEpisode(number=number)] * 2).truth["episode"][0]))


def test_an_environment_that_is_being_started_again_stands_before_its_next_episode() -> None:
    fleet = Workers([troubled] * 2, "Troubled", timeout=30.0)
    env = Vector(fleet, "Troubled")
    env.reset(3, [OpenEpisode(number=5)] * 2)
    os.kill(fleet.pids[0], signal.SIGKILL)
    rows = env.step(np.zeros(2, int))
    while rows.arrived[0] and not rows.is_first[0]:
        rows = env.step(np.zeros(2, int))
    stood = env.episodes()
    assert [episode.number for episode in stood] == [6, 5] and len(stood[0]) == 0
    if not rows.arrived[0]:
        assert stood[0].obs is None
    while not (rows := env.step(np.zeros(2, int))).arrived[0]:
        pass
    first = env.reset(3, stood)
    assert env.reopened.all() and first.is_first.tolist() == [True, False]
    assert first.truth["episode"][0] == rows.truth["episode"][0]
    env.close()


def test_long_streams_are_forgotten_up_to_the_oldest_open_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreworld.envs.reopen.KEEP_BACK", 8)
    env = make("CartPole-v1", num_envs=2)
    env.reset(0, FRESH[:2])
    actions = drawn(env, 200)
    for action in actions:
        rows = env.step(action)
        kept = env.episodes()
        assert env._played is not None and len(env._played._taken) <= 2 * max(8, *map(len, kept)) + 2
    again = make("CartPole-v1", num_envs=2)
    assert same(again.reset(0, kept), rows)


def test_what_cannot_be_opened_is_said() -> None:
    env = make("CartPole-v1", num_envs=2)
    env.reset(0)
    with pytest.raises(ConfigError, match=r"CartPole-v1: reset\(seed, episodes\)"):
        env.episodes()
    with pytest.raises(ConfigError, match="need a seed"):
        env.reset(episodes=FRESH[:2])
    with pytest.raises(ConfigError, match="3 open episodes for 2 environments"):
        env.reset(0, FRESH)
    with pytest.raises(SpecError, match=r"environment 1: .* float64 actions of shape \[3\], expected int64"):
        env.reset(0, [OpenEpisode(), OpenEpisode(actions=np.zeros((1, 3)))])
    with pytest.raises(SpecError, match="environment 1: an open episode has an action that is not legal"):
        env.reset(0, [OpenEpisode(), OpenEpisode(actions=np.array([0, 1, 2]))])
    others = Vector(gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")]))
    with pytest.raises(ConfigError, match="to come from `make`"):
        others.reset(0, FRESH[:1])


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"number": np.array([-1])},
        {"number": np.array([0.5])},
        {"number": np.array([0]), "1/actions": np.zeros(2)},
        {"number": np.array([0]), "0/reward": np.zeros(2)},
    ],
)
def test_what_is_no_open_episode_is_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="open episodes"):
        from_arrays(arrays)


def test_keys_survive_the_pipe_and_seeds_differ() -> None:
    key = EpisodeKey(2**40, 3, 2**33)
    assert EpisodeKey.unpack(key.pack()) == key and key.next() == EpisodeKey(2**40, 3, 2**33 + 1)
    seeds = {EpisodeKey(s, i, n).derived() for s in range(5) for i in range(5) for n in range(40)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**31 for seed in seeds)
