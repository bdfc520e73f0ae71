"""`Catch`: a ball falls, a paddle catches it or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.discs import Colour, disc_cover, paint, span_cover
from foreworld.worlds.world import moves, picture, positive, taken

GROUND: Colour = (18, 20, 28)
PADDLE: Colour = (104, 160, 255)
BALL: Colour = (255, 196, 84)


@dataclass(frozen=True, kw_only=True)
class Catch:
    """Move a paddle under a ball that falls a row a step: 1 if it is there in the end, else -1.

    The state is the ball's column, its row above the lowest, and the paddle's column: S = 3. The game ends, with no
    future, when the ball is in the lowest row. Nothing is earned before, so that credit must be found through time.

    Attributes:
        columns: of the field, odd, so that the paddle can begin in the middle.
        rows: of the field; a game has one step fewer.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.

    Reference:
        Osband et al., 2020, "Behaviour Suite for Reinforcement Learning".
    """

    columns: int = 5
    rows: int = 10
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "columns", "rows", "size", "dt")
        if self.columns < 3 or self.columns % 2 == 0 or self.rows <= self.columns // 2:
            raise ConfigError(
                "Catch.columns is odd and at least 3, and rows leave time to reach the edge, "
                f"found {self.columns} and {self.rows}"
            )

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "catch"

    @property
    def width(self) -> int:
        """S, 3 numbers."""
        return 3

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def obs(self) -> Mapping[str, Space]:
        """The picture."""
        return {"image": picture(self.size)}

    @property
    def action(self) -> Space:
        """Stay, left or right."""
        return moves(3)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 3]: the ball at the top of any column, the paddle in the middle."""
        ball = rng.integers(self.columns, size=n)
        return np.stack([ball, np.full(n, self.rows - 1), np.full(n, self.columns // 2)], 1).astype(float)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Move the paddle and let the ball fall; where it has fallen nothing moves any more."""
        way = np.array([0.0, -1.0, 1.0])[taken(self, action, len(state))] * (state[:, 1] > 0)
        paddle = np.clip(state[:, 2] + way, 0, self.columns - 1)
        return np.stack([state[:, 0], np.maximum(state[:, 1] - 1, 0), paddle], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the picture, [N, 3, H, W]."""
        return {"image": self.render(state)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return ball and paddle, [N, 3]."""
        return {"state": state.copy()}

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where the ball has fallen, [N]."""
        return state[:, 1] <= 0

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return the move [N] towards the ball's column."""
        away = state[:, 0] - state[:, 2]
        return np.where(away < -0.5, 1, np.where(away > 0.5, 2, 0))

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return 1 where the ball falls on the paddle, -1 where it falls beside it, 0 where it still falls."""
        lands = self.over(reached) & ~self.over(state)
        return lands * np.where(np.abs(reached[:, 0] - reached[:, 2]) < 0.5, 1.0, -1.0)

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw paddle and ball, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        ground = np.broadcast_to(np.array(GROUND, float)[:, None, None], (3, side, side))
        left = state[:, 2] / self.columns
        paddle = span_cover(left, left + 1 / self.columns, side)[:, None, :]
        paddle = span_cover(1 - 0.5 / self.rows, 1.0, side)[:, None] * paddle
        ball = (state[:, :2] + 0.5) / (self.columns, self.rows)
        cover = disc_cover(ball, np.full(len(state), 0.5 / max(self.columns, self.rows)), side)
        return paint(ground, [paddle, cover], [PADDLE, BALL])
