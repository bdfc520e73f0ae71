"""Learning and keeping: gradients, padding, seeds and saved weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load, save

from foreworld.core import Segment, Spec, deterministic, seeded, tree
from foreworld.rollout.imagine import imagine
from foreworld.testing.compare import Factory, Inapplicable, build, expect, expect_same, graft, same, sample
from foreworld.testing.samples import BATCH, HORIZON, LENGTH, random_actions

JITTERS = (0.0, 0.02, 0.1, 0.5)
"""Noise added to the weights: output layers that start at zero, and losses that start below
their free nats, pass no gradient until the weights have moved."""


def check_gradients(make: Factory, spec: Spec) -> None:
    """The weighted loss sends a finite gradient to every trainable parameter."""
    model = build(make, spec)
    missing = {name for name, weight in model.named_parameters() if weight.requires_grad}
    if not missing:
        raise Inapplicable("the model has no trainable parameters")
    for attempt, jitter in enumerate(JITTERS):
        with seeded(attempt), torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=jitter)
        model.zero_grad(set_to_none=True)
        with seeded(attempt):
            model.losses(sample(spec, seed=attempt, length=2 * LENGTH)).total(model.loss_weights).backward()
        for name, weight in model.named_parameters():
            if weight.grad is None:
                continue
            expect(bool(weight.grad.isfinite().all()), f"the gradient of {name} is not finite")
            if bool(weight.grad.any()):
                missing.discard(name)
    expect(not missing, f"no gradient reaches {', '.join(sorted(missing))}")


def check_mask(make: Factory, spec: Spec) -> None:
    """What padded rows hold changes neither the weighted loss of the valid rows nor its gradient."""
    model, segment, other = build(make, spec), sample(spec), sample(spec, seed=2)
    valid = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    valid[1, LENGTH // 2 :] = False
    valid[2, -1] = False
    padded, changed = replace(segment, mask=valid), replace(graft(valid, segment, other), mask=valid)
    first, second = (_total_and_gradient(model, one) for one in (padded, changed))
    expect_same(second["total"], first["total"], "padded rows change the total loss")
    expect_same(second, first, "padded rows change the gradient", 1e-3)


def check_save_load(make: Factory, spec: Spec) -> None:
    """A fresh model that loads the saved `state_dict` gives the same states and losses: nothing is kept elsewhere."""
    model, segment = build(make, spec), sample(spec)
    stored = save({name: value.detach().clone().contiguous() for name, value in model.state_dict().items()})
    with seeded(1):
        fresh: Any = make(spec)
    fresh.load_state_dict(load(stored))
    expect_same(dict(fresh.state_dict()), dict(model.state_dict()), "loading a `state_dict` does not restore it", 0.0)
    with deterministic():
        wanted, found = model.losses(segment), fresh.losses(segment)
    expect_same(found.states, wanted.states, "states differ after saving and loading")
    expect_same(found.terms, wanted.terms, "losses differ after saving and loading")


def check_seeds(make: Factory, spec: Spec) -> None:
    """A seed repeats losses and imagination exactly, another one differs, and `deterministic()` ignores seeds."""
    model, segment = build(make, spec), sample(spec)
    actions = random_actions(spec, BATCH, HORIZON, torch.Generator().manual_seed(3))

    def draw(seed: int) -> dict[str, Any]:
        with seeded(seed), torch.no_grad():
            losses = model.losses(segment)
            start = tree.index(losses.states, (slice(None), -1))
            return {"losses": losses.terms, "imagine": imagine(model, start, actions, HORIZON, keep=("states",)).states}

    once = draw(3)
    expect_same(draw(3), once, "the same seed gives another result", 0.0)
    with deterministic():
        modes = draw(3)
        expect_same(draw(4), modes, "under `deterministic()` a seed changes the result", 0.0)
    if not same(once, modes):
        others = (draw(seed) for seed in range(4, 12))  # a draw from few choices may come out the same once
        expect(
            not all(same(other, once) for other in others),
            "samples do not depend on the seed of torch's global generator",
        )


def check_dreaming(make: Factory, spec: Spec) -> None:
    """`dream_losses` looks at the watched rows alone, and goes on as `step` does until the episode ends."""
    model, segment, other = build(make, spec), sample(spec), sample(spec, seed=2)
    if "dream_losses" not in model.provides:
        raise Inapplicable("the model has no multi-step training")
    watch = LENGTH // 2
    dark = torch.arange(LENGTH).expand(BATCH, LENGTH) >= watch
    segment = replace(segment, is_first=segment.is_first & ~dark)
    changed = replace(
        segment, obs=tree.where(dark, other.obs, segment.obs), reward=torch.where(dark, 9.0, segment.reward)
    )
    with deterministic():
        wanted, all_watched = model.losses(segment), model.dream_losses(segment, LENGTH)
        expect_same(all_watched.terms, wanted.terms, "`dream_losses` that watches every row differs from `losses`")
        found = model.dream_losses(segment, watch)
        expect(set(found.terms) == set(wanted.terms), "`dream_losses` and `losses` differ in their terms")
        dreamed = model.dream_losses(changed, watch).states
        expect_same(dreamed, found.states, "`dream_losses` looks at rows that it should not see")
        state = tree.index(model.observe(model.initial(BATCH), segment.rows(0, watch)), (slice(None), -1))
        for t in range(watch, LENGTH):
            state = model.step(state, None if segment.prev_action is None else segment.prev_action[:, t])
            expect_same(
                tree.index(found.states, (slice(None), t)), state, f"`dream_losses` differs from `step` at row {t}"
            )
        first = segment.is_first.clone()
        first[:, -1] = True
        restarted = model.dream_losses(replace(segment, is_first=first), watch)
    for name, term in restarted.terms.items():
        if term.dim() == 2:
            expect(
                not bool(term[:, -1].any()), f"{name}: `dream_losses` counts a row after the start of another episode"
            )


def _total_and_gradient(model: Any, segment: Segment) -> dict[str, Any]:
    model.zero_grad(set_to_none=True)
    with deterministic():
        total = model.losses(segment).total(model.loss_weights, segment.mask)
    if total.requires_grad:
        total.backward()
    gradient = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"total": total.detach(), "gradient": {name: grad.clone() for name, grad in gradient.items()}}
