"""`PushT`: push a T to where it belongs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from foreworld.core.errors import ConfigError
from foreworld.core.spaces import Space
from foreworld.worlds.discs import Colour, disc_cover, paint
from foreworld.worlds.pushing import push_towards
from foreworld.worlds.tee import Tee, angle_between, to_world, turned
from foreworld.worlds.world import numbers, picture, placed_at, positive, taken

PIXEL = 2 / 512
"""One pixel of the peers' arena, 512 a side; here the arena is [-1, 1] x [-1, 1]."""
HOME = (0.0, 0.0, math.pi / 4)
"""Pose of the goal, unless it is drawn."""
ROUNDS = 4
"""Contacts that are resolved in a substep, the deepest first: a disc in the inner corner of the T has two."""
NOTHING = 1e-9
"""A depth below this is no contact."""
HELD = 5
"""Steps for which random pushes go to one place, where goals are what they lead to."""
TOUCH = 1e-3
"""How deep a pusher that is placed may reach into the block."""
GROUND, GOAL, BLOCK, PUSHER = (236, 238, 242), (150, 218, 160), (108, 120, 142), (64, 110, 226)


@dataclass(frozen=True, kw_only=True)
class PushT:
    """Push a T-shaped block with a disc to a goal pose, seen from above; without inertia: what is not pushed stands.

    The state is x and y of the pusher and x, y and angle of the block (of its centre of mass; x to the right, y up),
    and the same of the goal: S = 10. An action is the place to which the pusher goes, straight and at most `reach`
    in a step; what it meets on its way moves as friction with the ground allows, and slides along the pusher freely.
    The arena is [-1, 1] x [-1, 1]; the block does not leave it, and the pusher not either.

    The peers' block and pusher have the same size and success has the same meaning, but their physics have mass,
    damping and friction between the two: numbers are not comparable one by one.

    Attributes:
        unit: thickness of the bars of the T, which is four units wide and long.
        radius: of the pusher.
        reach: longest way of the pusher in a step.
        criterion: `coverage`: the block covers `covered` of the goal; `pose`: pusher and block together are within
            `tolerance` of the goal's, and the angle within `turn`.
        covered: share of the goal.
        tolerance: root of the squared distances of pusher and block, 20 of the peers' pixels by default.
        turn: rad.
        goal_drawn: draw a goal for every episode, instead of the middle of the arena and 45 degrees.
        goal_after: the goal is where so many steps of random pushes lead from the start, so that it can be reached in
            as many; 0 for a goal that is fixed or drawn.
        goal_pushed: draw until the block is not where it should be already, by `tolerance` or `turn`: of the goals that
            random pushes lead to, going straight to the pusher's place reaches half.
        goal_seen: draw the goal of the block.
        dense: reward coverage, 1 when `covered`, instead of 1 for success and 0 elsewhere.
        stop: end the episode at success.
        substeps: pieces of the way in which contacts are resolved.
        size: side of the picture in pixels.
        dt: seconds that one step lasts.

    Reference:
        Florence et al., 2021, "Implicit Behavioral Cloning"; Chi et al., 2023, "Diffusion Policy".
    """

    unit: float = 30 * PIXEL
    radius: float = 15 * PIXEL
    reach: float = 0.2
    criterion: Literal["coverage", "pose"] = "coverage"
    covered: float = 0.95
    tolerance: float = 20 * PIXEL
    turn: float = math.pi / 9
    goal_drawn: bool = False
    goal_after: int = 0
    goal_pushed: bool = False
    goal_seen: bool = True
    dense: bool = True
    stop: bool = False
    substeps: int = 10
    size: int = 64
    dt: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        positive(self, "unit", "radius", "reach", "covered", "tolerance", "turn", "substeps", "size", "dt")
        if self.unit > 0.2 or self.radius > 0.2 or self.covered > 1:
            found = f"{self.unit}, {self.radius} and {self.covered}"
            raise ConfigError(f"PushT.unit and radius are at most 0.2 and covered at most 1, found {found}")
        if self.goal_after < 0 or (self.goal_after and self.goal_drawn):
            raise ConfigError(
                f"PushT.goal_after is a number of steps, without goal_drawn, found {self.goal_after} "
                f"and {self.goal_drawn}"
            )
        if self.goal_pushed and not self.goal_after:
            raise ConfigError(
                "PushT.goal_pushed asks how random pushes moved the block: set goal_after too, such as 25"
            )
        if self.criterion not in ("coverage", "pose"):
            raise ConfigError(f"PushT.criterion is coverage or pose, found {self.criterion!r}")

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        return "push T"

    @property
    def width(self) -> int:
        """S, 10 numbers."""
        return 10

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        return False

    @property
    def obs(self) -> Mapping[str, Space]:
        """Pusher, block, sine and cosine of its angle, and the picture."""
        return {"obs": numbers(6), "image": picture(self.size)}

    @property
    def action(self) -> Space:
        """Where the pusher goes."""
        return numbers(2, 1.0)

    @cached_property
    def tee(self) -> Tee:
        """The shape of the block."""
        return Tee(self.unit)

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, 10]: the block anywhere with room around it, the pusher beside it."""
        now, goal = self._drawn(rng, n), self._drawn(rng, n)
        if self.goal_after:
            state = np.concatenate([now, self._pushed_about(rng, now)], 1)
            missing = np.flatnonzero(~self._pushed(state)) if self.goal_pushed else ()
            if len(missing):
                state[missing] = self.start(rng, len(missing))
            return state
        if not self.goal_drawn:
            goal[:, 2:] = HOME
            goal[:, :2] = self._beside(rng, goal[:, 2:])
        return np.concatenate([now, goal], 1)

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Move the pusher to the action, pushing what is in its way; None stays where it is."""
        place, pose = state[:, :2].copy(), state[:, 2:5].copy()
        way = np.zeros_like(place) if action is None else taken(self, action, len(state)) - place
        length = np.linalg.norm(way, axis=1, keepdims=True)
        way *= np.minimum(1, self.reach / np.maximum(length, 1e-12))
        close = self.tee.contact(place, pose, self.radius)[0] > -self.reach
        if not close.any():
            place += way
        else:
            for _ in range(self.substeps):
                place, pose = self.slide(place + way / self.substeps, pose)
        return np.concatenate([place, pose, state[:, 5:]], 1)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return pusher and block [N, 6] and the picture [N, 3, H, W]."""
        angle = state[:, 4:5]
        return {
            "obs": np.concatenate([state[:, :4], np.sin(angle), np.cos(angle)], 1).astype(np.float32),
            "image": self.render(state),
        }

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return pusher, block and goal, [N, 10]."""
        return {"state": state.copy()}

    def coverage(self, state: np.ndarray) -> np.ndarray:
        """Return which share of the goal the block covers, [N]."""
        return self.tee.coverage(state[:, 2:5], state[:, 7:])

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Return the share of the goal that is not covered, or the distance of pusher and block together, [N]."""
        if self.criterion == "coverage":
            return 1 - self.coverage(state)
        return np.linalg.norm(state[:, :4] - state[:, 5:9], axis=1)

    def success(self, state: np.ndarray) -> np.ndarray:
        """Say where the block (and by `pose` the pusher) is where it belongs, [N]."""
        if self.criterion == "coverage":
            return self.coverage(state) > self.covered
        return (self.distance(state) < self.tolerance) & (angle_between(state[:, 4], state[:, 9]) < self.turn)

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where the goal is reached and that ends the episode, [N]."""
        return self.success(state) & self.stop

    def places(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pusher and block now and at the goal, [N, 5] each: x, y, x, y, angle."""
        return state[:, :5].copy(), state[:, 5:].copy()

    def placed(self, state: np.ndarray, start: np.ndarray | None = None, goal: np.ndarray | None = None) -> np.ndarray:
        """Return states [N, 10] with another start or goal, [N, 5] each: pusher x, y, block x, y, angle.

        Raises:
            ConfigError: outside the arena, the pusher inside the block, or not five numbers.
        """
        state = state.copy()
        for what, given, at in (("start", start, slice(0, 5)), ("goal", goal, slice(5, 10))):
            if given is not None:
                found = placed_at(f"{self.name}, {what}", given, len(state), 5)
                outside = max(np.abs(found[:, :2]).max(), np.abs(to_world(self.tee.corners, found[:, 2:])).max()) - 1
                if outside > TOUCH:
                    raise ConfigError(f"{self.name}: the {what} {given} lies outside the arena, [-1, 1] x [-1, 1]")
                if self.tee.contact(found[:, :2], found[:, 2:], self.radius)[0].max() > TOUCH:
                    raise ConfigError(f"{self.name}: the {what} {given} has the pusher inside the block")
                state[:, at] = found
        return state

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Return the states with pusher and block at the goal, [N, 10]."""
        return np.concatenate([state[:, 5:], state[:, 5:]], 1)

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return the coverage over `covered`, at most 1; 1 for success and 0 elsewhere unless `dense`."""
        if not self.dense:
            return self.success(reached).astype(float)
        return np.minimum(1, self.coverage(reached) / self.covered)

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return where to go [N, 2] so that the block, and then the pusher, comes to its goal."""
        return push_towards(self, state)

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw goal (if it is seen), block and pusher, uint8 [N, 3, H, W], at the world's size or another."""
        side = size or self.size
        pusher = disc_cover((state[:, :2] + 1) / 2, np.full(len(state), self.radius / 2), side)
        covers = [self._cover(state[:, 2:5], side), pusher]
        colours: list[Colour] = [BLOCK, PUSHER]
        if self.goal_seen:
            covers, colours = [self._cover(state[:, 7:], side), *covers], [GOAL, *colours]
        ground = np.broadcast_to(np.array(GROUND, float)[:, None, None], (3, side, side))
        return paint(ground, covers, colours)

    def slide(self, place: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Push blocks out of pushers and into the arena; a pusher gives way to a block that cannot.

        Args:
            place: of pushers, [N, 2].
            pose: of blocks, [N, 3].

        Returns:
            Both, as they end.
        """
        depth, point, out = self._touching(place, pose)
        if not depth.any():
            return place, pose
        for _ in range(ROUNDS):
            pose = self.tee.pushed(pose, depth, point, out)
            depth, point, out = self._touching(place, pose)
            if not depth.any():
                break
        corners = to_world(self.tee.corners, pose)
        pose[:, :2] += np.maximum(-1 - corners.min(1), 0) - np.maximum(corners.max(1) - 1, 0)
        for _ in range(ROUNDS):
            depth, _, out = self._touching(place, pose)
            if not depth.any():
                break
            place = place + turned(out, pose[:, 2]) * depth[:, None]
        return np.clip(place, -1, 1), pose

    def _touching(self, place: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return contacts; the depth [N] is 0 where there is none worth the name, whatever the other rows do."""
        depth, point, out = self.tee.contact(place, pose, self.radius)
        return np.where(depth > NOTHING, depth, 0), point, out

    def _drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw pushers and blocks, [n, 5]."""
        room = 1 - 3 * self.unit  # the furthest corner is less than 2.7 units from the centre of mass
        block = np.concatenate([rng.uniform(-room, room, (n, 2)), rng.uniform(-math.pi, math.pi, (n, 1))], 1)
        return np.concatenate([self._beside(rng, block), block], 1)

    def _pushed(self, state: np.ndarray) -> np.ndarray:
        """Say where the block has to be moved, [N] bool."""
        far = np.linalg.norm(state[:, 2:4] - state[:, 7:9], axis=1) >= self.tolerance
        return far | (angle_between(state[:, 4], state[:, 9]) >= self.turn)

    def _pushed_about(self, rng: np.random.Generator, now: np.ndarray) -> np.ndarray:
        """Let pushers go to places drawn at random, and return where they and the blocks end, [n, 5]."""
        state, towards = np.concatenate([now, now], 1), rng.uniform(-1, 1, (len(now), 2))
        for step in range(self.goal_after):
            if step and step % HELD == 0:
                towards = rng.uniform(-1, 1, (len(now), 2))
            state = self.step(state, towards)
        return state[:, :5]

    def _beside(self, rng: np.random.Generator, pose: np.ndarray) -> np.ndarray:
        """Draw places [N, 2] for pushers off the blocks."""
        place = np.zeros((len(pose), 2))
        missing = np.arange(len(pose))
        while len(missing):
            place[missing] = rng.uniform(-1 + self.radius, 1 - self.radius, (len(missing), 2))
            missing = missing[self.tee.contact(place[missing], pose[missing], self.radius)[0] > 0]
        return place

    def _cover(self, pose: np.ndarray, size: int) -> np.ndarray:
        """Say how much of every pixel the T covers, [N, H, W]."""
        half = np.float32(size / 2)
        middle = (np.arange(size, dtype=np.float32) + 0.5) - half
        across, up = (middle - half * pose[:, 0, None], -middle - half * pose[:, 1, None])
        cos, sin = np.cos(pose[:, 2, None]), np.sin(pose[:, 2, None])
        # in pixels along the axes of the block
        x = (cos * across).astype(np.float32)[:, None, :] + (sin * up).astype(np.float32)[:, :, None]
        y = (-sin * across).astype(np.float32)[:, None, :] + (cos * up).astype(np.float32)[:, :, None]
        x = np.abs(x)  # both bars are symmetric
        found = np.zeros_like(x)
        for low, high in zip(half * self.tee.low, half * self.tee.high, strict=True):
            within = np.abs(y - np.float32((low[1] + high[1]) / 2))
            along = np.clip(np.float32((high[1] - low[1]) / 2 + 0.5) - within, 0, 1)
            found += np.clip(np.float32(high[0] + 0.5) - x, 0, 1) * along
        return np.minimum(found, 1)
