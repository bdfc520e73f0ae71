"""`DoublePendulum`: a pendulum that hangs from another, chaotic when it has energy enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.spaces import Space
from foreworld.worlds.rk4 import rk4
from foreworld.worlds.world import numbers, positive, taken


@dataclass(frozen=True, kw_only=True)
class DoublePendulum:
    """Swing two masses of 1 kg on two massless rods of 1 m, one below the other.

    The state is both angles from the vertical in rad, 0 hanging down and never wrapped, and their
    velocities in rad/s; seen are both sines, both cosines and both velocities. Without torque and
    damping the energy is conserved.

    Attributes:
        gravity: m/s².
        damping: of both joints, N m s/rad.
        torque: largest torque at either joint, N m; 0 for a pendulum without action.
        dt: seconds that one step lasts.
        substeps: Runge-Kutta steps in it, of 0.01 s by default.
        angle: starts are at rest with both angles uniform in ±angle, rad.
    """

    gravity: float = 9.81
    damping: float = 0.0
    torque: float = 0.0
    dt: float = 0.05
    substeps: int = 5
    angle: float = math.pi

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "dt", "substeps")
        positive(self, "gravity", "damping", "torque", "angle", zero=True)

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "double pendulum"

    @property
    def width(self) -> int:
        """S, 4 numbers."""
        return 4

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def obs(self) -> Mapping[str, Space]:
        """Sines and cosines of both angles, and both velocities."""
        return {"obs": numbers(6)}

    @property
    def action(self) -> Space | None:
        """The torques of the upper and the lower joint; None when there are none."""
        return numbers(2, self.torque) if self.torque else None

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 4], at rest."""
        return np.concatenate([rng.uniform(-self.angle, self.angle, (n, 2)), np.zeros((n, 2))], 1)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Hold the torques for one step.

        Lagrange's equations with d = a - b: 2 a'' + b'' cos d = -b'² sin d - 2 g sin a + Q_a and
        a'' cos d + b'' = a'² sin d - g sin b + Q_b; a torque between the rods turns them against each other.
        """
        torques = taken(self, action, len(state))
        upper, lower = torques.T if torques.shape[1] else np.zeros((2, len(state)))
        g, drag = self.gravity, self.damping

        def derivative(x: np.ndarray) -> np.ndarray:
            a, b, speed_a, speed_b = x
            cos, sin = np.cos(a - b), np.sin(a - b)
            between = lower - drag * (speed_b - speed_a)
            force_a = -sin * speed_b**2 - 2 * g * np.sin(a) + upper - drag * speed_a - between
            force_b = sin * speed_a**2 - g * np.sin(b) + between
            scale = 1 / (2 - cos**2)
            return np.stack(
                [speed_a, speed_b, (force_a - cos * force_b) * scale, (2 * force_b - cos * force_a) * scale]
            )

        return rk4(derivative, state, self.dt, self.substeps)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return sines, cosines and velocities, [N, 6]."""
        angles, speeds = state[:, :2], state[:, 2:]
        return {"obs": np.concatenate([np.sin(angles), np.cos(angles), speeds], 1).astype(np.float32)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return angles and velocities, [N, 4]."""
        return {"state": state.copy()}

    def energy(self, state: np.ndarray) -> np.ndarray:
        """Return the energy [N] in J; 0 is at rest with both masses at the height of the pivot."""
        a, b, speed_a, speed_b = state.T
        moving = speed_a**2 + speed_b**2 / 2 + speed_a * speed_b * np.cos(a - b)
        return moving - self.gravity * (2 * np.cos(a) + np.cos(b))

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return the height of the lower mass, from -1 (hanging) to 1 (upright), less a little for the torques."""
        effort = taken(self, action, len(state))
        return -np.cos(reached[:, :2]).sum(1) / 2 - 0.001 * (effort**2).sum(1)
