"""`branch`: play many action sequences from one restored state of a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from foreworld.core import Segment, Spec
from foreworld.core.errors import ConfigError, EnvironmentFault, MissingCapability
from foreworld.core.spaces import TRUTH, flat_values
from foreworld.envs import restorable
from foreworld.rollout.policies import RandomPolicy

WARM_UP = 50
"""Random steps, at most, before a context begins, so that the starts differ."""

TRIES = 50
"""Episodes that may end before their context is whole, one after the other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """What really happens after one state under K action sequences.

    Attributes:
        context: [1, C] the rows that led to the state.
        actions: [K, H, A] model-ready.
        rows: [K, H] what arrived; its mask is false after an end, where nothing is earned.
        truth: `truth/<key>` to [K, H, ...], the simulator state of those rows.
    """

    context: Segment
    actions: Tensor
    rows: Segment
    truth: Mapping[str, Tensor]

    @property
    def returns(self) -> np.ndarray:
        """[K], the sum of the rewards of each sequence."""
        return self.rows.reward.sum(1).numpy()


@dataclass(frozen=True, kw_only=True)
class _Row:
    obs: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    action: np.ndarray
    reward: float
    first: bool = False
    terminal: bool = False
    last: bool = False
    real: bool = True


def branch(
    env: gym.Env,
    spec: Spec,
    *,
    starts: int,
    sequences: int,
    context: int,
    horizon: int,
    repeat: float,
    seed: int,
    propose: Callable[[Segment], Tensor] | None = None,
) -> Iterator[Branches]:
    """Bring an environment to random states, and play K random action sequences from each.

    Args:
        env: one environment whose state can be saved and restored.
        spec: of the model that will be asked the same.
        starts: how many states.
        sequences: K, action sequences per state.
        context: C, rows before the state that a model may see.
        horizon: H, steps of a sequence.
        repeat: mean number of steps that a random action is held.
        seed: of resets and actions.
        propose: gives one more sequence [1, H, A], model-ready, to play from the state that a context [1, C] led to; it
            comes last.

    Yields:
        What happened, state by state.

    Raises:
        ConfigError: a count below 1, fewer than 2 sequences, or plain video.
        EnvironmentFault: every episode ends before its context is whole.
        MissingCapability: the state of the environment cannot be saved and restored.
    """
    if min(starts, context, horizon) < 1 or sequences < 2 or spec.action is None:
        raise ConfigError("branch: needs actions, starts, context and horizon of at least 1, and 2 sequences")
    simulator = restorable(env)
    if simulator is None:
        raise MissingCapability(
            f"{env}: its state cannot be saved and restored, so nothing can be played twice from it"
        )
    rng = np.random.default_rng(seed)
    for _ in range(starts):
        rows = _lead(env, spec, rng, context)
        saved = simulator.save()
        raw, context_rows = _sequences(spec, rng, sequences, horizon, repeat), _segment(spec, [rows])
        if propose is not None:
            proposed = spec.action.from_model(propose(context_rows).cpu()).numpy()
            raw = np.concatenate([raw, proposed.astype(raw.dtype)])
        played = []
        for actions in raw:
            simulator.restore(saved)
            played.append(_play(env, spec, actions))
        yield Branches(
            context=context_rows,
            actions=spec.action.to_model(torch.from_numpy(raw)),
            rows=_segment(spec, played),
            truth={
                key: torch.from_numpy(np.stack([[row.truth[key] for row in sequence] for sequence in played]))
                for key in rows[0].truth
            },
        )


def _play(env: gym.Env, spec: Spec, actions: np.ndarray) -> list[_Row]:
    """Carry out a sequence [H, ...]; after an end the last row is repeated, not real and without reward."""
    rows: list[_Row] = []
    for action in actions:
        ended = rows and rows[-1].last
        rows.append(replace(rows[-1], reward=0.0, real=False) if ended else _step(env, spec, action))
    return rows


def _lead(env: gym.Env, spec: Spec, rng: np.random.Generator, context: int) -> list[_Row]:
    """Play at random until `context` rows are there; return the last of them."""
    assert spec.action is not None
    nothing = np.zeros(spec.action.shape, spec.action.dtype)
    for _ in range(TRIES):
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        rows = [_Row(obs=_at_rest(spec, obs), truth=_truth(obs), action=nothing, reward=0.0, first=True)]
        wanted = context - 1 + int(rng.integers(WARM_UP + 1))
        for action in _sequences(spec, rng, 1, wanted, 2.0)[0]:
            row = _step(env, spec, action)
            if row.last:
                break
            rows.append(row)
        else:
            return rows[-context:]
    raise EnvironmentFault(f"{env}: {TRIES} episodes ended within {context} steps; lower --context")


def _sequences(spec: Spec, rng: np.random.Generator, count: int, horizon: int, repeat: float) -> np.ndarray:
    """Draw random actions as the environment takes them, [count, horizon, ...]."""
    assert spec.action is not None
    policy = RandomPolicy(spec.action, int(rng.integers(2**31)), repeat)
    drawn = [policy.draw(np.full(count, step == 0)) for step in range(horizon)]
    return np.stack(drawn, 1) if drawn else np.zeros((count, 0, *spec.action.shape), spec.action.dtype)


def _step(env: gym.Env, spec: Spec, action: np.ndarray) -> _Row:
    assert spec.action is not None
    dtype = env.action_space.dtype
    taken: Any = action.astype(dtype) if spec.action.shape else dtype.type(action) if dtype is not None else action
    obs, reward, terminal, truncated, _ = env.step(taken)
    return _Row(
        obs=_at_rest(spec, obs),
        truth=_truth(obs),
        action=action,
        reward=float(reward),
        terminal=bool(terminal),
        last=bool(terminal or truncated),
    )


def _at_rest(spec: Spec, obs: Any) -> dict[str, np.ndarray]:
    values = flat_values(obs)
    named = {key or next(iter(spec.obs)): value for key, value in values.items()}
    return {key: space.to_rest(np.asarray(named[key])[None])[0] for key, space in spec.obs.items()}


def _truth(obs: Any) -> dict[str, np.ndarray]:
    return {key: np.array(value) for key, value in flat_values(obs).items() if key.startswith(TRUTH)}


def _segment(spec: Spec, sequences: Sequence[Sequence[_Row]]) -> Segment:
    """Stack rows to a segment [K, T]."""
    assert spec.action is not None

    def stack(read: Callable[[_Row], Any]) -> Tensor:
        return torch.from_numpy(np.array([[read(row) for row in rows] for rows in sequences]))

    actions, first = spec.action.to_model(stack(lambda row: row.action)), stack(lambda row: row.first)
    return Segment(
        obs={key: stack(lambda row, key=key: row.obs[key]) for key in spec.obs},
        prev_action=actions.masked_fill(first[..., None], 0.0),
        reward=stack(lambda row: row.reward).float(),
        is_first=first,
        is_terminal=stack(lambda row: row.terminal),
        is_last=stack(lambda row: row.last),
        mask=stack(lambda row: row.real),
    )
