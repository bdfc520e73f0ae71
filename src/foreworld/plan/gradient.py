"""Planning by gradients: Adam on the actions, through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.search import GRADIENT_COST, Search
from foreworld.plan.searching import Searching

BETAS = (0.9, 0.95)
"""Adam's memories. Far from the optimum gradients are orders of magnitude larger: the usual 0.999 would remember them,
and take tiny steps, for longer than a plan takes."""


@dataclass(frozen=True, kw_only=True)
class Gradient(Searching):
    """Climb the objective by Adam from the warm start, and from plans around it; steps beyond [-1, 1] are cut.

    The model's own weights get no gradient. Where a gradient is not finite, an action stays where it is.

    Attributes:
        horizon: actions in a plan.
        candidates: starts; the first is the warm start itself.
        iterations: updates.
        lr: the first step size; it falls linearly towards 0.
        std: deviation of the other starts from the warm start.
        noise: what the other starts are made of.

    Reference:
        Kingma and Ba, Adam, 2015, algorithm 1.
    """

    kind = "vector"
    candidates: int = 4
    iterations: int = 40
    lr: float = 0.1
    std: float = 0.5
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.candidates, self.iterations) < 1 or not (self.lr > 0 and self.std >= 0):
            raise ConfigError(
                "gradient: horizon, candidates and iterations are at least 1, lr is positive and std 0 or more, found "
                f"{self.horizon}, {self.candidates}, {self.iterations}, {self.lr} and {self.std}"
            )

    @property
    def budget(self) -> int:
        """Rollouts for each environment; where the last update led is judged without a gradient."""
        return self.candidates * (GRADIENT_COST * self.iterations + 1)

    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A].

        Raises:
            MissingCapability: the score has no gradient with respect to the actions.
        """
        actions = begin(search, self.candidates, self.std, self.noise)
        with torch.inference_mode(False), torch.enable_grad():
            actions = actions.clone().requires_grad_()
            adam = torch.optim.Adam([actions], lr=self.lr, betas=BETAS, maximize=True)
            for step in range(self.iterations):
                if not search.going_on():
                    return search.plan()
                actions.grad = slope_of(search.judge(actions), actions)
                adam.param_groups[0]["lr"] = self.lr * (1 - step / self.iterations)
                adam.step()
                with torch.no_grad():
                    actions.clamp_(-1, 1)
        with torch.no_grad():
            search.judge(actions.detach())
        return search.plan()


def begin(search: Search[Any], candidates: int, std: float, noise: Noise) -> Tensor:
    """Return the warm start and plans around it.

    Args:
        search: what knows the warm start.
        candidates: N, how many starts.
        std: deviation of the others from the warm start.
        noise: what these are made of.

    Returns:
        [B, N, H, A], the warm start first.
    """
    batch, horizon, width = search.start.shape
    start = search.start[:, None]
    drawn = noise((batch, candidates - 1, horizon, width), search.start.device)
    return torch.cat([start, (start + std * drawn).clamp(-1, 1)], 1)


def slope_of(score: Tensor, actions: Tensor) -> Tensor:
    """Differentiate scores by actions; what is not finite is 0.

    Args:
        score: of any shape.
        actions: [B, N, H, A], which the scores were computed from.

    Returns:
        [B, N, H, A].

    Raises:
        MissingCapability: the scores do not depend on the actions by differentiable operations.
    """
    if not score.requires_grad:
        raise MissingCapability(
            "planning by gradients needs a model and an objective that have one with respect to actions, "
            "which these lack: use CEM"
        )
    return torch.autograd.grad(score.sum(), actions)[0].nan_to_num(0.0, 0.0, 0.0)
