"""`record`: store what a world without actions shows, as plain video or vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.config import to_json
from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.files import claim_output
from foreworld.core.registry import unknown
from foreworld.core.spaces import Space, Spec
from foreworld.data.dataset import Dataset, load
from foreworld.data.episode import Episode
from foreworld.data.schema import Source
from foreworld.data.store import Writer
from foreworld.worlds.catalogue import build, entry
from foreworld.worlds.simulate import simulate
from foreworld.worlds.world import World

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""

BATCH = 16
"""Episodes that are simulated together; it decides which random numbers an episode gets."""

EPISODE_STEPS = 100
"""Steps of an episode of a world that has no id."""


def record(
    world: World | str,
    *,
    out: str | Path,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    image_size: int | None = None,
    keys: Sequence[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Dataset:
    """Simulate a world that takes no action and store its episodes, the state of the world as `truth/state`.

    The same seed gives the same shards, byte for byte, and more episodes only add to them.

    Args:
        world: an id such as `foreworld/Lorenz63-v0`, or a world.
        out: folder of the dataset.
        episodes: how many to store; give this or `steps`.
        steps: how many steps to store in all; the last episode may be shorter for it.
        seed: of start states and random steps.
        max_steps: steps of an episode; None for what the id stands for, or 100.
        image_size: side of the pictures, drawn at that size, when `world` is an id; None for 64.
        keys: observation keys to keep; None keeps all. The state is always kept.
        progress: called with (done, total), in episodes or steps.
        stop: asked after every episode; when it says yes, those done until then are kept.
        overwrite: replace what is at `out`.
        **parameters: when `world` is an id, fields of the world that differ from what it stands for.

    Returns:
        The dataset, opened.

    Raises:
        ConfigError: not exactly one of `episodes` and `steps`, a number below 1, a world that takes actions, or
            parameters that it does not have.
        DataError: stopped before the first episode was done.
        OutputExists: `out` is there and `overwrite` is false.
        SpecError: an unknown observation key, or none.
        UnknownName: no world has that id.

    Example:
        >>> import tempfile
        >>> from foreworld.rollout import record
        >>> from foreworld.worlds import Pendulum
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = record(Pendulum(damping=0.2), episodes=3, max_steps=50, out=f"{folder}/swings")
        ...     data.spec.action is None, data.episode(0).obs["obs"].shape
        (True, torch.Size([1, 51, 3]))
    """
    chosen, source, usual = _chosen(world, image_size, parameters)
    source = replace(source, seed=seed, options={**source.options, "keys": keys and list(keys), "max_steps": max_steps})
    lengths = _lengths(episodes, steps, usual if max_steps is None else max_steps)
    spec = Spec(obs=_kept(chosen, keys), action=None, fps=1 / chosen.dt)
    claim_output(Path(out), overwrite)
    done, total = 0, sum(lengths) if episodes is None else len(lengths)
    with Writer(out, spec, truth=_truth(chosen), source=source) as writer:
        for length, episode in zip(lengths, _episodes(chosen, lengths, list(spec.obs), seed), strict=True):
            writer.add(episode)
            done += length if episodes is None else 1
            if progress is not None:
                progress(done, total)
            if stop is not None and stop():
                break
    return load(out)


def _chosen(world: World | str, image_size: int | None, parameters: Mapping[str, Any]) -> tuple[World, Source, int]:
    """Return the world, where its rows come from, and the usual number of steps of its episodes."""
    if isinstance(world, str):
        made, usual = build(world, image_size=image_size, **parameters), entry(world).steps
        source = Source(env=world, options={"image_size": image_size, **parameters})
    elif parameters or image_size is not None:
        raise ConfigError(f"{world.name}: parameters and image_size go with an id; a world has its own, so change it")
    else:
        made, usual = world, EPISODE_STEPS
        source = Source(env=world.name, options=to_json(world))
    if made.action is not None:
        raise ConfigError(f"{source.env}: takes an action, and a recording has none; use fw.collect")
    return made, source, usual


def _lengths(episodes: int | None, steps: int | None, each: int) -> list[int]:
    """Return how many steps every episode has."""
    total = episodes if steps is None else steps
    if total is None or (episodes is not None and steps is not None):
        raise ConfigError("say how much to record: either episodes or steps")
    if total < 1 or each < 1:
        raise ConfigError(f"episodes, steps and max_steps must be at least 1, found {total} and {each}")
    if episodes is not None:
        return [each] * episodes
    return [each] * (total // each) + [total % each] * (total % each > 0)


def _kept(world: World, keys: Sequence[str] | None) -> dict[str, Space]:
    """Return the observations that are kept."""
    for key in keys or ():
        if key not in world.obs:
            raise SpecError(unknown("observation key", key, list(world.obs)))
    if keys is not None and not keys:
        raise SpecError(f"no observation key is kept; choose from {', '.join(world.obs)}")
    return {key: space for key, space in world.obs.items() if keys is None or key in keys}


def _truth(world: World) -> dict[str, Space]:
    found = world.truth(world.start(np.random.default_rng(0), 1))
    return {key: Space(kind="vector", shape=value.shape[1:], dtype="float32") for key, value in found.items()}


def _episodes(world: World, lengths: Sequence[int], keys: Sequence[str], seed: int) -> Iterator[Episode]:
    """Simulate the episodes, always `BATCH` at a time, so that a larger number begins with the same ones."""
    for first in range(0, len(lengths), BATCH):
        batch = lengths[first : first + BATCH]
        rng = np.random.default_rng([seed, first // BATCH])
        went = simulate(world, world.start(rng, BATCH), max(batch), rng=rng)
        for length, states in zip(batch, went, strict=False):
            seen = world.observe(states[: length + 1])
            yield Episode(obs={key: seen[key] for key in keys}, truth=world.truth(states[: length + 1]))
