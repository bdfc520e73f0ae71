"""Run a world, and keep what is needed to go on from any moment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foreworld.core.restore import generator_from, generator_words, saved_fields
from foreworld.worlds.world import World


def simulate(
    world: World,
    state: np.ndarray,
    steps: int,
    *,
    actions: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Let a world go on, and return every state on the way.

    Args:
        world: any world.
        state: where to start, [N, S].
        steps: T.
        actions: [N, T, A] in source units; None for zero, or for a world that takes none.
        rng: what a stochastic world draws from; it is used up as it goes.

    Returns:
        The states [N, T + 1, S], the start first.

    Example:
        >>> import numpy as np
        >>> from foreworld.worlds import Pendulum, simulate
        >>> world = Pendulum()
        >>> states = simulate(world, world.start(np.random.default_rng(0), 3), steps=200)
        >>> energy = world.energy(states[0])
        >>> states.shape, bool(abs(energy[-1] - energy[0]) < 1e-6)
        ((3, 201, 2), True)
    """
    found = np.empty((len(state), steps + 1, world.width))
    found[:, 0] = state
    for t in range(steps):
        found[:, t + 1] = world.step(found[:, t], None if actions is None else actions[:, t], rng)
    return found


def frozen(state: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Keep a moment of a world as plain arrays: what `thawed` returns goes on exactly alike, bit by bit.

    Args:
        state: [N, S].
        rng: the generator that the world draws from; it is left as it is.

    Returns:
        `state` float64 [N, S] and `random` uint64 [6].
    """
    return {"state": state.copy(), "random": generator_words(rng)}


def thawed(saved: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.random.Generator]:
    """Return what `frozen` kept.

    Args:
        saved: `state` [N, S] and `random` [6].

    Returns:
        The state [N, S] and the generator.

    Raises:
        DataError: not what `frozen` returns.

    Example:
        >>> import numpy as np
        >>> from foreworld.worlds import Fork, frozen, simulate, thawed
        >>> world, rng = Fork(), np.random.default_rng(0)
        >>> state = world.start(rng, 4)
        >>> saved = frozen(state, rng)
        >>> went = simulate(world, state, 20, rng=rng)
        >>> state, rng = thawed(saved)
        >>> bool((simulate(world, state, 20, rng=rng) == went).all())
        True
    """
    fields = saved_fields(saved, {"state": None, "random": (6,)})
    return fields["state"].copy(), generator_from(fields["random"])
