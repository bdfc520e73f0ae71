"""`AgentPolicy`: act in environments by filtering what arrives with a world model and asking the actor."""

from __future__ import annotations

from copy import deepcopy
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from foreworld.agents.dreamer import Dreamer
from foreworld.core import Segment, Spec, WorldModel, tree
from foreworld.envs import Rows

S = TypeVar("S")


class AgentPolicy:
    """Choose actions for N environments; between two rows it remembers the model's state.

    Args:
        model: the world model, which filters.
        agent: the actor.
        num_envs: N.
        mode: take the likeliest action instead of a sample, as for judging an agent.
        own: act with copies of the weights, so that model and agent may learn meanwhile in another thread; `refresh`
            brings the copies up to date.

    Attributes:
        state: of the model after the last rows, leaves [N, ...].
    """

    def __init__(
        self, model: WorldModel[Any], agent: Dreamer, num_envs: int, *, mode: bool = False, own: bool = False
    ) -> None:
        """Begin without memory."""
        self.model, self.agent = deepcopy((model, agent)) if own else (model, agent)
        self.mode = mode
        pairs = ((model, self.model), (agent, self.agent)) if own else ()
        self._followed = [pair for theirs, mine in pairs for pair in zip(_held(theirs), _held(mine), strict=True)]
        self._lock = Lock()
        self.device = next(agent.parameters()).device
        self.state: Any = model.initial(num_envs)

    @property
    def __name__(self) -> str:
        """What a dataset notes as the policy."""
        return f"dreamer ({'mode' if self.mode else 'sample'})"

    @torch.no_grad()
    def refresh(self) -> None:
        """Act with the weights of now from now on; an action that is being chosen is waited for."""
        with self._lock:
            for theirs, mine in self._followed:
                mine.copy_(theirs)

    @torch.no_grad()
    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row, as the environment takes them."""
        with self._lock:
            return self._choose(rows)

    def _choose(self, rows: Rows) -> np.ndarray:
        self.state = filtered(self.model, self.state, rows)
        choice = self.agent.policy(self.model.read(self.state).feat)
        return as_taken(self.model.spec, choice.mode() if self.mode else choice.sample(), rows)

    def carry(self) -> Tensor:
        """Return the state as numbers [N, K], to be kept with the rows."""
        return tree.to_vector(self.state).cpu()


def _held(module: Any) -> list[Tensor]:
    """List the parameters and buffers of a module, those too that are not saved."""
    return [*module.parameters(), *module.buffers()]


def filtered(model: WorldModel[S], state: S, rows: Rows) -> S:
    """Let a model filter the rows that arrived from N environments.

    Args:
        model: the world model.
        state: after the rows before, leaves [N, ...].
        rows: what arrived.

    Returns:
        States with leaves [N, ...], contiguous; as they were where nothing arrived.
    """
    device = tree.leaves(state)[0].device
    seen = tree.index(model.observe(state, tree.to(one_row(model.spec, rows), device)), (slice(None), 0))
    if not rows.arrived.all():
        seen = tree.where(torch.from_numpy(rows.arrived).to(device), seen, state)
    # a matrix product may round otherwise where the numbers lie otherwise, and a resumed run must not differ
    return tree.map(Tensor.contiguous, seen)


def as_taken(spec: Spec, action: Tensor, rows: Rows) -> np.ndarray:
    """Turn model-ready actions [N, A] into those that the environments of these rows take, [N, ...]."""
    assert spec.action is not None
    taken = spec.action.from_model(action.cpu()).numpy()
    whole = rows.prev_action.dtype.kind in "iu"
    return (np.rint(taken) if whole else taken).astype(rows.prev_action.dtype)


def one_row(spec: Spec, rows: Rows) -> Segment:
    """Turn the rows that arrived from N environments into a segment [N, 1]."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).unsqueeze(1)

    assert spec.action is not None
    first = tensor(rows.is_first)
    return Segment(
        obs={key: tensor(rows.obs[key]) for key in spec.obs},
        prev_action=spec.action.to_model(tensor(rows.prev_action)).masked_fill(first.unsqueeze(-1), 0.0),
        reward=tensor(rows.reward),
        is_first=first,
        is_terminal=tensor(rows.is_terminal),
        is_last=tensor(rows.is_last),
    )
