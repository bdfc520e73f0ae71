"""The classic silent bugs of planners: each is put in, and a check must fail.

With any of them a plan still looks plausible.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plain_planners import (
    HORIZON,
    Counted,
    Recorded,
    costs,
    drawing,
    dream,
    elite_shares,
    numbers,
    plain_search,
    softmax_shares,
    starts,
)
from seeding import Check, Seed, around, expect_caught, pairs, rewritten

import foreworld as fw
from foreworld.core import tree
from foreworld.models.finite import Finite
from foreworld.models.quadratic import Quadratic
from foreworld.plan import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Coloured,
    GoalDistance,
    Gradient,
    PredictedReturn,
    QuasiNewton,
    SpreadPenalty,
    TreeSearch,
    categorical,
    cem,
    covering,
    gradient,
    growing,
    mppi,
    objectives,
    protocols,
    sampling,
    search,
    white,
)
from foreworld.plan import tree as tree_module
from foreworld.plan.growing import Growing
from foreworld.plan.nodes import Stepper
from foreworld.plan.quasi_newton import Climb
from foreworld.plan.sampling import Choices, Normals
from foreworld.plan.search import Search

RETURN = PredictedReturn()
EXACT = Quadratic(seed=3, dtype=torch.float64)
SEEDS = [5, 6, 7]


# --- what a dream is worth


def check_return() -> None:
    """Rewards, an end, a discount and a bootstrap, by hand."""
    one = dream(
        reward=torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]),
        cont=torch.tensor([[1.0, 1.0, 0.5], [0.5, 0.0, 1.0]]),
        feat=torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]),
    )
    torch.testing.assert_close(PredictedReturn()(one), torch.tensor([7.0, 2.0]))
    torch.testing.assert_close(PredictedReturn(discount=0.5)(one), torch.tensor([3.0, 1.5]))
    boot = PredictedReturn(discount=0.5, value=lambda feat: 10 * feat[:, 0])
    torch.testing.assert_close(boot(one), torch.tensor([3.0 + 0.125 * 0.5 * 30, 1.5]))


def check_goal() -> None:
    """Two environments with goals of their own, two candidates each, candidates of an environment adjacent."""
    reached = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [2.0, 3.0]])[:, :, None].expand(4, 2, 2)
    for space in ("feat", "embed"):
        goal = GoalDistance(goal=torch.tensor([[0.0, 0.0], [3.0, 3.0]]), space=space)
        one = dream(**{"feat": torch.full((4, 2, 2), 9.0), space: reached})
        torch.testing.assert_close(goal(one), torch.tensor([-1.0, -13.0, -13.0, -1.0]))
        torch.testing.assert_close(replace(goal, over="last")(one), torch.tensor([-1.0, -9.0, -4.0, 0.0]))
        torch.testing.assert_close(replace(goal, over="nearest")(one), torch.tensor([-0.005, -4.065, -4.065, -0.005]))


def check_spread() -> None:
    """Disagreement costs, until the end."""
    one = dream(spread=torch.tensor([[1.0, 2.0], [1.0, 2.0]]), cont=torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(SpreadPenalty()(one), torch.tensor([-3.0, -1.0]))


RETURNS: dict[str, Seed] = {
    "discount ignored": around(objectives, "discounted_return", lambda right, r, c, d=1.0: right(r, c)),
    "discount one step early": around(objectives, "discounted_return", lambda right, r, c, d=1.0: d * right(r, c, d)),
    "cont ignored": around(objectives, "discounted_return", lambda right, r, c, d=1.0: right(r, c * 0 + 1, d)),
    "an end erases the reward of reaching it": around(
        objectives, "discounted_return", lambda right, r, c, d=1.0: right(r * c, c, d)
    ),
    "bootstrap from the first state": rewritten(PredictedReturn, "__call__", "dream.feat[:, -1]", "dream.feat[:, 0]"),
    "bootstrap replaces the last reward": rewritten(
        PredictedReturn, "__call__", "torch.cat([reward, ", "torch.cat([reward[:, :-1], 0 * reward[:, -1:], "
    ),
}
GOALS: dict[str, Seed] = {
    "goals dealt out in turn": rewritten(
        GoalDistance,
        "__call__",
        "reached.unflatten(0, (-1, number))",
        "reached.unflatten(0, (number, -1)).transpose(0, 1)",
    ),
    "one goal for all": rewritten(GoalDistance, "__call__", "self.goal.to(reached)", "self.goal[:1].to(reached)"),
    "distance rewarded": around(GoalDistance, "__call__", lambda right, self, one: -right(self, one)),
    "first step for last": rewritten(GoalDistance, "__call__", "reached[:, -1:]", "reached[:, :1]"),
    "features for embeddings": rewritten(GoalDistance, "__call__", 'self.space == "feat"', "True"),
    "last step by default": rewritten(GoalDistance, "__call__", "far.sum(-1)", "far[..., -1]"),
    "nothing but the nearest": rewritten(GoalDistance, "__call__", "TIE *", "0 *"),
    "farthest for nearest": rewritten(GoalDistance, "__call__", "far.amin(-1)", "far.amax(-1)"),
}
SPREADS: dict[str, Seed] = {
    "disagreement rewarded": around(SpreadPenalty, "__call__", lambda right, self, one: -right(self, one)),
    "disagreement beyond the end": around(
        SpreadPenalty, "__call__", lambda right, self, one: right(self, replace(one, cont=None))
    ),
}


# --- searching by samples


def check_cem() -> None:
    """Three environments at once, with elites that stay, are three searches in plain NumPy."""
    x = starts(EXACT, 3)
    plan = CEM(horizon=HORIZON, candidates=20, iterations=4, elites=4, keep=2, noise=Recorded(SEEDS))(
        EXACT, EXACT.at(x), RETURN
    )
    rules = {"std": 0.5, "least": 0.05, "momentum": 0.1, "keep": 2}
    for i, seed in enumerate(SEEDS):
        expect(plan, i, plain_search(costs(EXACT, x[i]), drawing(seed), [20] * 4, by_elites, **rules))


def check_mppi() -> None:
    """Likewise with all candidates, weighted; returns a million times larger change nothing."""
    x = starts(EXACT, 3)
    rules = {"std": 0.5, "least": 0.05, "momentum": 0.1}
    for scale in (1.0, 1e6):
        planner = MPPI(horizon=HORIZON, candidates=20, iterations=4, noise=Recorded(SEEDS))
        plan = planner(EXACT, EXACT.at(x), lambda one, scale=scale: scale * RETURN(one))
        for i, seed in enumerate(SEEDS):
            found = plain_search(costs(EXACT, x[i]), drawing(seed), [20] * 4, by_temperature, **rules)
            expect(replace(plan, score=plan.score / scale), i, found)


def by_elites(scores: list[float]) -> np.ndarray:
    return elite_shares(scores, 4)


def by_temperature(scores: list[float]) -> np.ndarray:
    return softmax_shares(scores, 0.2)


def expect(plan: Any, i: int, found: tuple[np.ndarray, float]) -> None:
    torch.testing.assert_close(plan.actions[i].double(), torch.from_numpy(found[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plan.score[i].double(), torch.tensor(found[1]).double(), atol=1e-3, rtol=1e-4)


def check_bad_scores() -> None:
    """Where the first action is large all scores are broken: none is elected, none leads the search."""
    for bad in (torch.nan, torch.inf):
        for planner in numbers(lambda: white):
            with fw.seeded(0):
                plan = planner(
                    EXACT,
                    EXACT.at(starts(EXACT, 3)),
                    lambda one, bad=bad: torch.where(one.actions[:, 0, 0] > 0.1, bad, RETURN(one)),
                )
            assert (plan.actions[:, 0, 0] <= 0.1).all()
            assert plan.score.isfinite().all()
        plan = CEM(horizon=HORIZON)(EXACT, EXACT.initial(2), lambda one, bad=bad: RETURN(one) + bad)
        assert plan.fell_back.all()


def leaked(right: Any, score: Any, elites: int) -> Any:
    """Elect by the candidates of all environments together."""
    return right(score.mean(0, keepdim=True).expand_as(score), elites)


def strangers(right: Any, self: Search[Any], candidates: Any) -> Any:
    """Dream every candidate from the start of another environment."""
    before = self.state
    self.state = tree.map(lambda leaf: leaf.roll(1, 0), before)
    score = right(self, candidates)
    self.state = before
    return score


CLAMP = ".clamp(-1, 1)"
SEARCHES: dict[str, Seed] = {
    "deviation ignored": rewritten(Normals, "sample", "self.std[:, None] * noise", "noise"),
    "deviation never fitted": around(Normals, "fitted", lambda right, self, *a: replace(right(self, *a), std=self.std)),
    "mean never fitted": around(Normals, "fitted", lambda right, self, *a: replace(right(self, *a), mean=self.mean)),
    "variance for deviation": rewritten(Normals, "fitted", ".sqrt()", ""),
    "no floor for the deviation": rewritten(Normals, "fitted", ".clamp(min=self.least)", ""),
    "momentum the wrong way round": rewritten(
        sampling, "_moved", "momentum * old + (1 - momentum) * new", "(1 - momentum) * old + momentum * new"
    ),
    "clamped in the units of an environment": rewritten(Normals, "sample", CLAMP, ".clamp(-2, 2)"),
    "clamped to a quarter": rewritten(Normals, "sample", CLAMP, ".clamp(-0.25, 0.25)"),
    "dreams of another environment": around(Search, "judge", strangers),
    "states dealt out in turn": around(
        search.tree, "repeat", lambda right, node, n: tree.map(lambda x: x.repeat(n, *[1] * (x.dim() - 1)), node)
    ),
    "the worst for the best": rewritten(Search, "remember", "score.max(1)", "score.min(1)"),
}  # fmt: skip
ELITES: dict[str, Seed] = {
    "elites leaked across environments": around(cem, "elite_weights", leaked),
    "the worst as elites": around(cem, "elite_weights", lambda right, score, elites: right(-score, elites)),
    "one elite too few": around(cem, "elite_weights", lambda right, score, elites: right(score, elites - 1)),
    "kept elites forgotten": rewritten(cem, "adapt", "kept = candidates[", "_ = candidates["),
    "kept elites of another environment": rewritten(cem, "adapt", "kept[:, :keep]", "kept[:, :keep].roll(1, 0)"),
}
WEIGHTS: dict[str, Seed] = {
    "temperature ignored": around(mppi, "softmax_weights", lambda right, score, temperature: right(score, 1.0)),
    "scores not normalised": around(
        mppi, "softmax_weights", lambda right, score, temperature: torch.softmax(score / temperature, 1)
    ),
    "normalised over all environments": rewritten(
        mppi,
        "softmax_weights",
        "(good * (exact - mean).square()).sum(1, keepdim=True)",
        "(exact - mean).square().sum()",
    ),
}
BAD_SCORES: dict[str, Seed] = {
    "NaN becomes zero": around(search, "sound", lambda right, score: score.nan_to_num(0.0)),
    "infinity elected": around(search, "sound", lambda right, score: torch.where(score.isnan(), -torch.inf, score)),
    "fallback concealed": rewritten(Search, "plan", "~self.score.isfinite()", "self.score.isnan()"),
}


def check_led_by_sound_scores() -> None:
    """Broken candidates neither are elites nor move the distribution."""
    score = torch.tensor([[1.0, torch.nan, 3.0, torch.inf], [torch.nan] * 4])
    clean = search.sound(score)
    assert sampling.elite_weights(clean, 3).tolist() == [[0.5, 0.0, 0.5, 0.0], [0.0] * 4]
    torch.testing.assert_close(
        sampling.softmax_weights(clean, 2.0),
        torch.tensor([[0.2689, 0.0, 0.7311, 0.0], [0.0] * 4]),
        atol=1e-4,
        rtol=0,
    )
    before = Normals(torch.zeros(2, 1, 1), torch.ones(2, 1, 1), 0.1)
    after = before.fitted(torch.ones(2, 4, 1, 1), sampling.elite_weights(clean, 3), 0.0)
    assert after.mean.flatten().tolist() == [1.0, 0.0]
    assert after.std[1].item() == 1.0


LED: dict[str, Seed] = {
    "broken elites count": rewritten(sampling, "elite_weights", " * score.isfinite()", ""),
    "NaN stays": around(search, "sound", lambda right, score: score),
    "nothing moves to the middle": rewritten(sampling, "_moved", "weights.sum(1) > 0", "weights.sum(1) >= 0"),
}


def check_best_ever() -> None:
    """Where every round is worse than the one before, the best of the first is the plan."""
    for planner in numbers(lambda: white):
        scores: list[Any] = []

        def judge(one: Any, scores: list[Any] = scores) -> Any:
            scores.append(one.actions.sum((1, 2)) - 1000 * len(scores))
            return scores[-1]

        plan = planner(EXACT, EXACT.initial(2), judge)
        torch.testing.assert_close(plan.score, scores[0].detach().unflatten(0, (2, -1)).amax(1))


BEST: dict[str, Seed] = {
    "the best of the last round only": rewritten(Search, "remember", "top > self.score", "top > -torch.inf"),
    "score of the last round": rewritten(
        Search, "remember", "torch.where(better, top.to(self.score), self.score)", "top"
    ),
}


# --- from plan to plan


def check_warm_start() -> None:
    """The next search begins from the plan less what was done: with its elites, and never worse."""
    state = EXACT.at(starts(EXACT, 2))
    planner = ICEM(horizon=HORIZON, candidates=16, elites=4, iterations=1)
    with fw.seeded(0):
        plan = planner(EXACT, state, RETURN)
    for steps in (1, 3):
        seen: list[Any] = []

        def judge(one: Any, seen: list[Any] = seen) -> Any:
            seen.append(one.actions.unflatten(0, (2, -1)))
            return RETURN(one)

        planner(EXACT, state, judge, warm=plan.after(steps))
        rest = HORIZON - steps
        torch.testing.assert_close(seen[0][:, 0, :rest], plan.actions[:, steps:])
        torch.testing.assert_close(seen[0][:, 1:4, :rest], plan.elites[:, :, steps:])
        assert not seen[0][:, :4, rest:].any()


def check_warm_choices() -> None:
    """Choices of the plan before are likelier, and steps without one are even."""
    plan = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    found = Choices.around(plan, Finite(seed=1).spec.action, trust=0.4, unimix=0.1).probs
    torch.testing.assert_close(found, torch.tensor([[[0.2, 0.6, 0.2], [1 / 3, 1 / 3, 1 / 3]]]))


WARM: dict[str, Seed] = {
    "no shift": around(protocols, "_shifted", lambda right, actions, steps: actions),
    "always one step": around(protocols, "_shifted", lambda right, actions, steps: right(actions, 1)),
    "shifted round": around(protocols, "_shifted", lambda right, actions, steps: actions.roll(-steps, -2)),
    "shifted along the candidates": around(
        protocols, "_shifted", lambda right, actions, steps: right(actions.transpose(0, -2), steps).transpose(0, -2)
    ),
    "warm start unused": around(Search, "__init__", lambda right, *a, warm=None, **f: right(*a, **f)),
    "elites unused": rewritten(cem, "adapt", "search.elites if keep else None", "None"),
}  # fmt: skip
WARM_CHOICES: dict[str, Seed] = {
    "trust ignored": rewritten(categorical.Choices, "around", "trust * plan", "plan"),
}


# --- gradients, choices, noise, budgets


def check_gradient() -> None:
    """Adam by the book, on distances to a target of which one part lies beyond the bounds."""
    target = torch.tensor([[[0.5, 3.0]] * HORIZON])
    state, steps = EXACT.initial(1), 5
    seen: list[Any] = []

    def judge(one: Any) -> Any:
        seen.append(one.actions.detach().clone())
        return -(one.actions - target).square().sum((1, 2))

    Gradient(horizon=HORIZON, candidates=1, iterations=steps, lr=0.4)(EXACT, state, judge)
    assert len(seen) == steps + 1
    at, first, second = np.zeros(2), np.zeros(2), np.zeros(2)
    for step in range(steps + 1):
        torch.testing.assert_close(seen[step][0, 0].double(), torch.from_numpy(at), atol=1e-5, rtol=0)
        slope = -2 * (at - np.array([0.5, 3.0]))
        first, second = 0.9 * first + 0.1 * slope, 0.95 * second + 0.05 * slope**2
        move = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.95 ** (step + 1))) + 1e-8)
        at = np.clip(at + 0.4 * (1 - step / steps) * move, -1, 1)


def check_quasi_newton() -> None:
    """The bottom of a bent valley is found though a bound binds, and that of a narrow one though steps overshoot."""
    target, near = torch.tensor([0.5, 3.0]), torch.tensor([0.2, 0.3])

    def bent(one: Any) -> Any:
        off = one.actions - target
        return -(100 * (off[..., 0] + 0.3 * off[..., 1]) ** 2 + off[..., 1] ** 2 + off[..., 1] ** 4).sum(1)

    def narrow(one: Any) -> Any:
        off = one.actions - near
        return -(100 * (off[..., 0] + 0.9 * off[..., 1]) ** 2 + off[..., 1] ** 2).sum(1)

    plan = QuasiNewton(horizon=HORIZON, iterations=20)(EXACT, EXACT.initial(1), bent)
    torch.testing.assert_close(plan.actions[0], torch.ones(HORIZON, 2), atol=1e-3, rtol=0)
    plan = QuasiNewton(horizon=HORIZON, iterations=20, first=1.0)(EXACT, EXACT.initial(1), narrow)
    torch.testing.assert_close(plan.actions[0], near.expand(HORIZON, 2), atol=1e-3, rtol=0)


def check_climb() -> None:
    """A step that brings too little is shortened to the top of the parabola; the curvature is then that of the step."""
    climb = Climb.at_foot(torch.zeros(1, 2), 0.8)
    score = lambda at: -(2 * (at - torch.tensor([0.2, 0.0])).square()).sum(1)  # noqa: E731
    slope = lambda at: -4 * (at - torch.tensor([0.2, 0.0]))  # noqa: E731
    for expected in ([0.0, 0.0], [0.8, 0.0]):
        tried = climb.next()
        torch.testing.assert_close(tried, torch.tensor([expected]))
        climb.arrive(tried, score(tried), slope(tried))
    assert climb.at.tolist() == [[0.0, 0.0]]  # twice too far: worse than the start
    torch.testing.assert_close(climb.share, torch.tensor([0.25]))
    torch.testing.assert_close(climb.curvature, 4 * torch.eye(2)[None])
    torch.testing.assert_close(climb.direction, torch.tensor([[0.2, 0.0]]))


def check_held_at_bounds() -> None:
    """The step for actions that are free is Newton's own among them, whatever presses the others to their bounds."""
    curvature = torch.tensor([[4.0, 1.0, 2.0], [1.0, 3.0, 0.5], [2.0, 0.5, 5.0]])[None]
    slope = torch.tensor([[1.0, -2.0, 7.0]])
    climb = Climb.at_foot(torch.tensor([[0.1, -0.2, 1.0]]), 0.1)
    climb.slope, climb.curvature, climb.learned = slope, curvature, torch.tensor([True])
    climb._aim()
    free = torch.linalg.solve(curvature[0, :2, :2], slope[0, :2])
    torch.testing.assert_close(climb.direction, torch.cat([free, torch.zeros(1)])[None])
    climb.learned = torch.tensor([False])
    climb._aim()
    torch.testing.assert_close(climb.direction, torch.tensor([[0.05, -0.1, 0.0]]))


