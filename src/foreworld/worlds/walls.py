"""Walls along the axes, and the motion of points among them: every wall is met where it stands, however fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKIN = 1e-7
"""A point that met a wall stays so far off it, or it would be caught by every corner that is flush with the wall."""
SLACK = 1e-9
"""How far rounding may carry a point past the end of a wall."""
DEEP = 0.02
"""How far inside a wall a point is still pushed out, as rounding to float32 or moving a wall a little puts it there.

Faces go on so far into the walls that they meet, or there would be a hole behind an inner corner.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """F sides of walls, each seen from where one can go: what a point cannot cross.

    Attributes:
        axis: [F] int, the coordinate that is the same all along the face: 0 for a vertical one, 1 for a level one.
        side: [F] +1 where the free side has the larger coordinate, -1 where the smaller.
        at: [F], or [N, F] where every row has walls of its own: that coordinate.
        low: the same shape: where the face begins along the other axis.
        high: the same shape: where it ends.
    """

    axis: np.ndarray
    side: np.ndarray
    at: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def rows(self, which: np.ndarray) -> Faces:
        """Return the faces of some rows [K] of the batch."""
        if self.at.ndim == 1:
            return self
        return Faces(axis=self.axis, side=self.side, at=self.at[which], low=self.low[which], high=self.high[which])

    def place(self, row: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Return the coordinate [K] of one face for each of K rows."""
        return self.at[face] if self.at.ndim == 1 else self.at[row, face]


def first_face(place: np.ndarray, move: np.ndarray, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Find the first face that each point meets on a straight way.

    Args:
        place: [N, 2], where the points are.
        move: [N, 2], the whole way.
        faces: what may be met; F of them.

    Returns:
        Share of the way [N] until then, infinite where nothing is met, and number of the face [N].
    """
    ahead, aside = move[:, faces.axis], move[:, 1 - faces.axis]
    gap = (place[:, faces.axis] - faces.at) * faces.side
    closing = -ahead * faces.side
    share = np.maximum(gap, 0) / np.where(closing > 0, closing, 1)
    along = place[:, 1 - faces.axis] + aside * np.minimum(share, 1)
    meets = (closing > 0) & (gap >= -DEEP) & (share <= 1)
    meets &= (along >= faces.low - SLACK) & (along <= faces.high + SLACK)
    share = np.where(meets, share, np.inf)
    face = share.argmin(1)
    return share[np.arange(len(place)), face], face


def advance(
    place: np.ndarray, velocity: np.ndarray, faces: Faces, seconds: float, *, bounce: float = 0.0, stop: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Let points fly among walls. A wall takes the velocity across it, or turns it around; energy never grows.

    Args:
        place: [N, 2].
        velocity: [N, 2].
        faces: the walls.
        seconds: how long.
        bounce: share of the velocity across a wall that comes back, 0 to 1; with 0 a point slides along it.
        stop: end the way at the first wall, instead of sliding on.

    Returns:
        Positions and velocities after that time, [N, 2] each.
    """
    place, velocity = place.copy(), velocity.copy()
    left = np.full(len(place), float(seconds))
    rows = np.arange(len(place))
    while len(rows):
        move = velocity[rows] * left[rows, None]
        share, face = first_face(place[rows], move, faces.rows(rows))
        hits = share <= 1
        flown = np.where(hits, share, 1)
        place[rows] += move * flown[:, None]
        left[rows] *= 1 - flown
        rows, face = rows[hits], face[hits]
        axis = faces.axis[face]
        place[rows, axis] = faces.place(rows, face) + SKIN * faces.side[face]
        velocity[rows, axis] *= -bounce
        if stop:
            velocity[rows] = 0
            break
    return place, velocity


def grid_faces(solid: np.ndarray, radius: float) -> Faces:
    """Return the faces that the centre of a square body meets in a maze of cells of side 1.

    Args:
        solid: [W, H] bool, which cells are wall: x from the left, y from the bottom. All around is wall.
        radius: half the side of the body, above 0 and below 0.5.

    Returns:
        Faces of the walls grown by the radius, those on one line joined.
    """
    level = _grown(np.pad(np.asarray(solid, bool), 1, constant_values=True))
    found: list[tuple[int, float, float, float, float]] = []
    for axis in (0, 1):
        walls = level if axis == 0 else level.T
        across, along = _bounds(walls.shape[0], radius), _bounds(walls.shape[1], radius)
        for edge in range(1, len(walls)):
            for side in (1.0, -1.0):
                inside, outside = (walls[edge - 1], walls[edge]) if side > 0 else (walls[edge], walls[edge - 1])
                for first, last in _runs(inside & ~outside):
                    low = along[first] - DEEP * outside[first - 1]
                    high = along[last] + DEEP * outside[last]
                    found.append((axis, side, across[edge], low, high))
    axis, side, at, low, high = np.array(found).T
    return Faces(axis=axis.astype(int), side=side, at=at, low=low, high=high)


def _grown(solid: np.ndarray) -> np.ndarray:
    """Cut cells, padded by one all around, into bands around their borders and what is left between them.

    A band is wall where either of its cells is: [W + 2, H + 2] becomes [2 W + 1, 2 H + 1].
    """
    for _ in range(2):
        cut = np.empty((2 * len(solid) - 3, solid.shape[1]), bool)
        cut[0::2], cut[1::2] = solid[:-1] | solid[1:], solid[1:-1]
        solid = cut.T
    return solid


def _bounds(parts: int, radius: float) -> np.ndarray:
    """Return where bands and cores begin and end, [parts + 1]."""
    lines = np.arange(parts // 2 + 1)
    return np.stack([lines - radius, lines + radius], 1).ravel()


def _runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """Return the first mark of every unbroken run, and the place after its last."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(first), int(last)) for first, last in change.reshape(-1, 2)]
