"""`Linear`: a linear system whose eigenvalues are known, because it is built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.world import drawn, numbers, positive, taken


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Follow x' = A x + B u + noise, with A normal: every mode shrinks by exactly its size at every step.

    A mode (size, turn) with a turn between 0 and pi is a plane that turns by so many rad a step and
    shrinks by `size`: the eigenvalues size · exp(±i turn). A turn of 0 or pi is a line, with the single
    eigenvalue ±size. A size below 1 is stable, 1 marginal, above 1 unstable. The planes and lines are
    put into a random orthogonal basis, so that no single number shows a mode.

    Attributes:
        modes: (size, turn) of each.
        actions: number of actions, each in ±1; 0 for a system that goes on by itself.
        gain: how far an action of 1 moves the state; the columns of B have this length.
        noise: standard deviation of the Gaussian that is added to every number at every step.
        spread: standard deviation of the numbers of a start state.
        dt: seconds that one step lasts.
        seed: of the basis and of B.

    Example:
        >>> world = Linear(modes=((0.9, 0.5), (0.7, 0.0)))
        >>> world.width, round(world.radius, 3)
        (3, 0.9)
    """

    modes: tuple[tuple[float, float], ...] = ((0.97, 0.25), (0.9, 1.0))
    actions: int = 0
    gain: float = 0.3
    noise: float = 0.0
    spread: float = 1.0
    dt: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "dt")
        positive(self, "actions", "gain", "noise", "spread", "seed", zero=True)
        if not self.modes or not all(0 <= size < math.inf and 0 <= turn <= math.pi for size, turn in self.modes):
            raise ConfigError(
                f"Linear.modes is a list of (size, turn) with size >= 0 and turn in [0, pi], found {self.modes}"
            )

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "linear"

    @property
    def width(self) -> int:
        """S: two numbers for a mode that turns, one for a mode that does not."""
        return len(self.eigenvalues)

    @property
    def stochastic(self) -> bool:
        """Whether there is noise."""
        return self.noise > 0

    @property
    def obs(self) -> Mapping[str, Space]:
        """The whole state."""
        return {"obs": numbers(self.width)}

    @property
    def action(self) -> Space | None:
        """The inputs u; None when there are none."""
        return numbers(self.actions, 1.0) if self.actions else None

    @property
    def radius(self) -> float:
        """The spectral radius: how much the slowest mode keeps of itself in a step."""
        return max(size for size, _ in self.modes)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues of A, complex [S]."""
        found = [size * np.exp(1j * sign * turn) for size, turn in self.modes for sign in _signs(turn)]
        return np.array(found)

    @cached_property
    def matrix(self) -> np.ndarray:
        """A, [S, S]."""
        blocks, at = np.zeros((self.width, self.width)), 0
        for size, turn in self.modes:
            cos, sin = size * math.cos(turn), size * math.sin(turn)
            block = np.array([[cos, -sin], [sin, cos]]) if len(_signs(turn)) == 2 else np.array([[cos]])
            blocks[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        basis, _ = np.linalg.qr(np.random.default_rng([self.seed, 0]).standard_normal(blocks.shape))
        return basis @ blocks @ basis.T

    @cached_property
    def inputs(self) -> np.ndarray:
        """B, [S, A]."""
        columns = np.random.default_rng([self.seed, 1]).standard_normal((self.width, self.actions))
        return self.gain * columns / np.linalg.norm(columns, axis=0)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, S]."""
        return self.spread * rng.standard_normal((n, self.width))

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Multiply, push, and add noise."""
        after = state @ self.matrix.T + taken(self, action, len(state)) @ self.inputs.T
        return after + self.noise * drawn(self, rng).standard_normal(after.shape) if self.noise else after

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the whole state, [N, S]."""
        return {"obs": state.astype(np.float32)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the whole state, [N, S]."""
        return {"state": state.copy()}

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return the quadratic cost of the state reached, negative: -(|x|² + 0.1 |u|²)."""
        effort = taken(self, action, len(state))
        return -((reached**2).sum(1) + 0.1 * (effort**2).sum(1))


def _signs(turn: float) -> tuple[int, ...]:
    return (1, -1) if 0 < turn < math.pi else (1,)