def check_choices() -> None:
    """Samples have the stated probabilities, also where noise is extreme, and the fit has shares plus the uniform."""
    probs = torch.tensor([[[0.1, 0.6, 0.3]]])
    choices = Choices(probs, Finite(seed=1).spec.action, 0.3)
    drawn = choices.sample(torch.randn(1, 20000, 1, 3))
    torch.testing.assert_close(drawn.mean(1), probs, atol=0.015, rtol=0)
    assert choices.sample(torch.full((1, 1, 1, 3), 30.0)).sum() == 1
    plans = torch.eye(3)[None, :, None]
    fitted = choices.fitted(plans, torch.tensor([[0.5, 0.5, 0.0]]), 0.5)
    torch.testing.assert_close(fitted.probs, torch.tensor([[[0.275, 0.525, 0.2]]]))


def check_noise() -> None:
    """Coloured noise is standard at every step, lasts, and its end does not know its beginning."""
    noise = Coloured(2.0)((1, 4000, 12, 1), torch.device("cpu"))[0, :, :, 0]
    torch.testing.assert_close(noise.std(0), torch.ones(12), atol=0.06, rtol=0)
    assert 0.8 < float((noise[:, 5] * noise[:, 6]).mean()) < 1.0
    assert float((noise[:, 0] * noise[:, -1]).mean()) < 0.3


