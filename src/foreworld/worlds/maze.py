"""`PointMaze`: a mass that is pushed through a maze to a goal."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.discs import disc_cover, paint
from foreworld.worlds.walls import Faces, advance, grid_faces
from foreworld.worlds.world import numbers, picture, placed_at, positive, taken

MAZES: Mapping[str, tuple[str, ...]] = {
    "umaze": ("...", "##.", "..."),
    "medium": ("..#...", "..#.#.", "#.....", "..##.#", ".#....", "...#.."),
    "large": ("....#.....", ".##.#.###.", "..#...#...", "#.###.#.##", "..#...#...", ".##.#.###.", "....#....."),
}
"""Layouts by name, the top row first: `#` is wall, `.` is free. All around is wall."""

FLOOR, WALL, MASS, GOAL = (24, 28, 36), (104, 114, 132), (255, 196, 84), (86, 200, 120)


@dataclass(frozen=True, kw_only=True)
class PointMaze:
    """Push a mass through a maze of cells of side 1 m, to a goal in one of its cells.

    The state is position and velocity of the mass and the position of the goal (x from the left, y from the bottom):
    S = 6. A push is given at once, when a step begins; then the mass flies on a straight line, slowed by drag, and
    every wall on its way is met at its exact place. A wall takes the velocity across it, or gives a part of it back:
    energy never grows. For the walls the mass is a square.

    Attributes:
        layout: `umaze`, `medium`, `large`, or rows of `#` (wall) and `.` (free), the top row first.
        push: largest acceleration along either axis, m/s².
        drag: how fast the mass slows down, 1/s.
        bounce: share of the velocity across a wall that comes back, 0 to 1.
        radius: half the side of the mass, m.
        tolerance: the goal is reached at this distance, m: that of Gymnasium-Robotics.
        apart: starts are at least so many cells of way from the goal.
        goal_seen: show the goal, as `goal` and in the picture.
        pictures: show a picture besides position and velocity.
        dense: reward exp(-distance) instead of 1 at the goal and 0 elsewhere.
        stop: end the episode at the goal.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.
    """

    layout: str | tuple[str, ...] = "umaze"
    push: float = 4.0
    drag: float = 2.0
    bounce: float = 0.0
    radius: float = 0.1
    tolerance: float = 0.45
    apart: int = 1
    goal_seen: bool = True
    pictures: bool = False
    dense: bool = False
    stop: bool = False
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "push", "radius", "tolerance", "size", "dt")
        positive(self, "drag", "bounce", "apart", zero=True)
        if self.bounce > 1 or self.radius >= 0.5:
            raise ConfigError(
                f"PointMaze.bounce is at most 1 and radius below 0.5, found {self.bounce} and {self.radius}"
            )
        if isinstance(self.layout, str) and self.layout not in MAZES:
            raise ConfigError(f"PointMaze.layout is one of {', '.join(MAZES)} or a list of rows, found {self.layout!r}")
        lengths, marks = {len(row) for row in self.rows}, {mark for row in self.rows for mark in row}
        if len(lengths) != 1 or not marks <= set("#.") or "." not in marks:
            raise ConfigError(f"PointMaze.layout has rows of one length, of '#' and '.', found {self.layout!r}")
        if not (self.ways >= self.apart).any():
            raise ConfigError(f"PointMaze.apart: no two cells of this maze are {self.apart} cells of way apart")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "point maze"

    @property
    def width(self) -> int:
        """S, 6 numbers."""
        return 6

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def obs(self) -> Mapping[str, Space]:
        """Position and velocity; the goal if it is seen; the picture if there is one."""
        found = {"obs": numbers(4)}
        if self.goal_seen:
            found["goal"] = numbers(2)
        return found | ({"image": picture(self.size)} if self.pictures else {})

    @property
    def action(self) -> Space:
        """The push along x and y."""
        return numbers(2, self.push)

    @property
    def rows(self) -> tuple[str, ...]:
        """The layout, the top row first."""
        return MAZES[self.layout] if isinstance(self.layout, str) else tuple(self.layout)

    @cached_property
    def solid(self) -> np.ndarray:
        """Which cells are wall, bool [W, H], x from the left and y from the bottom."""
        return np.array([[mark == "#" for mark in row] for row in self.rows[::-1]]).T

    @cached_property
    def cells(self) -> np.ndarray:
        """The free cells, int [K, 2]."""
        return np.argwhere(~self.solid)

    @cached_property
    def ways(self) -> np.ndarray:
        """Cells of way from every free cell to every other, [K, K]; -1 where there is no way."""
        return _ways(self.solid)

    @cached_property
    def faces(self) -> Faces:
        """What the middle of the mass cannot cross."""
        return grid_faces(self.solid, self.radius)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 6]: at rest in one cell, the goal in another."""
        pairs = np.argwhere(self.ways >= self.apart)
        drawn = self.cells[pairs[rng.integers(len(pairs), size=n)]]
        place = drawn + rng.uniform(self.radius, 1 - self.radius, (n, 2, 2))
        return np.concatenate([place[:, 0], np.zeros((n, 2)), place[:, 1]], 1)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Push, then let the mass fly; with drag, only the time along its way is another, (1 - exp(-drag t)) / drag."""
        velocity = state[:, 2:4] + self.dt * taken(self, action, len(state))
        flight = -math.expm1(-self.drag * self.dt) / self.drag if self.drag else self.dt
        place, velocity = advance(state[:, :2], velocity, self.faces, flight, bounce=self.bounce)
        return np.concatenate([place, velocity * math.exp(-self.drag * self.dt), state[:, 4:]], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return position and velocity [N, 4], the goal [N, 2] if it is seen, and the picture if there is one."""
        found = {"obs": state[:, :4].astype(np.float32)}
        if self.goal_seen:
            found["goal"] = state[:, 4:].astype(np.float32)
        return found | ({"image": self.render(state)} if self.pictures else {})

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return position, velocity and goal, [N, 6]."""
        return {"state": state.copy()}

    def energy(self, state: np.ndarray) -> np.ndarray:
        """Return the energy of motion of 1 kg, [N] J."""
        return (state[:, 2:4] ** 2).sum(1) / 2

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Return how far the goal is as the crow flies, [N] m."""
        return np.linalg.norm(state[:, 4:] - state[:, :2], axis=1)

    def success(self, state: np.ndarray) -> np.ndarray:
        """Say where the mass is no further from the goal than `tolerance`, [N]."""
        return self.distance(state) <= self.tolerance

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where the goal is reached and that ends the episode, [N]."""
        return self.success(state) & self.stop

    def places(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the mass and the goal are, [N, 2] each."""
        return state[:, :2].copy(), state[:, 4:].copy()

    def placed(self, state: np.ndarray, start: np.ndarray | None = None, goal: np.ndarray | None = None) -> np.ndarray:
        """Return states [N, 6] with the mass at rest at another start, or another goal, x and y each.

        Raises:
            ConfigError: inside a wall, or not two numbers.
        """
        state = state.copy()
        for what, given, at in (("start", start, 0), ("goal", goal, 4)):
            if given is not None:
                found = placed_at(f"{self.name}, {what}", given, len(state), 2)
                if not self.free(found).all():
                    raise ConfigError(f"{self.name}: the {what} {given} lies inside a wall; it must be in free space")
                state[:, at : at + 2] = found
        if start is not None:
            state[:, 2:4] = 0
        return state

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Return the states with the mass at rest at the goal, [N, 6]."""
        return np.concatenate([state[:, 4:], np.zeros((len(state), 2)), state[:, 4:]], 1)

    def free(self, place: np.ndarray) -> np.ndarray:
        """Say at which places [N, 2] the mass touches no wall, [N]."""
        corners = place[:, None] + self.radius * (1 - 1e-9) * np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
        cell = np.floor(corners).astype(int)
        inside = ((cell >= 0) & (cell < self.solid.shape)).all(2)
        cell = np.clip(cell, 0, np.array(self.solid.shape) - 1)
        wall = self.solid[cell[..., 0], cell[..., 1]]
        return np.all(inside & ~wall, 1)

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return the push [N, 2] that steers to the goal, cell by cell along a shortest way.

        The push brings the velocity to one at which the mass can still stop at the middle of the next cell.
        """
        here, there = self._cell(state[:, :2]), self._cell(state[:, 4:])
        ways = self.ways[:, there]  # [K, N]
        near = (np.abs(self.cells[:, None] - self.cells[here]).sum(2) <= 1) & (ways >= 0)
        following = np.where(near, ways, ways.max() + 1).argmin(0)
        aim = np.where((ways[here, np.arange(len(state))] <= 0)[:, None], state[:, 4:], self.cells[following] + 0.5)
        away = aim - state[:, :2]
        speed = np.minimum(np.sqrt(self.push * np.abs(away)), np.abs(away) / self.dt)
        return np.clip((np.sign(away) * speed - state[:, 2:4]) / self.dt, -self.push, self.push)

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return 1 at the goal and 0 elsewhere; exp(-distance) if `dense`."""
        return np.exp(-self.distance(reached)) if self.dense else self.success(reached).astype(float)

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw maze, mass and (if it is seen) goal, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        longest = max(self.solid.shape) + 2  # the wall around
        shift = (longest - np.array(self.solid.shape)) / 2
        places = [(state[:, :2], max(self.radius, 0.15), MASS)]
        if self.goal_seen:
            places.insert(0, (state[:, 4:], self.tolerance / 2, GOAL))
        covers = [
            disc_cover((place + shift) / longest, np.full(len(state), radius / longest), side)
            for place, radius, _ in places
        ]
        return paint(_ground(self.rows, side), covers, [colour for *_, colour in places])

    def _cell(self, place: np.ndarray) -> np.ndarray:
        """Return the number [N] of the free cell that each place is in, or nearest to."""
        return np.abs(self.cells[:, None] + 0.5 - place).max(2).argmin(0)


def _ways(solid: np.ndarray) -> np.ndarray:
    """Count the cells between all pairs of free cells by breadth-first search."""
    cells = [tuple(cell) for cell in np.argwhere(~solid).tolist()]
    number = {cell: index for index, cell in enumerate(cells)}
    found = np.full((len(cells), len(cells)), -1)
    for first in range(len(cells)):
        found[first, first] = 0
        queue = deque([first])
        while queue:
            at = queue.popleft()
            x, y = cells[at]
            for cell in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                other = number.get(cell)
                if other is not None and found[first, other] < 0:
                    found[first, other] = found[first, at] + 1
                    queue.append(other)
    return found


@lru_cache(maxsize=32)
def _ground(rows: tuple[str, ...], size: int) -> np.ndarray:
    """Draw the maze without what moves, [3, H, W]: 8 x 8 points for every pixel."""
    solid = np.array([[mark == "#" for mark in row] for row in rows])
    longest = max(solid.shape) + 2
    points = (np.arange(8 * size) + 0.5) / (8 * size) * longest
    down, across = (np.floor(points - (longest - side) / 2).astype(int) for side in solid.shape)
    inside = ((down >= 0) & (down < len(solid)))[:, None] & ((across >= 0) & (across < solid.shape[1]))
    fine = ~inside | solid[np.clip(down, 0, len(solid) - 1)][:, np.clip(across, 0, solid.shape[1] - 1)]
    cover = fine.reshape(size, 8, size, 8).mean((1, 3))
    floor, wall = (np.array(colour, float)[:, None, None] for colour in (FLOOR, WALL))
    ground = floor + cover * (wall - floor)
    ground.flags.writeable = False
    return ground
