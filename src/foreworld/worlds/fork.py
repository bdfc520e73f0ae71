"""`Fork`: a ball that goes left or right by chance, so that no single prediction can be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.discs import box_cover, disc_cover, paint
from foreworld.worlds.world import drawn, numbers, picture, positive, taken

HALF_WIDTH = 0.08
"""Of the ways, and RADIUS of the ball, as shares of the picture."""
RADIUS = 0.06
SCALE = 0.4
"""Share of the picture that one unit of length takes."""
JUNCTION = (0.5, 0.7)
GROUND, WAY, BALL = (20, 24, 32), (78, 88, 104), (255, 214, 90)


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Roll a ball up a corridor to a junction, where it goes left with known odds, else right.

    The state is x, y and the side taken: 0 before the junction, -1 left, 1 right. The corridor leads from
    (0, -1) to the junction at (0, 0), the arms end at x = ±1, where the ball stays. Nothing before the
    junction tells the side: a deterministic model that minimises a squared error predicts the mean of
    both, where the ball never is; a stochastic one must show either, as often as it happens.

    Attributes:
        left: probability of the left side.
        speed: units of length that the ball moves in a step.
        far: starts lie on the corridor, at a distance from the junction uniform in [far / 2, far].
        size: side of the picture in pixels.
        dt: seconds that one step lasts.
    """

    left: float = 0.7
    speed: float = 0.08
    far: float = 1.0
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "speed", "far", "size", "dt")
        if not 0 <= self.left <= 1 or self.far > 1 or self.speed > 1:
            found = f"{self.left}, {self.far} and {self.speed}"
            raise ConfigError(f"Fork.left is a probability, far and speed are at most 1, found {found}")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "fork"

    @property
    def width(self) -> int:
        """S, 3 numbers."""
        return 3

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return True

    @property
    def action(self) -> None:
        """There is none."""
        return None

    @property
    def obs(self) -> Mapping[str, Space]:
        """Where the ball is, as two numbers and as a picture."""
        return {"obs": numbers(2), "image": picture(self.size)}

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 3], on the corridor."""
        below = self.far * rng.uniform(0.5, 1, n)
        return np.stack([np.zeros(n), -below, np.zeros(n)], 1)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Roll on; who reaches the junction draws a side. One number is drawn for every row, used or not."""
        taken(self, action, len(state))
        drawn_side = np.where(drawn(self, rng).random(len(state)) < self.left, -1.0, 1.0)
        x, y, side = state.T
        ahead = np.where(side == 0, y + self.speed, 0)  # above the junction: what is left to roll on the arm
        arrives = (side == 0) & (ahead >= 0)
        side = np.where(arrives, drawn_side, side)
        rolled = np.where(arrives, ahead, self.speed)
        return np.stack([np.clip(x + side * rolled, -1, 1), np.minimum(ahead, 0), side], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the position [N, 2] and the picture [N, 3, H, W]."""
        return {"obs": state[:, :2].astype(np.float32), "image": self.render(state)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return position and side, [N, 3]."""
        return {"state": state.copy()}

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw the ways and the ball, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        across, up = JUNCTION
        corridor = box_cover(across - HALF_WIDTH, up - SCALE - HALF_WIDTH, across + HALF_WIDTH, up + HALF_WIDTH, side)
        arms = box_cover(
            across - SCALE - HALF_WIDTH, up - HALF_WIDTH, across + SCALE + HALF_WIDTH, up + HALF_WIDTH, side
        )
        ground = np.broadcast_to(np.array(GROUND, float)[:, None, None], (3, side, side))
        ball = disc_cover(JUNCTION + SCALE * state[:, :2], np.full(len(state), RADIUS), side)
        return paint(ground, [np.maximum(corridor, arms), ball], [WAY, BALL])
