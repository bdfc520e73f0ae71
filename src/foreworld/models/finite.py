"""Small random decision processes as world models: planners are judged against the exact optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Losses, Segment, Space, Spec, Step, state
from foreworld.core.errors import ConfigError
from foreworld.core.randomness import is_deterministic


@dataclass(frozen=True, kw_only=True)
class FiniteConfig:
    """A random decision process with a few states and actions.

    Attributes:
        states: S.
        actions: A.
        terminal: how many of the states have no future. What comes after them counts for nothing, and to see that a
            planner knows, it would be worth more than anything before.
        slip: probability that another action, drawn evenly from all, is carried out than the one chosen.
        seed: of everything.
    """

    states: int = 12
    actions: int = 3
    terminal: int = 2
    slip: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if min(self.states, self.actions) < 1 or not 0 <= self.terminal < self.states or not 0 <= self.slip <= 1:
            raise ConfigError(
                "finite: states and actions are at least 1, terminal is below states and slip a probability, found "
                f"{self.states}, {self.actions}, {self.terminal} and {self.slip}"
            )


@state
class FiniteState:
    """Where the process is, and what arriving there earned.

    Attributes:
        at: [.., S] one-hot; under actions that are no one-hots, probabilities.
        reward: [..].
    """

    at: Tensor
    reward: Tensor


class Finite(nn.Module):
    """Follow a decision process exactly: actions lead from state to state, arriving earns. Nothing is learned.

    Without `slip` everything is certain, and the best sequence of actions is as good as the best policy. With it, a
    step draws from torch's generator, and only a policy that looks where it is reaches the optimum.

    Args:
        config: which process; fields can also be given by keyword.

    Attributes:
        chances: [S, A, S], of arriving at a state from a state by a chosen action.
        rewards: [A, S], of arriving at a state by a chosen action, in [-1, 1]; beyond the end they are 10.
        futures: [S], 0 for terminal states and 1 for others.

    Reference:
        Puterman, Markov Decision Processes, 1994, section 4.5 (backward induction).

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.finite import Finite
        >>> from foreworld.ops import discounted_return
        >>> model = Finite(seed=1)
        >>> at = torch.arange(12)
        >>> actions, value = model.optimum(at, horizon=5)
        >>> dream = fw.imagine(model, model.at(at), model.spec.action.one_hot(actions))
        >>> bool(torch.allclose(discounted_return(dream.reward, dream.cont), value))
        True
    """

    family = "finite"

    chances: Tensor
    rewards: Tensor
    futures: Tensor

    def __init__(self, config: FiniteConfig | None = None, **fields: Any) -> None:
        """Draw the process."""
        super().__init__()
        self.config = config = replace(config or FiniteConfig(), **fields)
        states, actions, rng = config.states, config.actions, np.random.default_rng(config.seed)
        ends = np.zeros(states + 1, bool)
        ends[rng.permutation(states)[: config.terminal]] = True
        leads = np.eye(states + 1)[rng.integers(states, size=(states + 1, actions))]
        leads[ends] = leads[-1] = np.eye(states + 1)[-1]  # a state more, beyond the end
        rewards = rng.uniform(-1, 1, (actions, states + 1))
        rewards[:, -1] = 10.0
        chances = (1 - config.slip) * leads + config.slip * leads.mean(1, keepdims=True)
        for name, value in (("chances", chances), ("rewards", rewards), ("futures", 1.0 - ends)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        places = Space(kind="discrete", shape=(), dtype="int64", classes=(states + 1,), start=(0,))
        choices = Space(kind="discrete", shape=(), dtype="int64", classes=(actions,), start=(0,))
        self.spec = Spec(obs={"obs": places}, action=choices)
        self.provides = frozenset({"reward", "cont", "decode"})
        self.loss_weights = {"obs": 1.0}

    def at(self, number: Tensor) -> FiniteState:
        """Return the state with a number [..] int; being there has earned nothing yet."""
        at = F.one_hot(number.to(self.rewards.device), len(self.futures)).to(self.rewards)
        return FiniteState(at=at, reward=at.new_zeros(number.shape))

    def initial(self, batch: int) -> FiniteState:
        """Return the first state that has a future, leaves [batch, ...]."""
        first = int(self.futures.argmax())
        return self.at(torch.full((batch,), first))

    def observe(self, state: FiniteState, segment: Segment) -> FiniteState:
        """Believe what is seen, which is all there is; leaves [B, T, ...]."""
        at = F.one_hot(segment.obs["obs"], len(self.futures)).to(self.rewards)
        assert segment.prev_action is not None
        return FiniteState(at=at, reward=self._earned(at, segment.prev_action.to(at)) * ~segment.is_first)

    def step(self, state: FiniteState, action: Tensor | None) -> FiniteState:
        """Go on under one-hot actions [B, A]; None is the first action.

        Where the process is certain, or under `fw.deterministic()`, actions that are no one-hots lead to every state
        with the share that they say: chances and rewards are linear in them, and have gradients.
        """
        if action is None:
            action = F.one_hot(state.reward.new_zeros(state.reward.shape).long(), self.config.actions)
        chosen = action.to(state.at)
        at = torch.einsum("...s,...a,sat->...t", state.at, chosen, self.chances)
        if self.config.slip and not is_deterministic():
            drawn = torch.multinomial(at.detach().reshape(-1, at.shape[-1]), 1).reshape(at.shape[:-1])
            at = F.one_hot(drawn, at.shape[-1]).to(at)
        return FiniteState(at=at, reward=self._earned(at, chosen))

    def read(self, state: FiniteState) -> Step:
        """Return where the process is, what arriving earned, and whether there is a future."""
        return Step(feat=state.at, reward=state.reward, cont=state.at @ self.futures)

    def decode(self, state: FiniteState) -> dict[str, Tensor]:
        """Return the probability of every state."""
        return {"obs": state.at}

    def losses(self, segment: Segment, state: FiniteState | None = None) -> Losses[FiniteState]:
        """Return how improbable rows are, 1 - p: what is left of it on its own rows is chance, whatever is trained."""
        start = self.initial(segment.batch) if state is None else state
        states = self.observe(start, segment)
        assert segment.prev_action is not None
        before = torch.cat([start.at[:, None], states.at[:, :-1]], 1)
        likely = torch.einsum(
            "...s,...a,sat,...t->...", before, segment.prev_action.to(before), self.chances, states.at
        )
        told = ~segment.is_first
        if state is None:
            told[:, 0] = False
        return Losses(terms={"obs": (1 - likely) * told}, metrics={}, states=states)

    def values(self, horizon: int, discount: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Solve the process exactly by backward induction, in double precision.

        Args:
            horizon: H.
            discount: per step.

        Returns:
            The best expected return [H + 1, S + 1] with so many steps left, and the best action [H, S + 1] with one
            step more than its index left.

        Raises:
            ConfigError: a horizon below 1.
        """
        if horizon < 1:
            raise ConfigError(f"finite: a horizon of at least 1 is needed, found {horizon}")
        chances, rewards, futures = (x.double().cpu().numpy() for x in (self.chances, self.rewards, self.futures))
        values, policy = [np.zeros(len(futures))], []
        for _ in range(horizon):
            worth = (chances * (rewards + discount * futures * values[-1])).sum(2)  # [S, A]
            values.append(worth.max(1))
            policy.append(worth.argmax(1))
        return np.stack(values), np.stack(policy)

    def optimum(self, number: Tensor, horizon: int, discount: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the best actions from some states, and what they earn; for a process without slips.

        Args:
            number: [B] int, states with a future.
            horizon: H.
            discount: per step.

        Returns:
            Actions [B, H] int, and the return [B] as `foreworld.ops.discounted_return` counts it.

        Raises:
            ConfigError: with slips, no sequence of actions is best: ask `values` for a policy.
        """
        if self.config.slip:
            raise ConfigError("finite: with slips no sequence of actions is best; ask `values` for the best policy")
        values, policy = self.values(horizon, discount)
        where, actions = number.cpu().numpy(), []
        leads = self.chances.cpu().numpy().argmax(2)
        for left in range(horizon - 1, -1, -1):
            actions.append(policy[left][where])
            where = leads[where, actions[-1]]
        value = torch.from_numpy(values[horizon][number.cpu().numpy()])
        return torch.from_numpy(np.stack(actions, 1)), value.to(self.rewards)

    def _earned(self, at: Tensor, chosen: Tensor) -> Tensor:
        return torch.einsum("...s,...a,as->...", at, chosen, self.rewards)
