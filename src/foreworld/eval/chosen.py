"""Errors where a planner goes: on the plans that a model likes best, beside random ones from the same states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.core import Space, tree
from foreworld.core.errors import SpecError
from foreworld.eval.horizon import SafeHorizon, measure_horizon
from foreworld.eval.predictors import Past, open_loop
from foreworld.eval.probe import Probe
from foreworld.eval.quantities import RETURN, Quantity, expected
from foreworld.rollout import Branches


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """How the errors of a plan are measured: as an evaluation measured those on recorded episodes.

    Attributes:
        quantity: what is compared, and the unit of its errors.
        spaces: of observations and simulator state by name.
        probes: `truth/<key>` to the probe that reads it.
    """

    quantity: Quantity
    spaces: Mapping[str, Space]
    probes: Mapping[str, Probe]

    @torch.no_grad()
    def errors(self, model: Any, found: Branches, plans: list[int], samples: int, seed: int) -> np.ndarray:
        """Return open-loop errors [P, H] of some of the sequences, in deviations; NaN after an end.

        Args:
            model: what predicts.
            found: what really happened.
            plans: P indices of sequences.
            samples: futures averaged for one prediction.
            seed: of the samples.

        Raises:
            SpecError: the model does not predict that quantity.
        """
        count, name = len(plans), self.quantity.column
        past = Past(
            rows=tree.repeat(found.context, count),
            truth={},
            actions=found.actions[plans],
            horizon=found.actions.shape[1],
        )
        forecast = open_loop(model, samples, seed, self.probes)(past)
        if name not in forecast or (name not in self.spaces and name != RETURN):
            raise SpecError(f"errors in {name!r} cannot be compared plan by plan; choose an observation with --key")
        happened = self._happened(found)[plans]
        unit = self.quantity.unit[: past.horizon] if name == RETURN else self.quantity.unit
        squares = (self.quantity.pick(forecast[name]).mean(1) - happened).square() / unit
        errors = squares.flatten(2).mean(2).sqrt() if squares.dim() > 2 else squares.sqrt()
        assert found.rows.mask is not None
        return torch.where(found.rows.mask[plans], errors, torch.nan).double().numpy()

    def _happened(self, found: Branches) -> Tensor:
        if self.quantity.name == RETURN:
            return found.rows.reward.cumsum(1)
        held, column = found.rows.obs | dict(found.truth), self.quantity.column
        return self.quantity.pick(expected({column: self.spaces[column]}, held)[column])


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanErrors:
    """Errors along the plans that a model likes best, and along random ones from the same states.

    Attributes:
        key: what they are measured in.
        chosen: [N, H] in deviations of the evaluation set; NaN after an end.
        random: [N, H].
        chosen_cut: [N] whether a plan was cut off before its end, by a time limit and not by the world.
        random_cut: [N].
    """

    key: str
    chosen: np.ndarray
    random: np.ndarray
    chosen_cut: np.ndarray
    random_cut: np.ndarray

    def trust(self, *, max_error: float, confidence: float, violation_rate: float) -> ChosenHorizon:
        """Calibrate a safe horizon on both kinds of plan.

        Raises:
            TooFewEpisodes: from so few states no such promise is possible; says how many are needed.
        """
        rates = {"max_error": max_error, "confidence": confidence, "violation_rate": violation_rate}
        return ChosenHorizon(
            key=self.key,
            chosen=measure_horizon(self.chosen, cut=self.chosen_cut, **rates),
            random=measure_horizon(self.random, cut=self.random_cut, **rates),
        )


@dataclass(frozen=True, kw_only=True)
class ChosenHorizon:
    """How many steps of a plan may be trusted when the model itself chose it.

    Attributes:
        key: what the errors are measured in.
        chosen: of plans that the model likes best.
        random: of random plans from the same states.
    """

    key: str
    chosen: SafeHorizon
    random: SafeHorizon

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "key": self.key,
            "safe_horizon": self.chosen.safe.steps,
            "at_least": self.chosen.safe.at_least,
            "exceeded": self.chosen.safe.exceeded,
            "states": self.chosen.episodes,
            "random_plans": self.random.safe.to_json(),
        }

    def in_words(self) -> str:
        """Say it in one sentence."""
        return (
            f"On plans that the model chose itself, from {self.chosen.episodes} restored states: trust "
            f"{self.chosen.safe}; on random plans from the same states {self.random.safe} (error in {self.key})."
        )


def root_mean_square(errors: np.ndarray) -> np.ndarray:
    """Average errors [N, H] at every step over those plans that reach it, [H]; NaN where none does."""
    there = np.isfinite(errors)
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.square(errors, where=there, out=np.zeros_like(errors)).sum(0) / there.sum(0))
