"""Playing again from a restored state."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from foreworld.core import Spec
from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.envs import builder
from foreworld.rollout import branch
from foreworld.worlds import Pendulum, build

SETTINGS = {"starts": 3, "sequences": 6, "context": 4, "horizon": 5, "repeat": 2.0, "seed": 0}


def spec_of(env: gym.Env) -> Spec:
    return Spec.from_space(env.observation_space, env.action_space)


def test_every_sequence_starts_from_the_same_state_and_earns_what_the_world_pays() -> None:
    env = builder("foreworld/Pendulum-v0")()
    spec, world = spec_of(env), build("foreworld/Pendulum-v0")
    assert isinstance(world, Pendulum) and spec.action is not None
    for found in branch(env, spec, **SETTINGS):
        sine, cosine, speed = found.context.obs["obs"][0, -1].double().numpy()
        state = np.array([[np.arctan2(sine, cosine), speed]])
        for k in range(6):
            at, total = state, 0.0
            for action in spec.action.from_model(found.actions[k]).double().numpy():
                after = world.step(at, action[None])
                total += float(world.reward(at, action[None], after)[0])
                at = after
            assert found.returns[k] == pytest.approx(total, rel=1e-3)
        assert found.rows.mask is not None and found.rows.mask.all() and len(np.unique(found.returns)) == 6


def test_a_context_is_rows_as_they_arrive() -> None:
    env = builder("CartPole-v1")()
    spec = spec_of(env)
    for found in branch(env, spec, **SETTINGS | {"starts": 10}):
        rows = found.context
        assert rows.obs["obs"].shape == (1, 4, 4) and rows.prev_action is not None
        first = rows.is_first[0]
        assert not first[1:].any()
        assert (rows.prev_action[0, 1:].sum(-1) == 1).all()
        assert (rows.prev_action[0][first] == 0).all() and (rows.reward[0][first] == 0).all()
        assert not rows.is_last.any()
        after = found.rows
        assert after.mask is not None and after.prev_action is not None
        assert ((after.reward == 1) == after.mask).all()  # a pole that fell earns nothing more
        assert torch.equal(after.prev_action[after.mask], found.actions[after.mask])
        fell = after.is_terminal & after.mask
        assert (fell.sum(1) <= 1).all() and torch.equal(fell.any(1), ~after.mask.all(1) | after.is_terminal[:, -1])


def test_the_same_seed_plays_the_same() -> None:
    first, second = (list(branch(env := builder("CartPole-v1")(), spec_of(env), **SETTINGS)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.actions, b.actions) and torch.equal(a.rows.reward, b.rows.reward)
        assert torch.equal(a.context.obs["obs"], b.context.obs["obs"])


class Forgetful(gym.Wrapper):
    """Remembers something that nobody can restore."""


def test_what_cannot_be_restored_or_ranked_is_refused() -> None:
    env = builder("CartPole-v1")()
    with pytest.raises(MissingCapability, match="cannot be saved and restored"):
        next(branch(Forgetful(env), spec_of(env), **SETTINGS))
    with pytest.raises(ConfigError, match="2 sequences"):
        next(branch(env, spec_of(env), **SETTINGS | {"sequences": 1}))
