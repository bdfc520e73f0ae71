"""Steps and searches as exported programs do what Python does, bit by bit where the kernels are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foreworld as fw
from foreworld.core.errors import ConfigError, SpecError
from foreworld.models.finite import Finite
from foreworld.models.linear import Linear
from foreworld.models.quadratic import Quadratic
from foreworld.plan import CEM, ICEM, CategoricalCEM, Gradient, Hybrid, PredictedReturn
from foreworld.plan.export import StepProgram, export_plan, export_step
from foreworld.testing import random_actions, specs

SPECS = specs()
SMALL: dict[str, Any] = {"deter": 16, "units": 8, "latents": 2, "classes": 4}


def rssm(name: str) -> fw.RSSM:
    torch.manual_seed(0)
    return fw.RSSM(SPECS[name], **SMALL).eval()


def same(found: Any, wanted: Any) -> None:
    for a, b in zip(fw.tree.leaves(found), fw.tree.leaves(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [rssm("vector_box"), rssm("vector_discrete"), Linear(SPECS["vector_box"], components=4)],
    ids=["rssm-box", "rssm-discrete", "linear"],
)
def test_a_step(model: Any) -> None:
    source = torch.Generator().manual_seed(3)
    with fw.deterministic(), torch.no_grad():
        program = export_step(model, batch=3).module()
        state: Any = model.initial(3)
        for _ in range(3):  # on from where it led
            action = random_actions(model.spec, 3, 1, source)[:, 0]
            found = program(state, action)
            same(found, StepProgram(model)(state, action))
            state = found[0]


@pytest.mark.parametrize(
    ("model", "planner"),
    [
        (Quadratic(seed=3), ICEM(horizon=4, candidates=16, iterations=3, elites=4)),
        (Finite(seed=1), CategoricalCEM(horizon=4, candidates=16, iterations=2, elites=4)),
        (rssm("vector_box"), CEM(horizon=3, candidates=16, iterations=2, elites=4)),
    ],
    ids=["icem-quadratic", "categorical-finite", "cem-rssm"],
)
def test_a_search_with_its_noise_as_an_input(model: Any, planner: Any) -> None:
    exported, module = export_plan(model, planner, PredictedReturn(), batch=2)
    program = exported.module()
    for seed in (0, 1):
        warm = torch.randn(2, planner.horizon, model.spec.action_width, generator=torch.Generator().manual_seed(seed))
        with fw.seeded(seed), torch.no_grad():
            noise = module.drawn()
        with torch.no_grad():
            found = program(model.initial(2), warm, noise)
            same(found, module(model.initial(2), warm, noise))
        with fw.seeded(seed), fw.deterministic():  # and what the planner itself does with the same numbers
            plan = planner(model, model.initial(2), PredictedReturn(), fw.plan.Warm(actions=warm))
        same(found, (plan.actions, plan.score))


def test_other_noise_is_another_search() -> None:
    exported, module = export_plan(Quadratic(seed=3), CEM(horizon=4, iterations=2), PredictedReturn(), batch=2)
    start = module.model.at(module.model.starts(2, 4))
    warm = torch.zeros(2, 4, 2)
    first, second = (exported.module()(start, warm, module.drawn())[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ConfigError, match="Hybrid takes no noise from outside"):
        export_plan(Quadratic(seed=3), Hybrid(), PredictedReturn())
    with pytest.raises(SpecError, match="no actions"):
        export_step(fw.RSSM(SPECS["plain_video"], **SMALL))
    with pytest.raises(ConfigError, match="climbs gradients"):
        export_plan(Quadratic(seed=3), Gradient(iterations=1), PredictedReturn())
