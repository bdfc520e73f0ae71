"""A corridor, and a model that sees all of it: what it plans can be judged by what happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, Step
from foreworld.envs import Vector, make
from foreworld.models.simulated import Simulated, SimulatedState
from foreworld.worlds import build

CORRIDOR: dict[str, Any] = {"layout": ["..."], "stop": True}
ENV = "foreworld/PointMaze-v0"


class Seeing(Simulated):
    """The world itself as a model that filters what it sees, and has an embedding space: the position."""

    def __init__(self) -> None:
        super().__init__(build(ENV, **CORRIDOR))
        self.provides = self.provides | {"embed"}

    def observe(self, state: SimulatedState, segment: Segment) -> SimulatedState:
        return self.at(torch.cat([segment.obs["obs"], segment.obs["goal"]], -1))

    def read(self, state: SimulatedState) -> Step:
        return replace(super().read(state), embed=state.x[..., :2].float())

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["obs"][..., :2]


def corridor(num_envs: int, **options: Any) -> Vector:
    return make(ENV, num_envs=num_envs, **(CORRIDOR | options))
