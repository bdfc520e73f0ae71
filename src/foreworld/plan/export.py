"""A step and a search as programs without Python: what `torch.export` makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from foreworld.core import Step, WorldModel, deterministic, seeded, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.plan.protocols import Objective, Plan, Planner, Warm

NOISE = "noise"


class StepProgram(nn.Module):
    """One step of a model and what its heads say there, as a module.

    Args:
        model: the world model.
    """

    def __init__(self, model: WorldModel[Any]) -> None:
        """Keep the model."""
        super().__init__()
        self.model: Any = model

    def forward(self, state: Any, action: Tensor | None) -> tuple[Any, Step]:
        """Predict one step.

        Args:
            state: leaves [B, ...].
            action: [B, A] model-ready.

        Returns:
            The state reached, and what the heads say of it.
        """
        after = self.model.step(state, action)
        return after, self.model.read(after)


class PlanProgram(nn.Module):
    """A whole search, as a module whose noise is an input: what it returns is a function of what it is given.

    Args:
        model: the world model; it dreams by its modes.
        planner: searches by samples, and has a field `noise`.
        objective: what a dream is worth.
        batch: B.

    Attributes:
        shapes: [B, N, H, A] of the standard normal numbers of every round.

    Raises:
        ConfigError: the planner draws by itself, so that nothing could be handed in, or climbs gradients.
    """

    def __init__(self, model: WorldModel[Any], planner: Planner, objective: Objective, batch: int) -> None:
        """Run a search once, to see what it draws."""
        super().__init__()
        made: Any = planner
        if NOISE not in {one.name for one in fields(made)}:
            raise ConfigError(
                f"export: {type(planner).__name__} takes no noise from outside; export one that does, as CEM"
            )
        self.model: Any = model
        self.planner, self.objective = made, objective
        self.shapes: list[tuple[int, int, int, int]] = []
        self._draw(batch)

    def forward(self, state: Any, warm: Tensor, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Search.

        Args:
            state: leaves [B, ...].
            warm: [B, H, A], where to begin.
            noise: of every round, [B, N, H, A] as `shapes` says.

        Returns:
            Actions [B, H, A] and their score [B], -inf where the search fell back.
        """
        found = self._search(state, warm, iter(noise))
        return found.actions, found.score

    def drawn(self) -> list[Tensor]:
        """Draw noise for a search from torch's global generator: what the planner would have drawn itself."""
        made = self.planner.noise
        device = tree.leaves(self.model.initial(1))[0].device
        return [made(shape, device) for shape in self.shapes]

    def _draw(self, batch: int) -> None:
        def judged(dream: Any) -> Tensor:
            if dream.actions.requires_grad:
                raise ConfigError(
                    "export: a planner that climbs gradients is no program; export one that samples, as CEM"
                )
            return self.objective(dream)

        def noted(shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
            self.shapes.append(shape)
            return torch.randn(shape, device=device)

        state = self.model.initial(batch)
        with seeded(0), deterministic():
            replace(self.planner, noise=noted)(self.model, state, judged)

    def _search(self, state: Any, warm: Tensor, given: Iterator[Tensor]) -> Plan:
        planner = replace(self.planner, noise=lambda shape, device: next(given))
        with deterministic():
            return planner(self.model, state, self.objective, Warm(actions=warm))


def export_step(model: WorldModel[Any], batch: int = 1) -> ExportedProgram:
    """Export one step of a model and its heads.

    Where the model draws at random, the program does too; under `fw.deterministic()` it is exported with modes.

    Args:
        model: a world model with actions.
        batch: B, which is fixed.

    Returns:
        A program of (state, action [B, A]) that returns (state, `Step`).

    Raises:
        SpecError: the model takes no actions.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan.export import export_step
        >>> model = Quadratic(seed=3)
        >>> program = export_step(model, batch=2).module()
        >>> after, step = program(model.initial(2), torch.ones(2, 2))
        >>> bool(torch.equal(after.x, model.step(model.initial(2), torch.ones(2, 2)).x))
        True
    """
    if model.spec.action is None:
        raise SpecError("export: the model takes no actions; export one with actions")
    device = tree.leaves(model.initial(1))[0].device
    given = (model.initial(batch), torch.zeros(batch, model.spec.action_width, device=device))
    with torch.no_grad():
        return torch.export.export(StepProgram(model), given)


def export_plan(
    model: WorldModel[Any], planner: Planner, objective: Objective, batch: int = 1
) -> tuple[ExportedProgram, PlanProgram]:
    """Export a whole search, all rounds of it, with the noise as an input.

    Planners that search by samples can be exported: random shooting, CEM, iCEM, MPPI, categorical CEM. Those that climb
    gradients cannot, nor does a program know of a time limit or of elites of an earlier search. Models whose kernels
    write in place, as those of the RSSM, need `torch.no_grad()` where the program is run.

    Args:
        model: a world model with actions; it dreams by its modes.
        planner: has a field `noise`.
        objective: what a dream is worth.
        batch: B, which is fixed.

    Returns:
        A program of (state, warm start [B, H, A], noise) that returns (actions [B, H, A], score [B]); and the module
        that it was made from, which does the same in Python and draws the noise.

    Raises:
        ConfigError: the planner takes no noise from outside, or climbs gradients.
        SpecError: the model takes no actions, or others than the planner chooses.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import CEM, PredictedReturn
        >>> from foreworld.plan.export import export_plan
        >>> model = Quadratic(seed=3)
        >>> program, module = export_plan(model, CEM(horizon=5, iterations=2), PredictedReturn(), batch=4)
        >>> given = (model.at(model.starts(4, 5)), torch.zeros(4, 5, 2), module.drawn())
        >>> bool(torch.allclose(program.module()(*given)[0], module(*given)[0]))
        True
    """
    module = PlanProgram(model, planner, objective, batch)
    device = tree.leaves(model.initial(1))[0].device
    warm = torch.zeros(batch, planner.horizon, model.spec.action_width, device=device)
    with torch.no_grad():
        return torch.export.export(module, (model.initial(batch), warm, module.drawn())), module
