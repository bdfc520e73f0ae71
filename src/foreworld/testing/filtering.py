"""Observing and imagining: the same answer however the work is cut."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core import Policy, Segment, Spec, deterministic, showing, shows, tree
from foreworld.rollout.imagine import imagine
from foreworld.testing.compare import (
    Factory,
    Inapplicable,
    NonConforming,
    build,
    expect,
    expect_same,
    graft,
    named_leaves,
    sample,
)
from foreworld.testing.samples import BATCH, HORIZON, LENGTH, random_actions

INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def check_rows_independent(make: Factory, spec: Spec) -> None:
    """What happens in one sequence of a batch changes nothing in another, and their order does not matter."""
    model, segment, other = build(make, spec), sample(spec), sample(spec, seed=2)
    changed = tree.where(torch.arange(BATCH) == 1, other, segment)
    order = torch.tensor([2, 0, 1])
    before = _answers(model, segment)
    keep = torch.tensor([0, 2])
    left, right = tree.index(before, keep), tree.index(_answers(model, changed), keep)
    expect_same(right, left, "row 1 of the batch was changed, the others should not notice")
    shuffled = _answers(model, tree.index(segment, order))
    expect_same(shuffled, tree.index(before, order), "the batch was permuted, the answers should be likewise")


def check_is_first_resets(make: Factory, spec: Spec) -> None:
    """Neither earlier rows, nor a carried state, nor the first row's action reach past `is_first`."""
    model, segment, other = build(make, spec), sample(spec), sample(spec, seed=2)
    middle = LENGTH // 2
    first = torch.zeros_like(segment.is_first)
    first[:, middle] = True
    segment = _with_first(segment, first)
    other = _with_first(other, first)
    kept = (torch.arange(LENGTH) >= middle).expand(BATCH, LENGTH)
    wanted = _answers(model, segment, middle)
    expect_same(_answers(model, graft(kept, segment, other), middle), wanted, "rows before `is_first` reach past it")
    with deterministic():
        alone = model.observe(model.initial(BATCH), segment.rows(middle, LENGTH))
        carried = tree.index(model.observe(model.initial(BATCH), other), (slice(None), -1))
        resumed = model.observe(carried, segment.rows(middle, LENGTH))
    expect_same(alone, wanted["states"], "an episode that starts in mid-segment differs from one observed alone")
    expect_same(resumed, alone, "a carried state reaches past `is_first`")
    if segment.prev_action is not None:
        acted = replace(segment, prev_action=torch.where(first[..., None], 1.0, segment.prev_action))
        expect_same(_answers(model, acted, middle), wanted, "an action at the row `is_first` is not ignored")


def check_observe_in_pieces(make: Factory, spec: Spec) -> None:
    """Observing a segment in two pieces, cut anywhere, gives the states of observing it at once."""
    model, segment = build(make, spec), sample(spec)
    with deterministic():
        whole = model.observe(model.initial(BATCH), segment)
        expect_same(model.losses(segment).states, whole, "`losses` and `observe` disagree on the states")
        for cut in range(1, LENGTH):
            head = model.observe(model.initial(BATCH), segment.rows(0, cut))
            last = tree.index(head, (slice(None), -1))
            tail = model.observe(last, segment.rows(cut, LENGTH))
            expect_same(tree.cat([head, tail]), whole, f"observing in pieces, cut at row {cut}, differs from at once")
            carried = model.losses(segment.rows(cut, LENGTH), last).states
            expect_same(carried, tail, f"`losses` from a carried state, cut at row {cut}, disagrees with `observe`")


def check_acting_row_by_row(make: Factory, spec: Spec) -> None:
    """Observing row by row, as an agent does, gives the states of observing the segment."""
    model, segment = build(make, spec), sample(spec)
    with deterministic():
        whole = model.observe(model.initial(BATCH), segment)
        state = model.initial(BATCH)
        for t in range(LENGTH):
            state = tree.index(model.observe(state, segment.rows(t, t + 1)), (slice(None), 0))
            wanted = tree.index(whole, (slice(None), t))
            expect_same(state, wanted, f"acting row by row: row {t} differs from the segment")
            read = tree.index(model.read(whole), (slice(None), t))
            expect_same(model.read(state), read, f"`read` differs at row {t}")


