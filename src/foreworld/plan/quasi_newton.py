"""Planning by gradients that learn the curvature: a projected quasi-Newton method, through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreworld.core.errors import ConfigError
from foreworld.plan.gradient import begin, slope_of
from foreworld.plan.noise import Noise, white
from foreworld.plan.protocols import Plan
from foreworld.plan.search import GRADIENT_COST, Search, sound
from foreworld.plan.searching import Searching

ENOUGH = 1e-4
"""Share of what the slope promises that a step must bring."""
SHORTEST = 1e-3
"""Share of a step below which the curvature learned so far is given up: it led nowhere."""
DAMPED = 0.2
"""Share of the curvature believed so far that remains along a step, however little was found there."""


@dataclass(frozen=True, kw_only=True)
class QuasiNewton(Searching):
    """Climb the objective by steps that suit its curvature, from the warm start and from plans around it.

    Where actions count a thousand times more in one direction than in another, Adam needs hundreds of updates; this
    learns the curvature from gradients as they come, and needs little more than one update for each number of a plan.
    Every step is judged before it is taken, and shortened if it brought too little: so the model must not draw at
    random (`fw.deterministic()`), and memory grows with the square of horizon times actions.

    Attributes:
        horizon: actions in a plan.
        candidates: starts; the first is the warm start itself.
        iterations: steps tried; the first is the start.
        first: length of the first step, before the curvature is known, in its largest action.
        std: deviation of the other starts from the warm start.
        noise: what the other starts are made of.

    Reference:
        Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints, 1982; with the damped
        update of Powell, in Nocedal and Wright, Numerical Optimization, 2006, procedure 18.2.

    Example:
        >>> import foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import PredictedReturn, QuasiNewton
        >>> model = Quadratic(seed=3)
        >>> x = model.starts(5, horizon=12)
        >>> plan = QuasiNewton(horizon=12)(model, model.at(x), PredictedReturn())
        >>> bool((plan.score > 1.001 * model.optimum(x, horizon=12)[1]).all())
        True
    """

    kind = "vector"
    candidates: int = 1
    iterations: int = 100
    first: float = 0.1
    std: float = 0.5
    noise: Noise = white

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if min(self.horizon, self.candidates, self.iterations) < 1 or not (self.first > 0 and self.std >= 0):
            raise ConfigError(
                "quasi newton: horizon, candidates and iterations are at least 1, first is positive and std 0 or more, "
                f"found {self.horizon}, {self.candidates}, {self.iterations}, {self.first} and {self.std}"
            )

    @property
    def budget(self) -> int:
        """Rollouts for each environment."""
        return GRADIENT_COST * self.candidates * self.iterations

    def run(self, search: Search[Any]) -> Plan:
        """Search for the best actions [B, H, A].

        Raises:
            MissingCapability: the score has no gradient with respect to the actions.
        """
        start = begin(search, self.candidates, self.std, self.noise)
        climb = Climb.at_foot(start.flatten(2).flatten(0, 1), self.first)
        while search.iterations < self.iterations and search.going_on():
            tried = climb.next()
            with torch.inference_mode(False), torch.enable_grad():
                actions = tried.clone().reshape(start.shape).requires_grad_()
                score = search.judge(actions)
                slope = slope_of(score, actions)
            climb.arrive(tried, sound(score.detach()).flatten(), slope.flatten(2).flatten(0, 1))
        return search.plan()


@dataclass
class Climb:
    """R climbs side by side in D numbers within [-1, 1].

    Attributes:
        at: [R, D], the best so far.
        score: [R] there; -inf before any is known.
        slope: [R, D], the gradient there.
        curvature: [R, D, D], minus the second derivative as far as it is known, positive definite.
        learned: [R], whether anything is known of it.
        direction: [R, D], the step that suits slope and curvature.
        share: [R], how much of it is tried next.
        first: length of a step before the curvature is known.
    """

    at: Tensor
    score: Tensor
    slope: Tensor
    curvature: Tensor
    learned: Tensor
    direction: Tensor
    share: Tensor
    first: float

    @classmethod
    def at_foot(cls, at: Tensor, first: float) -> Climb:
        """Begin at `at` [R, D], where nothing is known yet."""
        rows, width = at.shape
        eye = torch.eye(width, device=at.device).expand(rows, width, width)
        none, ones = torch.zeros_like(at), at.new_ones(rows)
        return cls(at, ones * -torch.inf, none, eye, ones > 1, none, ones, first)

    def next(self) -> Tensor:
        """Return what to try [R, D]."""
        return (self.at + self.share[:, None] * self.direction).clamp(-1, 1)

    def arrive(self, tried: Tensor, score: Tensor, slope: Tensor) -> None:
        """Go where it brought enough, shorten the step elsewhere, and learn from both.

        Args:
            tried: [R, D].
            score: [R] there, -inf where it is none.
            slope: [R, D] there.
        """
        moved = tried - self.at
        promised = (self.slope * moved).sum(1)
        taken = score.isfinite() & (promised >= 0) & (score >= self.score + ENOUGH * promised)
        seen = score.isfinite() & self.score.isfinite() & (moved != 0).any(1)
        self._learn(moved, self.slope - slope, seen)
        # the parabola through both scores and the slope has its top here
        top = promised / (2 * (self.score + promised - score))
        shorter = self.share * torch.where(top.isfinite(), top, 0.0).clamp(0.1, 0.5)
        self.at, self.slope = (
            torch.where(taken[:, None], tried, self.at),
            torch.where(taken[:, None], slope, self.slope),
        )
        self.score = torch.where(taken, score, self.score)
        lost = ~taken & (shorter < SHORTEST)
        self.learned = self.learned & ~lost
        self._aim()
        self.share = torch.where(taken | lost, 1.0, shorter)

    def _learn(self, moved: Tensor, fell: Tensor, seen: Tensor) -> None:
        """Fit the curvature to how far the slope fell [R, D] along a step [R, D], where one was seen [R]."""
        bend = (moved * fell).sum(1)
        scale = fell.square().sum(1) / bend
        anew = seen & ~self.learned & (bend > 0) & scale.isfinite() & (scale > 0)
        eye = torch.eye(moved.shape[1], device=moved.device)
        known = torch.where(anew[:, None, None], torch.where(anew, scale, 1.0)[:, None, None] * eye, self.curvature)
        before = torch.einsum("rij,rj->ri", known, moved)
        believed = (moved * before).sum(1)
        damp = torch.where(bend < DAMPED * believed, (1 - DAMPED) * believed / (believed - bend), 1.0)[:, None]
        fell = damp * fell + (1 - damp) * before
        bend = (moved * fell).sum(1)
        update = _outer(fell) / bend[:, None, None] - _outer(before) / believed[:, None, None]
        fits = (anew | (seen & self.learned)) & update.isfinite().all(2).all(1)
        self.curvature = torch.where(fits[:, None, None], known + update, self.curvature)
        self.learned = self.learned | fits

    def _aim(self) -> None:
        """Solve for the step that the curvature suggests, with actions held that the slope presses to their bounds."""
        free = ~((self.at.abs() >= 1) & (self.at * self.slope > 0))
        slope = self.slope * free
        both = free[:, :, None] & free[:, None, :]
        held = torch.diag_embed((~free).to(slope))
        factor, failed = torch.linalg.cholesky_ex(torch.where(both, self.curvature, 0.0) + held)
        step = torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0]
        self.learned = self.learned & (failed == 0) & step.isfinite().all(1)
        steep = slope.abs().amax(1, keepdim=True)
        plain = self.first * slope / torch.where(steep > 0, steep, 1.0)
        self.direction = torch.where(self.learned[:, None], step, plain)


def _outer(x: Tensor) -> Tensor:
    return x[:, :, None] * x[:, None, :]
