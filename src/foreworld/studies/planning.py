"""Act by planning with a model, and set it beside chance, random shooting and who knows the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from foreworld.agents.mpc import MPC, PlanLog
from foreworld.core import seeded
from foreworld.core.errors import ConfigError
from foreworld.envs import Rows
from foreworld.ops import Interval, bootstrap_ratio, wilson
from foreworld.ops.paired import Contest, compare
from foreworld.plan import Planner, RandomShooting
from foreworld.rollout.policies import OraclePolicy, Policy, RandomPolicy
from foreworld.studies.aiming import Control, Player
from foreworld.studies.trials import Trials, play
from foreworld.worlds.world import Guided

SEED = 3_000_000
"""Added to the seed of the episodes: others than any that was trained on."""

SHOT_AT_ONCE = 64
"""Candidates in a round of random shooting under a deadline, so that it can stop in time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanStudy:
    """What came of acting by planning.

    Attributes:
        measure: what the figures are: `success`, the share of goals reached; `mean_return`; or, where nobody can
            tell whether a picture is reached, `goal_distance`, mean squared in the embedding space at the end.
        arms: name to what it did in the same episodes: `planner`, and `random`, `shooting`, `oracle` where asked for
            and possible.
        log: how planning went, without one decision to warm up.
        value: of the planner, with its interval.
        against: name of another arm to what comparing the planner with it found.
        confidence: of all intervals.
    """

    measure: Literal["success", "mean_return", "goal_distance"]
    arms: dict[str, Trials]
    log: PlanLog
    value: Interval
    against: dict[str, Contest]
    confidence: float

    @property
    def figures(self) -> dict[str, np.ndarray]:
        """What is compared: name of an arm to one value for each episode [E]."""
        return {name: _figure(one, self.measure) for name, one in self.arms.items()}

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what was not measured is null."""
        means = {name: float(values.mean()) for name, values in self.figures.items()}
        own, times = self.arms["planner"], 1000 * np.array(self.log.seconds)
        return {
            "measure": self.measure,
            "success": None if own.success is None else float(own.success.mean()),
            "mean_return": float(own.returns.mean()),
            "ci_low": float(self.value.low),
            "ci_high": float(self.value.high),
            "confidence": self.confidence,
            "episodes": len(own.returns),
            "random_floor": means.get("random"),
            "shooting_floor": means.get("shooting"),
            "oracle": means.get("oracle"),
            "latency_ms_p50": float(np.quantile(times, 0.5)),
            "latency_ms_p95": float(np.quantile(times, 0.95)),
            "planning_seconds": float(times.sum() / 1000),
            "decisions": len(times),
            "deadline_misses": self.log.missed,
            "plans": self.log.planned,
            "fell_back": self.log.fell_back,
            "rollouts": self.log.rollouts,
            "mean_length": float(own.lengths.mean()),
            "against": {name: _contest(one) for name, one in self.against.items()},
            "every": {name: _every(one) for name, one in self.arms.items()},
        }

    def in_words(self) -> str:
        """Say it in a few lines."""
        said = {"success": "goals reached", "mean_return": "mean return", "goal_distance": "distance to the goal"}
        means = {name: float(values.mean()) for name, values in self.figures.items()}
        own = self.arms["planner"]
        floors = {"random": "random actions", "shooting": "random shooting at equal compute", "oracle": "the oracle"}
        others = [f"{floors[name]} {means[name]:.4g}" for name in floors if name in means]
        times = 1000 * np.array(self.log.seconds)
        lines = [
            f"{len(own.returns)} episodes: {said[self.measure]} {self.value.value:.4g} ({self.confidence:.0%} interval "
            f"{self.value.low:.4g} to {self.value.high:.4g})" + "".join(f"; {one}" for one in others),
            f"{self.log.planned} plans; a decision took {np.quantile(times, 0.5):.3g} ms (median), "
            f"{np.quantile(times, 0.95):.3g} ms (95 %)"
            + (f"; {self.log.missed} came too late" if self.log.missed else "")
            + (
                f"; {self.log.fell_back} plans fell back, as no candidate had a finite score"
                if self.log.fell_back
                else ""
            ),
        ]
        return "\n".join(lines)


def study_planning(
    player: Player,
    planner: Planner,
    control: Control,
    *,
    episodes: int = 20,
    seed: int = 0,
    confidence: float = 0.95,
    floors: bool = True,
    shoot: bool = True,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[MPC], Callable[[Rows], None]] | None = None,
) -> PlanStudy:
    """Let a planner act, and what it is set beside, all from the same starts and to the same goals.

    Args:
        player: model, environments and goals.
        planner: searches.
        control: how plans are carried out.
        episodes: E, for each arm.
        seed: of the episodes and of everything random.
        confidence: of the intervals.
        floors: also play at random, by random shooting with as many rollouts, and as who knows the truth.
        shoot: whether random shooting is among these.
        progress: called with (episodes done, episodes), of all arms together.
        watch: given the policy, returns what is shown all rows of the planner's own episodes.

    Returns:
        What came of it.

    Raises:
        ConfigError: fewer than two episodes.
    """
    if episodes < 2:
        raise ConfigError(f"planning: an interval takes at least 2 episodes, found {episodes}")
    env, arms, own = player.env, dict[str, Policy](), player.plan(planner, control)
    arms["planner"] = own
    if floors:
        arms["random"] = RandomPolicy(env.action, seed)
        if shoot:
            arms["shooting"] = player.plan(shooting(planner, control), control)
        if isinstance(player.world, Guided) and player.measure != "goal_distance":
            arms["oracle"] = OraclePolicy(player.world)
    with seeded(seed):  # the first search also warms torch up, and says whether planner and model fit
        player.plan(planner, control)(env.reset(seed=SEED + seed))
    found: dict[str, Trials] = {}

    def show(done: int, _: int) -> None:
        if progress is not None:
            progress(len(found) * episodes + done, len(arms) * episodes)

    for name, policy in arms.items():
        with seeded(seed):
            found[name] = play(
                env,
                policy,
                episodes=episodes,
                seed=SEED + seed,
                judge=player.judge,
                progress=show,
                watch=watch(own) if watch is not None and policy is own else None,
            )
    figures = {name: _figure(one, player.measure) for name, one in found.items()}
    better: Literal["higher", "lower"] = "lower" if player.measure == "goal_distance" else "higher"
    return PlanStudy(
        measure=player.measure,
        arms=found,
        log=own.log,
        value=_interval(figures["planner"], confidence, seed),
        against={
            name: compare(figures["planner"], values, better=better, confidence=confidence, seed=seed)
            for name, values in figures.items()
            if name != "planner"
        },
        confidence=confidence,
    )


def shooting(planner: Planner, control: Control) -> RandomShooting:
    """Return random shooting with the horizon and the budget of another planner."""
    if control.deadline is None:
        return RandomShooting(horizon=planner.horizon, candidates=planner.budget)
    rounds = max(1, planner.budget // SHOT_AT_ONCE)
    return RandomShooting(horizon=planner.horizon, candidates=planner.budget // rounds, iterations=rounds)


def _figure(one: Trials, measure: str) -> np.ndarray:
    if measure == "success":
        assert one.success is not None
        return one.success
    return one.returns if measure == "mean_return" else cast(np.ndarray, one.far)[:, 1]


def _interval(values: np.ndarray, confidence: float, seed: int) -> Interval:
    if values.dtype == bool:
        return wilson(int(values.sum()), len(values), confidence)
    return bootstrap_ratio(values, np.ones(len(values)), confidence=confidence, seed=seed)


def _contest(one: Contest) -> dict[str, Any]:
    gap = one.difference
    return {
        "difference": float(gap.value),
        "low": float(gap.low),
        "high": float(gap.high),
        "p": one.p,
        "planner_is_better": {"first": True, "second": False}.get(one.verdict),
    }


def _every(one: Trials) -> dict[str, Any]:
    found: dict[str, Any] = {"return": one.returns.tolist(), "length": one.lengths.tolist()}
    if one.success is not None:
        found["success"] = one.success.tolist()
    return found if one.far is None else found | {"distance": one.far.tolist()}