def check_imagine_equals_step(make: Factory, spec: Spec) -> None:
    """`imagine`, and a fused `unroll`, reach the states of repeated `step`."""
    model, segment = build(make, spec), sample(spec)
    actions = random_actions(spec, BATCH, HORIZON, torch.Generator().manual_seed(3))
    asked = {"decode": "obs", "spread": "spread"}
    keep = ("states", *(name for capability, name in asked.items() if capability in model.provides))
    with deterministic():
        start = tree.index(model.observe(model.initial(BATCH), segment), (slice(None), -1))
        wanted = _loop(model, start, actions)
        if "unroll" in model.provides:
            expect_same(model.unroll(start, actions, HORIZON), wanted, "`unroll` differs from repeated `step`")
        rollout = imagine(model, start, actions, HORIZON, keep=keep)
        expect_same(rollout.states, wanted, "`imagine` differs from repeated `step`")
        expect_same(rollout.final, tree.index(wanted, (slice(None), -1)), "`imagine` ends in another state")
        step = model.read(wanted)
    read = {"feat": rollout.feat, "reward": rollout.reward, "cont": rollout.cont}
    expect_same(read, {"feat": step.feat, "reward": step.reward, "cont": step.cont}, "`imagine` reads other values")
    if rollout.obs is not None:
        with deterministic():
            expect_same(rollout.obs, model.decode(wanted), "`imagine` decodes other observations")
    if rollout.spread is not None:
        with deterministic():
            expect_same(rollout.spread, model.spread(wanted), "`imagine` finds another spread")


def check_imagine_under_policy(make: Factory, spec: Spec) -> None:
    """`imagine` under a policy, and a fused `follow`, reach the states of repeated `step` under the same policy."""
    model, segment = build(make, spec), sample(spec)
    if spec.action is None:
        raise Inapplicable("there are no actions to choose")
    with deterministic(), torch.no_grad():
        start = tree.index(model.observe(model.initial(BATCH), segment), (slice(None), -1))
        policy = _policy(spec, model.read(start).feat.shape[-1])
        state, states, taken = start, [], []
        for _ in range(HORIZON):
            taken.append(policy(model.read(state).feat).sample())
            state = model.step(state, taken[-1].clamp(-1, 1))
            states.append(state)
        wanted = {"states": tree.stack(states), "actions": torch.stack(taken, 1)}
        if "follow" in model.provides:
            followed, chosen = model.follow(start, policy, HORIZON)
            found = {"states": followed, "actions": chosen}
            expect_same(found, wanted, "`follow` differs from repeated `step` under the same policy")
        rollout = imagine(model, start, policy, HORIZON, keep=("states",))
        found = {"states": rollout.states, "actions": rollout.actions}
        expect_same(found, wanted, "`imagine` under a policy differs from repeated `step`")
        begin, step = model.read(start), model.read(wanted["states"])
        read = {"start": rollout.start.feat, "feat": rollout.feat, "reward": rollout.reward, "cont": rollout.cont}
        right = {"start": begin.feat, "feat": step.feat, "reward": step.reward, "cont": step.cont}
        expect_same(read, right, "`imagine` under a policy reads other values")


def check_carry(make: Factory, spec: Spec) -> None:
    """A state that was put into a vector, as a replay keeps it, goes on as the state itself does."""
    model, segment = build(make, spec), sample(spec)
    if "carry" not in model.provides:
        raise Inapplicable("the model's states are not carried from window to window")
    middle = LENGTH // 2
    with deterministic(), torch.no_grad():
        states = model.observe(model.initial(BATCH), segment.rows(0, middle))
        state = tree.index(states, (slice(None), -1))
        vectors = tree.to_vector(states, 2)
        fresh = tree.from_vector(model.initial(BATCH), vectors[:, -1])
        expect_same(tree.to_vector(state), vectors[:, -1], "a vector depends on the axes of time", 0.0)
        kinds = {name: leaf.dtype for name, leaf in named_leaves(state).items()}
        found = {name: leaf.dtype for name, leaf in named_leaves(fresh).items()}
        expect(kinds == found, f"a state that was a vector has leaves of types {found}, not {kinds}")
        expect_same(fresh, state, "a state is not the same after it was a vector of float32", 0.0)
        rest = segment.rows(middle, LENGTH)
        rest = replace(rest, is_first=torch.zeros_like(rest.is_first))
        wanted = model.observe(state, rest)
        expect_same(model.observe(fresh, rest), wanted, "a state that was a vector goes on otherwise", 0.0)
        half = tree.from_vector(model.initial(BATCH), vectors[:, -1].half().float())
        expect_same(half, state, "a state does not survive the float16 of a replay", 1e-2)


def check_input_untouched(make: Factory, spec: Spec) -> None:
    """No member writes into its input, nor returns part of it: planners reuse one start many times."""
    model, segment = build(make, spec), sample(spec)
    actions = random_actions(spec, BATCH, HORIZON, torch.Generator().manual_seed(3))
    action = None if actions is None else actions[:, 0].clone()
    with deterministic(), torch.no_grad():
        state = tree.map(torch.clone, tree.index(model.observe(model.initial(BATCH), segment), (slice(None), -1)))
        given = {"state": state, "segment": segment} | ({} if action is None else {"action": action})
        copy = tree.map(torch.clone, given)
        calls: dict[str, Any] = {
            "step": lambda: model.step(state, action),
            "observe": lambda: model.observe(state, segment),
            "read": lambda: model.read(state),
            "losses": lambda: model.losses(segment, state),
        }
        if shows(model):
            show = showing(model, "the kit")
            calls[show.__name__] = lambda: show(state)
        if "unroll" in model.provides:
            calls["unroll"] = lambda: model.unroll(state, actions, HORIZON)
        for name, call in calls.items():
            call()
            expect_same(given, copy, f"`{name}` changed its input", 0.0)
        after = named_leaves(model.step(state, action))
        inputs = named_leaves(state)
        for name, leaf in after.items():
            if leaf is inputs.get(name):  # a constant of the state, such as its condition, may be passed on whole
                continue
            leaf.fill_(1)
            expect_same(given, copy, f"`step` returns memory of its input in {name}", 0.0)


