"""Elastic discs in a box, moved from one collision to the next at their exact times."""

from __future__ import annotations

import numpy as np


def advance(
    place: np.ndarray, velocity: np.ndarray, radii: np.ndarray, masses: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Let discs fly and bounce in the box [0, 1] x [0, 1].

    Between collisions all move on straight lines, so the next one is found by solving a linear equation for
    every wall and a quadratic one for every pair; the rows of the batch go on independently.

    Args:
        place: [N, K, 2].
        velocity: [N, K, 2].
        radii: [K].
        masses: [K].
        seconds: how long.

    Returns:
        Positions and velocities after that time, [N, K, 2] each.
    """
    place, velocity = place.copy(), velocity.copy()
    left = np.full(len(place), float(seconds))
    open_rows = np.arange(len(place))
    while len(open_rows):
        here, moving = place[open_rows], velocity[open_rows]
        wall, pair = _wall_times(here, moving, radii), _pair_times(here, moving, radii)
        times = np.concatenate([wall.reshape(len(here), -1), pair], 1)
        event = times.argmin(1)
        until = times[np.arange(len(here)), event]
        hits = until <= left[open_rows]
        flown = np.where(hits, until, left[open_rows])
        place[open_rows] = here + moving * flown[:, None, None]
        left[open_rows] -= flown
        open_rows, event = open_rows[hits], event[hits]
        walls = 2 * len(radii)
        _bounce(velocity, open_rows[event < walls], event[event < walls])
        _collide(place, velocity, masses, open_rows[event >= walls], event[event >= walls] - walls)
    return place, velocity


def _wall_times(place: np.ndarray, velocity: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the seconds [N, K, 2] until each disc meets a wall of each axis."""
    goal = np.where(velocity > 0, 1 - radii[:, None], radii[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = (goal - place) / velocity
    return np.where(velocity == 0, np.inf, np.maximum(seconds, 0))


def _pair_times(place: np.ndarray, velocity: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the seconds [N, P] until each pair of discs meets: the first root of |d + w t| = r + r'."""
    one, other = np.triu_indices(len(radii), 1)
    apart, closing = place[:, one] - place[:, other], velocity[:, one] - velocity[:, other]
    speed, toward = (closing**2).sum(2), -(apart * closing).sum(2)
    gap = (apart**2).sum(2) - (radii[one] + radii[other]) ** 2
    inside = toward**2 - speed * gap
    meets = (toward > 0) & (inside >= 0)
    # written as gap / (...) so that two nearly equal numbers are never subtracted
    seconds = gap / (toward + np.sqrt(np.where(meets, inside, 1)) + ~meets)
    return np.where(meets, np.maximum(seconds, 0), np.inf)


def _bounce(velocity: np.ndarray, rows: np.ndarray, event: np.ndarray) -> None:
    """Turn one component of one disc around in each row."""
    velocity[rows, event // 2, event % 2] *= -1


def _collide(place: np.ndarray, velocity: np.ndarray, masses: np.ndarray, rows: np.ndarray, event: np.ndarray) -> None:
    """Exchange momentum along the line between the centres of one pair in each row."""
    one, other = (index[event] for index in np.triu_indices(len(masses), 1))
    line = place[rows, one] - place[rows, other]
    line /= np.linalg.norm(line, axis=1, keepdims=True)
    closing = ((velocity[rows, one] - velocity[rows, other]) * line).sum(1)
    impulse = (-2 * closing / (1 / masses[one] + 1 / masses[other]))[:, None] * line
    velocity[rows, one] += impulse / masses[one, None]
    velocity[rows, other] -= impulse / masses[other, None]
