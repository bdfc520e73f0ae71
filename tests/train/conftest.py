"""A dataset of few rows, and a model of few weights that can be told to fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Space, Spec
from foreworld.data import Dataset, Episode, Writer, load

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")},
    action=Space(kind="discrete", shape=(), dtype="int64", classes=(2,), start=(0,)),
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what guards against a power loss: a killed process loses nothing that it has written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Episodes of a point that moves left or right."""
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "data", SPEC) as writer:
        for _ in range(6):
            action = rng.integers(2, size=20)
            position = np.cumsum(np.where(np.arange(20) == 0, 0, 2 * action - 1)) * 0.1
            obs = np.stack([position, np.full(20, 0.5)], 1).astype(np.float32)
            action[0] = 0
            writer.add(Episode(obs={"obs": obs}, prev_action=action, reward=position.astype(np.float32)))
    return load(tmp_path / "data")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Nothing to choose."""


class Toy(nn.Module):
    """Predicts observations from the ones before, with noise from torch's generator, so that every draw counts.

    `faults` says what goes wrong in which call of `losses`, counted from 0: `nan` or `inf` in the loss `reward`,
    or `gradient`, where only the gradient of `bias` is NaN.
    """

    family = "toy"
    provides: frozenset[str] = frozenset()

    def __init__(self, faults: Callable[[int], str | None] = lambda call: None) -> None:
        super().__init__()
        self.spec, self.config, self.faults = SPEC, ToyConfig(), faults
        self.loss_weights = {"obs": 1.0, "reward": 0.5}
        self.weight, self.bias = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.ones(2))
        self.seen: list[bytes] = []

    def losses(self, segment: Segment, state: None = None) -> Losses[None]:
        obs, fault = segment.obs["obs"], self.faults(len(self.seen))
        self.seen.append(obs.numpy().tobytes())
        guess = obs[:, :-1] @ self.weight + self.bias + 0.1 * torch.randn_like(obs[:, 1:])
        error = (guess - obs[:, 1:]).square().mean(-1)
        reward: Tensor = (self.weight.sum() - segment.reward).square()
        if fault in ("nan", "inf"):
            reward = reward * float(fault)
        elif fault == "gradient":
            # the loss is 0; the derivative of the root there is infinite, and infinity times 0 is NaN
            reward = reward + (self.bias * 0).sum().sqrt()
        return Losses(
            terms={"obs": error, "reward": reward}, metrics={"size": self.weight.detach().norm()}, states=None
        )


@pytest.fixture
def toy() -> Callable[..., Toy]:
    """Return a maker of the same toy each time."""

    def make(faults: Callable[[int], str | None] = lambda call: None) -> Toy:
        torch.manual_seed(5)
        return Toy(faults)

    return make
