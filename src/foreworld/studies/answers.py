"""From an evaluation to answers: how far to trust it, what its spread knows, and whether it ranks plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from foreworld.agents import Dreamer
from foreworld.core import Segment, seeded
from foreworld.core.errors import ForeworldError, MissingCapability
from foreworld.data import Dataset
from foreworld.envs import builder
from foreworld.eval import Calibration, Counterfactual, Evaluation, Trust, calibrate, counterfactual, measure_trust
from foreworld.eval.chosen import ChosenHorizon, Yardstick
from foreworld.eval.prediction import Judgement
from foreworld.eval.predictors import last_state
from foreworld.eval.quantities import EMBED, LATENT, truth_spaces
from foreworld.rollout import branch, imagine
from foreworld.rollout.collect import RECORDED

T = TypeVar("T")

SEQUENCES, STEPS, REPEAT = 32, 15, 3.0
"""Action sequences from one restored state, their steps, and how long a random action is held on average."""

ONE_MODEL = (
    "This is one model: its samples say nothing about what it has not learned. Five members divide the error by 2.2 at "
    "best, if theirs were independent; `foreworld train --preset ensemble` measures what they really do."
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a user can live with.

    Attributes:
        max_error: the largest error, in units of the deviation.
        confidence: of the safe horizon and of all intervals.
        violation_rate: share of new episodes that may exceed the error within the horizon.
        latency: seconds that planning takes; None if unknown.
        states: restored states from which plans are ranked; 0 for none.
    """

    max_error: float = 0.2
    confidence: float = 0.95
    violation_rate: float = 0.1
    latency: float | None = None
    states: int = 32


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an evaluation means for someone who wants to use the model; what cannot be said has a reason.

    Attributes:
        limits: what was asked.
        trust: safe horizon, bands, growth, replanning.
        no_trust: why there is none.
        calibration: what the spread of samples or members knows.
        no_calibration: why there is none.
        calibrated: the quantity that it is about.
        ensemble: whether the predictions are those of an ensemble's members, or samples of one model.
        counterfactual: how plans are ranked.
        no_counterfactual: why they are not.
        chosen: the safe horizon on plans that the model itself chose.
        no_chosen: why there is none.
    """

    limits: Limits
    trust: Trust | None
    no_trust: str
    calibration: Calibration | None
    no_calibration: str
    calibrated: str
    ensemble: bool
    counterfactual: Counterfactual | None
    no_counterfactual: str
    chosen: ChosenHorizon | None
    no_chosen: str

    @property
    def safe_steps(self) -> int | None:
        """The safe horizon, if there is one."""
        return None if self.trust is None else self.trust.horizon.safe.steps

    def to_json(self, steps: tuple[int, ...] = (1, 10, 50)) -> dict[str, Any]:
        """Return plain values; what is missing has a reason.

        Args:
            steps: where to list bands and calibration.
        """
        return {
            "trust": {"reason": self.no_trust} if self.trust is None else self.trust.to_json(steps),
            "calibration": {"reason": self.no_calibration}
            if self.calibration is None
            else {"of": "members" if self.ensemble else "samples", "quantity": self.calibrated}
            | self.calibration.to_json(steps),
            "counterfactual": {"reason": self.no_counterfactual}
            if self.counterfactual is None
            else self.counterfactual.to_json(),
            "chosen_plans": {"reason": self.no_chosen} if self.chosen is None else self.chosen.to_json(),
        }

    def in_words(self) -> str:
        """Say it in a few sentences, one a line."""
        said = [f"No safe horizon: {self.no_trust}." if self.trust is None else self.trust.in_words()]
        if self.calibration is not None:
            where = "Measured in the embedding that the members share: " if self.calibrated == EMBED else ""
            said.append(where + self.calibration.in_words())
        if not self.ensemble:
            said.append(ONE_MODEL)
        said.append(
            f"Plans are not ranked: {self.no_counterfactual}."
            if self.counterfactual is None
            else self.counterfactual.in_words()
        )
        if self.counterfactual is not None:
            said.append(f"{self.no_chosen}." if self.chosen is None else self.chosen.in_words())
        return "\n".join(said)


def answer(
    model: Any,
    found: Evaluation,
    data: Dataset,
    limits: Limits | None = None,
    seed: int = 0,
    agent: Dreamer | None = None,
) -> Answers:
    """Draw the conclusions of an evaluation.

    Args:
        model: the one that was evaluated.
        found: its evaluation.
        data: the held-out episodes; the environment they name is opened to rank plans in it.
        limits: what the user can live with.
        seed: of every choice and resample.
        agent: learned in the model; what it would do is played too.

    Returns:
        The answers; too little data, or a world that cannot be restored, is a reason and not an error.
    """
    limits = limits or Limits()
    part, episode, dt = found.main, found.episode, found.seconds_per_step
    compared = spread_key(model, found)
    rates = {"confidence": limits.confidence, "violation_rate": limits.violation_rate, "seed": seed}
    trust, no_trust = _or_reason(
        lambda: measure_trust(
            part.errors,
            episode,
            dt,
            max_error=limits.max_error,
            latency=None if dt is None else limits.latency,
            cut=~found.ended,
            **rates,
        )
    )
    calibration, no_calibration = _or_reason(
        lambda: _calibrated(model, found.judgements[compared], episode, limits.max_error, rates)
    )
    ranked, no_ranked = _or_reason(lambda: rank_plans(model, data, found, limits, seed, agent))
    chosen, no_chosen = None, no_ranked
    if ranked is not None:
        chosen, no_chosen = _or_reason(lambda: chosen_horizon(ranked, limits))
    return Answers(
        limits=limits,
        trust=trust,
        no_trust=no_trust,
        calibration=calibration,
        no_calibration=no_calibration,
        calibrated=compared,
        ensemble="spread" in model.provides,
        counterfactual=ranked,
        no_counterfactual=no_ranked,
        chosen=chosen,
        no_chosen=no_chosen,
    )


def spread_key(model: Any, found: Evaluation) -> str:
    """Return in which quantity the predictions of a model are compared with one another.

    It is that of the evaluation, but for an ensemble that does not decode: its members say each where they are in their
    embedding, if they have one encoder, and nothing else.
    """
    apart = "spread" in model.provides and "decode" not in model.provides
    return EMBED if apart and EMBED in found.judgements else found.key


def _calibrated(
    model: Any, part: Judgement, episode: np.ndarray, max_error: float, rates: Mapping[str, Any]
) -> Calibration:
    if "spread" in model.provides and "decode" not in model.provides and part.quantity.name != EMBED:
        raise MissingCapability(
            "the members of this ensemble have each an embedding of its own and are compared by their rewards alone; "
            "give them one encoder (--model.each.encoder frozen, or given)"
        )
    return calibrate(part.spread, part.errors, episode, max_error, **rates)


def rank_plans(
    model: Any, data: Dataset, found: Evaluation, limits: Limits, seed: int, agent: Dreamer | None = None
) -> Counterfactual:
    """Open the environment of a dataset, and let a model rank action sequences from restored states of it.

    Args:
        model: predicts reward.
        data: held-out episodes; they say which environment.
        found: the evaluation; errors along the plans are measured as there.
        limits: how many states, which confidence.
        seed: of states, sequences and samples.
        agent: learned in the model; from every state, what it does in a dream is played too.

    Raises:
        ForeworldError: it cannot be opened or restored, or the model predicts no reward.
    """
    if limits.states < 1:
        raise ForeworldError("it was not asked for")
    if model.spec.action is None:
        raise ForeworldError("there are no actions to choose from")
    if ":" in data.source.env:  # data are no reason to run code
        raise ForeworldError(f"{data.source.env} is somebody's own code, which is not run because a dataset names it")
    options = {name: value for name, value in data.source.options.items() if name not in RECORDED}
    yardstick = None
    if found.key != LATENT:  # every model has its own, so that there is nothing to compare with
        spaces = dict(data.spec.obs) | truth_spaces(data)
        yardstick = Yardstick(quantity=found.main.quantity, spaces=spaces, probes=found.probes)
    horizon = min(STEPS, found.horizon)
    propose = None if agent is None else _dreamed(model, agent, horizon, seed)
    env = builder(data.source.env, **options)()
    try:
        branches = branch(
            env,
            model.spec,
            starts=limits.states,
            sequences=SEQUENCES,
            context=found.context,
            horizon=horizon,
            repeat=REPEAT,
            seed=seed,
            propose=propose,
        )
        return counterfactual(
            model,
            branches,
            acted=agent is not None,
            samples=found.samples,
            yardstick=yardstick,
            confidence=limits.confidence,
            seed=seed,
        )
    finally:
        env.close()


def _dreamed(model: Any, agent: Dreamer, horizon: int, seed: int) -> Callable[[Segment], Tensor]:
    """Return what says, of a context [1, C], which actions [1, H, A] an agent takes in a dream from there."""

    @torch.no_grad()
    def propose(context: Segment) -> Tensor:
        with seeded(seed):
            dream = imagine(model, last_state(model, context), agent.policy, horizon)
        assert isinstance(dream.actions, Tensor)
        return dream.actions.clamp(-1, 1)

    return propose


def chosen_horizon(ranked: Counterfactual, limits: Limits) -> ChosenHorizon:
    """Calibrate a safe horizon on the plans that a model ranked first.

    Raises:
        ForeworldError: too few states for such a promise, or no errors along the plans.
    """
    if ranked.errors is None:
        raise ForeworldError("Errors along chosen plans: a latent cannot be compared with what happened")
    return ranked.errors.trust(
        max_error=limits.max_error, confidence=limits.confidence, violation_rate=limits.violation_rate
    )


def _or_reason(measure: Callable[[], T]) -> tuple[T | None, str]:
    """Return what a measurement finds, or None and why there is nothing."""
    try:
        return measure(), ""
    except ForeworldError as reason:
        return None, str(reason)
