"""The worlds by id, each with the parameters and the length of an episode that the id stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from foreworld.core.errors import ConfigError, UnknownName
from foreworld.core.registry import unknown
from foreworld.worlds.balls import Balls
from foreworld.worlds.catch import Catch
from foreworld.worlds.double_pendulum import DoublePendulum
from foreworld.worlds.fork import Fork
from foreworld.worlds.linear import Linear
from foreworld.worlds.lorenz import Lorenz63
from foreworld.worlds.maze import PointMaze
from foreworld.worlds.pendulum import Pendulum
from foreworld.worlds.push import PushT
from foreworld.worlds.reach import Reach
from foreworld.worlds.rooms import TwoRooms
from foreworld.worlds.world import World


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What an id stands for.

    Attributes:
        world: the world with its parameters.
        steps: of an episode, unless told otherwise.
        about: a few words.
    """

    world: World
    steps: int
    about: str


WORLDS: Mapping[str, Entry] = {
    "foreworld/Balls-v0": Entry(world=Balls(), steps=100, about="three elastic discs in a box; pictures, no actions"),
    "foreworld/Catch-v0": Entry(
        world=Catch(), steps=9, about="a ball falls, a paddle moves under it or not; pictures, three moves"
    ),
    "foreworld/DampedPendulum-v0": Entry(
        world=Pendulum(damping=0.5), steps=100, about="a pendulum that comes to rest; vectors, no actions"
    ),
    "foreworld/DoublePendulum-v0": Entry(
        world=DoublePendulum(torque=10.0, damping=0.1), steps=200, about="torques at both joints; vectors"
    ),
    "foreworld/Fork-v0": Entry(
        world=Fork(), steps=24, about="a ball turns left (70 %) or right by chance; pictures and vectors, no actions"
    ),
    "foreworld/FreeDoublePendulum-v0": Entry(
        world=DoublePendulum(),
        steps=200,
        about="without friction, often chaotic; vectors, no actions",
    ),
    "foreworld/FreePendulum-v0": Entry(
        world=Pendulum(), steps=100, about="a pendulum without friction; vectors, no actions"
    ),
    "foreworld/Linear-v0": Entry(
        world=Linear(actions=2), steps=100, about="four numbers, two actions, spectral radius 0.97; vectors"
    ),
    "foreworld/Lorenz63-v0": Entry(
        world=Lorenz63(), steps=200, about="the chaotic attractor of 1963; vectors, no actions"
    ),
    "foreworld/Pendulum-v0": Entry(
        world=Pendulum(torque=5.0, damping=0.05), steps=200, about="a torque swings it up; vectors"
    ),
    "foreworld/PointMaze-v0": Entry(
        world=PointMaze(), steps=150, about="a mass is pushed round a wall to a goal; vectors"
    ),
    "foreworld/PointMazeLarge-v0": Entry(
        world=PointMaze(layout="large"), steps=400, about="the same in a maze of 10 by 7 cells; vectors"
    ),
    "foreworld/PointMazeMedium-v0": Entry(
        world=PointMaze(layout="medium"), steps=250, about="the same in a maze of 6 by 6 cells; vectors"
    ),
    "foreworld/PushBalls-v0": Entry(
        world=Balls(push=6.0, drag=3.0), steps=100, about="three discs, one to be pushed into a corner; pictures"
    ),
    "foreworld/PushT-v0": Entry(
        world=PushT(), steps=200, about="a disc pushes a T to where it belongs; pictures and vectors"
    ),
    "foreworld/Reach-v0": Entry(
        world=Reach(), steps=50, about="a dot is steered to a mark, paid at every step; pictures, five moves"
    ),
    "foreworld/Rotation-v0": Entry(
        world=Linear(modes=((1.0, 0.2), (1.0, 0.37))),
        steps=100,
        about="two turning planes, radius 1; vectors, no actions",
    ),
    "foreworld/TwoRooms-v0": Entry(
        world=TwoRooms(), steps=200, about="a dot goes through a door to a goal in the other room; pictures"
    ),
}
"""Ids, each with its world."""


def entry(env_id: str) -> Entry:
    """Return what an id stands for.

    Raises:
        UnknownName: no world has that id; the message lists near matches.
    """
    if env_id not in WORLDS:
        raise UnknownName(unknown("world", env_id, list(WORLDS)))
    return WORLDS[env_id]


def passive(env_id: str) -> bool:
    """Return whether an id stands for a world that takes no action, so that there is nothing to decide in it."""
    return env_id in WORLDS and WORLDS[env_id].world.action is None


def build(env_id: str, *, image_size: int | None = None, **parameters: Any) -> World:
    """Return a world by its id.

    Args:
        env_id: `foreworld/<World>-v0`, as `foreworld list envs` shows them.
        image_size: side of its pictures, if it shows any; None for its own, 64.
        **parameters: fields of the world that differ from what the id stands for.

    Raises:
        UnknownName: no world has that id.
        ConfigError: a parameter that the world does not have, or a value that it refuses.

    Example:
        >>> build("foreworld/Pendulum-v0", gravity=1.62).gravity
        1.62
    """
    world: Any = entry(env_id).world
    known = [field.name for field in fields(world)]
    for name in parameters:
        if name not in known:
            raise ConfigError(f"{env_id}: {unknown('parameter', name, known)}")
    if image_size is not None and "size" in known:
        parameters = {"size": image_size} | parameters
    return replace(world, **parameters)


def rebuild(env_id: str, options: Mapping[str, Any]) -> World:
    """Return the world of an environment or a dataset, by its id and the options that it was made with.

    Args:
        env_id: `foreworld/<World>-v0`.
        options: fields of the world, `image_size`, and whatever else was noted, which is left aside.

    Raises:
        UnknownName: no world has that id.
        ConfigError: a value that the world refuses.
    """
    known = {field.name for field in fields(cast(Any, entry(env_id).world))}
    size = options.get("image_size")
    parameters = {name: value for name, value in options.items() if name in known}
    return build(env_id, image_size=size if isinstance(size, int) else None, **parameters)
