"""The conformance kit for planners: does one keep the protocol, and does it find anything?

Every check of `PLANNER_CHECKS` takes `make`, which builds a planner with a given horizon, and a `Problem` whose best
plan is known. It raises `NonConforming` with what was found, or `Inapplicable` where it does not concern the planner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Step, seeded, tree
from foreworld.core.errors import ForeworldError
from foreworld.models.finite import Finite
from foreworld.models.quadratic import Quadratic
from foreworld.plan import Plan, Planner, PredictedReturn, RandomShooting, Warm, kind_of
from foreworld.rollout import imagine
from foreworld.testing.compare import Inapplicable, NonConforming, expect, expect_same
from foreworld.testing.kit import Check, CheckResult

PlannerFactory = Callable[[int], Planner]
"""A horizon to a planner; called several times a check."""

HORIZON, BATCH = 4, 3
NAP = 0.01
"""Seconds that a round takes at least, where time matters."""
AHEAD = 8
"""Actions in a plan where planners are compared with random shooting: too many to try all of them."""
SEEDS, STARTS = (1, 2, 3, 4, 5, 6, 7, 8), 8
"""Of the problems on which they are compared, and from how many states each."""
MARGIN = 1.1
"""A planner may lose this many times what random shooting loses: what they are judged by is drawn at random."""

RETURN = PredictedReturn()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A model, where to start, and what the best plan earns.

    Attributes:
        name: `numbers` or `choices`.
        model: exact.
        start: leaves [B, ...].
        best: [B, H, A], the best plan.
        optimum: [B], the greatest sum of rewards.
    """

    name: str
    model: Any
    start: Any
    best: Tensor
    optimum: Tensor


def numbers_problem(seed: int = 3, horizon: int = HORIZON, batch: int = BATCH, far: float = 1.0) -> Problem:
    """Return a linear-quadratic problem with two actions.

    Args:
        seed: of the system.
        horizon: actions that lead to the optimum.
        batch: how many starts.
        far: times the states from which the best plan stays just within bounds.

    Returns:
        The problem; its optimum is without bounds.
    """
    model = Quadratic(seed=seed)
    x = far * model.starts(batch, horizon, seed=seed)
    best, optimum = model.optimum(x, horizon)
    return Problem(name="numbers", model=model, start=model.at(x), best=best, optimum=optimum)


def choices_problem(seed: int = 1, horizon: int = HORIZON, batch: int = BATCH) -> Problem:
    """Return a decision process with ends, under choices.

    Args:
        seed: of the process.
        horizon: actions that lead to the optimum.
        batch: how many starts, at most 10.

    Returns:
        The problem.
    """
    model = Finite(seed=seed, states=12, actions=4)
    at = model.futures[:-1].nonzero()[:batch, 0]
    best, optimum = model.optimum(at, horizon)
    assert model.spec.action is not None
    plans = model.spec.action.one_hot(best)
    return Problem(name="choices", model=model, start=model.at(at), best=plans, optimum=optimum)


def check_plan_shapes(make: PlannerFactory, problem: Problem) -> None:
    """A plan has H actions for each environment, without gradient, and its score is what the objective says of them."""
    for horizon in (1, HORIZON):
        plan = _planned(make(horizon), problem)
        shape = (BATCH, horizon, problem.model.spec.action_width)
        expect(plan.actions.shape == shape, f"actions have shape {tuple(plan.actions.shape)}, not {shape}")
        expect(not plan.actions.requires_grad, "actions carry a gradient")
        for name, dtype in (("score", plan.actions.dtype), ("fell_back", torch.bool)):
            leaf = getattr(plan, name)
            expect(
                leaf.shape == (BATCH,) and leaf.dtype == dtype, f"{name} is {leaf.dtype} of shape {tuple(leaf.shape)}"
            )
        expect(
            make(horizon).horizon == horizon, f"the horizon is {make(horizon).horizon} where {horizon} was asked for"
        )
        expect(not plan.fell_back.any(), "fell back where all scores are finite")
        told = RETURN(imagine(problem.model, problem.start, plan.actions))
        expect_same(plan.score, told, "the score is what the objective says of the actions")


