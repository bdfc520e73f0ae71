from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

import foreworld as fw
from foreworld.core import Segment, Space, Spec, Step, state, tree
from foreworld.core.errors import ConfigError, DataError, EnvironmentFault, MissingCapability
from foreworld.data import Dataset
from foreworld.data.episode import Episode
from foreworld.data.store import Writer
from foreworld.envs import Vector
from foreworld.rollout import DreamEnv, DreamVectorEnv, recorded_starts
from foreworld.rollout.policies import RandomPolicy
from foreworld.testing import specs

UNIT = Space(kind="vector", shape=(2,), dtype="float32", low=(-1.0, 0.0), high=(1.0, 1.0))
SPECS = {name: spec for name, spec in specs().items() if spec.action is not None} | {
    "vector_unit_box": Spec(obs=specs()["vector_box"].obs, action=UNIT),
    "image_unit_box": Spec(
        obs={"image": Space(kind="image", shape=(3, 16, 16), dtype="uint8", layout="hwc")}, action=UNIT, fps=10.0
    ),
    "bounded_and_grey": Spec(
        obs={
            "grey": Space(kind="image", shape=(1, 16, 16), dtype="uint8", layout="hw"),
            "level": Space(kind="vector", shape=(2, 1), dtype="int32", low=(0.0, -3.0), high=(1.0, 3.0)),
            "switch": Space(kind="discrete", shape=(2,), dtype="int8", classes=(2, 2), start=(0, 0)),
        },
        action=specs()["vector_discrete"].action,
    ),
}


def small(spec: Spec) -> fw.RSSM:
    model = fw.RSSM(spec, deter=32, units=16, classes=4, depth=2)
    for parameter in model.parameters():
        if not parameter.any():  # heads begin at zero, and would say nothing
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def anywhere(model: fw.RSSM) -> Callable[[np.random.Generator, int], Any]:
    """Draw states from noise."""
    return lambda rng, count: tree.map(torch.randn_like, model.initial(count))


@state
class Sum:
    """All that was ever done."""

    total: Tensor


class Adding(torch.nn.Module):
    """A world whose reward is the sum of all actions so far, and which goes on with a fixed probability."""

    provides = frozenset({"decode", "reward", "cont"})

    def __init__(self, cont: float = 1.0) -> None:
        super().__init__()
        number = Space(kind="vector", shape=(1,), dtype="float32")
        act = Space(kind="vector", shape=(1,), dtype="float32", low=(0.0,), high=(4.0,))
        self.spec, self.cont = Spec(obs={"sum": number}, action=act), cont

    def initial(self, batch: int) -> Sum:
        return Sum(total=torch.zeros(batch))

    def step(self, state: Sum, action: Tensor | None) -> Sum:
        assert action is not None
        return Sum(total=state.total + action[:, 0])

    def read(self, state: Sum) -> Step:
        return Step(feat=state.total[..., None], reward=state.total, cont=torch.full_like(state.total, self.cont))

    def decode(self, state: Sum) -> dict[str, Tensor]:
        return {"sum": state.total[..., None]}

    def observe(self, state: Sum, segment: Segment) -> Sum:
        return Sum(total=state.total[:, None] + segment.obs["sum"][..., 0])


def zero(rng: np.random.Generator, count: int) -> Sum:
    return Sum(total=torch.zeros(count))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("show", ["obs", "feat"])
