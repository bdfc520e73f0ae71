"""Reward, continuation and return belong to the state reached: shown on the counting environment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, deterministic, seeded, tree
from foreworld.ops.returns import discounted_return
from foreworld.rollout.imagine import imagine
from foreworld.testing.compare import Factory, Inapplicable, expect
from foreworld.testing.counting import (
    STEPS,
    ActionKind,
    bonus_of,
    counting_index,
    counting_segment,
    counting_spec,
    rewards_of,
)

DISCOUNT = 0.9
EPISODES = 32
AHEAD = 2
"""Steps imagined from every row: the claim is where a prediction belongs, not how far it holds."""


def check_arrival_rows(segment: Segment) -> None:
    """Rows recorded from the counting environment obey the conventions of arrival rows.

    For tests of stores, collectors and adapters: play `CountingEnv`, read the data back, check it here.

    Args:
        segment: [B, T] rows of `CountingEnv`, by whatever way they came; rows outside `mask` are ignored.

    Raises:
        NonConforming: names the first rule that is broken.
    """
    index, first = counting_index(segment), segment.is_first
    valid = torch.ones_like(first) if segment.mask is None else segment.mask
    action = segment.prev_action
    assert action is not None
    earned = rewards_of(index, action)
    follows = (index[:, 1:] == index[:, :-1] + 1) | first[:, 1:] | ~valid[:, 1:]
    shown = segment.obs["obs"][..., STEPS + 1 :] if "obs" in segment.obs else action
    for holds, rule in (
        (follows.all(), "a row does not follow the row before it"),
        ((first == (index == 0))[valid].all(), "is_first is not exactly at the first row of an episode"),
        ((action == 0)[first & valid].all(), "prev_action is not zero at is_first"),
        (torch.allclose(shown[valid], action[valid], atol=1e-5), "prev_action is not the action that led to its row"),
        (torch.allclose(earned[valid], segment.reward[valid], atol=1e-5), "reward is not that of arriving at its row"),
        ((segment.is_terminal == (index == STEPS))[valid].all(), "is_terminal is not exactly at the end"),
        ((segment.is_last | ~segment.is_terminal)[valid].all(), "a terminal row is not is_last"),
    ):
        expect(bool(holds), f"arrival rows: {rule}")


def check_alignment(
    make: Factory, action: ActionKind = "discrete", *, image: bool = False, updates: int = 300, rate: float = 1e-2
) -> None:
    """A model trained for a moment on the counting environment aligns reward, continuation and return.

    Its errors are compared with those of the same predictions shifted by one row.

    From every row of an episode two steps are imagined; the continuation must end exactly at the
    terminal state, and an action must act on the state that it leads to.

    Args:
        make: builds the model; it is trained by Adam, or calibrated, or both.
        action: kind of action.
        image: learn from pictures.
        updates: number of gradient steps.
        rate: learning rate at the start; it falls to zero.

    Raises:
        NonConforming: says which prediction belongs to which neighbour, or was not learned.
        Inapplicable: the model predicts no reward.
    """
    with seeded(0):
        model: Any = make(counting_spec(action, image))
    if "reward" not in model.provides:
        raise Inapplicable("the model predicts no reward")
    _train(model, action, image, updates, rate)
    truth = counting_segment(EPISODES, STEPS + 1, action=action, image=image, seed=123)
    rows = torch.arange(1, STEPS - AHEAD + 1)[:, None] + torch.arange(1, AHEAD + 1)  # [starts, AHEAD], rows reached
    assert truth.prev_action is not None
    with deterministic(), torch.no_grad():
        states = model.observe(model.initial(EPISODES), truth)
        seen = torch.arange(1, STEPS)[:, None]
        _expect_aligned("observed", model.read(states).reward[:, seen], truth.reward, seen)
        starts = tree.flatten_time(tree.index(states, (slice(None), slice(1, STEPS - AHEAD + 1))))
        actions = truth.prev_action[:, rows].flatten(0, 1)
        dream = imagine(model, starts, actions, AHEAD)
        others = torch.cat([actions[:, :1].roll(1, 0), actions[:, 1:]], 1)
        other = imagine(model, starts, others, AHEAD)
    assert dream.reward is not None and other.reward is not None
    _expect_prompt(dream.reward, other.reward, actions, others)
    reward = dream.reward.unflatten(0, (EPISODES, -1))
    _expect_aligned("imagined", reward, truth.reward, rows)
    if "cont" in model.provides:
        assert dream.cont is not None
        cont = dream.cont.unflatten(0, (EPISODES, -1))
        _expect_cont(cont.mean(0), rows)
        _expect_return(reward[:, -1], cont[:, -1], truth)


def _train(model: Any, action: ActionKind, image: bool, updates: int, rate: float) -> None:
    """Train on segments that begin anywhere and cross the ends of episodes."""
    data = [counting_segment(16, 12, action=action, image=image, seed=seed, start=None) for seed in range(16)]
    if "calibrate" in model.provides:
        model.calibrate(lambda: iter(data))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        return
    optimizer = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    with seeded(0):
        for update in range(updates):
            optimizer.zero_grad()
            model.losses(data[update % len(data)]).total(model.loss_weights).backward()
            torch.nn.utils.clip_grad_norm_(weights, 10.0)
            optimizer.step()
            schedule.step()
            if "after_update" in model.provides:
                model.after_update(update)


def _expect_aligned(where: str, found: Tensor, reward: Tensor, rows: Tensor) -> None:
    """Compare predictions [B, S, H] of the rewards of `rows` [S, H] with these and with their neighbours."""
    inner = rows < STEPS  # both neighbours exist
    errors = {s: float((found[:, inner] - reward[:, rows[inner] + s]).square().mean()) for s in (-1, 0, 1)}
    listed = ", ".join(f"{shift:+d}: {error:.3f}" for shift, error in errors.items())
    wins = errors[0] < 0.5 * min(errors[-1], errors[1])
    expect(wins, f"{where} reward: squared error by shift ({listed}); the state reached must win clearly")


def _expect_prompt(reward: Tensor, other: Tensor, actions: Tensor, others: Tensor) -> None:
    """Changing the first of the actions [B, H, A] changes the reward of the state that it leads to, and no other."""
    change = torch.zeros_like(reward)
    change[:, 0] = bonus_of(actions[:, 0]) - bonus_of(others[:, 0])
    error, size = (reward - other - change).abs().mean(0), change[:, 0].abs().mean()
    expect(
        bool((error < 0.5 * size).all()),
        f"action: changing the first one changes rewards by {error[0]:.2f} too much or too little at the state that it "
        f"leads to and by {error[-1]:.2f} at the last one, where the effect is {size:.2f} at the first and 0 later",
    )


def _expect_cont(cont: Tensor, rows: Tensor) -> None:
    """The mean continuation [S, H] is low exactly where the terminal state is reached."""
    low, high = float(cont[rows == STEPS].max()), float(cont[rows != STEPS].min())
    expect(low < 0.5, f"cont: {low:.2f} at the terminal state, expected 0")
    expect(high > 0.5, f"cont: {high:.2f} at a state from which the episode goes on, expected 1")


def _expect_return(reward: Tensor, cont: Tensor, truth: Segment) -> None:
    """The return of a dream that ends is that of the real rewards, the terminal state's included."""
    found = discounted_return(reward, cont, DISCOUNT)
    weighted = truth.reward[:, -AHEAD:] * DISCOUNT ** torch.arange(AHEAD)
    error, erased = (float((found - r.sum(1)).abs().mean()) for r in (weighted, weighted[:, :-1]))
    expect(error < 0.5 * erased, f"return: off by {error:.3f}, by {erased:.3f} from one without the terminal reward")