def check_actions_legal(make: PlannerFactory, problem: Problem) -> None:
    """Every candidate, not only the plan, is within [-1, 1] or one-hot, wherever the search goes and begins."""
    far = numbers_problem(far=10.0) if problem.name == "numbers" else problem
    space, watched = problem.model.spec.action, _Watched(far.model)
    wild = 5 * torch.randn(BATCH, HORIZON, space.width, generator=torch.Generator().manual_seed(0))
    for warm in (None, Warm(actions=wild), Warm(actions=torch.full_like(wild, torch.nan))):
        plan = _planned(make(HORIZON), replace(far, model=watched), warm)
        watched.seen.append(plan.actions.flatten(0, 1))
    for actions in watched.seen:
        if space.kind == "discrete":
            expect(bool((actions == space.one_hot(space.from_one_hot(actions))).all()), "a candidate is no one-hot")
        else:
            expect(bool((actions.abs() <= 1).all()), f"a candidate reaches {float(actions.abs().max()):.3g}, beyond 1")


def check_warm_start(make: PlannerFactory, problem: Problem) -> None:
    """A search ends no worse than where it began, and a plan shifts by the actions that were carried out."""
    before = _planned(make(HORIZON), problem)
    again = _planned(make(HORIZON), problem, before.after(0), seed=1)
    worse = (before.score - again.score).max()
    expect(bool(worse <= 1e-5), f"from its own plan, the planner found one that is worse by {float(worse):.3g}")
    left = before.after(1).actions
    expect_same(left[:, :-1], before.actions[:, 1:], "what is left after one action is the rest of the plan")
    expect(not left[:, -1].any(), "what comes after the end of a plan is not zero")
    found = _planned(make(HORIZON), problem, Warm(actions=problem.best))
    expect_same(found.score, problem.optimum, "a warm start that is the very best plan is kept")


def check_broken_scores(make: PlannerFactory, problem: Problem) -> None:
    """Candidates whose score is NaN or infinite, as some rewards are, never win."""
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = replace(problem, model=_Watched(problem.model, bad=bad))
        plan = _planned(make(HORIZON), broken)
        expect(bool(plan.score.isfinite().all()), f"with some rewards of {bad} the score is no finite number")
        score = RETURN(imagine(broken.model, broken.start, plan.actions))
        expect(bool(score.isfinite().all()), f"the plan has a reward of {bad}")


def check_fallback(make: PlannerFactory, problem: Problem) -> None:
    """Where no candidate has a finite score, the plan is the warm start and says so, there and nowhere else."""
    warm = _planned(make(HORIZON), problem).after(0)
    plan = _planned(make(HORIZON), _lost(problem, range(BATCH)), warm)
    expect(bool(plan.fell_back.all()), "all scores were NaN, and the plan does not say that it fell back")
    expect(bool((plan.score == -torch.inf).all()), "all scores were NaN, and the plan's is not -inf")
    expect_same(plan.actions, warm.actions, "where all scores are broken, the plan is the warm start")
    plan = _planned(make(HORIZON), _lost(problem, [1]), warm)
    expect(plan.fell_back.tolist() == [False, True, False], "one environment's scores are NaN, and others fell back")
    expect_same(plan.actions[1], warm.actions[1], "where all scores are broken, the plan is the warm start")


def check_plans_independent(make: PlannerFactory, problem: Problem) -> None:
    """What one environment's state and scores are changes nothing in the plans of the others."""
    before = _planned(make(HORIZON), problem)
    moved = replace(problem, start=tree.index(problem.start, torch.tensor([0, 0, 2])))
    for what, other in {"another state": moved, "broken scores": _lost(problem, [1])}.items():
        plan = _planned(make(HORIZON), other)
        for row in (0, 2):
            told = f"row 1 had {what}, row {row} should not notice"
            expect_same(plan.actions[row], before.actions[row], told)


