"""The receding horizon: carry out the beginning of a plan, then plan again from what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from foreworld.core import tree
from foreworld.core.errors import ConfigError


class Planned(Protocol):
    """What a search returns: the plans of K environments."""

    @property
    def actions(self) -> Tensor:
        """[K, H, A] model-ready actions."""
        ...

    def after(self, steps: int) -> Any:
        """Return what is left when so many actions are done: a tree with leaves [K, ...]."""
        ...


P = TypeVar("P", bound=Planned)

Search = Callable[[Tensor, Any, Any], P]
"""Numbers [K] of environments, their states and what is left of their plans (None: nothing) to new plans."""


class Replanning:
    """Carry out `execute` actions of a plan, then plan again, for N environments whose episodes begin at any time.

    Whose turn it is is planned for in one batch. What is left of the plan before, shifted by the actions that were
    carried out, goes into the next search; where an episode begins, nothing of it does.

    Args:
        num_envs: N.
        execute: actions that are carried out before the next search.

    Raises:
        ConfigError: no action would be carried out.

    Reference:
        Mayne et al., Constrained model predictive control: stability and optimality, 2000, section 2.

    Example:
        >>> import torch
        >>> from foreworld.models.quadratic import Quadratic
        >>> from foreworld.plan import CEM, PredictedReturn
        >>> from foreworld.rollout.replan import Replanning
        >>> model = Quadratic(seed=3)
        >>> state = model.at(model.starts(5, horizon=12))
        >>> plan = lambda which, at, left: CEM()(model, at, PredictedReturn(), left)
        >>> replanning, everywhere = Replanning(5, execute=3), torch.ones(5, dtype=torch.bool)
        >>> searches = 0
        >>> for step in range(9):
        ...     action, found = replanning(state, everywhere & (step == 0), everywhere, plan)
        ...     state, searches = model.step(state, action), searches + (found is not None)
        >>> searches, action.shape
        (3, torch.Size([5, 2]))
    """

    def __init__(self, num_envs: int, execute: int = 1) -> None:
        """Begin without a plan."""
        if execute < 1:
            raise ConfigError(f"replanning: at least 1 action of a plan is carried out, found {execute}")
        self.execute = execute
        self._age = torch.full((num_envs,), execute)  # actions that were carried out: all of them, of no plan
        self._known = torch.zeros(num_envs, dtype=torch.bool)
        self._actions: Tensor | None = None
        self._left: Any = None

    def __call__(
        self, state: Any, first: Tensor, arrived: Tensor, search: Search[P]
    ) -> tuple[Tensor, tuple[Tensor, P] | None]:
        """Choose the next actions.

        Args:
            state: of the model, leaves [N, ...].
            first: [N] bool on the CPU, where an episode begins.
            arrived: [N] bool on the CPU; elsewhere nothing is planned and the plan does not go on.
            search: plans for those whose turn it is.

        Returns:
            Model-ready actions [N, A], zero where there was never a plan; and what was planned just now, if anything:
            numbers [K] and the plans of these.

        Raises:
            ConfigError: plans are shorter than what shall be carried out, or nothing has arrived yet.
        """
        self._known &= ~(first & arrived)
        turn = arrived & (~self._known | (self._age >= self.execute))
        which = turn.nonzero()[:, 0]
        found = (which, self._search(state, which, search)) if len(which) else None
        device = tree.leaves(state)[0].device
        if self._actions is None:
            raise ConfigError("replanning: nothing has arrived yet, so that there is nothing to plan for")
        age = self._age.clamp(max=self.execute - 1).to(device)
        chosen = self._actions[torch.arange(len(age), device=device), age]
        self._age += arrived
        return chosen, found

    def _search(self, state: Any, which: Tensor, search: Search[P]) -> P:
        """Plan for some environments, and keep what they will do."""
        device, everyone = tree.leaves(state)[0].device, len(which) == len(self._age)
        rows = which.to(device)
        known = self._known[which]
        left = None
        if self._left is not None and known.any():
            left = self._left if everyone else tree.index(self._left, rows)
            left = left if known.all() else _only(known.to(device), left)
        found = search(which, state if everyone else tree.index(state, rows), left)
        if found.actions.shape[1] < self.execute:
            raise ConfigError(
                f"replanning: {self.execute} actions shall be carried out of plans of {found.actions.shape[1]}; "
                "execute fewer, or plan further"
            )
        parts = (found.actions[:, : self.execute], found.after(self.execute))
        if everyone:
            self._actions, self._left = parts
        else:
            self._actions, self._left = (
                _put(whole, part, rows, len(self._age))
                for whole, part in zip((self._actions, self._left), parts, strict=True)
            )
        self._age[which], self._known[which] = 0, True
        return found


def _only(keep: Tensor, left: Any) -> Any:
    """Clear the rows of a tree where [K] says so."""
    return tree.where(keep, left, tree.map(torch.zeros_like, left))


def _put(whole: Any, part: Any, rows: Tensor, count: int) -> Any:
    """Return a tree of `count` rows with some replaced; zeros where there is no tree yet."""
    if whole is None:
        whole = tree.map(lambda leaf: leaf.new_zeros(count, *leaf.shape[1:]), part)
    return tree.map(lambda old, new: old.index_copy(0, rows, new), whole, part)