def check_budget() -> None:
    """What is reported is what the model was asked, and is known before."""
    for planner in numbers(lambda: white):
        counted = Counted(EXACT)
        plan = planner(counted, EXACT.initial(2), RETURN)
        assert plan.rollouts == planner.budget
        assert counted.steps == 2 * HORIZON * planner.budget


def check_time() -> None:
    """A round that would not be over in time is not begun; the first is done in any case."""
    for seconds, rounds in ((0.0, 1), (1.5, 1), (3.5, 2), (5.0, 4), (100.0, 8)):
        with pytest.MonkeyPatch.context() as patch:
            clock = iter(range(1000))
            patch.setattr(time, "monotonic", lambda clock=clock: float(next(clock)))
            plan = CEM(horizon=HORIZON, iterations=8)(EXACT, EXACT.initial(1), RETURN, seconds=seconds)
        assert plan.iterations == rounds
        assert plan.rollouts == 64 * rounds
        assert plan.score.isfinite().all()


TIME: dict[str, Seed] = {
    "time ignored": rewritten(Search, "going_on", "return False", "pass"),
    "the last round runs over": rewritten(Search, "going_on", "now + (now - self._began)", "now"),
    "the first round left out": rewritten(Search, "going_on", "self.iterations and", ""),
}
GRADIENTS: dict[str, Seed] = {
    "downhill": around(gradient, "slope_of", lambda right, *a: -right(*a)),
    "only a sign": around(gradient, "slope_of", lambda right, *a: right(*a).sign()),
    "bounds at the end only": rewritten(Gradient, "run", "actions.clamp_(-1, 1)", "actions.clamp_(-9, 9)"),
    "steps never smaller": rewritten(Gradient, "run", "(1 - step / self.iterations)", "1.0"),
    "the last plan not judged": rewritten(Gradient, "run", "search.judge(actions.detach())", "pass"),
}
CURVATURES: dict[str, Seed] = {
    "curvature never learned": around(Climb, "_learn", lambda right, *a: None),
    "learned the wrong way round": around(Climb, "_learn", lambda right, self, m, f, seen: right(self, m, -f, seen)),
    "bounds forgotten": rewritten(Climb, "next", ".clamp(-1, 1)", ""),
}
STEPS: dict[str, Seed] = {
    "taken though worse": rewritten(Climb, "arrive", "(score >= self.score + ENOUGH * promised)", "(score == score)"),
    "steps never shortened": rewritten(Climb, "arrive", "taken | lost, 1.0, shorter", "taken | lost, 1.0, 1.0"),
    "not scaled at first": rewritten(Climb, "_learn", "torch.where(anew, scale, 1.0)", "(0 * scale + 1)"),
    "slope of the last step": rewritten(Climb, "arrive", "self.slope - slope, seen", "slope - slope, seen"),
}
HELD: dict[str, Seed] = {
    "none is held": rewritten(Climb, "_aim", "~((self.at.abs() >= 1) & (self.at * self.slope > 0))", "self.at < 9"),
    "pressed on at bounds": rewritten(Climb, "_aim", "slope = self.slope * free", "slope = self.slope"),
    "first step of another length": rewritten(Climb, "_aim", "plain = self.first * slope", "plain = slope"),
}
CHOICES: dict[str, Seed] = {
    "likeliest only": rewritten(Choices, "sample", "+ gumbel", "+ 0 * gumbel"),
    "noise for Gumbel": rewritten(Choices, "sample", "+ gumbel", "+ noise"),
    "probability without logarithm": rewritten(Choices, "sample", "self.probs.log()", "self.probs"),
    "unimix missing": rewritten(Choices, "fitted", "self.unimix * uniform", "0 * uniform"),
}
NOISE: dict[str, Seed] = {
    "not normalised": rewritten(Coloured, "__call__", "gain / whole.square().mean().sqrt()", "gain"),
    "white": rewritten(Coloured, "__call__", "-self.exponent / 2", "0.0"),
    "amplitude for power": rewritten(Coloured, "__call__", "-self.exponent / 2", "-self.exponent / 8"),
    "periodic": rewritten(Coloured, "__call__", "2 * horizon", "horizon"),
}
BUDGETS: dict[str, Seed] = {
    "gradients for free": rewritten(Search, "judge", "(GRADIENT_COST if candidates.requires_grad else 1)", "1"),
    "one environment's share": rewritten(Search, "judge", "self.rollouts += number", "self.rollouts += number // 2"),
    "kept elites for free": rewritten(cem, "adapt", "size - sum(part.shape[1] for part in tried)", "size"),
}


