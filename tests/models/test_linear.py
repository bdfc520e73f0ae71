"""The linear family recovers linear worlds exactly."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from foreworld.core import Segment, Space, Spec, tree
from foreworld.models.linear import Linear
from foreworld.rollout.imagine import imagine

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(3,), dtype="float32")},
    action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
)
DYNAMICS = torch.tensor([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.0, 0.8]])
CONTROL = torch.tensor([[0.0], [0.5], [1.0]])


def world(batch: int, length: int, seed: int) -> Segment:
    """Roll a known linear system out under random actions; reward is twice the first component."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, generator=generator)
    actions = torch.rand(batch, length, 1, generator=generator) * 2 - 1
    actions[:, 0] = 0
    rows = [x]
    for t in range(1, length):
        x = x @ DYNAMICS.T + actions[:, t] @ CONTROL.T
        rows.append(x)
    obs = torch.stack(rows, 1)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    none = torch.zeros_like(first)
    return Segment(obs={"obs": obs}, prev_action=actions, reward=2 * obs[..., 0], is_first=first,
                   is_terminal=none, is_last=none)  # fmt: skip


def test_ridge_predicts_a_linear_world_fifty_steps_ahead() -> None:
    model = Linear(SPEC, window=1)

    def segments() -> Iterator[Segment]:
        return (world(8, 20, seed) for seed in range(20))

    model.calibrate(segments)
    test = world(4, 56, 99)
    with torch.no_grad():
        state = tree.index(model.observe(model.initial(4), test.rows(0, 6)), (slice(None), -1))
        assert test.prev_action is not None
        dream = imagine(model, state, test.prev_action[:, 6:], keep=("obs",))
    assert dream.obs is not None
    assert torch.allclose(dream.obs["obs"], test.obs["obs"][:, 6:], atol=2e-2)
    assert dream.reward is not None
    assert torch.allclose(dream.reward, test.reward[:, 6:], atol=5e-2)


def test_before_calibration_nothing_moves() -> None:
    model = Linear(SPEC, window=2)
    segment = world(2, 4, 0)
    state = tree.index(model.observe(model.initial(2), segment), (slice(None), -1))
    still = model.decode(model.step(state, torch.ones(2, 1)))["obs"]
    assert torch.allclose(still, segment.obs["obs"][:, -1], atol=1e-5)


def test_an_unstable_fit_stays_within_the_range_of_the_data() -> None:
    model = Linear(SPEC, window=1)
    model.calibrate(lambda: iter([world(8, 20, 0), world(8, 20, 1)]))
    with torch.no_grad():
        model.dynamics.weight.mul_(50)
        state = tree.index(model.observe(model.initial(2), world(2, 4, 5)), (slice(None), -1))
        far = imagine(model, state, torch.ones(2, 200, 1), keep=("obs",)).obs
    assert far is not None
    assert torch.isfinite(far["obs"]).all()
    assert float(far["obs"].abs().max()) < 100
