"""`Lorenz63`: three numbers that never repeat, the classic of chaos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.spaces import Space
from foreworld.worlds.rk4 import rk4
from foreworld.worlds.world import numbers, positive, taken


@dataclass(frozen=True, kw_only=True)
class Lorenz63:
    """Follow x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z.

    With the parameters of the paper its largest Lyapunov exponent is 0.906 per unit of time, which is
    called a second here: an error doubles every 0.77 s, or every 15 steps.

    Attributes:
        sigma: how fast x follows y.
        rho: what drives the convection.
        beta: how fast z decays.
        dt: seconds that one step lasts.
        substeps: Runge-Kutta steps in it, of 0.01 s by default.
        settle: seconds that a drawn state runs before it is a start, so that it lies on the attractor.

    Reference:
        Lorenz, Deterministic Nonperiodic Flow, 1963, equations 25 to 27; the exponent, 0.9056: Sprott, Chaos
        and Time-Series Analysis, 2003.
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    dt: float = 0.05
    substeps: int = 5
    settle: float = 20.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "sigma", "rho", "beta", "dt", "substeps")
        positive(self, "settle", zero=True)

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "lorenz63"

    @property
    def width(self) -> int:
        """S, 3 numbers."""
        return 3

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def action(self) -> None:
        """There is none."""
        return None

    @property
    def obs(self) -> Mapping[str, Space]:
        """The three numbers."""
        return {"obs": numbers(3)}

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 3] on the attractor."""
        state = rng.uniform((-15, -15, 10), (15, 15, 40), (n, 3))
        for _ in range(round(self.settle / self.dt)):
            state = self.step(state)
        return state

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Go on for one step."""
        taken(self, action, len(state))
        return rk4(self._derivative, state, self.dt, self.substeps)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the three numbers, [N, 3]."""
        return {"obs": state.astype(np.float32)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the three numbers, [N, 3]."""
        return {"state": state.copy()}

    def _derivative(self, columns: np.ndarray) -> np.ndarray:
        x, y, z = columns
        return np.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z])
