"""The values that flow between data, models, planners and evaluation."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor

from foreworld.core.state import state

S = TypeVar("S")


@state
class Segment:
    """Rows of interaction, [B, T, ...]: row t holds what was known when `obs[t]` arrived.

    Attributes:
        obs: name to [B, T, ...]; images uint8 [B, T, C, H, W].
        prev_action: [B, T, A] model-ready, the action that led here; zero where
            `is_first`; None for plain video.
        reward: [B, T], earned by arriving.
        is_first: [B, T] bool, the first row of an episode.
        is_terminal: [B, T] bool, no future exists (truncation is not terminal).
        is_last: [B, T] bool, the last row of an episode.
        mask: [B, T] bool, false for padding; None when every row is real.
        condition: [B, K] conditioning vector, or None.

    Example:
        >>> from foreworld.testing import random_segment, specs
        >>> segment = random_segment(specs()["vector_discrete"], batch=2, length=6)
        >>> context, future = segment.rows(0, 4), segment.rows(4, 6)
        >>> future.prev_action.shape  # the actions to imagine after the context
        torch.Size([2, 2, 4])
    """

    obs: dict[str, Tensor]
    prev_action: Tensor | None
    reward: Tensor
    is_first: Tensor
    is_terminal: Tensor
    is_last: Tensor
    mask: Tensor | None = None
    condition: Tensor | None = None

    @property
    def batch(self) -> int:
        """B, the number of sequences."""
        return self.is_first.shape[0]

    @property
    def length(self) -> int:
        """T, the number of rows."""
        return self.is_first.shape[1]

    @property
    def cont(self) -> Tensor:
        """[B, T] float, 1 where the episode can go on: P(not terminal), never a discount."""
        return 1.0 - self.is_terminal.float()

    def rows(self, start: int, stop: int) -> Segment:
        """Cut rows start..stop-1 along time; the condition is kept."""

        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, start:stop]

        return Segment(
            obs={k: v[:, start:stop] for k, v in self.obs.items()},
            prev_action=cut(self.prev_action),
            reward=self.reward[:, start:stop],
            is_first=self.is_first[:, start:stop],
            is_terminal=self.is_terminal[:, start:stop],
            is_last=self.is_last[:, start:stop],
            mask=cut(self.mask),
            condition=self.condition,
        )


@state
class Step:
    """What a model's heads say at one state, [B, ...] or [B, T, ...]; None when not provided.

    Attributes:
        feat: [.., D], what heads, actors and critics read.
        reward: [..], the reward of arriving at this state.
        cont: [..], probability that the state is not terminal.
        embed: [.., E], position in goal space.
        members: for ensembles: what each member says, another `Step` with [B, M, ...] or [B, T, M, ...].
    """

    feat: Tensor
    reward: Tensor | None = None
    cont: Tensor | None = None
    embed: Tensor | None = None
    members: Step | None = None


@state
class Rollout(Generic[S]):
    """An imagined future: H actions and the H states that they reach.

    Attributes:
        start: what the heads say at the state before the first action, [B, ...].
        actions: [B, H, A]; None for plain video.
        feat: [B, H, D].
        reward: [B, H], of the state reached; None when not provided.
        cont: [B, H]; None when not provided.
        final: the last state, leaves [B, ...].
        obs: if kept: name to [B, H, ...]; else None.
        embed: if kept: [B, H, E]; else None.
        spread: if kept: [B, H], disagreement of an ensemble; else None.
        states: if kept: leaves [B, H, ...]; else None.
    """

    start: Step
    actions: Tensor | None
    feat: Tensor
    reward: Tensor | None
    cont: Tensor | None
    final: S
    obs: dict[str, Tensor] | None = None
    embed: Tensor | None = None
    spread: Tensor | None = None
    states: S | None = None


@state
class Losses(Generic[S]):
    """Unreduced losses by name, metrics to log, and the posterior states with gradient.

    Attributes:
        terms: name to [B, T], or a scalar where the loss is a statistic of the batch.
        metrics: name to a detached scalar.
        states: posteriors, leaves [B, T, ...].
    """

    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]
    states: S

    def total(self, weights: dict[str, float], mask: Tensor | None = None) -> Tensor:
        """Weigh and average the terms.

        Args:
            weights: a factor for every term; the key sets must match.
            mask: [B, T] bool, rows that count; None for all.

        Returns:
            Scalar.

        Raises:
            ValueError: a term without weight, or a weight without term.
        """
        if set(weights) != set(self.terms):
            raise ValueError(f"loss terms {sorted(self.terms)} and weights {sorted(weights)} do not match")
        return torch.stack([weights[k] * mean_of(term, mask) for k, term in self.terms.items()]).sum()


def mean_of(term: Tensor, mask: Tensor | None) -> Tensor:
    """Average an unreduced loss [B, T] over the rows that count; a scalar is left as it is."""
    if term.dim() == 0 or mask is None:
        return term.mean()
    weight = mask.float()
    return (term * weight).sum() / weight.sum().clamp(min=1)
