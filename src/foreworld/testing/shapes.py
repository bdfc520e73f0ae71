"""Shapes, types and declarations: what every answer of a model must look like."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foreworld.core import Segment, Space, Spec, Step, deterministic, from_json, showing, shows, to_json, tree
from foreworld.core.errors import ForeworldError
from foreworld.testing.compare import Factory, NonConforming, build, expect, expect_same, named_leaves, sample
from foreworld.testing.samples import BATCH, LENGTH, random_actions

READ = ("reward", "cont", "embed")


def check_shapes(make: Factory, spec: Spec) -> None:
    """States start with [B] or [B, T], floats are finite float32, and `provides` tells the truth.

    Example:
        >>> from foreworld.models.linear import Linear
        >>> from foreworld.testing import check_shapes, specs
        >>> check_shapes(Linear, specs()["vector_box"])
    """
    model = build(make, spec)
    _check_members(model)
    for batch in (BATCH, 1):
        segment = sample(spec, batch=batch)
        start = model.initial(batch)
        states = model.observe(start, segment)
        actions = random_actions(spec, batch, 1, torch.Generator().manual_seed(2))
        action = None if actions is None else actions[:, 0]
        inner = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in named_leaves(start).items()}
        expect(bool(inner), "initial: the state has no tensors")
        _check_answers(model, "initial", start, (batch,), inner)
        _check_answers(model, "observe", states, (batch, LENGTH), inner)
        for state in (start, tree.index(states, (slice(None), -1))):
            _check_answers(model, "step", model.step(state, action), (batch,), inner)
        _check_losses(model, segment, inner)
        _check_capabilities(model, segment, states)


def _check_members(model: Any) -> None:
    expect(isinstance(model, nn.Module), "the factory returns no nn.Module")
    for name, kind in (("spec", Spec), ("provides", frozenset), ("loss_weights", dict), ("family", str)):
        expect(isinstance(getattr(model, name, None), kind), f"{name}: missing, or not a {kind.__name__}")
    _check_config(getattr(model, "config", None))
    for capability in ("decode", "look", "embed", "score", "spread", "unroll", "follow", "calibrate", "after_update"):
        declared, defined = capability in model.provides, callable(getattr(model, capability, None))
        expect(defined or not declared, f"provides: {capability!r} is declared but there is no such method")


def _check_config(config: Any) -> None:
    expect(is_dataclass(config), "config: missing, or not a dataclass; a run folder rebuilds the model from it")
    try:
        again = from_json(type(config), json.loads(json.dumps(to_json(config))))
    except (ForeworldError, TypeError, ValueError) as fault:
        raise NonConforming(f"config: does not survive being written to JSON and read back ({fault})") from fault
    expect(again == config, "config: does not survive being written to JSON and read back")


def _check_answers(model: Any, member: str, state: Any, lead: tuple[int, ...], inner: dict[str, Any]) -> None:
    _check_state(member, state, lead, inner)
    _check_read(model, state, lead, member)
    if shows(model):
        _check_shown(model, state, lead)
    if "spread" in model.provides:
        _check_spread(model, state, lead)


def _check_state(member: str, state: Any, lead: tuple[int, ...], inner: dict[str, Any]) -> None:
    leaves = named_leaves(state)
    expect(set(leaves) == set(inner), f"{member}: state leaves are {sorted(leaves)}, initial has {sorted(inner)}")
    for name, leaf in leaves.items():
        shape, dtype = inner[name]
        wanted = (*lead, *shape)
        expect(leaf.shape == wanted, f"{member}: {name} has shape {tuple(leaf.shape)}, expected {tuple(wanted)}")
        expect(leaf.dtype == dtype, f"{member}: {name} is {leaf.dtype}, initial has {dtype}")
        if leaf.dtype.is_floating_point:
            _check_float(f"{member}: {name}", leaf)


def _check_float(what: str, value: Tensor) -> None:
    expect(value.dtype == torch.float32, f"{what} is {value.dtype}, expected torch.float32")
    expect(bool(value.isfinite().all()), f"{what} is not finite")


def _check_read(model: Any, state: Any, lead: tuple[int, ...], after: str) -> None:
    step = model.read(state)
    expect(isinstance(step, Step), f"read: returns {type(step).__name__}, expected Step")
    for name in ("feat", *READ):
        value, what = getattr(step, name), f"read after {after}: {name}"
        if name != "feat":
            declared = name in model.provides
            expect((value is not None) == declared, f"{what} is {'missing' if declared else 'given'}, see `provides`")
        if value is None:
            continue
        wide = name in ("feat", "embed")
        fits = value.shape[:-1] == lead if wide else value.shape == lead
        expect(fits, f"{what} has shape {tuple(value.shape)}, expected {lead}{' and one width' if wide else ''}")
        _check_float(what, value)
    if step.cont is not None:
        inside = bool(((step.cont >= 0) & (step.cont <= 1)).all())
        expect(inside, "read: cont is a probability, found values outside [0, 1]")


def _check_shown(model: Any, state: Any, lead: tuple[int, ...]) -> None:
    show = showing(model, "the kit")
    said, shown = show.__name__, show(state)
    expect(set(shown) == set(model.spec.obs), f"{said}: keys {sorted(shown)}, expected {sorted(model.spec.obs)}")
    for name, space in model.spec.obs.items():
        value, inner = shown[name], (space.width,) if space.kind == "discrete" else space.shape
        wanted = (*lead, *inner)
        expect(value.shape == wanted, f"{said}: {name!r} has shape {tuple(value.shape)}, expected {wanted}")
        _check_float(f"{said}: {name!r}", value)
        _check_range(f"{said}: {name!r}", space, value)


def _check_spread(model: Any, state: Any, lead: tuple[int, ...]) -> None:
    spread = model.spread(state)
    expect(spread.shape == lead, f"spread: shape {tuple(spread.shape)}, expected {lead}")
    _check_float("spread", spread)
    expect(bool((spread >= 0).all()), "spread: found values below 0")


def _check_range(what: str, space: Space, value: Tensor) -> None:
    if space.kind == "vector":
        return
    inside = bool(((value >= -1e-4) & (value <= 1 + 1e-4)).all())
    expect(inside, f"{what} lies outside [0, 1]")
    if space.kind == "discrete":
        sums = torch.stack([part.sum(-1) for part in value.split(list(space.classes), -1)])
        expect(bool(((sums - 1).abs() < 1e-4).all()), f"{what}: the probabilities do not sum to 1")


def _check_losses(model: Any, segment: Any, inner: dict[str, Any]) -> None:
    losses, lead = model.losses(segment), (segment.batch, segment.length)
    _check_state("losses", losses.states, lead, inner)
    terms, weights = set(losses.terms), set(model.loss_weights)
    expect(terms == weights, f"losses: terms {sorted(terms)} and loss_weights {sorted(weights)} do not match")
    for name, term in losses.terms.items():
        expect(term.shape in (lead, ()), f"losses: {name!r} has shape {tuple(term.shape)}, expected {lead} or a scalar")
        _check_float(f"losses: {name!r}", term)
    for name, metric in losses.metrics.items():
        plain = metric.dim() == 0 and not metric.requires_grad
        expect(plain, f"losses: the metric {name!r} is not a detached scalar")


def _check_capabilities(model: Any, segment: Any, states: Any) -> None:
    if "embed" in model.provides:
        goal = model.embed({name: value[:, -1] for name, value in segment.obs.items()})
        wanted = (segment.batch, model.read(states).embed.shape[-1])
        expect(goal.shape == wanted, f"embed: shape {tuple(goal.shape)}, expected {wanted} as in Step.embed")
    if "fixed_embed" in model.provides:
        _check_fixed_embed(model, segment)
    if "score" in model.provides:
        score, wanted = model.score(model.initial(segment.batch), segment), (segment.batch, segment.length)
        expect(score.shape == wanted, f"score: shape {tuple(score.shape)}, expected {wanted}")
        expect(isinstance(getattr(model, "score_kind", None), str), "score: `score_kind` does not name its unit")


def _check_fixed_embed(model: Any, segment: Segment) -> None:
    """Give rows that are embedded already, beside observations of other rows: nobody should look at these."""
    encoder = getattr(model, "encoder", None)
    expect(isinstance(encoder, nn.Module), "fixed_embed: `encoder` is missing, or not an nn.Module")
    trained = sorted(name for name, weight in model.encoder.named_parameters() if weight.requires_grad)
    expect(not trained, f"fixed_embed: training changes the encoder: {', '.join(trained)}")
    other = replace(segment, obs=sample(model.spec, seed=3, batch=segment.batch).obs)
    start = model.initial(segment.batch)
    with deterministic():
        embedded = model.encoder(segment.obs)
        last = {name: value[:, -1] for name, value in segment.obs.items()}
        expect_same(model.embed(last), embedded[:, -1], "fixed_embed: `embed` differs from `encoder`")
        asked = {"observe": lambda rows, **given: model.observe(start, rows, **given)}
        asked["losses"] = lambda rows, **given: model.losses(rows, **given).states
        if "score" in model.provides:
            asked["score"] = lambda rows, **given: model.score(start, rows, **given)
        for name, ask in asked.items():
            what = f"fixed_embed: `{name}` of rows that are embedded already differs from that of the rows"
            expect_same(ask(other, embedded=embedded), ask(segment), what)
