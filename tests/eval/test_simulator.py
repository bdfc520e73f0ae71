"""The slightly wrong simulator as a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import foreworld as fw
from foreworld.eval.predictors import Past
from foreworld.eval.quantities import expected, named, truth_spaces
from foreworld.eval.simulator import noisy_simulator, perturbed, simulator_of
from foreworld.rollout import record
from foreworld.studies.evaluation import references
from foreworld.worlds import Balls, Pendulum, build


def test_without_noise_it_repeats_what_happened(tmp_path: Path) -> None:
    data = fw.collect("foreworld/Pendulum-v0", episodes=3, max_steps=20, out=tmp_path / "swings")
    world = simulator_of(data)
    assert world == build("foreworld/Pendulum-v0")
    assert world is not None
    rows, truth = data.windows([0, 1, 2], [0] * 3, 21), named(data.truth([0, 1, 2], [0] * 3, 21))
    assert rows.prev_action is not None
    past = Past(
        rows=rows.rows(0, 5),
        truth={name: value[:, :5] for name, value in truth.items()},
        actions=rows.prev_action[:, 5:],
        horizon=16,
    )
    exact = noisy_simulator(world, data.spec, copies=2, amount=0.0)(past)
    assert torch.allclose(exact["obs"][:, 0], rows.obs["obs"][:, 5:], atol=1e-4)
    assert torch.allclose(
        exact["truth/state"][:, 1], expected(truth_spaces(data), truth)["truth/state"][:, 5:], atol=1e-4
    )
    assert torch.allclose(exact["return"][:, 0], rows.reward[:, 5:].cumsum(1), rtol=1e-3, atol=1e-3)
    wrong = noisy_simulator(world, data.spec, copies=2)(past)
    gap = (wrong["obs"] - exact["obs"]).abs().mean((0, 1, 3))
    assert 0 < gap[0] < 0.01 and gap[15] > gap[0]


def test_parameters_of_a_world_are_kept_from_the_recording(tmp_path: Path) -> None:
    data = record("foreworld/FreePendulum-v0", episodes=2, max_steps=5, out=tmp_path / "moon", gravity=1.62)
    assert simulator_of(data) == build("foreworld/FreePendulum-v0", gravity=1.62)
    assert simulator_of(fw.collect("CartPole-v1", episodes=1, out=tmp_path / "cart")) is None
    assert list(references(data)) == ["noisy_simulator"]


def test_every_parameter_but_the_time_step_is_off_by_about_a_hundredth() -> None:
    rng = np.random.default_rng(0)
    worlds = [perturbed(Pendulum(damping=0.5, torque=2.0), rng, 0.01) for _ in range(400)]
    assert {world.dt for world in worlds} == {0.05}
    for name in ("mass", "length", "gravity", "damping"):
        ratios = np.array([getattr(world, name) for world in worlds]) / getattr(Pendulum(damping=0.5), name)
        assert abs(ratios.mean() - 1) < 0.002 and 0.008 < ratios.std() < 0.012
    radii = perturbed(Balls(), rng, 0.01).radii  # type: ignore[attr-defined]
    assert len(radii) == len(Balls().radii) and radii != Balls().radii
