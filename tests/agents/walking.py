"""An environment whose rows say all about themselves, and a record of what a training makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny_worlds import awake
from torch import Tensor

from foreworld.agents import AgentPolicy
from foreworld.core import Segment, tree
from foreworld.data import Replay
from foreworld.envs import Rows
from foreworld.models.rssm import RSSM
from foreworld.train import learning, online, train_agent

EDGE, LONGEST = 3, 7
SIZES: dict[str, Any] = {"deter": 16, "units": 8, "latents": 2, "classes": 4, "blocks": 2, "layers": 1}


class Walk(gym.Env[Any, Any]):
    """Walk left, stay or walk right; at the edge the episode is over, after seven steps it is cut off.

    An observation is the place, the time and the number of the episode.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(3, start=1)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.played = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.time, self.played = 0, 0, self.played + 1
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at, self.time = self.at + int(action) - 2, self.time + 1
        over = abs(self.at) == EDGE
        return self.observe(), worth(self.at, self.time), over, self.time == LONGEST and not over, {}

    def observe(self) -> Any:
        return np.array([self.at, self.time, self.played], np.float32)


def worth(at: Any, time: Any) -> Any:
    return at + 0.1 * time


@dataclass
class Record:
    """What a training did.

    Attributes:
        rows: as they arrived.
        chosen: the actions that the policy chose for them.
        carries: the states that were kept with them.
        segments: what was learned from.
        given: state that each update began with, as vectors; None where it had none.
        wanted: what it should have been: what was last found, or kept, for the row before the segment.
        model: as it was in the end.
    """

    model: Any
    rows: list[Rows] = field(default_factory=list)
    chosen: list[np.ndarray] = field(default_factory=list)
    carries: list[np.ndarray] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    given: list[Tensor | None] = field(default_factory=list)
    wanted: list[Tensor] = field(default_factory=list)


def walk(patch: pytest.MonkeyPatch, bad: Callable[[int], bool] = lambda call: False, **fields: Any) -> Record:
    """Train an agent to walk for a little, in two environments, and record it.

    Args:
        patch: for the record.
        bad: in which calls the model's loss is NaN, so that the update is skipped.
        fields: of the training.
    """
    patch.setitem(gym.registry, "Walk-v0", gym.envs.registration.EnvSpec("Walk-v0", entry_point=Walk))
    torch.manual_seed(0)
    model = RSSM(online.make("Walk-v0").spec, **SIZES)
    agent, record, kept = awake(model, units=8, horizon=2), Record(model), dict[tuple[int, int], np.ndarray]()
    counts, batches, calls = [0, 0], [], 0

    add, sample, update, choose, losses = Replay.add, Replay.sample, learning.update, AgentPolicy.__call__, model.losses

    def choosing(self: AgentPolicy, rows: Rows) -> np.ndarray:
        record.chosen.append(choose(self, rows))
        return record.chosen[-1]

    def adding(self: Replay, rows: Rows, carry: np.ndarray) -> None:
        record.rows.append(rows)
        record.carries.append(carry.copy())
        for i in range(2):
            kept[i, counts[i]] = carry[i].astype(np.float16)
            counts[i] += 1
        add(self, rows, carry)

    def sampling(self: Replay, *args: Any, **named: Any) -> Any:
        batches.append(sample(self, *args, **named))
        return batches[-1]

    def failing(segment: Segment, state: Any = None) -> Any:
        nonlocal calls
        found, calls = losses(segment, state), calls + 1
        if bad(calls):
            found.terms["reward"] = found.terms["reward"] * float("nan")
        return found

    def updating(learner: Any, optimizer: Any, segment: Segment, state: Any = None) -> Any:
        refs = batches[-1].refs.tolist()
        before = np.stack([kept[stream, first - 1] for stream, first in refs])
        record.segments.append(segment)
        record.wanted.append(torch.from_numpy(before.astype(np.float32)))
        record.given.append(None if state is None else tree.to_vector(state))
        outcome = update(learner, optimizer, segment, state=state)
        found = tree.to_vector(outcome.states, 2).numpy().astype(np.float16)
        for w, (stream, first) in enumerate(refs):
            for t in range(segment.length if bool(outcome.sound) else 0):
                kept[stream, first + t] = found[w, t]
        return outcome

    patch.setattr(AgentPolicy, "__call__", choosing)
    patch.setattr(Replay, "add", adding)
    patch.setattr(Replay, "sample", sampling)
    patch.setattr(learning, "update", updating)
    patch.setattr(model, "losses", failing)
    settings: dict[str, Any] = {"steps": 60, "num_envs": 2, "prefill": 20, "batch": 3, "length": 6, "lr": 1e-2}
    train_agent("Walk-v0", model, agent, **(settings | {"warmup": 0, "train_ratio": 9} | fields))
    return record