def check_categorical() -> None:
    """A small process is solved; its ends are known, and what lies beyond them would be worth more than anything."""
    model = Finite(seed=1, states=6)
    at = torch.arange(6)[model.futures[:6] > 0]
    with fw.seeded(0):
        plan = CategoricalCEM(horizon=4)(model, model.at(at), RETURN)
    torch.testing.assert_close(plan.score, model.optimum(at, 4)[1])


CATEGORICAL: dict[str, Seed] = {
    "cont ignored": RETURNS["cont ignored"],
    "dreams of another environment": SEARCHES["dreams of another environment"],
    "every candidate the same": around(
        Choices, "sample", lambda right, self, noise: right(self, noise[:, :1].expand_as(noise))
    ),
}


# --- trees


def forest() -> tuple[Finite, Any, Any]:
    """Return a process, its states with a future, and what can be earned from them in 5 steps at a discount."""
    model = Finite(seed=2)
    at = model.futures[:-1].nonzero()[:, 0]
    return model, model.at(at), model.optimum(at, 5, 0.9)[1]


def check_covering() -> None:
    """Everything is looked at, with ends, a discount and a value beyond the horizon."""
    model, state, best = forest()
    plan = TreeSearch(horizon=5, simulations=100)(model, state, PredictedReturn(discount=0.9))
    torch.testing.assert_close(plan.score, best)
    worth = PredictedReturn(discount=0.9)(fw.imagine(model, state, plan.actions))
    torch.testing.assert_close(worth, best)
    assert plan.rollouts < 60
    values = torch.from_numpy(model.values(3, 0.9)[0][3]).float()
    boot = PredictedReturn(discount=0.9, value=lambda feat: feat @ values)
    torch.testing.assert_close(TreeSearch(horizon=2, simulations=100)(model, state, boot).score, best)


