"""The contract of a world: what it holds, how it moves, what is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.spaces import Space


class World(Protocol):
    """A system whose state is known exactly; every world is a frozen dataclass of its parameters.

    A state is float64 [N, S], N independent copies of the world. `step` is pure: the same state, action
    and generator give the same next state, so that keeping the array (and the generator) keeps the world.
    """

    @property
    def name(self) -> str:
        """A word or two for messages and records."""
        ...

    @property
    def dt(self) -> float:
        """Seconds that one step lasts."""
        ...

    @property
    def width(self) -> int:
        """S, numbers in a state."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws random numbers."""
        ...

    @property
    def obs(self) -> Mapping[str, Space]:
        """Observation spaces by name."""
        ...

    @property
    def action(self) -> Space | None:
        """The action space; None for a world that goes on by itself."""
        ...

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n start states [n, S]."""
        ...

    def step(
        self, state: np.ndarray, action: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return the states [N, S] one step later, under actions [N, A] in source units (None: zero)."""
        ...

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is seen, name to [N, ...], in the form at rest: float32, images uint8 [N, 3, H, W]."""
        ...

    def truth(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is stored under `truth/`, name to [N, ...] float64; `state` is the state itself."""
        ...


class Acting(World, Protocol):
    """A world with an action, and something to aim for."""

    def reward(self, state: np.ndarray, action: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Return what going from `state` by `action` [N, A] to `reached` earns, [N]."""
        ...


@runtime_checkable
class Ending(Acting, Protocol):
    """A world whose episodes may have a terminal state."""

    def over(self, state: np.ndarray) -> np.ndarray:
        """Say where no future exists, [N] bool."""
        ...


@runtime_checkable
class Guided(Acting, Protocol):
    """A world in which somebody who knows its state and its laws can act well: a ceiling to set agents beside."""

    def oracle(self, state: np.ndarray) -> np.ndarray:
        """Return good actions [N, A] at states [N, S]; [N] for discrete ones."""
        ...


@runtime_checkable
class Aiming(Ending, Protocol):
    """A world with a goal. The goal is part of the state, so that a state says all there is to know of a task."""

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Return how far the goal is, [N], in the units of the world's own `tolerance`."""
        ...

    def success(self, state: np.ndarray) -> np.ndarray:
        """Say where the goal is reached, [N] bool."""
        ...

    def places(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return start and goal of states, [N, G] each: the coordinates that `placed` takes."""
        ...

    def placed(self, state: np.ndarray, start: np.ndarray | None = None, goal: np.ndarray | None = None) -> np.ndarray:
        """Return states [N, S] with another start or goal, [N, G] each; None leaves what is there.

        Raises:
            ConfigError: inside a wall, or another number of coordinates.
        """
        ...

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Return the states [N, S] in which the goal is just reached, at rest: what a goal picture shows."""
        ...


@runtime_checkable
class Drawn(World, Protocol):
    """A world that can be looked at, whether its observations are pictures or not."""

    def render(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Draw states [N, S], uint8 [N, 3, H, W], at the world's size or another."""
        ...


def numbers(width: int, limit: float | None = None) -> Space:
    """Describe a vector of so many numbers, all within ±limit if there is one.

    Args:
        width: how many.
        limit: bound of each; None leaves them unbounded.

    Returns:
        A vector space.
    """
    bound = () if limit is None else (float(limit),) * width
    return Space(kind="vector", shape=(width,), dtype="float32", low=tuple(-b for b in bound), high=bound)


def moves(count: int) -> Space:
    """Describe a choice between so many actions, 0 to count - 1.

    Returns:
        A discrete space.
    """
    return Space(kind="discrete", shape=(), dtype="int64", classes=(count,), start=(0,))


def picture(size: int) -> Space:
    """Describe a square RGB picture of `size` pixels a side.

    Returns:
        An image space.
    """
    return Space(kind="image", shape=(3, size, size), dtype="uint8")


def taken(world: World, action: np.ndarray | None, n: int) -> np.ndarray:
    """Clip actions to their bounds, as an environment would.

    Args:
        world: whose action space counts.
        action: [N, A], [N] for a discrete choice; None for zero.
        n: N, how many states they are for.

    Returns:
        [N, A] float64; A = 0 for a world without actions. For a discrete choice [N] int64.

    Raises:
        SpecError: another shape, a choice that there is not, or an action for a world that takes none.
    """
    space = world.action
    if space is None:
        if action is not None:
            raise SpecError(f"{world.name}: takes no action; leave it out")
        return np.zeros((n, 0))
    if space.kind == "discrete":
        return _chosen(world.name, space.classes[0], action, n)
    if action is None:
        return np.zeros((n, space.width))
    array = np.asarray(action, np.float64)
    if array.shape != (n, space.width):
        raise SpecError(f"{world.name}: actions of shape {array.shape}, expected {(n, space.width)}")
    return np.clip(array, space.low, space.high)


def _chosen(name: str, count: int, action: np.ndarray | None, n: int) -> np.ndarray:
    if action is None:
        return np.zeros(n, np.int64)
    choice = np.asarray(action)
    if choice.shape != (n,):
        raise SpecError(f"{name}: actions of shape {choice.shape}, expected {(n,)}")
    if not ((choice >= 0) & (choice < count)).all():  # false for NaN too
        raise SpecError(f"{name}: its actions are 0 to {count - 1}, found {choice.min()} to {choice.max()}")
    return np.rint(choice).astype(np.int64)


def placed_at(name: str, given: np.ndarray, n: int, width: int) -> np.ndarray:
    """Return coordinates that were given for N states as float64 [N, G]; one set [G] stands for all.

    Raises:
        ConfigError: another number of coordinates, or some that are no finite numbers.
    """
    found = np.asarray(given, np.float64)
    if found.shape not in ((width,), (n, width)) or not np.isfinite(found).all():
        raise ConfigError(f"{name}: expected {width} finite numbers, found {given}")
    return np.broadcast_to(found, (n, width))


def drawn(world: World, rng: np.random.Generator | None) -> np.random.Generator:
    """Return the generator that a stochastic step needs.

    Raises:
        ConfigError: there is none.
    """
    if rng is None:
        raise ConfigError(f"{world.name}: its steps are random; pass rng=np.random.default_rng(seed)")
    return rng


def positive(world: object, *names: str, zero: bool = False) -> None:
    """Refuse parameters that are not finite and above 0 (with `zero`, or 0 itself).

    Raises:
        ConfigError: names the field.
    """
    for name in names:
        value = getattr(world, name)
        if not (0 <= value < np.inf and (zero or value > 0)):
            least = "at least 0" if zero else "above 0"
            raise ConfigError(f"{type(world).__name__}.{name} must be {least} and finite, found {value}")
