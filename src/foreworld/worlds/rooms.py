"""`TwoRooms`: a dot, two rooms, a wall with a door between them, and a goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.discs import span_cover
from foreworld.worlds.walls import DEEP, Faces, advance, first_face
from foreworld.worlds.world import drawn, numbers, picture, placed_at, positive, taken

SIDE = 65
"""Units of length of a side: the pixels of the picture at its usual size."""
LOW, HIGH = 5.0, 60.0
"""Where both rooms begin and end, along either axis; the frame around them is one unit thick."""
HALF_WALL, HALF_DOOR = 1.5, 4.5
MARGIN = 2.6
"""Starts and goals keep so far off every wall: twice the deviation of the dot."""
WALLS, DOORS = (20.5, 44.5), (10.5, 54.5)
"""Where the middle of a wall and of a door may be, when they are drawn."""
DOT = 1.3
"""Standard deviation of the dot, which is drawn as a Gaussian."""
CLEAR = 1e-3
"""How far the shortest way keeps off a corner."""


@dataclass(frozen=True, kw_only=True)
class TwoRooms:
    """Move a dot through a door to a goal, usually in the other room, by displacements.

    The state is the position of the dot, the wall's x and the door's y, and the position of the goal, in units of
    which a side has 65 (x from the left, y from the bottom): S = 6. A way that meets a wall ends there, and the dot is
    thrown back a little, as in the peers' worlds: so it does not stick to the wall. The picture has the dot in red and
    the walls in green, the two channels that the peers draw; blue is empty, or the goal.

    Attributes:
        wall: x of the wall's middle; None draws one for every episode.
        door: y of the door's middle; None draws one for every episode.
        across: goals lie in the other room; else anywhere.
        limit: largest displacement along either axis, in units.
        tolerance: the goal is reached at this distance, units. The default is that by which eb_jepa and DINO-WM
            count successes.
        rebound: deviation, in units, of how far a dot that met a wall is thrown back and aside; 0 leaves it at the
            wall, where it sticks until it is moved away.
        slide: go on along a wall with what is left of a way, instead of ending there; nothing is thrown back then.
        goal_seen: draw the goal, as an agent needs that is to be told where to go.
        dense: reward the shortest way that is left, in sides and negative, instead of 1 at the goal and 0 elsewhere.
        stop: end the episode at the goal.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.

    Reference:
        Sobal et al., 2025, "Learning from Reward-Free Offline Data: A Case for Planning with Latent Dynamics Models".
        The distance of success: https://github.com/facebookresearch/eb_jepa, `eval_state` of its two rooms.
    """

    wall: float | None = None
    door: float | None = None
    across: bool = True
    limit: float = 2.45
    tolerance: float = 4.5
    rebound: float = 0.5
    slide: bool = False
    goal_seen: bool = False
    dense: bool = False
    stop: bool = False
    size: int = SIDE
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "limit", "tolerance", "size", "dt")
        positive(self, "rebound", zero=True)
        for name, value, (low, high) in (("wall", self.wall, WALLS), ("door", self.door, DOORS)):
            if value is not None and not low <= value <= high:
                raise ConfigError(f"TwoRooms.{name} lies between {low} and {high}, found {value}")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "two rooms"

    @property
    def width(self) -> int:
        """S, 6 numbers."""
        return 6

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return self.rebound > 0 and not self.slide

    @property
    def obs(self) -> Mapping[str, Space]:
        """The picture."""
        return {"image": picture(self.size)}

    @property
    def action(self) -> Space:
        """The displacement along x and y."""
        return numbers(2, self.limit)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 6]: walls and doors unless they are fixed, dots in free space, goals."""
        wall = np.full(n, self.wall) if self.wall is not None else rng.uniform(*WALLS, n)
        door = np.full(n, self.door) if self.door is not None else rng.uniform(*DOORS, n)
        dot, other = _free(rng, wall, None), _free(rng, wall, None)
        goal = _free(rng, wall, dot[:, 0] > wall) if self.across else other
        return np.concatenate([dot, np.stack([wall, door], 1), goal], 1)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Move, up to the first wall, and back from it."""
        move, faces = taken(self, action, len(state)), _faces(state)
        place, _ = advance(state[:, :2], move, faces, 1.0, stop=not self.slide)
        if self.stochastic:
            # drawn for every dot, met or not, so that what one draws does not depend on another
            back = drawn(self, rng).normal(0, self.rebound, place.shape)
            share, face = first_face(state[:, :2], move, faces)
            rows, axis = np.arange(len(place)), faces.axis[face]
            back[rows, axis] = np.abs(back[rows, axis]) * faces.side[face]
            place, _ = advance(place, np.where(share[:, None] <= 1, back, 0), faces, 1.0, stop=True)
        return np.concatenate([place, state[:, 2:]], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return the picture, [N, 3, H, W]."""
        return {"image": self.render(state)}

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return dot, wall, door and goal, [N, 6]."""
        return {"state": state.copy()}

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Return how far the goal is as the crow flies, [N] units."""
        return np.linalg.norm(state[:, 4:] - state[:, :2], axis=1)

    def success(self, state: np.ndarray) -> np.ndarray:
        """Say where the dot is nearer to the goal than `tolerance`, [N]."""
        return self.distance(state) < self.tolerance

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where the goal is reached and that ends the episode, [N]."""
        return self.success(state) & self.stop

    def places(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the dot and the goal are, [N, 2] each."""
        return state[:, :2].copy(), state[:, 4:].copy()

    def placed(self, state: np.ndarray, start: np.ndarray | None = None, goal: np.ndarray | None = None) -> np.ndarray:
        """Return states [N, 6] with the dot at another start, or another goal, x and y each.

        Raises:
            ConfigError: inside a wall, or not two numbers.
        """
        state = state.copy()
        for what, given, at in (("start", start, slice(0, 2)), ("goal", goal, slice(4, 6))):
            if given is not None:
                state[:, at] = placed_at(f"{self.name}, {what}", given, len(state), 2)
                if not _inside(state[:, at], state).all():
                    raise ConfigError(f"{self.name}: the {what} {given} lies inside a wall; it must be in free space")
        return state

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Return the states with the dot at the goal, [N, 6]."""
        return np.concatenate([state[:, 4:], state[:, 2:]], 1)

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return the displacement [N, 2] along the shortest way: as far as allowed, up to the next bend."""
        way = self.shortest(state)[1] - state[:, :2]
        longest = np.abs(way).max(1, keepdims=True)
        return way * np.minimum(1, self.limit / np.maximum(longest, 1e-12))

    def shortest(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the shortest way to the goal, round the corners of the door.

        Args:
            state: [N, 6].

        Returns:
            Its length [N] in units, and where its first straight piece ends, [N, 2].
        """
        wall, door = state[:, 2], state[:, 3]
        corners = [(x, y) for x in (-1, 1) for y in (-1, 1)]
        bends = [np.stack([wall + x * (HALF_WALL + CLEAR), door + y * (HALF_DOOR - CLEAR)], 1) for x, y in corners]
        points = np.stack([state[:, 4:], *bends, state[:, :2]], 1)  # goal, four corners, dot
        apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
        for one in range(6):
            for other in range(one):
                share, _ = first_face(points[:, one], points[:, other] - points[:, one], _faces(state))
                apart[:, one, other] = apart[:, other, one] = np.where(share < 1, np.inf, apart[:, one, other])
        length = apart[:, 0]
        for _ in range(4):  # the way has at most four corners
            length = np.minimum(length, (apart + length[:, None]).min(2))
        # from the dot: the next point from which the rest is shortest
        whole = apart[:, 5, :5] + length[:, :5]
        whole[:, 1:] = np.where(apart[:, 5, 1:5] < CLEAR, np.inf, whole[:, 1:])  # a corner where one stands is passed
        following = whole.argmin(1)
        return length[:, 5], points[np.arange(len(state)), following]

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return 1 at the goal and 0 elsewhere; if `dense`, the way left in sides of the picture, negative."""
        return -self.shortest(reached)[0] / SIDE if self.dense else self.success(reached).astype(float)

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw dot, walls and (if it is seen) goal, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        found = np.zeros((len(state), 3, side, side))
        found[:, 0] = _dot(state[:, :2], side)
        found[:, 1] = _walls(state, side)
        if self.goal_seen:
            found[:, 2] = _dot(state[:, 4:], side)
        return np.round(255 * found).astype(np.uint8)


def _free(rng: np.random.Generator, wall: np.ndarray, right: np.ndarray | None) -> np.ndarray:
    """Draw places [N, 2] off all walls; in the left room where `right` [N] is true, in the right one elsewhere."""
    left = wall - HALF_WALL - MARGIN - (LOW + MARGIN)
    wide = HIGH - MARGIN - (wall + HALF_WALL + MARGIN)
    share, y = rng.random(len(wall)), rng.uniform(LOW + MARGIN, HIGH - MARGIN, len(wall))
    along = share * (left + wide)
    if right is not None:
        along = np.where(right, share * left, left + share * wide)
    return np.stack([LOW + MARGIN + along + np.where(along > left, 2 * (HALF_WALL + MARGIN), 0), y], 1)


def _inside(place: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Say which places [N, 2] are free, [N]."""
    room = ((place >= LOW) & (place <= HIGH)).all(1)
    beside = np.abs(place[:, 0] - state[:, 2]) >= HALF_WALL
    return room & (beside | (np.abs(place[:, 1] - state[:, 3]) <= HALF_DOOR))


def _faces(state: np.ndarray) -> Faces:
    """Return the frame, both sides of the wall below and above the door, and the two sides of the door."""
    wall, door = state[:, 2], state[:, 3]
    left, right, bottom, top = wall - HALF_WALL, wall + HALF_WALL, door - HALF_DOOR, door + HALF_DOOR
    low, high = np.full(len(state), LOW), np.full(len(state), HIGH)
    under, over = low - DEEP, high + DEEP
    table = [
        (0, 1, low, under, over),
        (0, -1, high, under, over),
        (1, 1, low, under, over),
        (1, -1, high, under, over),
        (0, -1, left, under, bottom),
        (0, -1, left, top, over),
        (0, 1, right, under, bottom),
        (0, 1, right, top, over),
        (1, 1, bottom, left, right),
        (1, -1, top, left, right),
    ]
    axis, side, *spans = zip(*table, strict=True)
    at, begin, end = (np.stack(span, 1) for span in spans)
    return Faces(axis=np.array(axis), side=np.array(side, float), at=at, low=begin, high=end)


def _dot(place: np.ndarray, size: int) -> np.ndarray:
    """Draw Gaussians of height 1, [N, H, W]."""
    middle = (np.arange(size) + 0.5) * (SIDE / size)
    across = np.exp(-((middle - place[:, :1]) ** 2) / (2 * DOT**2))
    down = np.exp(-((SIDE - middle - place[:, 1:]) ** 2) / (2 * DOT**2))
    return down[:, :, None] * across[:, None, :]


def _walls(state: np.ndarray, size: int) -> np.ndarray:
    """Draw the frame and the wall with its door, [N, H, W]."""
    inner, outer = (span_cover((LOW - by) / SIDE, (HIGH + by) / SIDE, size) for by in (0, 1))
    across = span_cover((state[:, 2] - HALF_WALL) / SIDE, (state[:, 2] + HALF_WALL) / SIDE, size)
    down = inner - span_cover(1 - (state[:, 3] + HALF_DOOR) / SIDE, 1 - (state[:, 3] - HALF_DOOR) / SIDE, size)
    frame = outer[:, None] * outer - inner[:, None] * inner
    return frame + down[:, :, None] * across[:, None, :]