def check_compile(make: Factory, spec: Spec, backend: str = "aot_eager") -> None:
    """`torch.compile(step, fullgraph=True)` gives the states of the plain `step`.

    Args:
        make: builds the model.
        spec: the world to check on.
        backend: the compiler's; `aot_eager` finds what cannot be traced, `inductor` also makes the code.

    Raises:
        NonConforming: it does not compile as one graph, or gives other states.
    """
    model, segment = build(make, spec), sample(spec)
    actions = random_actions(spec, BATCH, 1, torch.Generator().manual_seed(3))
    action = None if actions is None else actions[:, 0]
    torch.compiler.reset()
    compiled = torch.compile(model.step, backend=backend, fullgraph=True)
    with _own_inductor_cache() if backend == "inductor" else nullcontext(), deterministic(), torch.no_grad():
        state = tree.index(model.observe(model.initial(BATCH), segment), (slice(None), -1))
        try:
            after = compiled(state, action)
        except Exception as fault:  # whatever the compiler objects to
            first = str(fault).strip().partition("\n")[0]
            raise NonConforming(f"`step` does not compile as one graph with {backend!r}: {first}") from fault
        expect_same(after, model.step(state, action), "the compiled `step` differs", 1e-3)


@contextmanager
def _own_inductor_cache() -> Iterator[None]:
    """Compile into a folder of this process: into the common one others write, and once it gave out a broken kernel.

    That PyTorch finds the variable set does not mean that somebody set it: it does so itself, to the common folder.
    """
    before = os.environ.get(INDUCTOR_CACHE)
    os.environ[INDUCTOR_CACHE] = _inductor_folder()
    try:
        yield
    finally:
        if before is None:
            del os.environ[INDUCTOR_CACHE]
        else:
            os.environ[INDUCTOR_CACHE] = before


@functools.cache
def _inductor_folder() -> str:
    """Make a folder that goes with the process."""
    folder = tempfile.mkdtemp(prefix="foreworld-inductor-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Drawn(NamedTuple):
    """A distribution with a single value."""

    action: Tensor

    def sample(self) -> Tensor:
        """Return it."""
        return self.action


def _policy(spec: Spec, width: int) -> Policy:
    """Make a policy that depends on features, and whose numbers lie beyond [-1, 1] at times."""
    assert spec.action is not None
    space = spec.action
    weight = torch.randn(width, space.width, generator=torch.Generator().manual_seed(4))

    def choose(feat: Tensor) -> _Drawn:
        score = torch.sin(feat @ weight)
        if space.kind != "discrete":
            return _Drawn(2 * score)
        parts = (F.one_hot(part.argmax(-1), part.shape[-1]).float() for part in score.split(list(space.classes), -1))
        return _Drawn(torch.cat(list(parts), -1))

    return choose


def _loop(model: Any, state: Any, actions: Tensor | None) -> Any:
    states = []
    for h in range(HORIZON):
        state = model.step(state, None if actions is None else actions[:, h])
        states.append(state)
    return tree.stack(states)


def _answers(model: Any, segment: Segment, start: int = 0) -> dict[str, Any]:
    """Collect what a model makes of a segment from row `start` on, every leaf with the batch first."""
    action = None if segment.prev_action is None else segment.prev_action[:, -1]
    with deterministic():
        losses = model.losses(segment)
        states = model.observe(model.initial(segment.batch), segment)
        terms = {name: term for name, term in losses.terms.items() if term.dim() == 2}
        found = {"states": states, "terms": terms, "read": model.read(states)}
        if shows(model):
            found["shown"] = showing(model, "the kit")(states)
        if "spread" in model.provides:
            found["spread"] = model.spread(states)
        after = model.step(tree.index(states, (slice(None), -1)), action)
    return {**tree.index(found, (slice(None), slice(start, None))), "step": after}


def _with_first(segment: Segment, first: Tensor) -> Segment:
    """Give a segment other episode starts, and actions and rewards to match."""
    last = torch.cat([first[:, 1:], torch.zeros_like(first[:, :1])], 1)
    return replace(
        segment,
        prev_action=None if segment.prev_action is None else segment.prev_action * ~first[..., None],
        reward=segment.reward * ~first,
        is_first=first,
        is_terminal=last & segment.is_terminal,
        is_last=last,
    )
