"""Who knows how a T is pushed: the oracle of `PushT` looks one push ahead, at every place of the rim."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from foreworld.worlds.tee import Tee, angle_between, to_world, turned

EACH = 8
"""Places on each side of a bar that may be pushed at."""
GAP = 0.02
"""How far from the block the pusher stands before a push."""
PIECES = (GAP, 0.005, 0.005, 0.01, 0.02, *[0.04] * 10)
"""Pushes are tried out in pieces of these lengths, and end after the best."""
ROUND = 16
"""Places on a circle about the block through which a way round may lead."""
LOOKS = 12
"""Places of a way at which the block is looked for."""
DEEP = 0.004
"""A way that reaches no deeper into the block is free."""
FINE = 0.004
"""A block that is nearer to its goal is left alone."""
LONG = 10.0
"""Counts as the length of a way that is not free."""


class Pushing(Protocol):
    """A world in which a disc pushes a T."""

    @property
    def tee(self) -> Tee:
        """The block."""
        ...

    @property
    def radius(self) -> float:
        """Radius of the pusher."""
        ...

    @property
    def reach(self) -> float:
        """Longest way of the pusher in a step."""
        ...

    def slide(self, place: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pushers [N, 2] and blocks [N, 3] once they are apart."""
        ...


def push_towards(world: Pushing, state: np.ndarray) -> np.ndarray:
    """Choose where the pusher goes so that the block, and then the pusher, comes to where it belongs.

    Every place of the rim is tried, and the current one: how much nearer would the block be to its pose after the best
    push straight into it there, for every step that it takes to go there and push? The best is done. Nothing is
    remembered, and only one push is looked ahead: so it may take longer than needed, or get stuck at the arena's edge.

    Args:
        world: its block and pusher.
        state: [N, 10].

    Returns:
        Places [N, 2].
    """
    place, pose, goal = state[:, :2], state[:, 2:5], state[:, 7:]
    stand, into, gain, length = _pushes(world, place, pose, goal)
    way = np.linalg.norm(stand - place[:, None], axis=2)
    way += 2 * _round(world) * _blocked(world, place, stand, pose)
    worth = gain / (way / world.reach + length / world.reach + 1)
    best = worth.argmax(1)
    rows = np.arange(len(state))
    stand, into, length, useful = (part[rows, best] for part in (stand, into, length, gain))
    there = np.linalg.norm(stand - place, axis=1) < GAP + DEEP
    push = place + into * length[:, None]
    done = (_off(world, pose, goal) < FINE) | (useful <= 0)
    aim = np.where(done[:, None], state[:, 5:7], stand)
    return np.clip(np.where((there & ~done)[:, None], push, _around(world, place, aim, pose)), -1, 1)


def _pushes(
    world: Pushing, place: np.ndarray, pose: np.ndarray, goal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where to stand, which way to push [N, C, 2], by how much nearer that gets, and how far to push [N, C]."""
    point, out = _rim(world.tee)
    stand = to_world(point + out * (world.radius + GAP), pose)
    into = -turned(np.broadcast_to(out, stand.shape), pose[:, 2])
    _, _, here = world.tee.contact(place, pose, world.radius)
    stand = np.concatenate([stand, place[:, None]], 1)
    into = np.concatenate([into, -turned(here, pose[:, 2])[:, None]], 1)
    batch, number = stand.shape[:2]
    disc, block = stand.reshape(-1, 2), np.repeat(pose, number, 0)
    depth, _, _ = world.tee.contact(disc, block, world.radius)  # in an inner corner there may be no room
    aim, before = np.repeat(goal, number, 0), _off(world, pose, goal)
    least, length = np.full(batch * number, np.inf), np.zeros(batch * number)
    for piece, reached in zip(PIECES, np.cumsum(PIECES), strict=True):
        disc, block = world.slide(disc + piece * into.reshape(-1, 2), block)
        off = _off(world, block, aim)
        better = off < least
        least, length = np.where(better, off, least), np.where(better, reached, length)
    gain = before[:, None] - least.reshape(batch, number)
    gain[(np.abs(stand).max(2) > 1) | (depth.reshape(batch, number) > DEEP)] = -np.inf
    return stand, into, gain, length.reshape(batch, number)


def _off(world: Pushing, pose: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return how far blocks are from their goals, [N]: places and, at the block's own scale, angles."""
    angle = world.tee.spread * angle_between(pose[:, 2], goal[:, 2])
    return np.sqrt(((pose[:, :2] - goal[:, :2]) ** 2).sum(1) + angle**2)


def _rim(tee: Tee) -> tuple[np.ndarray, np.ndarray]:
    """Return places on the rim and the directions out of the block there, [C, 2] each, in its own frame."""
    share = (np.arange(EACH) + 0.5) / EACH
    points, outs = [], []
    for low, high in zip(tee.low, tee.high, strict=True):
        for axis, end, sign in ((0, high, 1.0), (0, low, -1.0), (1, high, 1.0), (1, low, -1.0)):
            side = low + share[:, None] * (high - low)
            side[:, axis] = end[axis]
            points.append(side)
            outs.append(np.broadcast_to(sign * np.eye(2)[axis], side.shape))
    point, out = np.concatenate(points), np.concatenate(outs)
    free = ~tee.inside(point + 1e-6 * out)  # the bars meet
    return point[free], out[free]


def _round(world: Pushing) -> float:
    """Return how far from the middle of the block a pusher passes it freely."""
    return float(np.linalg.norm(world.tee.corners, axis=1).max()) + world.radius + GAP


def _blocked(world: Pushing, place: np.ndarray, aims: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Say where the block is in the way from places [N, 2] or [N, M, 2] to aims [N, M, 2], [N, M] bool."""
    start = np.broadcast_to(place[:, None] if place.ndim == 2 else place, aims.shape)
    share = np.linspace(0, 1, LOOKS + 1)[1:, None]
    looks = start[:, :, None] + share * (aims - start)[:, :, None]
    each = looks.shape[1] * LOOKS
    depth, _, _ = world.tee.contact(looks.reshape(-1, 2), np.repeat(pose, each, 0), world.radius)
    return np.any((depth > DEEP).reshape(*aims.shape[:2], LOOKS), axis=2)


def _around(world: Pushing, place: np.ndarray, aim: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return where to go first on the way to aims [N, 2]: straight there, or to a place on a circle about the block."""
    angle = 2 * math.pi * np.arange(ROUND) / ROUND
    circle = pose[:, None, :2] + _round(world) * np.stack([np.cos(angle), np.sin(angle)], 1)
    off = LONG * (np.abs(circle).max(2) > 1)  # of the arena
    aims = np.broadcast_to(aim[:, None], circle.shape)
    rest = off + np.linalg.norm(aims - circle, axis=2) + LONG * _blocked(world, circle, aims, pose)
    for _ in range(ROUND // 2):  # from place to place on the circle, until the way to the aim is free
        nearer = np.minimum(np.roll(rest, 1, 1), np.roll(rest, -1, 1))
        rest = np.minimum(rest, off + 2 * math.pi / ROUND * _round(world) + nearer)
    ways = rest + np.linalg.norm(circle - place[:, None], axis=2) + LONG * _blocked(world, place, circle, pose)
    first = circle[np.arange(len(place)), ways.argmin(1)]
    straight = ~_blocked(world, place, aim[:, None], pose)
    return np.where(straight, aim, first)