def check_budget(make: PlannerFactory, problem: Problem) -> None:
    """As many rollouts are dreamed as the planner says before and after, parts of one rounded up.

    One with a gradient counts as three. Whoever found the very best plan everywhere may stop before; then the most that
    any environment took is stated.
    """
    planner, counted = make(HORIZON), _Watched(problem.model)
    plan = _planned(planner, replace(problem, model=counted))
    early = _stopped_early(plan, planner, problem)
    expect(
        early or plan.rollouts == planner.budget,
        f"the plan states {plan.rollouts} rollouts, the budget {planner.budget}",
    )
    spent = counted.steps / (BATCH * HORIZON)
    expect(
        spent <= plan.rollouts and (early or plan.rollouts - 1 < spent),
        f"{spent:g} rollouts were dreamed for each environment, {plan.rollouts} are stated",
    )


def _stopped_early(plan: Plan, planner: Planner, problem: Problem) -> bool:
    solved = torch.isclose(plan.score.double(), problem.optimum.double(), rtol=1e-5, atol=1e-5)
    return plan.rollouts < planner.budget and bool(solved.all())


def check_time_limit(make: PlannerFactory, problem: Problem) -> None:
    """A search can be stopped: its first round is done at any rate, and no more than the time allows."""
    planner = make(HORIZON)
    slow = replace(problem, model=_Watched(problem.model, nap=NAP / HORIZON))
    whole = _planned(planner, problem, seconds=3600.0)
    expect(
        whole.rollouts == planner.budget or _stopped_early(whole, planner, problem),
        f"with time enough {whole.rollouts} of {planner.budget} rollouts were spent",
    )
    if whole.iterations < 3:
        raise Inapplicable("the search has fewer than three rounds")
    none = _planned(planner, slow, seconds=0.0)
    expect(none.iterations == 1, f"without any time {none.iterations} rounds were done, not 1")
    expect(bool(none.score.isfinite().all()), "the first round left no plan")
    some = _planned(planner, slow, seconds=2.5 * NAP)
    expect(some.iterations <= 2, f"in {2.5 * NAP} s {some.iterations} rounds of at least {NAP} s were done")
    expect(some.rollouts < planner.budget, "all rollouts were spent where time was short")


def check_planner_seeds(make: PlannerFactory, problem: Problem) -> None:
    """The same seed gives the same plan, and neither a gradient nor inference mode of the caller matters."""
    first = _planned(make(HORIZON), problem)
    expect_same(_planned(make(HORIZON), problem), first, "the same seed gives the same plan", 0.0)
    for mode in (torch.no_grad, torch.inference_mode):
        start = tree.map(torch.clone, problem.start)
        with mode():
            plan = _planned(make(HORIZON), replace(problem, start=start))
        expect_same(plan.actions, first.actions, f"under {mode.__name__} the plan is another")


def check_beats_shooting(make: PlannerFactory, problem: Problem) -> None:
    """On problems whose optimum is known, the planner loses no more of it than random shooting, at equal rollouts."""
    planner, lost = make(AHEAD), [0.0, 0.0]
    shooting = RandomShooting(horizon=AHEAD, candidates=planner.budget)
    for seed in SEEDS:
        drawn = (numbers_problem if problem.name == "numbers" else choices_problem)(seed, AHEAD, STARTS)
        for i, one in enumerate((planner, shooting)):
            gap = drawn.optimum - _planned(one, drawn, seed=seed).score
            lost[i] += float((gap / drawn.optimum.abs().clamp(min=1.0)).mean()) / len(SEEDS)
    expect(lost[0] <= MARGIN * lost[1] + 1e-5, f"loses {lost[0]:.3g} of the optimum, random shooting {lost[1]:.3g}")


def check_kind_refused(make: PlannerFactory, problem: Problem) -> None:
    """A planner for one kind of actions refuses the other with a sentence, instead of planning nonsense."""
    planner = make(HORIZON)
    if kind_of(planner) is None:
        raise Inapplicable("it chooses any actions")
    other = choices_problem() if problem.name == "numbers" else numbers_problem()
    try:
        _planned(planner, other)
    except ForeworldError:
        return
    raise NonConforming(f"is for {kind_of(planner)} actions and planned {other.name} all the same")


