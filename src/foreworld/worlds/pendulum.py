"""`Pendulum`: a mass on a rod, free, damped, or driven by a torque."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.spaces import Space
from foreworld.worlds.rk4 import rk4
from foreworld.worlds.world import numbers, positive, taken


@dataclass(frozen=True, kw_only=True)
class Pendulum:
    """Swing a point mass on a massless rod: m l² a'' = -m g l sin(a) - damping a' + torque.

    The state is the angle in rad, 0 hanging down and never wrapped, and its velocity in rad/s; seen are
    sine, cosine and velocity. Without damping and torque the energy is conserved.

    Attributes:
        mass: kg.
        length: m.
        gravity: m/s².
        damping: N m s/rad.
        torque: largest torque, N m; 0 for a pendulum without action.
        dt: seconds that one step lasts.
        substeps: Runge-Kutta steps in it, of 0.01 s by default.
        angle: starts are uniform in ±angle, rad.
        speed: starts are uniform in ±speed, rad/s.
    """

    mass: float = 1.0
    length: float = 1.0
    gravity: float = 9.81
    damping: float = 0.0
    torque: float = 0.0
    dt: float = 0.05
    substeps: int = 5
    angle: float = math.pi
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "mass", "length", "dt", "substeps")
        positive(self, "gravity", "damping", "torque", "angle", "speed", zero=True)

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "pendulum"

    @property
    def width(self) -> int:
        """S, 2 numbers."""
        return 2

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def obs(self) -> Mapping[str, Space]:
        """Sine and cosine of the angle, and the velocity."""
        return {"obs": numbers(3)}

    @property
    def action(self) -> Space | None:
        """The torque; None when there is none."""
        return numbers(1, self.torque) if self.torque else None

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 2]."""
        return rng.uniform(-1, 1, (n, 2)) * (self.angle, self.speed)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Hold the torque for one step."""
        inertia = self.mass * self.length**2
        driven = taken(self, action, len(state)).sum(1) / inertia
        pull, drag = self.gravity / self.length, self.damping / inertia

        def derivative(x: np.ndarray) -> np.ndarray:
            angle, speed = x
            return np.stack([speed, driven - pull * np.sin(angle) - drag * speed])

        return rk4(derivative, state, self.dt, self.substeps)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return sine, cosine and velocity, [N, 3]."""
        angle, speed = state.T
        return {"obs": np.stack([np.sin(angle), np.cos(angle), speed], 1).astype(np.float32)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return angle and velocity, [N, 2]."""
        return {"state": state.copy()}

    def energy(self, state: np.ndarray) -> np.ndarray:
        """Return the energy [N] in J; 0 is at rest at the height of the pivot."""
        angle, speed = state.T
        return self.mass * self.length * (self.length * speed**2 / 2 - self.gravity * np.cos(angle))

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return the classic cost of swinging up, negative: -(a² + 0.1 a'² + 0.001 u²), a from upright.

        Angle and velocity are those reached, so that the reward can be read from what is seen with it.
        """
        upright = (reached[:, 0] % (2 * math.pi)) - math.pi
        effort = taken(self, action, len(state)).sum(1)
        return -(upright**2 + 0.1 * reached[:, 1] ** 2 + 0.001 * effort**2)
