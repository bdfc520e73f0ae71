"""Tree search for discrete actions: everything if that can be afforded, else what is promising, without repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.core import tree
from foreworld.core.errors import ConfigError
from foreworld.plan.covering import cover
from foreworld.plan.growing import Growing, improved
from foreworld.plan.nodes import Stepper
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.search import Search
from foreworld.plan.searching import Searching


@dataclass(frozen=True, kw_only=True)
class TreeSearch(Searching):
    """Grow a tree of choices from the first action, the more where it earns more, and never try the same twice.

    First everything that can happen is looked at, level by level and the same states only once, if the budget allows
    it: the plan is then the best there is. Else `simulations` plans follow the tree to the horizon. The first action
    is drawn without repetition from the prior, and half of those in question are given up again and again
    (sequential halving); later ones are chosen by what was earned with them (completed Q-values, no chance), and
    beyond the tree they are drawn from the prior. Subtrees that are known completely are not entered again.

    Only `PredictedReturn` can be searched for: rewards add up along the tree, its `value` follows the horizon. A model
    that draws its states is asked once for every action in a place, and planned for as if that were certain.

    Attributes:
        horizon: actions in a plan.
        simulations: plans that are followed to the horizon, at most.
        considered: first actions in question at the beginning.
        cover: share of the budget that may be spent on looking at everything, before it is known whether that can be
            afforded; 0 leaves it out altogether.
        prior: features [N, D] to logits [N, A], one for each class; None is no preference.
        noise: what chance is made of.

    Reference:
        Danihelka et al., Policy Improvement by Planning with Gumbel, 2022, algorithm 2 and section 5, with the best
        plan found where the paper takes the mean: for in a tree without chance it can be had.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.finite import Finite
        >>> from foreworld.plan import PredictedReturn, TreeSearch
        >>> model = Finite(seed=1)
        >>> at = torch.arange(12)[model.futures[:12] > 0]
        >>> plan = TreeSearch(horizon=8, simulations=200)(model, model.at(at), PredictedReturn())
        >>> bool(torch.allclose(plan.score, model.optimum(at, horizon=8)[1])), plan.rollouts < 100
        (True, True)
    """

    kind = "discrete"
    simulations: int = 64
    considered: int = 16
    cover: float = 0.25
    prior: Callable[[Tensor], Tensor] | None = None
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.simulations, self.considered) < 1 or not 0 <= self.cover <= 1:
            raise ConfigError(
                "tree search: horizon, simulations and considered are at least 1, and cover lies in [0, 1], found "
                f"{self.horizon}, {self.simulations}, {self.considered} and {self.cover}"
            )

    @property
    def budget(self) -> int:
        """Rollouts for each environment at most, as many steps of the model as all of them counted as one."""
        return self.simulations

    @torch.no_grad()
    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A].

        Raises:
            ConfigError: the objective is no `PredictedReturn`.
            MissingCapability: the model predicts no reward.
        """
        stepper = Stepper(search)
        search.going_on()
        steps = torch.zeros(len(search.start), dtype=torch.long, device=search.start.device)
        left = torch.arange(len(steps), device=steps.device)
        if self.cover:
            found = cover(stepper, search.state, self.horizon, self._affordable(len(stepper.choices)))
            score = torch.where(found.known, found.score, -torch.inf)
            search.remember(stepper.choices[found.choices][:, None], score[:, None])
            steps, left = found.steps, (~found.known).nonzero()[:, 0]
        if len(left):
            steps = steps.index_add(0, left, self._grow(search, stepper, left, steps[left]) - steps[left])
        search.rollouts = math.ceil(int(steps.max()) / self.horizon)
        return search.plan()

    def _affordable(self, number: int) -> int:
        """Return steps that may be spent on everything, of a tree with so many branches."""
        most = self.simulations * self.horizon
        whole, level = 0, 1
        for _ in range(self.horizon):
            level *= number
            whole += level
            if whole > most:
                return int(self.cover * most)
        return most

    def _grow(self, search: Search[Any], stepper: Stepper[Any], which: Tensor, spent: Tensor) -> Tensor:
        """Follow plans from some environments [R] until budget, time or tree are used up; return all their steps."""
        growing = Growing(stepper, tree.index(search.state, which), self.horizon, self.prior)
        number, rows = len(stepper.choices), len(which)
        roots, used = np.arange(rows), spent.cpu().numpy()
        most, size = self.simulations * self.horizon, min(self.considered, number)
        warm = (search.best[which] @ stepper.choices.T).argmax(2).cpu().numpy()
        draw = partial(self._gumbel, len(search.start), which)
        used = used + growing.follow(roots, warm, draw(1, self.horizon, number)[:, 0])
        preferred = draw(1, 1, number)[:, 0, 0] + growing.logits[:rows]
        asked = np.zeros((rows, number), bool)
        for count in halving(self.simulations, size):
            first, going = considered(growing, preferred, asked, count)
            env, slot = (going & (used[:, None] + np.arange(1, count + 1) * self.horizon <= most)).nonzero()
            if not len(env) or not search.going_on():
                break
            asked = np.zeros_like(asked)
            np.put_along_axis(asked, first, True, 1)
            plan = np.full((len(env), self.horizon), -1)
            plan[:, 0] = first[env, slot]
            used += np.bincount(
                env, growing.follow(env, plan, draw(count, self.horizon, number)[env, slot]), rows
            ).astype(int)
        choices, score = (torch.from_numpy(found).to(which.device) for found in growing.best(roots))
        earned = search.score.new_full((len(search.start),), -torch.inf).index_copy(0, which, score)
        plans = search.best.index_copy(0, which, stepper.choices[choices])
        search.remember(plans[:, None], earned[:, None])
        return torch.from_numpy(used).to(which.device)

    def _gumbel(self, batch: int, which: Tensor, *shape: int) -> np.ndarray:
        """Draw Gumbel noise [R, N, H, P]; every environment has numbers of its own, whether it needs them or not."""
        count, horizon, number = shape
        normal = self.noise((batch, count, horizon, number), which.device)[which]
        return -(-torch.special.ndtr(normal).clamp(1e-7, 1 - 1e-6).log()).log().cpu().numpy()


def considered(growing: Growing[Any], preferred: np.ndarray, asked: np.ndarray, count: int) -> Any:
    """Choose the first actions in question.

    Args:
        growing: a tree.
        preferred: [R, P], prior and noise of every first choice.
        asked: [R, P] bool, those in question so far: as long as they are not over, none is taken up beside them.
        count: N, how many.

    Returns:
        Choices [R, N], and [R, N] whether there is something left to be found out about them.
    """
    rows = len(preferred)
    logits, over = growing.logits[:rows], growing.over[:rows]
    gained = improved(logits, growing.visits[:rows], growing.earned[:rows]) - logits
    order = np.lexsort((-preferred - gained, ~asked, over), axis=1)[:, :count]
    return order, ~np.take_along_axis(over, order, 1)


def halving(simulations: int, number: int) -> Iterator[int]:
    """Yield how many first actions are in question, round by round and without end.

    Args:
        simulations: that are shared out evenly among the phases; the last phase goes on.
        number: of first actions in question at the beginning.
    """
    phases = max(1, math.ceil(math.log2(number)))
    size = number
    for _ in range(phases):
        for _ in range(max(1, simulations // (phases * size))):
            yield size
        size = max(2, size // 2) if number > 1 else 1
    while True:
        yield size
