from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import foreworld as fw
from foreworld.core import Space
from foreworld.core.errors import ConfigError, DataError, EnvironmentFault, OutputExists, UnknownName
from foreworld.envs import Local, Rows, Vector, make
from foreworld.rollout.collect import collect
from foreworld.rollout.policies import RandomPolicy
from foreworld.testing.watching import Trouble, troubled

_file = importlib.util.spec_from_file_location("counting", Path(__file__).parent.parent / "envs" / "counting.py")
assert _file is not None and _file.loader is not None
counting = importlib.util.module_from_spec(_file)
_file.loader.exec_module(counting)
Counting = counting.Counting


def vector(mode: AutoresetMode = AutoresetMode.NEXT_STEP, envs: int = 3) -> Vector:
    return Vector(SyncVectorEnv([partial(Counting, i) for i in range(envs)], autoreset_mode=mode))


def act(rows: Rows) -> np.ndarray:
    seen = rows.obs["inner/count"]
    return (1 + (seen[:, 0] + 2 * seen[:, 1] + seen[:, 2]) % 5).astype(int)


def contents(data: fw.data.Dataset) -> list[dict[str, bytes]]:
    """Return episodes by environment and order of play."""
    episodes = [data.raw(i) for i in range(data.episodes)]
    episodes.sort(key=lambda raw: (raw["obs/inner/count"][0, 0], raw["truth/played"][0]))
    return [{name: column.tobytes() for name, column in raw.items()} for raw in episodes]


def test_stored_episodes_are_the_same_under_every_autoreset_mode(tmp_path: Path) -> None:
    found = [collect(vector(mode), act, episodes=11, out=tmp_path / mode.name) for mode in AutoresetMode]
    assert contents(found[0]) == contents(found[1]) == contents(found[2])
    data = found[0]
    for i in range(data.episodes):
        raw, segment = data.raw(i), data.episode(i)
        played = raw["truth/played"][0]
        assert raw["obs/inner/count"][:, 1].tolist() == list(range(played + 2))
        assert raw["obs/inner/count"][:, 2].tolist() == raw["prev_action"].tolist()
        assert raw["reward"].tolist() == list(range(played + 2))
        assert segment.is_terminal.any().item() == (played % 2 == 1)


def test_episodes_are_shared_out_so_that_short_ones_are_not_favoured(tmp_path: Path) -> None:
    data = collect(vector(), act, episodes=11, out=tmp_path / "d")
    firsts = [data.raw(i)["obs/inner/count"][0, 0] for i in range(data.episodes)]
    assert [firsts.count(i) for i in range(3)] == [4, 4, 3]
    fewer = collect("CartPole-v1", episodes=2, num_envs=8, out=tmp_path / "e")
    assert fewer.episodes == 2 and fewer.source.options["num_envs"] == 2


@pytest.mark.parametrize("steps", [1, 7, 50, 51])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_budget_of_steps_is_exact_and_ends_open_episodes_as_truncated(
    tmp_path: Path, steps: int, mode: AutoresetMode
) -> None:
    data = collect(vector(mode), act, steps=steps, out=tmp_path / "d")
    assert data.steps == steps
    for i in range(data.episodes):
        raw = data.raw(i)
        whole = len(raw["reward"]) == raw["truth/played"][0] + 2
        assert raw["is_last"][-1] and raw["is_terminal"][-1] == (whole and raw["truth/played"][0] % 2 == 1)


