"""What would have happened? Rank action sequences from one state, in the model and in the world."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from foreworld.core import require, seeded, tree
from foreworld.eval.chosen import PlanErrors, Yardstick
from foreworld.eval.exploitation import LEAST_STARTS, ExploitationGap, exploitation_gap
from foreworld.eval.predictors import last_state
from foreworld.eval.quantities import device_of, predicted_return
from foreworld.ops import Interval, bootstrap_ratio, kendall
from foreworld.rollout import Branches, imagine


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactual:
    """How a model ranks what could be done, against what it would have brought.

    Attributes:
        predicted: [N, K] returns that the model expects of K sequences from each of N states.
        realised: [N, K] what they earn in the world.
        starts: states whose sequences differ in what they earn; the others rank nothing.
        tau: Kendall's tau-b between the two rankings, averaged over those states; 0 for a coin.
        regret: what the sequence that the model likes best falls short of the best one, as a share of the
            distance between best and mean sequence: 0 is perfect, 1 as good as a random choice.
        gap: how much more than others the model overrates the sequence that it likes best.
        reason: why there are no numbers; empty when there are.
        errors: along favourites and random sequences; None where they were not asked for.
        actor: how much more than random sequences the model overrates what an actor would do; None without an actor.
    """

    predicted: np.ndarray
    realised: np.ndarray
    starts: int
    tau: Interval | None
    regret: Interval | None
    gap: ExploitationGap | None
    reason: str
    errors: PlanErrors | None = None
    actor: ExploitationGap | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        count, sequences = self.predicted.shape
        found: dict[str, Any] = {"states": count, "states_that_differ": self.starts, "sequences": sequences}
        for name in ("tau", "regret"):
            value: Interval | None = getattr(self, name)
            found[name] = None if value is None else float(value.value)
            found[f"{name}_ci_low"] = None if value is None else float(value.low)
            found[f"{name}_ci_high"] = None if value is None else float(value.high)
        gaps = {"exploitation": self.gap, "actor_exploitation": self.actor}
        return found | {name: gap and gap.to_json() for name, gap in gaps.items()} | {"reason": self.reason or None}

    def in_words(self) -> str:
        """Say in two sentences how well plans are ranked, and how far the best-looking one is overrated."""
        if self.tau is None or self.regret is None or self.gap is None:
            return f"Plans are not ranked: {self.reason}.{self._actor_in_words()}"
        tau, regret = float(self.tau.value), float(self.regret.value)
        return (
            f"Of {self.predicted.shape[1]} action sequences from one state, the model's ranking agrees with what they "
            f"earn by a Kendall tau of {tau:.2f}; its favourite loses {regret:.0%} of what choosing well is worth. "
            f"{self.gap.in_words()}{self._actor_in_words()}"
        )

    def _actor_in_words(self) -> str:
        return "" if self.actor is None else f" {self.actor.in_words('The actor', 'its own plans')}"


@torch.no_grad()
def counterfactual(
    model: Any,
    branches: Iterable[Branches],
    *,
    acted: bool = False,
    samples: int = 8,
    yardstick: Yardstick | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Counterfactual:
    """Let a model rank the sequences of every state by the return that it imagines.

    Args:
        model: predicts reward.
        branches: what really happens, state by state, as from `foreworld.rollout.branch`.
        acted: whether the last sequence of every state is what an actor would do there: it is not ranked with the
            others, and how much the model overrates it is measured beside them.
        samples: futures averaged for one return.
        yardstick: measures errors along the favourite of every state and along a random sequence; None for not.
        confidence: of the intervals, from a bootstrap over states.
        seed: of the samples and the bootstrap.

    Returns:
        Rank correlation, regret, exploitation gap, and the errors.

    Raises:
        MissingCapability: the model predicts no reward.
        SpecError: the model does not predict what the yardstick measures.
    """
    require(model, "reward", "ranking action sequences")
    predicted, realised, errors, cut = [], [], [], []
    for found in branches:
        with seeded(seed):
            count = len(found.actions)
            start = tree.repeat(last_state(model, found.context), count * samples)
            dream = imagine(model, start, found.actions.repeat_interleave(samples, 0).to(device_of(model)))
        assert dream.reward is not None
        returns = predicted_return(dream.reward, dream.cont)[:, -1].cpu().view(count, samples).mean(1)
        predicted.append(returns.numpy())
        realised.append(found.returns)
        if yardstick is not None:
            # the sequences are drawn at random, so that any of them is a random one
            plans = [int(returns[: count - acted].argmax()), 0]
            errors.append(yardstick.errors(model, found, plans, samples, seed))
            cut.append((found.rows.is_last & ~found.rows.is_terminal).any(1)[plans].numpy())
    ours = slice(None, -1) if acted else slice(None)
    guess, real = np.stack(predicted), np.stack(realised)
    ranked = compare_rankings(guess[:, ours], real[:, ours], confidence=confidence, seed=seed)
    if acted and len(guess) >= LEAST_STARTS:
        over, deviation = guess - real, float(real[:, ours].std(1).mean())
        gap = exploitation_gap(over[:, -1], over[:, ours].mean(1), deviation, confidence=confidence, seed=seed)
        ranked = replace(ranked, actor=gap)
    if yardstick is None:
        return ranked
    (chosen, random), (chosen_cut, random_cut) = np.stack(errors, 1), np.stack(cut, 1)
    along = PlanErrors(
        key=yardstick.quantity.name, chosen=chosen, random=random, chosen_cut=chosen_cut, random_cut=random_cut
    )
    return replace(ranked, errors=along)


def compare_rankings(
    predicted: np.ndarray, realised: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> Counterfactual:
    """Compare predicted with realised returns [N, K] of K sequences from each of N states."""
    spread = realised.std(1)
    used = spread > 1e-6 * max(1.0, float(np.abs(realised).max()))
    starts = int(used.sum())
    if starts < LEAST_STARTS:
        reason = (
            f"in {starts} of {len(realised)} states the sequences earn different returns; {LEAST_STARTS} are needed: "
            "play longer sequences, or a world whose reward depends on the next steps"
        )
        return Counterfactual(
            predicted=predicted, realised=realised, starts=starts, tau=None, regret=None, gap=None, reason=reason
        )
    guess, real = predicted[used], realised[used]
    rows, chosen = np.arange(starts), guess.argmax(1)
    tau = np.nan_to_num(kendall(guess, real))  # a model that sees no difference ranks like a coin
    best, mean = real.max(1), real.mean(1)
    short = (best - real[rows, chosen]) / (best - mean)
    over = guess - real

    def average(value: np.ndarray) -> Interval:
        return bootstrap_ratio(value, np.ones_like(value), confidence=confidence, seed=seed)

    return Counterfactual(
        predicted=predicted,
        realised=realised,
        starts=starts,
        tau=average(tau),
        regret=average(short),
        gap=exploitation_gap(
            over[rows, chosen], over.mean(1), float(spread[used].mean()), confidence=confidence, seed=seed
        ),
        reason="",
    )