def test_gymnasium_finds_nothing_to_complain_about(name: str, show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors here; a box that is not [-1, 1] or [0, 1] is the environment's own."""
    model = small(SPECS[name])
    pictured = bool(model.spec.images)

    def build(render_mode: str | None = None) -> DreamEnv[Any]:
        return DreamEnv(model, anywhere(model), 5, show=show, render_mode=render_mode)

    spec = gym.envs.registration.EnvSpec("Dream-v0", build, disable_env_checker=True, order_enforce=False)
    monkeypatch.setitem(gym.registry, "Dream-v0", spec)
    env = gym.make("Dream-v0", render_mode="rgb_array" if pictured and model.spec.fps else None)
    if name == "vector_box":
        with pytest.warns(UserWarning, match="symmetric and normalized"):
            check_env(env, skip_render_check=True)
    else:
        check_env(env, skip_render_check=model.spec.fps is None)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    for _ in range(12):
        obs, *_, over, cut, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        if over or cut:
            env.reset()


def test_the_spaces_are_those_of_the_environment_that_was_learned() -> None:
    for made in (gym.make("CartPole-v1"), gym.make("Pendulum-v1")):
        model = small(Spec.from_space(made.observation_space, made.action_space))
        dream = DreamEnv(model, anywhere(model), 3)
        assert dream.action_space == made.action_space
        assert dream.observation_space.shape == made.observation_space.shape
    model = small(SPECS["bounded_and_grey"])
    dream = DreamEnv(model, anywhere(model), 3)
    shapes = {key: (type(space).__name__, space.shape) for key, space in dream.observation_space.spaces.items()}
    assert shapes == {"grey": ("Box", (16, 16)), "level": ("Box", (2, 1)), "switch": ("MultiBinary", (2,))}
    assert Spec.from_space(dream.observation_space, dream.action_space).obs == model.spec.obs


@pytest.mark.parametrize("name", ["vector_discrete", "vector_box", "vector_multi_discrete", "mixed_discrete"])
def test_returns_are_those_of_imagine_under_the_same_actions(name: str) -> None:
    model, horizon = small(SPECS[name]), 6
    start = tree.map(torch.randn_like, model.initial(3))
    policy = RandomPolicy(model.spec.action)
    raw = np.stack([policy.draw(np.ones(3, bool)) for _ in range(horizon)])
    acts = model.spec.action.to_model(torch.as_tensor(raw)).transpose(0, 1)
    with fw.deterministic(), torch.no_grad():
        rollout = fw.imagine(model, start, acts, keep=("obs",))
        env = DreamVectorEnv(model, lambda rng, count: start, horizon, num_envs=3, end="never")
        env.reset(seed=0)
        found = [env.step(action) for action in raw]
        one = DreamEnv(model, lambda rng, count: tree.index(start, slice(1, 2)), horizon, end="never")
        one.reset(seed=0)
        alone = [one.step(action[1]) for action in raw]
    earned = np.stack([step[1] for step in found], 1)
    close = {"rtol": 1e-4, "atol": 1e-4 * np.abs(earned).max()}  # bins of up to 5e8 cancel out to the reward
    assert np.allclose(earned, rollout.reward, **close) and np.abs(earned).max() > 1
    assert np.allclose([step[1] for step in alone], rollout.reward[1], **close)
    assert [bool(step[3].all()) for step in found] == [False] * 5 + [True] and not any(step[2].any() for step in found)
    if name == "vector_box":
        assert np.allclose(np.stack([step[0] for step in found], 1), rollout.obs["obs"], atol=1e-4)


def test_actions_are_in_the_units_of_the_environment_and_the_reward_is_that_of_arriving() -> None:
    env = DreamEnv(Adding(), zero, 3, end="never")
    assert env.reset(seed=0)[0]["sum"] == 0
    # 0 to 4 is -1 to 1 for the model
    assert [env.step(np.array([act], np.float32))[1:4] for act in (4.0, 3.0, 0.0)] == [
        (1.0, False, False),
        (1.5, False, False),
        (0.5, False, True),
    ]


def test_dreams_end_as_often_as_the_model_says() -> None:
    env = DreamVectorEnv(Adding(cont=0.7), zero, 4, num_envs=4000, end="drawn")
    env.reset(seed=1)
    going, ended, cut = np.ones(4000, bool), [], 0
    for _ in range(4):
        _, _, over, short, _ = env.step(np.zeros((4000, 1), np.float32))
        ended.append((over & going).sum() / going.sum())
        cut += (short & going).sum()
        going &= ~over
    assert np.allclose(ended, 0.3, atol=4 * (0.3 * 0.7 / 1372) ** 0.5)
    assert cut == going.sum(), "cut off only where it was not over"
    with fw.deterministic():
        for cont, over in ((0.51, False), (0.49, True)):
            for end in ("drawn", "likely"):
                one = DreamEnv(Adding(cont=cont), zero, 4, end=end)
                one.reset(seed=0)
                assert one.step(np.zeros(1, np.float32))[2] is over


def test_expected_returns_are_those_of_imagine_when_dreams_end_by_chance() -> None:
    """The mean of drawn episodes against the sum over h of prod cont * reward, by the rollout."""
    horizon, count = 5, 20_000
    env = DreamVectorEnv(Adding(cont=0.8), zero, horizon, num_envs=count)
    env.reset(seed=0)
    raw = np.array([4.0, 4.0, 1.0, 3.0, 4.0], np.float32)
    returns, going = np.zeros(count), np.ones(count, bool)
    for act in raw:
        _, reward, over, _, _ = env.step(np.full((count, 1), act))
        returns += reward * going
        going &= ~over
    acts = torch.as_tensor(raw / 2 - 1)[None, :, None]
    rollout = fw.imagine(Adding(cont=0.8), zero(np.random.default_rng(0), 1), acts)
    before = torch.cat([torch.ones(1, 1), rollout.cont.cumprod(1)[:, :-1]], 1)
    expected = float((before * rollout.reward).sum())
    assert abs(returns.mean() - expected) < 4 * returns.std() / count**0.5


def play(env: gym.Env[Any, Any], seed: int, steps: int = 12) -> list[Any]:
    obs, _ = env.reset(seed=seed)
    found: list[Any] = [obs]
    for step in range(steps):
        obs, reward, over, cut, _ = env.step(step % 4 + 1)
        found += [obs, reward, over, cut]
        if over or cut:
            found.append(env.reset()[0])
    return [np.asarray(one).tolist() for one in found]


def test_equal_seeds_give_equal_dreams_and_the_global_generator_is_left_alone() -> None:
    model = small(SPECS["vector_discrete"])
    env = DreamEnv(model, anywhere(model), 5)
    torch.manual_seed(3)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    first = play(env, 0)
    assert torch.equal(torch.rand(3), drawn)
    env.step(1)
    torch.manual_seed(9)
    assert play(env, 0) == first, "whatever was dreamt before, and wherever torch stands"
    assert play(env, 1) != first
    assert len({str(one) for one in first if isinstance(one, list)}) > 12, "dreams differ"


def test_the_vector_is_driven_as_environments_are() -> None:
    model = small(SPECS["vector_unit_box"])
    env = Vector(DreamVectorEnv(model, anywhere(model), 3, num_envs=4, end="never"), "Dream")
    rows = [env.reset(seed=0), *(env.step(np.zeros((4, 2), np.float32)) for _ in range(8))]
    assert [bool(row.is_first.all()) for row in rows] == [True, False, False, False] * 2 + [True]
    assert [bool(row.is_last.all()) for row in rows] == [False, False, False, True] * 2 + [False]
    assert all(row.arrived.all() and not row.is_terminal.any() for row in rows)
    assert not rows[4].reward.any() and rows[3].reward.all()
    assert not np.array_equal(rows[0].obs["obs"], rows[4].obs["obs"])


def test_only_the_dreams_that_ended_begin_anew() -> None:
    env = DreamVectorEnv(Adding(cont=0.6), zero, 50, num_envs=16)
    env.reset(seed=0)
    total, ended = np.zeros(16), np.zeros(16, bool)
    for _ in range(20):
        obs, reward, over, cut, _ = env.step(np.full((16, 1), 4.0, np.float32))
        total = np.where(ended, 0, total + 1)
        assert np.array_equal(obs["sum"][:, 0], total) and np.array_equal(reward, total)
        ended = over | cut
    assert 0 < ended.sum() < 16


@pytest.fixture
def counted(tmp_path: Any) -> Dataset:
    """Episodes of 2, 3 and 7 rows that show 100 * episode + row."""
    model = Adding()
    with Writer(tmp_path / "counted", model.spec) as writer:
        for episode, length in enumerate((2, 3, 7)):
            shown = np.arange(length, dtype=np.float32)[:, None] + 100 * episode
            acts = np.zeros((length, 1), np.float32)
            writer.add(Episode(obs={"sum": shown}, prev_action=acts, reward=acts[:, 0], is_terminal=True))
    return fw.load(tmp_path / "counted")


def test_dreams_begin_at_every_recorded_row_that_another_follows(counted: Dataset) -> None:
    draw = recorded_starts(Adding(), counted, context=3)
    found, counts = np.unique(draw(np.random.default_rng(0), 9000).total, return_counts=True)
    assert found.tolist() == [0, 100, 101, 200, 201, 202, 203, 204, 205]
    assert np.allclose(counts, 1000, atol=4 * (1000 * 8 / 9) ** 0.5), "all equally likely"
    env = DreamEnv(Adding(), counted, 3, context=2)
    assert float(env.reset(seed=0)[0]["sum"][0]) in found


def test_the_model_is_in_the_state_that_filtering_gives(tmp_path: Any) -> None:
    data = fw.collect("CartPole-v1", episodes=3, out=tmp_path / "cartpole")
    model = small(data.spec)
    with fw.deterministic():
        found = recorded_starts(model, data, context=4)(np.random.default_rng(5), 1)
        flat = int(np.random.default_rng(5).integers(data.lengths.sum() - 3, size=1)[0])
        episode = int(np.searchsorted(np.cumsum(data.lengths - 1), flat, side="right"))
        row = flat - int((data.lengths[:episode] - 1).sum())
        with torch.no_grad():
            states = model.observe(model.initial(1), data.episode(episode).rows(max(0, row - 3), row + 1))
    assert torch.allclose(found.deter[0], states.deter[0, -1], atol=1e-5)


def test_what_cannot_be_dreamt_is_said(counted: Dataset, tmp_path: Any) -> None:
    model = small(SPECS["vector_discrete"])
    with pytest.raises(ConfigError, match="at least 1 step"):
        DreamEnv(model, anywhere(model), 0)
    with pytest.raises(ConfigError, match="unknown choice 'pixels'; "):
        DreamEnv(model, anywhere(model), 3, show="pixels")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be rendered as 'rgb_array'"):
        DreamEnv(model, anywhere(model), 3, render_mode="rgb_array")
    with pytest.raises(EnvironmentFault, match="call reset before step"):
        DreamEnv(model, anywhere(model), 3).step(1)
    with pytest.raises(ConfigError, match="one integer"):
        DreamVectorEnv(model, anywhere(model), 3, num_envs=2).reset(seed=[1, 2])
    with pytest.raises(ConfigError, match="a context has at least 1 row"):
        DreamEnv(Adding(), counted, 3, context=0)
    video = fw.RSSM(specs()["plain_video"], deter=32, units=16, classes=4, depth=2)
    with pytest.raises(ConfigError, match="plain video takes no action"):
        DreamEnv(video, anywhere(video), 3)
    for lacking, options in (("cont", {}), ("reward", {"end": "never"}), ("decode", {"end": "never"})):
        blind = Adding()
        blind.provides = Adding.provides - {lacking}  # type: ignore[misc]
        with pytest.raises(MissingCapability, match=lacking):
            DreamEnv(blind, zero, 3, **options)
    with pytest.raises(DataError, match="no episode has a row that another follows"):
        recorded_starts(Adding(), replace(counted, lengths=np.ones(3, np.int64)))
