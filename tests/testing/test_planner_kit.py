"""The planners' kit: all of the library pass, somebody else's passes, and each broken one fails where it is broken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import seeded, tree
from foreworld.core.errors import SpecError
from foreworld.core.registry import names
from foreworld.plan import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Gradient,
    Hybrid,
    Plan,
    Planner,
    QuasiNewton,
    RandomShooting,
    TreeSearch,
    Warm,
)
from foreworld.rollout import imagine
from foreworld.testing import PLANNER_CHECKS, NonConforming, PlannerFactory, check_planner

OURS: dict[str, PlannerFactory] = {
    "categorical_cem": lambda horizon: CategoricalCEM(horizon=horizon, candidates=32, iterations=6),
    "cem": lambda horizon: CEM(horizon=horizon, candidates=32, iterations=6),
    "gradient": lambda horizon: Gradient(horizon=horizon, candidates=2, iterations=8),
    "hybrid": lambda horizon: Hybrid(
        first=CEM(horizon=horizon, candidates=32, iterations=3),
        second=Gradient(horizon=horizon, candidates=1, iterations=6),
    ),
    "icem": lambda horizon: ICEM(horizon=horizon, candidates=32, iterations=6, elites=4),
    "mppi": lambda horizon: MPPI(horizon=horizon, candidates=32, iterations=6),
    "quasi_newton": lambda horizon: QuasiNewton(horizon=horizon, iterations=20),
    "tree_search": lambda horizon: TreeSearch(horizon=horizon, simulations=192),
    "random_shooting": lambda horizon: RandomShooting(horizon=horizon, candidates=64, iterations=3),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "tree_search")) for name in names("planners")]
)
def test_every_planner_of_the_library_keeps_the_protocol(name: str) -> None:
    outcomes = {one.outcome for one in check_planner(OURS[name])}
    assert "passed" in outcomes and "failed" not in outcomes


class Climber:
    """Somebody else's planner: change the best plan a little, keep what is better, again and again."""

    kind: Any = None

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.rounds, self.number = 8, 24

    @property
    def budget(self) -> int:
        return self.rounds * self.number

    def __call__(
        self, model: Any, state: Any, objective: Any, warm: Warm | None = None, seconds: float | None = None
    ) -> Plan:
        space, batch = model.spec.action, len(tree.leaves(state)[0])
        if self.kind not in (None, space.kind):
            raise SpecError(f"climber: the actions are {space.kind}; use another planner")
        start = self.begin(warm, (batch, self.horizon, space.width))
        best, top, spent, began = self.legal(space, start), torch.full((batch,), -torch.inf), 0, time.monotonic()
        for done in range(self.rounds):
            if self.late(began, done, seconds):
                done -= 1
                break
            tried = self.around(space, best, 0.6 * 0.7**done)
            with torch.no_grad():
                dream = imagine(model, tree.repeat(state, self.number), tried.flatten(0, 1))
                score = self.sound(objective(dream).reshape(batch, self.number))
            spent += self.number
            best, top = self.better(tried, score, best, top)
        return Plan(actions=best, score=top, fell_back=self.lost(top), rollouts=self.stated(spent), iterations=done + 1)

    def begin(self, warm: Warm | None, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape) if warm is None else warm.actions.nan_to_num(0.0)

    def legal(self, space: Any, plans: Tensor) -> Tensor:
        return space.one_hot(space.from_one_hot(plans)) if space.kind == "discrete" else plans.clamp(-1, 1)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape)

    def around(self, space: Any, best: Tensor, size: float) -> Tensor:
        noise = self.noise((len(best), self.number - 1, *best.shape[1:]))
        if space.kind == "discrete":
            anew = self.noise((*noise.shape[:3], 1)) > 0.7  # a quarter of the choices
            return torch.cat([best[:, None], self.legal(space, torch.where(anew, noise, best[:, None]))], 1)
        return torch.cat([best[:, None], self.legal(space, best[:, None] + size * 2 * noise)], 1)

    def sound(self, score: Tensor) -> Tensor:
        return torch.where(score.isfinite(), score, -torch.inf)

    def better(self, tried: Tensor, score: Tensor, best: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        value, which = score.max(1)
        chosen = tried[torch.arange(len(tried)), which]
        wins = value > top
        return torch.where(wins[:, None, None], chosen, best), torch.where(wins, value, top)

    def late(self, began: float, done: int, seconds: float | None) -> bool:
        spent = time.monotonic() - began
        return seconds is not None and done > 0 and spent + spent / done > seconds

    def lost(self, top: Tensor) -> Tensor:
        return ~top.isfinite()

    def stated(self, spent: int) -> int:
        return spent


def test_somebody_elses_planner_keeps_it_too() -> None:
    results = check_planner(Climber)
    assert {one.spec for one in results} == {"numbers", "choices"}
    assert {one.check for one in results if one.outcome == "inapplicable"} == {"kind_refused"}


class ForNumbers(Climber):
    kind = "vector"


class Unbounded(ForNumbers):
    """Cuts nothing, and forgets NaN in a warm start."""

    def legal(self, space: Any, plans: Tensor) -> Tensor:
        return plans


class Undecided(Climber):
    """Gives probabilities for choices."""

    kind = "discrete"

    def legal(self, space: Any, plans: Tensor) -> Tensor:
        return torch.softmax(plans, -1)


class Forgetful(ForNumbers):
    """Begins from nothing whatever is left of the plan before."""

    def begin(self, warm: Warm | None, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)


class Credulous(ForNumbers):
    """Lets NaN and infinite scores win."""

    def sound(self, score: Tensor) -> Tensor:
        return score


class Silent(ForNumbers):
    """Does not say that it fell back."""

    def lost(self, top: Tensor) -> Tensor:
        return torch.zeros(top.shape, dtype=torch.bool)


class Leaky(ForNumbers):
    """Gives every environment the plan that is the best of any."""

    def better(self, tried: Tensor, score: Tensor, best: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        best, top = super().better(tried, score, best, top)
        return best[top.argmax()].expand_as(best).clone(), top


class Spendthrift(ForNumbers):
    """Dreams more than its budget."""

    @property
    def budget(self) -> int:
        return self.number


class Secretive(ForNumbers):
    """States fewer rollouts than it dreams."""

    def stated(self, spent: int) -> int:
        return self.budget - 1


class Endless(ForNumbers):
    """Does not look at the clock."""

    def late(self, began: float, done: int, seconds: float | None) -> bool:
        return False


class Hasty(ForNumbers):
    """Leaves no plan where there is no time."""

    def late(self, began: float, done: int, seconds: float | None) -> bool:
        return seconds is not None and seconds < 1


class Unseeded(ForNumbers):
    """Draws from a generator of its own."""

    source = np.random.default_rng()

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(self.source.standard_normal(shape)).float()


class Timid(ForNumbers):
    """Hardly looks around."""

    def around(self, space: Any, best: Tensor, size: float) -> Tensor:
        return super().around(space, best, 0.001)


class Aimless(ForNumbers):
    """Tries the same few plans in every round."""

    def around(self, space: Any, best: Tensor, size: float) -> Tensor:
        with seeded(0):
            return super().around(space, torch.zeros_like(best), 0.6)


class Boastful(ForNumbers):
    """Keeps the first plan that it finds, and the best score."""

    def better(self, tried: Tensor, score: Tensor, best: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        return best, super().better(tried, score, best, top)[1]


class Careless(Climber):
    """Says that it is for numbers, and takes anything."""

    kind = "vector"

    def __call__(self, *args: Any, **options: Any) -> Plan:
        free = Climber(self.horizon)
        return free(*args, **options)


BROKEN: dict[type[Climber], str] = {
    Unbounded: "actions_legal",
    Undecided: "actions_legal",
    Forgetful: "warm_start",
    Credulous: "broken_scores",
    Silent: "fallback",
    Leaky: "plans_independent",
    Spendthrift: "budget",
    Secretive: "budget",
    Endless: "time_limit",
    Hasty: "time_limit",
    Unseeded: "planner_seeds",
    Timid: "beats_shooting",
    Aimless: "beats_shooting",
    Boastful: "plan_shapes",
    Careless: "kind_refused",
}


@pytest.mark.parametrize(("make", "check"), BROKEN.items(), ids=lambda one: getattr(one, "__name__", one))
def test_a_broken_planner_is_caught_where_it_is_broken(make: Callable[[int], Planner], check: str) -> None:
    with pytest.raises(NonConforming) as caught:
        check_planner(make)
    assert f"{check} [" in str(caught.value)


def test_every_check_catches_something() -> None:
    assert {f"check_{name}" for name in BROKEN.values()} == {check.__name__ for check in PLANNER_CHECKS}