def check_growing() -> None:
    """Without covering, as many plans as there are find the best, and no step is taken twice."""
    model, state, best = forest()
    values = torch.from_numpy(model.values(2, 0.9)[0][2]).float()
    boot = PredictedReturn(discount=0.9, value=lambda feat: feat @ values)
    for objective, horizon in ((PredictedReturn(discount=0.9), 5), (boot, 3)):
        plan = TreeSearch(horizon=horizon, simulations=200, cover=0.0)(model, state, objective)
        torch.testing.assert_close(plan.score, best)
        torch.testing.assert_close(objective(fw.imagine(model, state, plan.actions)), best)
        assert plan.rollouts <= -(-sum(3**h for h in range(1, horizon + 1)) // horizon)


def check_choosing() -> None:
    """Inside the tree visits follow the improved policy, and places without a plan the prior and chance."""
    visits, earned = np.array([[3, 1, 0]]), np.array([[2.0, 1.0, -np.inf]])
    logits = np.log(np.array([[0.5, 0.25, 0.25]]))
    weight = (growing.VISITS + 3) * growing.SCALE
    expected = logits + weight * np.array([[1.0, 0.0, 2 / 3]])
    np.testing.assert_allclose(growing.improved(logits, visits, earned), expected)
    model, state, _ = forest()
    with fw.seeded(0):
        search = Search(model, state, RETURN, horizon=5)
        trees = Growing(Stepper(search), state, 5)
        trees.visits[0], trees.earned[0], trees.logits[0] = visits, earned, logits
        raw = np.exp(expected[0]) / np.exp(expected[0]).sum()
        none = np.array([[0.0, 0.0, 9.0]])
        assert trees._select(np.array([0]), none)[0] == (raw - visits[0] / 5).argmax()
        trees.over[0, 2] = True
        assert trees._select(np.array([0]), none)[0] == (raw - visits[0] / 5)[:2].argmax()
        assert trees._select(np.array([1]), none)[0] == 2


def check_prior() -> None:
    """The prior's favourite is drawn first."""
    model, state, _ = forest()
    for favourite in (1, 2):  # the first is that of the warm start
        planner = TreeSearch(
            horizon=1,
            simulations=2,
            considered=1,
            cover=0.0,
            prior=lambda feat, f=favourite: 100 * torch.eye(3)[[f] * len(feat)],
        )
        plan = planner(model, state, RETURN)
        worth = torch.stack([RETURN(fw.imagine(model, state, torch.eye(3)[[a] * 10][:, None])) for a in (0, favourite)])
        torch.testing.assert_close(plan.score, worth.amax(0))


COVERING: dict[str, Seed] = {
    "discount forgotten": rewritten(Stepper, "step", "self.objective.discount * cont", "cont"),
    "ends ignored": rewritten(Stepper, "step", "* cont.float()", "* (0 * cont + 1).float()"),
    "nothing is the same": around(
        covering, "same", lambda right, states, owner: (torch.arange(len(owner)), torch.arange(len(owner)))
    ),
    "all is the same": around(
        covering, "same", lambda right, states, owner: (torch.zeros(1, dtype=torch.long), torch.zeros_like(owner))
    ),
    "value forgotten": around(Stepper, "beyond", lambda right, self, feat: 0 * right(self, feat)),
    "actions of another place": rewritten(covering, "_best", "plan[:, h] = taken", "plan[:, h] = taken.roll(1)"),
}
GROWING: dict[str, Seed] = {
    "reward twice": rewritten(Growing, "_remember", "self._reward[child] +", "2 * self._reward[child] +"),
    "value at the root": rewritten(Growing, "_visit", "if last else", "if not last else"),
    "over too early": rewritten(Growing, "_remember", "self.over[at].all(1)", "self.over[at].any(1)"),
    "most visited for best": rewritten(Growing, "best", "self.earned[node].argmax(1)", "self.visits[node].argmax(1)"),
}
CHOOSING: dict[str, Seed] = {
    "what was not tried earned nothing": rewritten(growing, "improved", "scaled, mean)", "scaled, 0 * mean)"),
    "mean without the prior": rewritten(growing, "improved", "_softmax(logits) * (visits > 0)", "1.0 * (visits > 0)"),
    "visits ignored": rewritten(Growing, "_select", "share - visits / (1 + total)", "share"),
    "what is over is chosen again": rewritten(Growing, "_select", "np.where(self.over[node], -np.inf, score)", "score"),
    "no chance": rewritten(Growing, "_select", "logits + gumbel", "logits"),
}
PRIOR: dict[str, Seed] = {
    "prior forgotten": rewritten(Growing, "_add", "self._prior is not None", "False"),
    "the first choices in question": rewritten(tree_module, "considered", "-preferred - gained", "-gained"),
}

BUGS: dict[Check, dict[str, Seed]] = {
    check_return: RETURNS,
    check_goal: GOALS,
    check_spread: SPREADS,
    check_cem: SEARCHES | ELITES,
    check_mppi: SEARCHES | WEIGHTS,
    check_bad_scores: BAD_SCORES,
    check_led_by_sound_scores: LED,
    check_best_ever: BEST,
    check_warm_start: WARM,
    check_warm_choices: WARM_CHOICES,
    check_gradient: GRADIENTS,
    check_quasi_newton: CURVATURES,
    check_climb: STEPS,
    check_held_at_bounds: HELD,
    check_choices: CHOICES,
    check_noise: NOISE,
    check_budget: BUDGETS,
    check_time: TIME,
    check_categorical: CATEGORICAL,
    check_covering: COVERING,
    check_growing: GROWING,
    check_choosing: CHOOSING,
    check_prior: PRIOR,
}


@pytest.mark.parametrize("check", BUGS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_code_passes(check: Check) -> None:
    check()


@pairs(BUGS)
def test_a_bug_is_caught(check: Check, seed: Seed) -> None:
    expect_caught(check, seed)