def files(path: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and f.name != "verified.json"
    }


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, env_id: str) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        collect(env_id, steps=300, seed=seed, num_envs=2, max_steps=60, repeat=3, out=tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_the_source_says_how_to_do_it_again(tmp_path: Path) -> None:
    data = collect("Pendulum-v1", steps=50, seed=4, max_steps=20, repeat=2.5, out=tmp_path / "d")
    source = data.source
    assert (source.env, source.policy, source.seed) == ("Pendulum-v1", "random", 4)
    assert source.options == {"image_size": 64, "keys": None, "max_steps": 20, "num_envs": 1, "repeat": 2.5}
    assert data.lengths.tolist() == [21, 21, 11]
    assert data.episode(0).prev_action.abs().max() <= 1


def test_a_collected_model_ready_action_replays_the_episode(tmp_path: Path) -> None:
    """What is stored as the action that led to a row leads there again: no shift, no lost precision."""
    data = collect("Pendulum-v1", episodes=1, seed=3, max_steps=30, out=tmp_path / "d")
    segment = data.episode(0)
    env = gym.make("Pendulum-v1")
    seen, _ = env.reset(seed=3)
    assert np.array_equal(seen, segment.obs["obs"][0, 0].numpy())
    for t in range(1, segment.length):
        seen, reward, *_ = env.step(data.spec.action.from_model(segment.prev_action[0, t]).numpy())
        assert np.allclose(seen, segment.obs["obs"][0, t].numpy(), atol=1e-4)
        assert float(reward) == pytest.approx(segment.reward[0, t].item(), abs=1e-3)


class Buttons(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """Dict observation, several actions at once."""

    def __init__(self, kind: str) -> None:
        self.action_space = {
            "many": spaces.MultiDiscrete([2, 3], start=[0, 1]),
            "binary": spaces.MultiBinary(3),
            "free": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        }[kind]
        self.observation_space = spaces.Dict({"a": spaces.Discrete(4), "b": spaces.MultiBinary(2)})

    def reset(
        self, *, seed: int | None = None, options: object = None
    ) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        super().reset(seed=seed)
        return {"a": np.array(0), "b": np.zeros(2, np.int8)}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, object]]:
        assert action in self.action_space
        return {"a": np.array(int(action[0]) % 4), "b": np.ones(2, np.int8)}, 1.0, False, False, {}


@pytest.mark.parametrize(("kind", "width"), [("many", 5), ("binary", 6), ("free", 2)])
def test_dict_observations_and_compound_actions(tmp_path: Path, kind: str, width: int) -> None:
    env = Vector(SyncVectorEnv([partial(Buttons, kind)] * 2))
    segment = collect(env, steps=40, out=tmp_path / "d").sample(3, 8)
    assert segment.prev_action.shape == (3, 8, width)
    assert (segment.obs["a"].shape, segment.obs["b"].shape) == ((3, 8), (3, 8, 2))


