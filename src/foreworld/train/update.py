"""One update, which is skipped where a loss or a gradient is not finite; the host waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import Parameter

from foreworld.core import AfterUpdate, LearnsDreaming, Losses, Segment, tree
from foreworld.core.types import mean_of
from foreworld.train.optim import AdamW, HasParameters, LaProp, gradient_norms


class Learns(Protocol):
    """What an update needs: a model, or a model with an agent.

    Attributes:
        provides: its capabilities.
        loss_weights: a weight for every loss term.
    """

    provides: frozenset[str]
    loss_weights: dict[str, float]

    def losses(self, segment: Segment, state: Any = None) -> Losses[Any]:
        """Compute unreduced losses by name."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Return what is trained, with names."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What an update found, still on the device: to read it is to wait for it.

    Attributes:
        values: `loss/<term>` averages and the family's own metrics, scalars.
        checked: [K], of which one that is not finite is why the update was skipped: the terms, the weighted
            total, the norms of the gradients.
        sound: scalar bool, whether the update was done.
        states: the posteriors of the segment, cut from the gradient; None of a model that gives none.
        terms: names of the terms, in the order of `checked`.
        params: whose gradients they are, in the order of `checked`.
    """

    values: dict[str, Tensor]
    checked: Tensor
    sound: Tensor
    states: Any
    terms: tuple[str, ...]
    params: tuple[Tensor, ...]

    def numbers(self) -> dict[str, float]:
        """Return the values as numbers."""
        return {name: float(value) for name, value in self.values.items()}

    def culprit(self, model: Learns) -> str:
        """Name the first thing that is not finite: `loss/<term>`, `total` or `gradient/<parameter>`."""
        first = int(self.checked.isfinite().logical_not().nonzero()[0])
        if first < len(self.terms):
            return f"loss/{self.terms[first]}"
        if first == len(self.terms):
            return "total"
        wanted = self.params[first - len(self.terms) - 1]
        return next(f"gradient/{name}" for name, param in model.named_parameters() if param is wanted)


def update(
    model: Learns,
    optimizer: LaProp | AdamW,
    segment: Segment,
    watch: int | None = None,
    state: Any = None,
) -> Outcome:
    """Do one update, or leave weights and optimiser as they are when a loss or a gradient is not finite.

    A gradient counts as finite when its norm is: one that overflows float32 when squared is none to step by.

    Args:
        model: in training mode.
        optimizer: over its parameters.
        segment: a batch.
        watch: rows to look at before dreaming the others; None looks at all.
        state: of the model before the segment; None begins afresh.
    """
    losses = model.losses(segment, state) if watch is None else cast(LearnsDreaming, model).dream_losses(segment, watch)
    total = losses.total(model.loss_weights, segment.mask)
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    with torch.no_grad():
        means = {name: mean_of(term.detach(), segment.mask) for name, term in losses.terms.items()}
        norms = gradient_norms(optimizer)
        checked = torch.cat([torch.stack([*means.values(), total.detach()]), norms])
        sound = checked.isfinite().all()
        optimizer.step_where(sound, norms)
        if "after_update" in model.provides:
            cast(AfterUpdate, model).after_update(sound)
    return Outcome(
        values={f"loss/{name}": value for name, value in means.items()} | losses.metrics,
        checked=checked,
        sound=sound,
        states=None if losses.states is None else tree.detach(losses.states),
        terms=tuple(means),
        params=tuple(p for group in optimizer.param_groups for p in group["params"] if p.grad is not None),
    )


def device_of(model: HasParameters) -> torch.device:
    """Return where a model computes."""
    return next(model.parameters()).device
