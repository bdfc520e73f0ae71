"""Pixel statistics and weights, from data whose answer is known."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from foreworld.core import Segment, Spec
from foreworld.core.errors import SpecError
from foreworld.encoders import fit_control_weight, fit_pixel_scale, pixel_scale
from foreworld.encoders.pixel import Picture

SPEC = Spec.from_space(gym.spaces.Box(0, 255, (16, 16, 1), np.uint8), gym.spaces.Discrete(2))


def movie(seed: int, batch: int = 8, length: int = 40) -> Segment:
    """Two blinking pixels: (2, 3) flips when the action is 1, (9, 9) flips at random; the rest stands still."""
    rng = np.random.default_rng(seed)
    action, chance = rng.integers(2, size=(batch, length)), rng.integers(2, size=(batch, length))
    action[:, 0], chance[:, 0] = 0, 0
    frames = np.full((batch, length, 1, 16, 16), 40, np.uint8)
    frames[..., 0, 2, 3] = 200 * (action.cumsum(1) % 2)
    frames[..., 0, 9, 9] = 200 * (chance.cumsum(1) % 2)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    none = torch.zeros_like(first)
    return Segment(
        obs={"image": torch.from_numpy(frames)},
        prev_action=torch.nn.functional.one_hot(torch.from_numpy(action), 2).float() * (~first).unsqueeze(-1),
        reward=torch.zeros(batch, length),
        is_first=first,
        is_terminal=none,
        is_last=none,
    )


def test_the_pixel_that_the_actions_move_weighs_most() -> None:
    scale = pixel_scale(SPEC, "normalised")
    assert scale is not None
    fit_control_weight(scale, SPEC, (movie(seed) for seed in range(10)), strength=10.0)
    assert float(scale.weight[0, 2, 3]) == pytest.approx(11.0)
    assert float(scale.weight[0, 9, 9]) == pytest.approx(1.0, abs=0.1)
    assert float(scale.weight[0, 0, 0]) == 1.0


def test_the_weight_enters_the_loss_of_its_pixel_only() -> None:
    scale = pixel_scale(SPEC, "normalised")
    assert scale is not None
    fit_pixel_scale(scale, SPEC, (movie(seed) for seed in range(4)))
    frames = movie(99).obs["image"][:, :1]
    before = scale.distance(torch.zeros(8, 1, 1, 16, 16), frames)
    explained = torch.zeros(1, 16, 16)
    explained[0, 2, 3] = 0.5
    scale.stress(explained, 4.0)
    share = 0.5 * scale(frames)[..., 2, 3].square().sum(-1)
    assert torch.allclose(scale.distance(torch.zeros(8, 1, 1, 16, 16), frames), before + 4 * share, rtol=1e-5)


def test_sizes_are_halved_to_a_small_map_or_refused() -> None:
    for size, small in ((32, 4), (64, 4), (96, 6), (128, 4)):
        spec = Spec.from_space(gym.spaces.Box(0, 255, (size, size, 3), np.uint8), None)
        assert Picture(dict(spec.obs)).small == (small, small)
    two = gym.spaces.Dict({"a": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
                           "b": gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)})  # fmt: skip
    with pytest.raises(SpecError, match=r"'b'.*one size"):
        Picture(dict(Spec.from_space(two, None).obs))