PLANNER_CHECKS: tuple[Callable[[PlannerFactory, Problem], None], ...] = (
    check_plan_shapes,
    check_actions_legal,
    check_warm_start,
    check_broken_scores,
    check_fallback,
    check_plans_independent,
    check_budget,
    check_time_limit,
    check_planner_seeds,
    check_beats_shooting,
    check_kind_refused,
)
"""What is checked on every problem that a planner is for."""


def check_planner(make: PlannerFactory) -> list[CheckResult]:
    """Check a planner against the protocol, and against random shooting on problems with a known optimum.

    Args:
        make: a horizon to a planner; a planner without `kind` is checked on numbers and on choices.

    Returns:
        One result a check; `spec` names the problem.

    Raises:
        NonConforming: lists everything that failed.

    Example:
        >>> from foreworld.plan import CEM
        >>> from foreworld.testing import check_planner
        >>> results = check_planner(lambda horizon: CEM(horizon=horizon, candidates=32, iterations=4))
        >>> sorted({one.outcome for one in results})
        ['passed']
    """
    results = [_result(name, check) for name, check in planner_checks(make).items()]
    failed = [f"{one.check} [{one.spec}]: {one.message}" for one in results if one.outcome == "failed"]
    if failed:
        raise NonConforming("\n".join([f"{len(failed)} of {len(results)} checks failed", *failed]))
    return results


def planner_checks(make: PlannerFactory) -> dict[str, Check]:
    """Return every check, ready to be called, by `check-problem`.

    Args:
        make: a horizon to a planner.
    """
    kind = kind_of(make(HORIZON))
    problems = [numbers_problem()] * (kind != "discrete") + [choices_problem()] * (kind != "vector")
    return {
        f"{check.__name__.removeprefix('check_')}-{problem.name}": partial(check, make, problem)
        for problem in problems
        for check in PLANNER_CHECKS
    }


class _Watched:
    """A model that is looked at while it is stepped, may take its time, and may have broken rewards.

    It counts the steps of every row, those with a gradient threefold. `bad`, if given, is the reward of actions whose
    last number is above 0.1: of about half of all numbers, and of the last choice.
    """

    def __init__(self, model: Any, nap: float = 0.0, bad: float | None = None) -> None:
        self.model, self.spec, self.provides = model, model.spec, model.provides
        self.nap, self.bad, self.steps, self.seen = nap, bad, 0, list[Tensor]()

    def initial(self, batch: int) -> Any:
        return self.model.initial(batch)

    def step(self, state: Any, action: Tensor) -> Any:
        time.sleep(self.nap)
        self.steps += len(action) * (3 if action.requires_grad else 1)
        self.seen.append(action.detach().clone())
        after = self.model.step(state, action)
        if self.bad is None:
            return after
        return replace(after, reward=torch.where(action[:, -1] > 0.1, self.bad, after.reward))

    def read(self, state: Any) -> Step:
        return self.model.read(state)


def _planned(
    planner: Planner, problem: Problem, warm: Warm | None = None, seconds: float | None = None, seed: int = 0
) -> Plan:
    with seeded(seed):
        return planner(problem.model, problem.start, RETURN, warm, seconds)


def _lost(problem: Problem, rows: Iterable[int]) -> Problem:
    """Begin some environments from a state of NaN, from where every reward is NaN."""
    lost = torch.zeros(BATCH, dtype=torch.bool)
    lost[list(rows)] = True
    nowhere = tree.map(lambda leaf: torch.full_like(leaf, torch.nan), problem.start)
    return replace(problem, start=tree.where(lost, nowhere, problem.start))


def _result(name: str, check: Check) -> CheckResult:
    title, _, problem = name.partition("-")
    result = partial(CheckResult, check=title, spec=problem)
    try:
        check()
    except Inapplicable as reason:
        return result(outcome="inapplicable", message=str(reason))
    except Exception as fault:  # a planner that raises has failed; the other checks are still done
        return result(outcome="failed", message=str(fault) or repr(fault))
    return result(outcome="passed")
