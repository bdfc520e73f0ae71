"""How fast a planner is, beside what the matrix products of its predictor would allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Space, Spec, Step, state, tree
from foreworld.core.errors import MissingCapability
from foreworld.plan import CEM, GoalDistance
from foreworld.rollout import imagine
from foreworld.studies.speed import count_flops, matmul_gflops, seconds

EMBED, HIDDEN, ACTIONS = 192, 512, 10
SAMPLES, ITERATIONS, ELITES, HORIZON = 300, 30, 30, 5
"""The search of LeWM and of stable-worldmodel: 5 blocks of 5 actions, of 2 numbers each."""


@state
class Place:
    """A point [.., E] of an embedding space."""

    x: Tensor


class Predictor(nn.Module):
    """Predict embeddings by one hidden layer: the least that a predictor is, so that the planner around it shows.

    Args:
        embed: E.
        hidden: units.
        actions: A.
    """

    family = "predictor"

    def __init__(self, embed: int = EMBED, hidden: int = HIDDEN, actions: int = ACTIONS) -> None:
        """Draw the weights."""
        super().__init__()
        self.into, self.out = nn.Linear(embed + actions, hidden), nn.Linear(hidden, embed)
        box = Space(kind="vector", shape=(actions,), dtype="float32", low=(-1.0,) * actions, high=(1.0,) * actions)
        seen = Space(kind="vector", shape=(embed,), dtype="float32")
        self.spec, self.provides, self.loss_weights = Spec(obs={"obs": seen}, action=box), frozenset({"embed"}), {}

    def initial(self, batch: int) -> Place:
        """Return the origin, leaves [batch, ...]."""
        return Place(x=self.out.weight.new_zeros(batch, self.out.out_features))

    def observe(self, state: Place, segment: Segment) -> Place:
        """Take what is seen for where it is; leaves [B, T, ...]."""
        return Place(x=segment.obs["obs"].to(state.x))

    def step(self, state: Place, action: Tensor | None) -> Place:
        """Go on under actions [B, A]; None is zero."""
        action = state.x.new_zeros(len(state.x), self.spec.action_width) if action is None else action
        return Place(x=state.x + self.out(torch.relu(self.into(torch.cat([state.x, action], -1)))))

    def read(self, state: Place) -> Step:
        """Return the embedding, as features too."""
        return Step(feat=state.x, embed=state.x)

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        """Return what is seen [B, E]."""
        return obs["obs"]

    def losses(self, segment: Segment, state: Place | None = None) -> Losses[Place]:
        """Refuse: it is measured, not trained.

        Raises:
            MissingCapability: always.
        """
        raise MissingCapability("predictor: is there to be timed, and learns nothing; train a family")


@dataclass(frozen=True, kw_only=True)
class PlanSpeed:
    """What a plan takes.

    Attributes:
        environments: that are planned for at once.
        samples: candidates of a round.
        iterations: rounds.
        horizon: actions in a plan.
        device: where.
        seconds: for all environments together: CPU seconds of one thread; on a GPU seconds.
        flops: of the predictor's matrix products.
        gflops: of this machine's matrix product, in the same minute.
    """

    environments: int
    samples: int
    iterations: int
    horizon: int
    device: str
    seconds: float
    flops: int
    gflops: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        unit = "cpu_s" if self.device == "cpu" else "s"
        return {
            "environments": self.environments,
            "samples": self.samples,
            "iterations": self.iterations,
            "horizon": self.horizon,
            "device": self.device,
            f"{unit}_per_plan": self.seconds / self.environments,
            f"plans_per_{'core_s' if unit == 'cpu_s' else 's'}": self.environments / self.seconds,
            "gflop_per_plan": self.flops / 1e9 / self.environments,
            "matmul_gflops": self.gflops,
            "fraction_of_matmul": self.flops / 1e9 / self.gflops / self.seconds,
        }


class Planning:
    """One planner on one predictor, whose start and goal are drawn by a seed.

    Args:
        environments: B, at most.
        device: where to compute.
        samples: candidates of a round.
        iterations: rounds.
        horizon: H.
    """

    def __init__(
        self,
        environments: int,
        device: str = "cpu",
        samples: int = SAMPLES,
        iterations: int = ITERATIONS,
        horizon: int = HORIZON,
    ) -> None:
        """Draw the predictor."""
        torch.manual_seed(0)
        self.model = Predictor().to(device).eval()
        self.start, self.goal = torch.randn(2, environments, EMBED, device=device)
        elites = max(1, samples * ELITES // SAMPLES)
        self.planner = CEM(
            horizon=horizon,
            candidates=samples,
            iterations=iterations,
            elites=elites,
            std=1.0,
            min_std=0.0,
            momentum=0.0,
        )
        self.device = device

    def objective(self, environments: int) -> GoalDistance:
        """Return nearness to the goals at the last step."""
        return GoalDistance(goal=self.goal[:environments], over="last")

    def plan(self, environments: int) -> Tensor:
        """Plan for the first environments, and return the scores."""
        objective = self.objective(environments)
        return self.planner(self.model, Place(x=self.start[:environments]), objective).score

    def costs(self, actions: Tensor) -> Tensor:
        """Return what candidates [B, N, H, A] cost [B, N]."""
        batch, number = actions.shape[:2]
        states = tree.repeat(Place(x=self.start[:batch]), number)
        with torch.no_grad():
            dream = imagine(self.model, states, actions.flatten(0, 1), keep=("embed",))
            return -self.objective(batch)(dream).reshape(batch, number)

    def flops(self, environments: int) -> int:
        """Count the operations of the predictor's matrix products in plans for so many environments."""
        shape = (environments, self.planner.candidates, self.planner.horizon, ACTIONS)
        return self.planner.iterations * count_flops(lambda: self.costs(torch.zeros(shape, device=self.device)))

    def speed(self, environments: int, repeats: int = 5) -> PlanSpeed:
        """Time plans for the first environments, the least of several."""
        gflops = matmul_gflops(self.device)
        return PlanSpeed(
            environments=environments,
            samples=self.planner.candidates,
            iterations=self.planner.iterations,
            horizon=self.planner.horizon,
            device=self.device,
            flops=self.flops(environments),
            seconds=seconds(lambda: self.plan(environments), self.device, repeats),
            gflops=max(gflops, matmul_gflops(self.device)),
        )
