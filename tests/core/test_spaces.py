"""Specs from Gymnasium spaces, and actions to model-ready floats and back."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foreworld.core import Space, Spec, from_json, to_json
from foreworld.core.errors import ConfigError, SpecError

box, discrete = gym.spaces.Box, gym.spaces.Discrete


def test_every_supported_space_becomes_the_kind_it_is() -> None:
    nested = gym.spaces.Dict(
        {
            "camera": box(0, 255, (64, 48, 3), np.uint8),
            "depth": box(0, 255, (32, 32), np.uint8),
            "robot": gym.spaces.Dict({"joints": box(-1, 1, (7,)), "mode": discrete(3, start=5)}),
            "buttons": gym.spaces.MultiBinary(4),
            "cells": box(0, 10, (7, 7, 3), np.uint8),
            "truth/ram": box(0, 255, (128,), np.uint8),
        }
    )
    spec = Spec.from_space(nested, gym.spaces.MultiDiscrete([2, 3]))
    found = {key: (space.kind, space.shape) for key, space in spec.obs.items()}
    assert found == {
        "camera": ("image", (3, 64, 48)),
        "depth": ("image", (1, 32, 32)),
        "robot/joints": ("vector", (7,)),
        "robot/mode": ("discrete", ()),
        "buttons": ("discrete", (4,)),
        "cells": ("vector", (7, 7, 3)),
    }
    assert spec.action_width == 5
    assert spec.images == ["camera", "depth"]
    assert from_json(Spec, json.loads(json.dumps(to_json(spec)))) == spec


def test_unsupported_spaces_name_their_key() -> None:
    with pytest.raises(SpecError, match=r"'mission'.*Text"):
        Spec.from_space(gym.spaces.Dict({"mission": gym.spaces.Text(10)}), discrete(2))
    with pytest.raises(SpecError, match=r"'action'.*Dict"):
        Spec.from_space(box(-1, 1, (2,)), gym.spaces.Dict({"a": discrete(2)}))
    with pytest.raises(SpecError, match="unbounded Box action"):
        Spec.from_space(box(-1, 1, (2,)), box(-np.inf, np.inf, (2,))).action.to_model(torch.zeros(2))  # type: ignore[union-attr]


@given(st.lists(st.floats(-3, 5, width=32), min_size=2, max_size=2))
def test_bounded_actions_map_to_the_unit_box_and_back(values: list[float]) -> None:
    space = Space.from_gym(box(np.float32([-3, -10]), np.float32([5, 20])), "action")
    raw = torch.tensor(values)
    model = space.to_model(raw)
    assert float(model.abs().max()) <= 1 + 1e-6
    assert torch.allclose(space.from_model(model), raw, atol=1e-4)


@given(st.integers(0, 3), st.integers(0, 1), st.integers(0, 2))
def test_discrete_actions_survive_one_hot(a: int, b: int, c: int) -> None:
    space = Space(kind="discrete", shape=(3,), dtype="int64", classes=(4, 2, 3), start=(0, 5, -1))
    raw = torch.tensor([[a, b + 5, c - 1]])
    encoded = space.to_model(raw)
    assert encoded.shape == (1, 9)
    assert encoded.sum() == 3
    assert torch.equal(space.from_model(encoded), raw)


def test_images_are_laid_out_channels_first() -> None:
    space = Space.from_gym(box(0, 255, (32, 16, 3), np.uint8), "image")
    value = np.random.default_rng(0).integers(0, 255, (2, 32, 16, 3), np.uint8)
    rest = space.to_rest(value)
    assert rest.shape == (2, 3, 32, 16)
    assert np.array_equal(rest[1, 2], value[1, ..., 2])


@pytest.mark.parametrize("shape", [(5,), (3, 32, 16), (32, 16, 1), (16, 32)])
def test_the_form_at_rest_is_a_copy(shape: tuple[int, ...]) -> None:
    space, value = Space.from_gym(box(0, 255, shape, np.uint8), "obs"), np.ones((2, *shape), np.uint8)
    rest = space.to_rest(value)
    assert rest.shape == (2, *space.shape) and rest.flags.c_contiguous and not np.shares_memory(rest, value)


def test_configs_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ConfigError, match="did you mean 'shape'"):
        from_json(Space, {"kind": "vector", "shap": [1], "dtype": "float32"})
    with pytest.raises(ConfigError, match="expected a list"):
        from_json(Space, {"kind": "vector", "shape": 3, "dtype": "float32"})
    with pytest.raises(ConfigError, match="kind"):
        from_json(Space, {"kind": "vectro", "shape": [3], "dtype": "float32"})
