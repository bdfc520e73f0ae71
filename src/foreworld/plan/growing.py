"""A tree of choices that grows along plans, and remembers what was earned with every choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from foreworld.core import tree
from foreworld.plan.nodes import Arrivals, Stepper

S = TypeVar("S")

VISITS, SCALE = 50.0, 0.02
"""How much what was earned counts beside the prior: (VISITS + most visits of a choice) * SCALE, of Q-values in [0, 1].
As in Danihelka et al., section 5.2; a smaller scale than theirs, for the best of a subtree says more than its mean."""


class Growing(Generic[S]):
    """Trees of B environments, whose nodes are places that plans led to; the first B nodes are the roots.

    The model's states stay where the model is; the tree itself is kept in NumPy, for it is many small steps.

    Args:
        stepper: takes steps.
        state: of the roots, leaves [B, ...].
        horizon: H, depth at which plans end.
        prior: features [N, D] to logits [N, A]; None is no preference.

    Attributes:
        logits: [K, P], prior of every choice in every node.
        visits: [K, P], how many plans took it.
        earned: [K, P], the most that was earned from there on; -inf where nothing was.
        over: [K, P] bool, where everything that can follow is known.
    """

    def __init__(
        self, stepper: Stepper[S], state: S, horizon: int, prior: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Plant the roots."""
        self._stepper, self._horizon, self._prior = stepper, horizon, prior
        read = stepper.model.read(state)
        batch, number = len(read.feat), len(stepper.choices)
        self._count, self._states = 0, tree.index(state, slice(0, 0))
        self.logits, self.earned = np.zeros((0, number), np.float32), np.zeros((0, number), np.float32)
        self.visits, self._child = np.zeros((0, number), np.int64), np.zeros((0, number), np.int64)
        self.over = np.zeros((0, number), bool)
        self._reward, self._lasting, self._ahead = (np.zeros(0, np.float32) for _ in range(3))
        none = read.feat.new_zeros(batch, dtype=torch.float32)
        self._add(Arrivals(state, none, none + 1, read.feat), none)

    def follow(self, roots: np.ndarray, plan: np.ndarray, gumbel: np.ndarray) -> np.ndarray:
        """Follow a plan from each of R roots to the horizon or a certain end, and remember what it earned.

        Args:
            roots: [R]; the same root more than once only with different first choices.
            plan: [R, H] int, choices that are given; below 0 the tree chooses.
            gumbel: [R, H, P], Gumbel noise for places where no plan was before.

        Returns:
            [R], steps of the model that were new.
        """
        node, rows, steps = roots.copy(), np.arange(len(roots)), np.zeros(len(roots), np.int64)
        path = []
        for h in range(self._horizon):
            at, choice = node[rows], plan[rows, h]
            free = choice < 0
            choice[free] = self._select(at[free], gumbel[rows[free], h])
            path.append((rows, at, choice))
            new = np.flatnonzero(self._child[at, choice] < 0)
            if len(new):
                self._child[at[new], choice[new]] = self._visit(at[new], choice[new], h == self._horizon - 1)
                steps[rows[new]] += 1
            child = self._child[at, choice]
            node[rows] = child
            rows = rows[self._lasting[child] != 0]
            if not len(rows):
                break
        self._remember(path, self._ahead[node])
        return steps

    def _visit(self, node: np.ndarray, choice: np.ndarray, last: bool) -> np.ndarray:
        """Take steps of the model from nodes [N] by choices [N], and return the new nodes [N]."""
        device = self._stepper.choices.device
        states = tree.index(self._states, torch.from_numpy(node).to(device))
        met = self._stepper.step(states, torch.from_numpy(choice).to(device))
        return self._add(met, self._stepper.beyond(met.feat) if last else torch.zeros_like(met.reward))

    def _remember(self, path: list[tuple[np.ndarray, np.ndarray, np.ndarray]], worth: np.ndarray) -> None:
        """Carry what follows the end of each path back to its root."""
        over = np.ones(len(worth), bool)
        for rows, at, choice in reversed(path):
            child = self._child[at, choice]
            lasting, follows = self._lasting[child], worth[rows]
            with np.errstate(invalid="ignore"):  # infinity less infinity is as little a score as either
                score = self._reward[child] + lasting * np.where(lasting != 0, follows, 0.0)
            self.earned[at, choice] = np.where(np.isfinite(score), score, -np.inf)
            self.visits[at, choice] += 1
            self.over[at, choice] |= over[rows]
            worth[rows] = self.earned[at].max(1)
            over[rows] = self.over[at].all(1)

    def best(self, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best plan from each root.

        Args:
            roots: [R].

        Returns:
            Choices [R, H] int, 0 after a certain end; and what they earn [R], -inf where nothing was earned.
        """
        node, plan = roots, []
        for _ in range(self._horizon):
            choice = self.earned[node].argmax(1)
            plan.append(choice)
            child = self._child[node, choice]
            node = np.where(child < 0, node, child)  # beyond an end nothing was earned, and every choice is as good
        return np.stack(plan, 1), self.earned[roots].max(1)

    def _select(self, node: np.ndarray, gumbel: np.ndarray) -> np.ndarray:
        """Choose [R]: by what was earned, and where no plan was before by the prior and noise [R, P]."""
        visits, logits = self.visits[node], self.logits[node]
        share = _softmax(improved(logits, visits, self.earned[node]))
        total = visits.sum(1, keepdims=True)
        score = np.where(total > 0, share - visits / (1 + total), logits + gumbel)
        return np.where(self.over[node], -np.inf, score).argmax(1)

    def _add(self, met: Arrivals[S], ahead: Tensor) -> np.ndarray:
        """Put N nodes into the tree, and return which they are [N]."""
        count, batch = self._count, len(ahead)
        self._make_room(count + batch)
        new = slice(count, count + batch)
        tree.map(lambda old, rows: old[new].copy_(rows), self._states, met.states)
        numbers = torch.stack([met.reward, met.lasting, ahead]).cpu().numpy()  # at once: a GPU is waited for once
        self._reward[new], self._lasting[new], self._ahead[new] = numbers
        if self._prior is not None:
            joint = self._prior(met.feat).float() @ self._stepper.choices.T
            self.logits[new] = torch.log_softmax(joint, 1).cpu().numpy()
        self._count += batch
        return np.arange(count, count + batch)

    def _make_room(self, needed: int) -> None:
        have = len(self.visits)
        if needed <= have:
            return
        more = max(needed, 2 * have) - have

        def longer(old: np.ndarray, fill: float = 0.0) -> np.ndarray:
            return np.concatenate([old, np.full((more, *old.shape[1:]), fill, old.dtype)])

        self._states = tree.map(lambda old: torch.cat([old, old.new_zeros(more, *old.shape[1:])]), self._states)
        self.logits, self.visits, self.over = longer(self.logits), longer(self.visits), longer(self.over)
        self.earned, self._child = longer(self.earned, -np.inf), longer(self._child, -1)
        self._reward, self._lasting, self._ahead = longer(self._reward), longer(self._lasting), longer(self._ahead)


def improved(logits: np.ndarray, visits: np.ndarray, earned: np.ndarray) -> np.ndarray:
    """Add to logits of the prior what was earned, and where nothing was tried the mean of what was.

    Args:
        logits: [R, P].
        visits: [R, P], 0 where nothing was tried.
        earned: [R, P]; -inf counts as the least.

    Returns:
        [R, P], logits of the improved policy; those of the prior where nothing was tried at all.

    Reference:
        Danihelka et al., Policy Improvement by Planning with Gumbel, 2022, equations 8 and 11; values are scaled to
        [0, 1] node by node.
    """
    tried = np.isfinite(earned)
    low = np.where(tried, earned, np.inf).min(1, keepdims=True)
    wide = np.where(tried, earned, -np.inf).max(1, keepdims=True) - low
    scaled = np.where(tried, np.where(tried, earned, 0) - np.where(np.isfinite(low), low, 0), 0.0)
    scaled = scaled / np.where(np.isfinite(wide) & (wide > 0), wide, 1.0)
    weight = _softmax(logits) * (visits > 0)
    mean = (weight * scaled).sum(1, keepdims=True) / np.maximum(weight.sum(1, keepdims=True), 1e-30)
    completed = np.where(visits > 0, scaled, mean)
    return logits + (VISITS + visits.max(1, keepdims=True)) * SCALE * completed


def _softmax(logits: np.ndarray) -> np.ndarray:
    raw = np.exp(logits - logits.max(1, keepdims=True))
    return raw / raw.sum(1, keepdims=True)
