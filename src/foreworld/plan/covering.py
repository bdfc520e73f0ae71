"""Exact search: every action from every state that can be reached, level by level, the same states only once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreworld.core import tree
from foreworld.plan.nodes import Stepper, same


@dataclass(frozen=True)
class Level:
    """F states after as many steps, and where each of P choices leads from them.

    Attributes:
        worth: [F, P], reward for arriving.
        lasting: [F, P], discount times chance of a future there.
        leads: [F, P], rows of the next level; meaningless where nothing lasts.
    """

    worth: Tensor
    lasting: Tensor
    leads: Tensor


@dataclass(frozen=True)
class Covered:
    """What covering found.

    Attributes:
        steps: [B] of the model.
        known: [B] bool, whether the steps sufficed; the rest only means something where they did.
        choices: [B, H] int, the best plan.
        score: [B], what it earns; -inf where no plan has a finite score.
    """

    steps: Tensor
    known: Tensor
    choices: Tensor
    score: Tensor


def cover(stepper: Stepper[Any], state: Any, horizon: int, most: int) -> Covered:
    """Look at everything that can happen, where that takes no more than so many steps.

    What comes after a certain end counts for nothing and is not looked at.

    Args:
        stepper: takes steps.
        state: where to start, leaves [B, ...].
        horizon: H.
        most: steps of the model for each environment.

    Returns:
        The best plan of every environment for which the steps suffice, exactly.
    """
    number, batch = len(stepper.choices), len(tree.leaves(state)[0])
    owner = torch.arange(batch, device=stepper.choices.device)
    every = torch.arange(number, device=owner.device)
    steps, known, levels = torch.zeros_like(owner), torch.ones_like(owner, dtype=torch.bool), []
    feat = stepper.model.read(state).feat
    for _ in range(horizon):
        more = torch.bincount(owner, minlength=batch) * number
        known = known & (steps + more <= most)
        steps = steps + more * known
        held = known[owner].nonzero()[:, 0]
        if not len(held):
            feat = feat[:0]
            break
        met = stepper.step(tree.repeat(tree.index(state, held), number), every.repeat(len(held)))
        alive = (met.lasting != 0).nonzero()[:, 0]  # NaN lasts, and spoils what leads there
        rows, leads = owner, torch.zeros_like(met.lasting, dtype=torch.long)
        state, owner, feat = (
            tree.index(met.states, alive),
            owner[held].repeat_interleave(number)[alive],
            met.feat[alive],
        )
        if len(alive):
            first, leads[alive] = same(state, owner)
            state, owner, feat = tree.index(state, first), owner[first], feat[first]
        levels.append(Level(*(_spread(x, held, len(rows), number) for x in (met.reward, met.lasting, leads))))
    return Covered(steps, known, *_best(levels, stepper.beyond(feat), batch, horizon))


def _spread(values: Tensor, rows: Tensor, count: int, number: int) -> Tensor:
    """Put values of some rows [K * P] among `count` rows [F, P], zero elsewhere."""
    return values.new_zeros(count, number).index_copy(0, rows, values.reshape(-1, number))


def _best(levels: list[Level], ahead: Tensor, batch: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Solve by backward induction, and follow the best from the start."""
    best: list[Tensor] = []
    for level in reversed(levels):
        follows = torch.where(level.lasting != 0, _at(ahead, level.leads), 0.0)
        score = level.worth + level.lasting * follows
        score = torch.where(score.isfinite(), score, -torch.inf)
        ahead, choice = score.max(1)
        best.append(choice)
    score = ahead if levels else ahead.new_full((batch,), -torch.inf)
    row = torch.arange(batch, device=ahead.device)
    plan = torch.zeros(batch, horizon, dtype=torch.long, device=ahead.device)
    going = torch.ones(batch, dtype=torch.bool, device=ahead.device)
    for h, (level, choice) in enumerate(zip(levels, reversed(best), strict=True)):
        taken = torch.where(going, _at(choice, row), 0)
        plan[:, h] = taken
        here = torch.where(going, row, 0)
        going = going & (level.lasting[here, taken] != 0)
        row = level.leads[here, taken]
    return plan, score


def _at(values: Tensor, rows: Tensor) -> Tensor:
    """Look up rows, which mean nothing where there are none at all."""
    return values[rows.clamp(max=max(len(values) - 1, 0))] if len(values) else values.new_zeros(rows.shape)
