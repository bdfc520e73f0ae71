"""`Reach`: a dot that is steered to a mark; small, and paid at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.spaces import Space
from foreworld.worlds.discs import Colour, disc_cover, paint
from foreworld.worlds.world import moves, numbers, picture, placed_at, positive, taken

WAYS = np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)], float)
"""What the moves do: stay, right, up, left, down."""
RADIUS = 0.1
"""Of the dot and the mark, in sides of the field."""
GROUND: Colour = (18, 20, 28)
MARK: Colour = (86, 200, 120)
DOT: Colour = (255, 196, 84)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Bring a dot to a mark on an empty field of side 1, and stay there: the least that control from pictures takes.

    The state is the position of the dot and of the mark (x from the left, y from the bottom): S = 4. Every step earns
    1 on the mark, and less in proportion to the distance, down to 0 at `scale`.

    Attributes:
        stride: how far a move goes.
        scale: distance at which nothing is earned.
        box: let the action be a displacement of at most `stride` along either axis, instead of one of five moves.
        tolerance: the mark counts as reached at this distance.
        stop: end the episode there.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.
    """

    stride: float = 0.12
    scale: float = 0.6
    box: bool = False
    tolerance: float = 0.1
    stop: bool = False
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "stride", "scale", "tolerance", "size", "dt")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "reach"

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
        """The picture."""
        return {"image": picture(self.size)}

    @property
    def action(self) -> Space:
        """Stay, right, up, left or down; or a displacement along x and y."""
        return numbers(2, self.stride) if self.box else moves(len(WAYS))

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 4]: dot and mark anywhere."""
        return rng.uniform(RADIUS, 1 - RADIUS, (n, 4))

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Move, as far as the field goes."""
        choice = taken(self, action, len(state))
        way = choice if self.box else self.stride * WAYS[choice]
        return np.concatenate([np.clip(state[:, :2] + way, RADIUS, 1 - RADIUS), state[:, 2:]], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the picture, [N, 3, H, W]."""
        return {"image": self.render(state)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return dot and mark, [N, 4]."""
        return {"state": state.copy()}

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Return how far the mark is, [N] sides."""
        return np.linalg.norm(state[:, 2:] - state[:, :2], axis=1)

    def success(self, state: np.ndarray) -> np.ndarray:
        """Say where the dot is no further from the mark than `tolerance`, [N]."""
        return self.distance(state) <= self.tolerance

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where the mark is reached and that ends the episode, [N]."""
        return self.success(state) & self.stop

    def places(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the dot and the mark are, [N, 2] each."""
        return state[:, :2].copy(), state[:, 2:].copy()

    def placed(self, state: np.ndarray, start: np.ndarray | None = None, goal: np.ndarray | None = None) -> np.ndarray:
        """Return states [N, 4] with the dot at another start, or another mark, x and y each; moved into the field.

        Raises:
            ConfigError: not two numbers.
        """
        state = state.copy()
        for what, given, at in (("start", start, slice(0, 2)), ("goal", goal, slice(2, 4))):
            if given is not None:
                found = placed_at(f"{self.name}, {what}", given, len(state), 2)
                state[:, at] = np.clip(found, RADIUS, 1 - RADIUS)
        return state

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Return the states with the dot on the mark, [N, 4]."""
        return np.concatenate([state[:, 2:], state[:, 2:]], 1)

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return the move [N] after which the mark is nearest, or the displacement [N, 2] towards it."""
        if self.box:
            return np.clip(state[:, 2:] - state[:, :2], -self.stride, self.stride)
        after = np.clip(state[:, None, :2] + self.stride * WAYS, RADIUS, 1 - RADIUS)
        return np.linalg.norm(state[:, None, 2:] - after, axis=2).argmin(1)

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return 1 less the distance over `scale`, at least 0."""
        return np.maximum(0, 1 - self.distance(reached) / self.scale)

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw the mark and the dot, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        ground = np.broadcast_to(np.array(GROUND, float)[:, None, None], (3, side, side))
        radius = np.full(len(state), RADIUS)
        return paint(ground, [disc_cover(state[:, at : at + 2], radius, side) for at in (2, 0)], [MARK, DOT])
