"""A world as a model: its dreams are what happens."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core.errors import MissingCapability
from foreworld.envs import WorldEnv
from foreworld.envs.worlds import make_world
from foreworld.models.simulated import Simulated
from foreworld.ops import discounted_return
from foreworld.testing import random_actions, random_segment
from foreworld.worlds import Guided, build

IDS = [f"foreworld/{name}-v0" for name in ("Catch", "Linear", "PointMaze", "PushT", "Reach", "TwoRooms")]


@pytest.mark.parametrize("env_id", IDS)
def test_a_dream_is_what_happens_bit_by_bit(env_id: str) -> None:
    env = cast(WorldEnv, make_world(env_id, image_size=16))
    obs, _ = env.reset(seed=4)
    model = Simulated(env.world)
    actions = random_actions(model.spec, 1, 9, torch.Generator().manual_seed(0))
    assert actions is not None
    dream = fw.imagine(model, model.at(torch.from_numpy(obs["truth/state"])[None]), actions, keep=("obs", "states"))
    assert dream.states is not None and dream.obs is not None and dream.reward is not None and dream.cont is not None
    taken = model.spec.action.from_model(actions)[0].numpy()  # type: ignore[union-attr]
    for t, act in enumerate(taken):
        obs, reward, over, *_ = env.step(act)
        assert np.array_equal(dream.states.x[0, t].numpy(), obs["truth/state"])
        assert float(dream.reward[0, t]) == np.float32(reward) and float(dream.cont[0, t]) == 1 - over
        for name, space in model.spec.obs.items():
            seen = dream.obs[name][0, t]
            assert np.array_equal(space.from_decoded(seen).numpy(), obs[name])
    assert dream.feat.dtype == torch.float32


@pytest.mark.parametrize("env_id", ["foreworld/Catch-v0", "foreworld/Reach-v0"])
def test_whoever_chooses_by_its_returns_finds_the_oracle(env_id: str) -> None:
    """The oracle's own actions among sixty-three random sequences: they win, from every start."""
    world = cast(Guided, build(env_id, image_size=16))
    model = Simulated(world)
    space = model.spec.action
    assert space is not None
    for start in model.initial(4).x:
        state, best = start[None].numpy(), []
        for _ in range(9):
            best.append(world.oracle(state))
            state = world.step(state, best[-1])
        sequences = random_actions(model.spec, 64, 9, torch.Generator().manual_seed(0))
        assert sequences is not None
        sequences[17] = space.to_model(torch.from_numpy(np.stack(best, 1)))[0]
        dream = fw.imagine(model, model.at(start.expand(64, -1)), sequences)
        assert dream.reward is not None and dream.cont is not None
        found = discounted_return(dream.reward, dream.cont)
        assert float(found[17]) == float(found.max())


def test_starts_repeat_and_what_it_cannot_do_is_said() -> None:
    model = Simulated(build("foreworld/TwoRooms-v0", image_size=16))  # type: ignore[arg-type]
    assert torch.equal(model.initial(3).x, model.initial(3).x)
    segment = random_segment(model.spec)
    for refused in (lambda: model.observe(model.initial(3), segment), lambda: model.losses(segment)):
        with pytest.raises(MissingCapability, match="simulated:"):
            refused()
    rest = model.step(model.initial(2), None)
    assert torch.equal(rest.x, model.initial(2).x) and model.decode(rest)["image"].shape == (2, 3, 16, 16)
