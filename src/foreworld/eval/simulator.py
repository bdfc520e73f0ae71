"""The true simulator with slightly wrong parameters: what a very good model would reach, to set errors beside."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foreworld.core import Spec
from foreworld.core.errors import ConfigError
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval.predictors import Forecast, Past, Predictor
from foreworld.eval.quantities import RETURN, expected
from foreworld.worlds import WORLDS, Acting, World
from foreworld.worlds.catalogue import rebuild

AMOUNT = 0.01
"""Relative standard deviation of every parameter."""

TRIES = 20
"""Draws of parameters that a world may refuse, one after the other."""


def simulator_of(data: Dataset) -> World | None:
    """Return the bundled world that a dataset was made in, with its parameters; None for any other."""
    if data.source.env not in WORLDS or "state" not in data.schema.truth:
        return None
    return rebuild(data.source.env, data.source.options)


def noisy_simulator(world: World, spec: Spec, *, copies: int = 4, amount: float = AMOUNT, seed: int = 0) -> Predictor:
    """Predict with the world itself, from the true state, where every parameter is slightly wrong.

    Args:
        world: the true one.
        spec: of the data.
        copies: S worlds, each wrong in its own way.
        amount: relative standard deviation of every parameter.
        seed: of the parameters and of the world's own chance.
    """
    rng = np.random.default_rng(seed)
    worlds = [perturbed(world, rng, amount) for _ in range(copies)]

    def predict(past: Past) -> Forecast:
        start = past.truth[TRUTH + "state"][:, -1].double().numpy()
        actions = None
        if spec.action is not None and past.actions is not None:
            actions = spec.action.from_model(past.actions).double().numpy()
        ran = [_run(each, spec, start, actions, past.horizon, np.random.default_rng(seed)) for each in worlds]
        return {name: torch.stack([one[name] for one in ran], 1) for name in ran[0]}

    return predict


def perturbed(world: World, rng: np.random.Generator, amount: float) -> World:
    """Return a world whose every parameter, but for its time step, is off by a relative error.

    Raises:
        ConfigError: the world refuses all such parameters.
    """
    given = {field.name: getattr(world, field.name) for field in fields(cast(Any, world)) if field.name != "dt"}

    def drawn() -> World:
        return replace(cast(Any, world), **{name: _off(value, rng, amount) for name, value in given.items()})

    for _ in range(TRIES - 1):
        with suppress(ConfigError):
            return drawn()
    return drawn()


def _off(value: Any, rng: np.random.Generator, amount: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_off(part, rng, amount) for part in value)
    return value * (1 + amount * rng.standard_normal()) if isinstance(value, float) else value


def _run(
    world: World, spec: Spec, state: np.ndarray, actions: np.ndarray | None, horizon: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Simulate [B] states; return what is seen, the state and the return, [B, H, ...]."""
    seen: dict[str, list[Tensor]] = {}
    rewards = []
    for step in range(horizon):
        before, act = state, None if actions is None else actions[:, step]
        state = world.step(before, act, rng)
        shown = {name: torch.from_numpy(value) for name, value in world.observe(state).items() if name in spec.obs}
        values = expected({name: spec.obs[name] for name in shown}, shown)
        values |= {TRUTH + name: torch.from_numpy(value).float() for name, value in world.truth(state).items()}
        for name, value in values.items():
            seen.setdefault(name, []).append(value)
        if act is not None:
            rewards.append(torch.from_numpy(cast(Acting, world).reward(before, act, state)).float())
    found = {name: torch.stack(values, 1) for name, values in seen.items()}
    return found | {RETURN: torch.stack(rewards, 1).cumsum(1)} if rewards else found
