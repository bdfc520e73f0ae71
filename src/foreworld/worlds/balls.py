"""`Balls`: discs that bounce off one another and off the walls of a box, as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.collide import advance
from foreworld.worlds.discs import Colour, disc_cover, paint
from foreworld.worlds.world import numbers, picture, positive, taken

COLOURS: tuple[Colour, ...] = (
    (250, 82, 72),
    (66, 190, 108),
    (74, 134, 250),
    (250, 200, 70),
    (190, 110, 240),
    (90, 215, 220),
)
GROUND: Colour = (16, 18, 24)
DENSEST = 0.4
"""Share of the box that discs may cover; start states are drawn until none overlap."""


@dataclass(frozen=True, kw_only=True)
class Balls:
    """Let elastic discs fly in a box of side 1; the first one can be pushed.

    The state is the position of every disc (x, y from the lower left corner) and then the velocity of every
    disc: S = 4 K. Walls and discs are hit at the exact time, found in closed form, and without drag and
    push the energy is conserved, and between walls the momentum. Seen is the picture alone.

    Attributes:
        radii: of each disc, as shares of the box; a disc weighs as much as it has area.
        speed: mean speed of a disc at the start, box sides a second.
        push: largest acceleration of the first disc along either axis, box sides/s²; 0 for a world
            without action. A step's push is given at once, when it begins.
        drag: how fast all discs slow down, 1/s.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.
    """

    radii: tuple[float, ...] = (0.12, 0.12, 0.12)
    speed: float = 0.5
    push: float = 0.0
    drag: float = 0.0
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "size", "dt")
        positive(self, "speed", "push", "drag", zero=True)
        if not 1 <= len(self.radii) <= len(COLOURS) or not all(0 < radius < 0.5 for radius in self.radii):
            raise ConfigError(f"Balls.radii are 1 to {len(COLOURS)} numbers in (0, 0.5), found {self.radii}")
        if math.pi * sum(radius**2 for radius in self.radii) > DENSEST:
            raise ConfigError(f"Balls.radii: the discs cover more than {DENSEST:.0%} of the box; make them smaller")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "balls"

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def width(self) -> int:
        """S, four numbers for each disc."""
        return 4 * len(self.radii)

    @property
    def obs(self) -> Mapping[str, Space]:
        """The picture."""
        return {"image": picture(self.size)}

    @property
    def action(self) -> Space | None:
        """The push along x and y; None when there is none."""
        return numbers(2, self.push) if self.push else None

    @cached_property
    def masses(self) -> np.ndarray:
        """What each disc weighs, [K]."""
        return np.pi * np.square(self.radii)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, S]: no disc overlaps another, directions are uniform."""
        radii = np.array(self.radii)
        place = np.zeros((n, len(radii), 2))
        missing = np.arange(n)
        while len(missing):
            place[missing] = rng.uniform(radii[:, None], 1 - radii[:, None], (len(missing), len(radii), 2))
            missing = missing[self._overlap(place[missing])]
        angle = rng.uniform(-np.pi, np.pi, (n, len(radii), 1))
        speed = self.speed * rng.uniform(0.5, 1.5, (n, len(radii), 1))
        return _joined(place, speed * np.concatenate([np.cos(angle), np.sin(angle)], 2))

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Push the first disc, then let all fly and bounce.

        All discs slow down alike, so that each follows its straight line: with drag, only the time along it
        is another, (1 - exp(-drag t)) / drag.
        """
        push = taken(self, action, len(state))
        place, velocity = self.parts(state)
        if push.shape[1]:
            velocity[:, 0] += push * self.dt
        flight = -math.expm1(-self.drag * self.dt) / self.drag if self.drag else self.dt
        place, velocity = advance(place, velocity, np.array(self.radii), self.masses, flight)
        return _joined(place, velocity * math.exp(-self.drag * self.dt))

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the picture, [N, 3, H, W]."""
        return {"image": self.render(state)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return positions and velocities, [N, S]."""
        return {"state": state.copy()}

    def parts(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the positions [N, K, 2] and the velocities [N, K, 2]."""
        split = state.reshape(len(state), 2, len(self.radii), 2)
        return split[:, 0].copy(), split[:, 1].copy()

    def energy(self, state: np.ndarray) -> np.ndarray:
        """Return the energy of motion, [N]."""
        return (self.masses[:, None] * self.parts(state)[1] ** 2).sum((1, 2)) / 2

    def momentum(self, state: np.ndarray) -> np.ndarray:
        """Return the sum of all momenta, [N, 2]."""
        return (self.masses[:, None] * self.parts(state)[1]).sum(1)

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return how near the first disc is to the upper right corner: 1 in it, 0 in the opposite one."""
        corner = 1 - self.radii[0]
        away = np.linalg.norm(self.parts(reached)[0][:, 0] - corner, axis=1)
        return 1 - away / (math.sqrt(2) * (corner - self.radii[0]))

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw the discs, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        place, _ = self.parts(state)
        radii = np.broadcast_to(np.array(self.radii), place.shape[:2])
        covers = np.moveaxis(disc_cover(place, radii, side), 1, 0)
        ground = np.broadcast_to(np.array(GROUND, float)[:, None, None], (3, side, side))
        return paint(ground, list(covers), COLOURS[: len(self.radii)])

    def _overlap(self, place: np.ndarray) -> np.ndarray:
        """Say whether any two discs overlap, [N]."""
        one, other = np.triu_indices(len(self.radii), 1)
        radii = np.array(self.radii)
        apart = np.linalg.norm(place[:, one] - place[:, other], axis=2)
        return (apart < radii[one] + radii[other]).any(1)


def _joined(place: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    return np.stack([place, velocity], 1).reshape(len(place), -1)