def test_atari_is_collected_with_its_memory(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    data = collect("ALE/Freeway-v5", steps=24, max_steps=10, num_envs=2, repeat=4, out=tmp_path / "d")
    assert data.steps == 24 and data.lengths.max() == 11
    assert data.episode(0).obs["image"].shape == (1, 11, 3, 64, 64)
    assert data.truth([0], [0], 11)["ram"].shape == (1, 11, 128)
    assert data.spec.fps == 15


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for budget, total in (("steps", 20), ("episodes", 5)):
        seen.clear()
        collect(vector(), act, out=tmp_path / budget, progress=lambda *at: seen.append(at), **{budget: total})
        assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_outputs_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    collect("CartPole-v1", episodes=2, out=tmp_path / "d")
    with pytest.raises(OutputExists, match="--overwrite"):
        collect("CartPole-v1", episodes=1, out=tmp_path / "d")
    assert fw.load(tmp_path / "d").episodes == 2
    with pytest.raises(UnknownName):
        collect("CartPoll-v1", episodes=1, out=tmp_path / "d", overwrite=True)
    assert fw.load(tmp_path / "d").episodes == 2, "nothing is cleared before the environment opens"
    assert collect("CartPole-v1", episodes=1, out=tmp_path / "d", overwrite=True).episodes == 1


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    for budget in ({}, {"episodes": 1, "steps": 1}, {"episodes": 0}, {"steps": -1}):
        with pytest.raises(ConfigError):
            collect("CartPole-v1", out=tmp_path / "d", **budget)
    with pytest.raises(ConfigError, match="repeat"):
        collect("CartPole-v1", steps=1, repeat=0.5, out=tmp_path / "d")
    with pytest.raises(ConfigError, match="max_steps"):
        collect(vector(), steps=1, max_steps=5, out=tmp_path / "d")
    with pytest.raises(UnknownName, match="unknown policy 'expert'"):
        collect("CartPole-v1", "expert", steps=1, out=tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_failing_policy_leaves_the_finished_episodes(tmp_path: Path) -> None:
    def fail_later(rows: Rows) -> np.ndarray:
        if rows.truth["played"][0] == 4:
            raise RuntimeError("no idea")
        return act(rows)

    with pytest.raises(RuntimeError, match="no idea"):
        collect(vector(envs=1), fail_later, episodes=9, out=tmp_path / "d")
    assert fw.load(tmp_path / "d").lengths.tolist() == [3, 4, 5]


def test_only_valid_rows_are_stored(tmp_path: Path) -> None:
    env = vector(envs=1)
    inner = env._env.envs[0]  # type: ignore[attr-defined]
    real = inner.observe
    inner.observe = lambda action: (
        real(action) if inner.played < 3 else {**real(action), "inner": {"count": [np.nan] * 3}}
    )
    with pytest.raises(EnvironmentFault, match="'inner/count' is NaN"):
        collect(env, act, episodes=9, out=tmp_path / "d")
    assert fw.load(tmp_path / "d").lengths.tolist() == [3, 4]


def rows_of(first: list[bool]) -> Rows:
    n = len(first)
    none = np.zeros(n, bool)
    return Rows(
        obs={},
        truth={},
        prev_action=np.zeros(n, np.int64),
        reward=np.zeros(n, np.float32),
        is_first=np.array(first),
        is_terminal=none,
        is_last=none,
        arrived=~none,
    )


def test_random_actions_are_uniform_and_held_for_the_mean_asked() -> None:
    space = Space(kind="discrete", shape=(), dtype="int64", classes=(5,), start=(2,))
    policy = RandomPolicy(space, seed=0, repeat=4)
    drawn = np.stack([policy(rows_of([t == 0] * 50)) for t in range(2000)])
    counts = np.bincount(drawn.ravel(), minlength=7)
    assert counts[:2].sum() == 0 and np.allclose(counts[2:] / drawn.size, 0.2, atol=0.01)
    changes = (drawn[1:] != drawn[:-1]).mean()
    assert changes == pytest.approx(0.25 * 0.8, abs=0.01), "a fresh draw repeats the old action one time in five"


def test_a_new_episode_gets_a_fresh_action() -> None:
    space = Space(kind="vector", shape=(2, 1), dtype="float32", low=(0, 10), high=(1, 20))
    policy = RandomPolicy(space, seed=0, repeat=1e9)
    first = policy(rows_of([True, True]))
    assert first.shape == (2, 2, 1) and first.dtype == np.float32
    assert (first[:, 0] <= 1).all() and (first[:, 1] >= 10).all()
    later = policy(rows_of([False, True]))
    assert np.array_equal(first[0], later[0]) and not np.array_equal(first[1], later[1])


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize(
    "space",
    [
        Space(kind="discrete", shape=(), dtype="int64", classes=(5,), start=(2,)),
        Space(kind="discrete", shape=(2,), dtype="int64", classes=(5, 3), start=(2, -1)),
        Space(kind="vector", shape=(), dtype="float32", low=(-2.5,), high=(0.1,)),
        Space(kind="vector", shape=(2,), dtype="float32", low=(-1, 10), high=(1, 20)),
        Space(kind="vector", shape=(2,), dtype="float32"),
    ],
)
def test_a_seed_means_the_same_actions_for_ever(space: Space, repeat: int) -> None:
    """What a seed once gave is what NumPy's own generator gives: the numbers of one call, then who takes a new one."""
    policy, rng = RandomPolicy(space, seed=7, repeat=repeat), np.random.Philox(np.random.SeedSequence([7, 1]))
    plain, low, held = np.random.Generator(rng), np.asarray(space.start), None
    for first in ([True] * 3, [False] * 3, [False, True, False], [False] * 3):
        if space.kind == "discrete":
            drawn = plain.integers(low, low + np.asarray(space.classes), size=(3, len(space.classes)))
        elif space.bounded:
            drawn = plain.uniform(space.low, space.high, size=(3, space.width))
        else:
            drawn = plain.standard_normal((3, space.width))
        drawn = drawn.astype(space.dtype).reshape(3, *space.shape)
        change = (plain.random(3) < 1 / repeat) | np.array(first)
        held = np.stack(
            [
                new if changed or held is None else held[i]
                for i, (new, changed) in enumerate(zip(drawn, change, strict=True))
            ]
        )
        actions = policy(rows_of(first))
        assert np.array_equal(actions, held) and actions.dtype == space.dtype


def test_a_policy_object_is_named_in_the_source(tmp_path: Path) -> None:
    env = make("CartPole-v1")

    class Still:
        def __call__(self, rows: Rows) -> np.ndarray:
            return np.zeros(len(rows.is_first), int)

    assert collect(env, Still(), episodes=1, out=tmp_path / "a").source.policy == "Still"
    env.reset(seed=1)  # still open
    env.close()


def test_finished_episodes_are_sealed_by_a_rule_that_counts_rows(tmp_path: Path) -> None:
    sealed: list[int] = []

    def watch(done: int, total: int) -> None:
        shards = sorted((tmp_path / "d" / "shards").glob("[0-9]*"))
        lengths = [n for shard in shards for n in json.loads((shard / "episodes.json").read_text())["lengths"]]
        sealed.append(sum(lengths))
        at_risk = done - sum(n - 1 for n in lengths)
        assert at_risk < max(64, sealed[-1] // 4) + 4 * 60, "more than the rule and four open episodes allow"

    data = collect("Pendulum-v1", steps=3000, num_envs=4, max_steps=59, progress=watch, out=tmp_path / "d")
    assert len(set(sealed)) >= 8
    sizes = [int(shard.lengths.sum()) for shard in data.shards]
    assert sizes[0] >= 64 and max(sizes) > 400, "small while there is little, larger later"


def test_a_stop_keeps_what_was_done_and_cuts_open_episodes_off(tmp_path: Path) -> None:
    asked = iter([False] * 40 + [True])
    data = collect(vector(), act, episodes=1000, out=tmp_path / "d", stop=lambda: next(asked))
    whole = [len(data.raw(i)["reward"]) == data.raw(i)["truth/played"][0] + 2 for i in range(data.episodes)]
    assert whole.count(False) == 3 and whole.count(True) > 10
    assert data.rows == 3 * 41, "every row that arrived until then"
    with pytest.raises(DataError, match="no finished episode"):
        collect(vector(), act, episodes=9, out=tmp_path / "e", stop=lambda: True)


def troubles(rows: Rows) -> np.ndarray:
    """Break the contract at the third step of every fourth episode of the second environment."""
    actions = np.ones(len(rows.is_first), int)
    third = (rows.obs["count"][1, 0] == 2) & (rows.truth["episode"][1] % 4 == 0)
    actions[1] = Trouble.OUTSIDE if third else 1
    return actions


@pytest.mark.parametrize("budget", [{"episodes": 31}, {"steps": 500}])
def test_a_fault_ends_its_episode_at_the_last_good_row(tmp_path: Path, budget: dict[str, int]) -> None:
    for name in "ab":
        env = Vector(Local([troubled] * 3, "Troubled", fault_rate=0.1), "Troubled")
        data = collect(env, troubles, out=tmp_path / name, seed=2, **budget)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert budget in ({"episodes": data.episodes}, {"steps": data.steps})
    cut = [raw for raw in map(data.raw, range(data.episodes)) if len(raw["reward"]) - 1 < raw["obs/count"][0, 2]]
    short = [raw for raw in cut if len(raw["reward"]) == 3 and raw["truth/episode"][0] % 4 == 0]
    assert len(short) >= 2 and len(cut) <= len(short) + 3
    for raw in short:
        assert raw["is_last"].tolist() == [False, False, True] and not raw["is_terminal"].any()
        assert raw["obs/count"][:, 0].tolist() == [0, 1, 2]
    counted = data.source.options["faults"]
    assert counted["refused"] >= len(short) - 3, "besides those that the budget cut off at the same place"
    assert counted["died"] == counted["hung"] == counted["failed"] == 0


def test_too_many_faults_end_the_run_and_keep_its_finished_episodes(tmp_path: Path) -> None:
    env = Vector(Local([troubled] * 3, "Troubled", fault_rate=0.001), "Troubled")
    with pytest.raises(EnvironmentFault, match=r"first fault: Troubled, environment 1: 'count' is 100.0, outside"):
        collect(env, troubles, steps=10_000, out=tmp_path / "d")
    data = fw.load(tmp_path / "d")
    assert data.episodes > 2 and data.source.options["faults"]["refused"] >= 1


def test_workers_store_the_same_bytes(tmp_path: Path) -> None:
    for name, workers in (("a", False), ("b", True)):
        collect("Pendulum-v1", steps=90, num_envs=2, max_steps=20, workers=workers, out=tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("asked", [True, False])
def test_workers_that_a_signal_took_along_are_no_fault(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, steps = make("CartPole-v1"), 0
    step = env.step

    def dying(actions: np.ndarray) -> Rows:
        nonlocal steps
        steps += 1
        if steps > 20:
            raise EnvironmentFault("gone")
        return step(actions)

    monkeypatch.setattr(env, "step", dying)
    if asked:
        data = collect(env, out=tmp_path / "d", steps=100, stop=lambda: steps > 20)
        assert data.steps + data.episodes - 1 == 20  # the row after an end took no action
    else:
        with pytest.raises(EnvironmentFault, match="gone"):
            collect(env, out=tmp_path / "d", steps=100, stop=lambda: False)
    env.close()
