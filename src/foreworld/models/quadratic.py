"""Linear-quadratic problems as world models: planners are judged against the exact optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Space, Spec, Step, state
from foreworld.core.errors import ConfigError

REACH = 0.9
"""Largest action that the optimum takes from the starts that are drawn."""


@dataclass(frozen=True, kw_only=True)
class QuadraticConfig:
    """A random linear-quadratic problem.

    Attributes:
        states: S, numbers in a state.
        actions: A.
        radius: spectral radius of the system: below 1 it is stable, above 1 it runs away unless it is held.
        effort: what actions cost beside states: R is so many times a random matrix like Q.
        seed: of the system and of the costs.
    """

    states: int = 4
    actions: int = 2
    radius: float = 0.95
    effort: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if min(self.states, self.actions) < 1 or not (self.radius >= 0 and self.effort > 0):
            raise ConfigError(
                "quadratic: states and actions are at least 1, radius at least 0 and effort above 0, found "
                f"{self.states}, {self.actions}, {self.radius} and {self.effort}"
            )


@state
class QuadraticState:
    """Where the system is, and what arriving there earned.

    Attributes:
        x: [.., S].
        reward: [..].
    """

    x: Tensor
    reward: Tensor


class Quadratic(nn.Module):
    """Follow x' = A x + B u exactly; arriving at x' by u earns -(x' · Q x' + u · R u). Nothing is learned.

    The action space is the box [-1, 1], so that any planner can be asked, but it never binds: from the `starts` that
    are drawn the exact optimum stays inside, so that the optimum without bounds is also the one with bounds.

    Args:
        config: which problem; fields can also be given by keyword.
        dtype: of states and rewards.

    Attributes:
        system: A, [S, S].
        inputs: B, [S, A].
        cost: Q, [S, S], positive definite.
        effort: R, [A, A], positive definite.

    Reference:
        Anderson and Moore, Optimal Control: Linear Quadratic Methods, 1990, section 2.4.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.models.quadratic import Quadratic
        >>> model = Quadratic(seed=3, dtype=torch.float64)
        >>> x = model.starts(5, horizon=15)
        >>> actions, value = model.optimum(x, horizon=15)
        >>> dream = fw.imagine(model, model.at(x), actions)
        >>> bool(torch.allclose(dream.reward.sum(1), value))
        True
    """

    family = "quadratic"

    system: Tensor
    inputs: Tensor
    cost: Tensor
    effort: Tensor

    def __init__(
        self, config: QuadraticConfig | None = None, *, dtype: torch.dtype = torch.float32, **fields: Any
    ) -> None:
        """Draw the problem."""
        super().__init__()
        self.config = config = replace(config or QuadraticConfig(), **fields)
        rng = np.random.default_rng(config.seed)
        system = rng.standard_normal((config.states, config.states))
        self._exact = {
            "system": system * (config.radius / np.abs(np.linalg.eigvals(system)).max()),
            "inputs": rng.standard_normal((config.states, config.actions)) / np.sqrt(config.states),
            "cost": _positive(rng, config.states),
            "effort": config.effort * _positive(rng, config.actions),
        }
        for name, value in self._exact.items():
            self.register_buffer(name, torch.tensor(value, dtype=dtype))
        box = Space(
            kind="vector",
            shape=(config.actions,),
            dtype="float32",
            low=(-1.0,) * config.actions,
            high=(1.0,) * config.actions,
        )
        seen = Space(kind="vector", shape=(config.states,), dtype="float32")
        self.spec = Spec(obs={"obs": seen}, action=box)
        self.provides = frozenset({"reward", "cont", "decode"})
        self.loss_weights = {"obs": 1.0}

    def at(self, x: Tensor) -> QuadraticState:
        """Return the state at `x` [.., S]; being there has earned nothing yet."""
        x = x.to(self.system)
        return QuadraticState(x=x, reward=x.new_zeros(x.shape[:-1]))

    def initial(self, batch: int) -> QuadraticState:
        """Return the origin, leaves [batch, ...]."""
        return self.at(self.system.new_zeros(batch, self.config.states))

    def observe(self, state: QuadraticState, segment: Segment) -> QuadraticState:
        """Believe what is seen, which is all there is; leaves [B, T, ...]."""
        x = segment.obs["obs"].to(self.system)
        assert segment.prev_action is not None
        earned = self._earned(x, segment.prev_action.to(x))
        return QuadraticState(x=x, reward=earned.masked_fill(segment.is_first, 0.0))

    def step(self, state: QuadraticState, action: Tensor | None) -> QuadraticState:
        """Go on under `action` [B, A]; None is zero. Actions beyond the box are taken as they are."""
        u = state.x.new_zeros(*state.x.shape[:-1], self.config.actions) if action is None else action.to(state.x)
        x = state.x @ self.system.T + u @ self.inputs.T
        return QuadraticState(x=x, reward=self._earned(x, u))

    def read(self, state: QuadraticState) -> Step:
        """Return x, what arriving earned, and a future for sure."""
        return Step(feat=state.x, reward=state.reward, cont=torch.ones_like(state.reward))

    def decode(self, state: QuadraticState) -> dict[str, Tensor]:
        """Return x."""
        return {"obs": state.x}

    def losses(self, segment: Segment, state: QuadraticState | None = None) -> Losses[QuadraticState]:
        """Return how far rows are from what the system does, squared: 0 on its own rows, whatever is trained."""
        start = self.initial(segment.batch) if state is None else state
        states = self.observe(start, segment)
        assert segment.prev_action is not None
        before = torch.cat([start.x[:, None], states.x[:, :-1]], 1)
        expected = before @ self.system.T + segment.prev_action.to(before) @ self.inputs.T
        told = ~segment.is_first
        if state is None:
            told[:, 0] = False
        return Losses(terms={"obs": ((expected - states.x) ** 2).mean(-1) * told}, metrics={}, states=states)

    def starts(self, batch: int, horizon: int, seed: int = 0) -> Tensor:
        """Draw states from which the optimum stays within the box of actions.

        Args:
            batch: B.
            horizon: H, steps that will be planned.
            seed: of the directions.

        Returns:
            [B, S]; the largest action of each optimum is 0.9.
        """
        x = np.random.default_rng(seed).standard_normal((batch, self.config.states))
        actions, _ = self._solve(x, horizon)
        # optimal actions are linear in the start
        scaled = x * (REACH / np.maximum(np.abs(actions).max((1, 2)), 1e-12))[:, None]
        return torch.from_numpy(scaled).to(self.system)

    def optimum(self, x: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Solve the problem exactly by Riccati's recursion, in double precision.

        Args:
            x: [B, S], where to start.
            horizon: H.

        Returns:
            The best actions [B, H, A] without bounds, and the sum of rewards [B] that they earn.
        """
        actions, value = self._solve(x.detach().double().cpu().numpy(), horizon)
        return torch.from_numpy(actions).to(self.system), torch.from_numpy(value).to(self.system)

    def _solve(self, x: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        if horizon < 1:
            raise ConfigError(f"quadratic: a horizon of at least 1 is needed, found {horizon}")
        a, b, q, r = (self._exact[name] for name in ("system", "inputs", "cost", "effort"))
        future, gains = np.zeros_like(q), []
        for _ in range(horizon):
            ahead = q + future  # cost of being somewhere after the step
            gain = np.linalg.solve(r + b.T @ ahead @ b, b.T @ ahead @ a)
            held = a - b @ gain
            future = held.T @ ahead @ held + gain.T @ r @ gain  # symmetric also after rounding
            gains.append(gain)
        value, actions = -np.einsum("bi,ij,bj->b", x, future, x), []
        for gain in gains[::-1]:
            u = -x @ gain.T
            actions.append(u)
            x = x @ a.T + u @ b.T
        return np.stack(actions, 1), value

    def _earned(self, x: Tensor, u: Tensor) -> Tensor:
        return -((x @ self.cost) * x).sum(-1) - ((u @ self.effort) * u).sum(-1)


def _positive(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a symmetric matrix whose eigenvalues lie between 0.3 and 3."""
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return (basis * np.exp(rng.uniform(np.log(0.3), np.log(3), size))) @ basis.T
