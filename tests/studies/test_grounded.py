"""Predicting in observations: what a state holds and its observation does not is lost at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec, Step
from foreworld.rollout import imagine
from foreworld.studies.grounded import Grounded
from foreworld.studies.latency import planning_latency


class Gliding:
    """Position and velocity; velocity is hidden unless `seen`, and then taken from the observation."""

    provides = frozenset({"decode"})

    def __init__(self, seen: bool) -> None:
        width = 2 if seen else 1
        self.seen = seen
        self.spec = Spec(obs={"obs": Space(kind="vector", shape=(width,), dtype="float32")}, action=None)

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 2)

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        obs = segment.obs["obs"]
        return obs if self.seen else torch.cat([obs, torch.zeros_like(obs)], -1)

    def step(self, state: Tensor, action: Tensor | None) -> Tensor:
        return torch.stack([state[:, 0] + state[:, 1], state[:, 1]], -1)

    def read(self, state: Tensor) -> Step:
        return Step(feat=state)

    def decode(self, state: Tensor) -> dict[str, Tensor]:
        return {"obs": state if self.seen else state[..., :1]}


def test_what_the_observation_holds_is_kept_and_the_rest_is_lost() -> None:
    start = torch.tensor([[0.0, 1.0]])
    latent = imagine(Gliding(seen=False), start, None, 4).feat[0, :, 0]
    assert latent.tolist() == [1, 2, 3, 4]
    assert imagine(Grounded(Gliding(seen=True)), start, None, 4).feat[0, :, 0].tolist() == [1, 2, 3, 4]
    assert imagine(Grounded(Gliding(seen=False)), start, None, 4).feat[0, :, 0].tolist() == [1, 1, 1, 1]


def test_pictures_are_read_back_as_they_would_have_been_stored() -> None:
    class Shade(Gliding):
        def __init__(self) -> None:
            super().__init__(seen=True)
            self.spec = Spec(obs={"image": Space(kind="image", shape=(1, 1, 2), dtype="uint8")}, action=None)

        def observe(self, state: Tensor, segment: Segment) -> Tensor:
            assert segment.obs["image"].dtype == torch.uint8
            return segment.obs["image"].flatten(2).float() / 255

        def decode(self, state: Tensor) -> dict[str, Tensor]:
            return {"image": state.reshape(*state.shape[:-1], 1, 1, 2)}

    after = Grounded(Shade()).step(torch.tensor([[0.25, 0.31]]), None)
    assert torch.allclose(after * 255, torch.tensor([[143.0, 79.0]]))  # 142.8 and 79.05, rounded


def test_planning_takes_time_and_counts_every_measurement() -> None:
    model, calls = Gliding(seen=True), []
    before = model.step

    def counted(state: Tensor, action: Tensor | None) -> Tensor:
        calls.append(len(state))
        return before(state, action)

    model.step = counted  # type: ignore[method-assign]
    assert planning_latency(model, candidates=7, steps=3, repeats=2) > 0
    assert calls == [7] * 9  # once to warm up, twice to measure
