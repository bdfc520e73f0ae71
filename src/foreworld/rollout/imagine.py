"""The one imagination loop, for every family."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar, cast

import torch
from torch import Tensor

from foreworld.core import Decodes, Disagrees, Follows, Policy, Rollout, Unrolls, WorldModel, require, tree

S = TypeVar("S")

FEWEST, CACHED = 256, 2**18
"""On a CPU, states of so many bytes for each thread are imagined at once, but no fewer rows than the first."""

KEEP = ("obs", "embed", "spread", "states")


def imagine(
    model: WorldModel[S],
    state: S,
    actions: Tensor | Policy | None,
    horizon: int | None = None,
    keep: Collection[str] = (),
) -> Rollout[S]:
    """Let a model predict the future without looking.

    Args:
        model: any world model.
        state: where to start, leaves [B, ...].
        actions: [B, H, A] model-ready actions; or a policy that chooses them from features as it goes (numbers
            beyond [-1, 1] reach the model clipped, as an environment would clip them); or None for plain video.
        horizon: H; may be left out when `actions` is a tensor.
        keep: what to return besides feat, reward and cont: any of `obs` (decoded),
            `embed`, `spread` (of an ensemble), `states`.

    Returns:
        The rollout, [B, H, ...].

    Raises:
        ValueError: no horizon, one that contradicts the actions, or an unknown name in `keep`.
        MissingCapability: `obs`, `embed` or `spread` asked of a model that lacks it.

    Example:
        >>> import torch, gymnasium as gym, foreworld as fw
        >>> env = gym.make("CartPole-v1")
        >>> spec = fw.Spec.from_space(env.observation_space, env.action_space)
        >>> model = fw.RSSM(spec, deter=64, units=32, classes=4)
        >>> dream = fw.imagine(model, model.initial(2), torch.zeros(2, 5, 2), keep=("obs",))
        >>> dream.reward.shape, dream.obs["obs"].shape
        (torch.Size([2, 5]), torch.Size([2, 5, 4]))
    """
    _check(model, keep)
    steps = _horizon(actions, horizon)
    start = model.read(state)
    if callable(actions):
        states, chosen = _follow(model, state, actions, steps)
    else:
        states, chosen = _replay(model, state, actions, steps), actions
    step = model.read(states)
    return Rollout(
        start=start,
        actions=chosen,
        feat=step.feat,
        reward=step.reward,
        cont=step.cont,
        final=tree.index(states, (slice(None), -1)),
        obs=cast(Decodes[S], model).decode(states) if "obs" in keep else None,
        embed=step.embed if "embed" in keep else None,
        spread=cast(Disagrees[S], model).spread(states) if "spread" in keep else None,
        states=states if "states" in keep else None,
    )


def _replay(model: WorldModel[S], state: S, actions: Tensor | None, horizon: int) -> S:
    first = tree.leaves(state)[0]
    rows = _at_once(state, first)
    if len(first) < 2 * rows:
        return _steps(model, state, actions, horizon)
    parts = [slice(i, i + rows) for i in range(0, len(first), rows)]
    return tree.cat(
        [_steps(model, tree.index(state, p), None if actions is None else actions[p], horizon) for p in parts], 0
    )


def _at_once(state: S, first: Tensor) -> int:
    """Return how many rows to imagine at once: all, but on a CPU only so many as stay in its cache."""
    if first.device.type != "cpu" or torch.is_grad_enabled():
        return len(first)
    bytes_each = sum(leaf[:1].numel() * leaf.element_size() for leaf in tree.leaves(state))
    return torch.get_num_threads() * max(FEWEST, CACHED // max(1, bytes_each))


def _steps(model: WorldModel[S], state: S, actions: Tensor | None, horizon: int) -> S:
    if "unroll" in model.provides:
        return cast(Unrolls[S], model).unroll(state, actions, horizon)
    states = []
    for h in range(horizon):
        state = model.step(state, None if actions is None else actions[:, h])
        states.append(state)
    return tree.stack(states)


def _follow(model: WorldModel[S], state: S, policy: Policy, horizon: int) -> tuple[S, Tensor]:
    if "follow" in model.provides and not torch.is_grad_enabled():
        return cast(Follows[S], model).follow(state, policy, horizon)
    states, actions = [], []
    for _ in range(horizon):
        action = policy(model.read(state).feat).sample()
        state = model.step(state, action.clamp(-1, 1))
        actions.append(action)
        states.append(state)
    return tree.stack(states), torch.stack(actions, 1)


def _horizon(actions: Tensor | Policy | None, horizon: int | None) -> int:
    if isinstance(actions, Tensor):
        if horizon is not None and horizon != actions.shape[1]:
            raise ValueError(f"imagine: horizon {horizon} contradicts {actions.shape[1]} actions; leave it out")
        horizon = actions.shape[1]
    if horizon is None or horizon < 1:
        raise ValueError(f"imagine: a horizon of at least 1 is needed, found {horizon}")
    return horizon


def _check(model: WorldModel[S], keep: Collection[str]) -> None:
    for name in keep:
        if name not in KEEP:
            raise ValueError(f"imagine: cannot keep {name!r}; known: {', '.join(KEEP)}")
    for name, capability in (("obs", "decode"), ("embed", "embed"), ("spread", "spread")):
        if name in keep:
            require(model, capability, f"imagine(keep={name!r})")
