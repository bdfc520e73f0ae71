"""Parameters of a whole agent against the official counts."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from foreworld.agents import Dreamer
from foreworld.core import Spec
from foreworld.models.rssm import RSSM
from foreworld.presets.rssm import CONFIGS

VECTOR = gym.spaces.Box(-np.inf, np.inf, (24,))
IMAGE = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
BOX, CHOICE = gym.spaces.Box(-1, 1, (6,)), gym.spaces.Discrete(6)

OFFICIAL = [
    ("1m", VECTOR, BOX, 640_867),
    ("12m", VECTOR, BOX, 9_738_019),
    ("12m", IMAGE, BOX, 10_494_158),
    ("25m", IMAGE, BOX, 23_489_326),
    # six choices need no deviations: 256 * 6 + 6 numbers less than six numbers do
    ("12m", IMAGE, CHOICE, 10_494_158 - 1_542),
]


@pytest.mark.parametrize(("size", "obs", "action", "official"), OFFICIAL)
def test_model_actor_and_critic_have_the_official_size(
    size: str, obs: gym.Space, action: gym.Space, official: int
) -> None:
    with torch.device("meta"):
        model = RSSM(Spec.from_space(obs, action), CONFIGS[size])
        agent = Dreamer(model, units=CONFIGS[size].units)
    slow = sum(p.numel() for p in agent.slow.parameters())
    assert slow == sum(p.numel() for p in agent.critic.parameters())
    parts = (*model.parameters(), *agent.parameters())
    assert sum(p.numel() for p in parts) - slow == official


def test_the_slow_critic_begins_as_a_copy_and_is_not_trained() -> None:
    model = RSSM(Spec.from_space(VECTOR, BOX), deter=16, units=8, latents=2, classes=2)
    agent = Dreamer(model, units=8)
    for fast, slow in zip(agent.critic.parameters(), agent.slow.parameters(), strict=True):
        assert torch.equal(fast, slow) and fast.data_ptr() != slow.data_ptr()
        assert fast.requires_grad and not slow.requires_grad
