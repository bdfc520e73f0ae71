"""`collect`: let a policy act, and store what arrives as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from foreworld.core.errors import ConfigError, UnknownName
from foreworld.core.files import claim_output
from foreworld.core.registry import unknown
from foreworld.core.spaces import Space
from foreworld.data.dataset import Dataset, load
from foreworld.data.episode import Episode
from foreworld.data.schema import Source
from foreworld.data.store import Writer
from foreworld.envs.make import make
from foreworld.envs.vector import Rows, Vector

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""


class Policy(Protocol):
    """What chooses actions; it keeps its own memory, and clears it where `is_first`."""

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row, as the environment takes them.

        Where `is_last`, any value will do: it is ignored. Where `arrived` is false, nothing
        new was seen: memory must stay as it is, and the action is ignored or asked for again.
        """
        ...


class RandomPolicy:
    """Choose uniformly, and hold each action for a geometric number of steps.

    Args:
        action: the action space; an unbounded component is drawn from a standard normal.
        seed: the same seed, the same actions.
        repeat: mean number of steps that an action is held, >= 1. Holding makes a random
            agent go somewhere, where a fresh action every step only trembles.
    """

    def __init__(self, action: Space, seed: int = 0, repeat: float = 1.0) -> None:
        """Start the generator."""
        if repeat < 1:
            raise ConfigError(f"repeat is a mean number of steps and at least 1, found {repeat}")
        self._action, self._change = action, 1 / repeat
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
        self._held: np.ndarray | None = None

    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        count = len(rows.is_first)
        fresh = self._draw(count)
        change = (self._rng.random(count) < self._change) | rows.is_first
        held = fresh if self._held is None else self._held
        self._held = np.where(change.reshape(count, *[1] * len(self._action.shape)), fresh, held)
        return self._held

    def _draw(self, count: int) -> np.ndarray:
        space, shape = self._action, (count, *self._action.shape)
        if space.kind == "discrete":
            start = np.asarray(space.start)
            drawn = self._rng.integers(start, start + np.asarray(space.classes), size=(count, len(space.classes)))
        elif space.bounded:
            drawn = self._rng.uniform(space.low, space.high, size=(count, space.width))
        else:
            drawn = self._rng.standard_normal((count, space.width))
        return drawn.astype(space.dtype).reshape(shape)


def collect(
    env: Vector | str,
    policy: Policy | str | None = None,
    *,
    out: str | Path,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    num_envs: int = 1,
    max_steps: int | None = None,
    repeat: float = 1.0,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Let a policy act and store its episodes: the same seed gives the same shards, byte for byte.

    With `episodes`, each environment runs a fixed share of them, so that short episodes are
    not favoured over the long ones still running. With `steps`, exactly so many actions are
    taken in all, and episodes still open at the end are kept as truncated.

    Args:
        env: an environment id, or an open `Vector` (which stays open).
        policy: what chooses actions; None or `random` for uniformly random ones.
        out: folder of the dataset.
        episodes: how many to store; give this or `steps`.
        steps: how many actions to take.
        seed: of the environments and the random policy.
        num_envs: environments run side by side, when `env` is an id.
        max_steps: steps after which an episode is cut off, when `env` is an id.
        repeat: mean number of steps that the random policy holds an action.
        progress: called with (done, total), in episodes or steps.
        overwrite: replace what is at `out`.

    Returns:
        The dataset, opened.

    Raises:
        ConfigError: not exactly one of `episodes` and `steps`.
        OutputExists: `out` is there and `overwrite` is false.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/cartpole")
        ...     data.episodes, data.episode(0).obs["obs"].shape[-1]
        (3, 4)
    """
    budget = _budget(episodes, steps)
    if isinstance(env, Vector):
        if max_steps is not None:
            raise ConfigError("max_steps belongs to `make`: pass it where the environment is opened")
        return _collect(env, policy, Path(out), budget, seed, repeat, progress, overwrite)
    opened = make(env, num_envs=min(num_envs, episodes or num_envs), max_steps=max_steps)
    try:
        return _collect(opened, policy, Path(out), budget, seed, repeat, progress, overwrite)
    finally:
        opened.close()


@dataclass(frozen=True)
class _Budget:
    """How much to collect, and in what it is counted."""

    total: int
    of_episodes: bool

    def share(self, index: int, envs: int) -> float:
        """Return how many episodes environment `index` may store."""
        return self.total // envs + (index < self.total % envs) if self.of_episodes else float("inf")


@dataclass
class _Stream:
    """The rows of one environment's open episode, and how many episodes it has stored."""

    rows: list[tuple[Rows, int]] = field(default_factory=list)
    stored: int = 0

    def episode(self) -> Episode:
        """Stack the rows into an episode and begin anew."""
        taken, self.rows = self.rows, []
        last, index = taken[-1]
        self.stored += 1
        return Episode(
            obs={key: np.stack([row.obs[key][i] for row, i in taken]) for key in last.obs},
            prev_action=np.stack([row.prev_action[i] for row, i in taken]),
            reward=np.stack([row.reward[i] for row, i in taken]),
            is_terminal=bool(last.is_terminal[index]),
            truth={key: np.stack([row.truth[key][i] for row, i in taken]) for key in last.truth},
        )


def _budget(episodes: int | None, steps: int | None) -> _Budget:
    if (episodes is None) == (steps is None):
        raise ConfigError("say how much to collect: either episodes or steps")
    total = episodes if episodes is not None else steps
    assert total is not None
    if total < 1:
        raise ConfigError(f"episodes and steps must be at least 1, found {total}")
    return _Budget(total, episodes is not None)


def _collect(
    env: Vector,
    policy: Policy | str | None,
    out: Path,
    budget: _Budget,
    seed: int,
    repeat: float,
    progress: Progress | None,
    overwrite: bool,
) -> Dataset:
    if isinstance(policy, str) and policy != "random":
        raise UnknownName(unknown("policy", policy, ["random"]))
    chosen = RandomPolicy(env.action, seed, repeat) if policy is None or isinstance(policy, str) else policy
    name = "random" if isinstance(chosen, RandomPolicy) else getattr(chosen, "__name__", type(chosen).__name__)
    options = {**env.options, "num_envs": env.num_envs, "repeat": repeat}
    claim_output(out, overwrite)
    with Writer(
        out, env.spec, truth=env.truth, source=Source(env=env.env_id, policy=name, seed=seed, options=options)
    ) as writer:
        _run(env, chosen, writer, budget, seed, progress)
    return load(out)


def _run(env: Vector, policy: Policy, writer: Writer, budget: _Budget, seed: int, progress: Progress | None) -> None:
    """Act until the budget is spent; every episode is added whole when it ends."""
    streams = [_Stream() for _ in range(env.num_envs)]
    shares = [budget.share(index, env.num_envs) for index in range(env.num_envs)]
    done, rows = 0, env.reset(seed=seed)
    while True:
        for index, stream in enumerate(streams):
            counts = not budget.of_episodes and not rows.is_first[index]
            if not rows.arrived[index] or stream.stored >= shares[index] or (counts and done >= budget.total):
                continue
            stream.rows.append((rows, index))
            done += counts
            if rows.is_last[index]:
                writer.add(stream.episode())
                done += budget.of_episodes
        if progress is not None:
            progress(done, budget.total)
        if done >= budget.total:
            break
        rows = env.step(policy(rows))
    for stream in streams:
        if len(stream.rows) > 1:  # an episode that was cut off by the budget; one row alone says nothing
            writer.add(stream.episode())
