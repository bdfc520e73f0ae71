"""`collect`: let a policy act, and store what arrives as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.core.files import claim_output
from foreworld.data.dataset import Dataset, load
from foreworld.data.episode import Episode
from foreworld.data.schema import Source
from foreworld.data.store import Writer, rows_to_seal
from foreworld.envs.make import make
from foreworld.envs.vector import Rows, Vector
from foreworld.rollout.policies import NoisyPolicy, Policy, RandomPolicy, named_policy
from foreworld.rollout.record import record
from foreworld.rollout.tape import Tape
from foreworld.worlds.catalogue import passive

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""

RECORDED = ("num_envs", "repeat", "noise", "faults")
"""What a source's options say of collecting; the others are those of the environment."""


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
    workers: bool = False,
    timeout: float = 60.0,
    fault_rate: float = 0.01,
    repeat: float = 1.0,
    noise: float = 0.0,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Let a policy act and store its episodes: the same seed gives the same shards, byte for byte.

    Finished episodes are sealed on disk as soon as 64 rows of them have gathered, later a quarter of what is
    there, and at the latest 4096 rows: a kill at any moment loses no more than that and the open episodes.
    The rule counts rows and never looks at the clock, for the sake of equal bytes. A fault of an environment cuts its
    episode off at the last good row, as truncated; `source.options["faults"]` counts them.

    With `episodes`, each environment runs a fixed share of them, so that short episodes are
    not favoured over the long ones still running. With `steps`, exactly so many actions are
    taken in all, and episodes still open at the end are kept as truncated.

    A bundled world that takes no action, such as `foreworld/Lorenz63-v0`, is recorded instead: see `record`.

    Args:
        env: an environment id, or an open `Vector` (which stays open).
        policy: what chooses actions; None or `random` for uniformly random ones, `walk` for a random walk with
            momentum (box actions), `oracle` for who knows the truth (some bundled worlds).
        out: folder of the dataset.
        episodes: how many to store; give this or `steps`.
        steps: how many actions to take.
        seed: of the environments and the random policy.
        num_envs: environments run side by side, when `env` is an id.
        max_steps: steps after which an episode is cut off, when `env` is an id.
        workers: run every environment in a watched process of its own, when `env` is an id.
        timeout: seconds that a worker may take for a step, when `env` is an id.
        fault_rate: share of bad steps above which the run stops, when `env` is an id; see `make`.
        repeat: mean number of steps that a random action is held.
        noise: share of the time at which the policy gives way to random actions.
        progress: called with (done, total), in episodes or steps.
        stop: asked after every step; when it says yes, what was done until then is kept, open episodes as truncated.
        overwrite: replace what is at `out`.

    Returns:
        The dataset, opened.

    Raises:
        ConfigError: not exactly one of `episodes` and `steps`.
        DataError: stopped before the first step was done.
        EnvironmentFault: an environment failed too often; finished episodes are kept.
        OutputExists: `out` is there and `overwrite` is false.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/cartpole")
        ...     data.episodes, data.episode(0).obs["obs"].shape[-1]
        (3, 4)
    """
    budget = _budget(episodes, steps)
    if isinstance(env, str) and passive(env):
        return _record(env, policy, noise, Path(out), episodes, steps, seed, max_steps, progress, stop, overwrite)
    if isinstance(env, Vector):
        if max_steps is not None:
            raise ConfigError("max_steps belongs to `make`: pass it where the environment is opened")
        return _collect(env, policy, Path(out), budget, seed, repeat, noise, progress, stop, overwrite)
    count = min(num_envs, episodes or num_envs)
    opened = make(env, num_envs=count, max_steps=max_steps, workers=workers, timeout=timeout, fault_rate=fault_rate)
    try:
        return _collect(opened, policy, Path(out), budget, seed, repeat, noise, progress, stop, overwrite)
    finally:
        opened.close()


def _record(
    env: str,
    policy: Policy | str | None,
    noise: float,
    out: Path,
    episodes: int | None,
    steps: int | None,
    seed: int,
    max_steps: int | None,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
    overwrite: bool,
) -> Dataset:
    if policy not in (None, "random") or noise:
        raise ConfigError(f"{env}: takes no action, so that a policy has nothing to decide; leave out policy and noise")
    return record(
        env,
        out=out,
        episodes=episodes,
        steps=steps,
        seed=seed,
        max_steps=max_steps,
        progress=progress,
        stop=stop,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Budget:
    """How much to collect, and in what it is counted."""

    total: int
    of_episodes: bool

    def share(self, index: int, envs: int) -> float:
        """Return how many episodes environment `index` may store."""
        return self.total // envs + (index < self.total % envs) if self.of_episodes else float("inf")


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
    noise: float,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
    overwrite: bool,
) -> Dataset:
    if policy is None or policy == "random":
        policy = RandomPolicy(env.action, seed, repeat)
    chosen = named_policy(policy, env, seed) if isinstance(policy, str) else policy
    name = getattr(chosen, "__name__", type(chosen).__name__)
    if isinstance(policy, str | RandomPolicy):
        name = policy if isinstance(policy, str) else "random"
    source = Source(
        env=env.env_id,
        policy=name,
        seed=seed,
        options={**env.options, "num_envs": env.num_envs, "repeat": repeat, **({"noise": noise} if noise else {})},
    )
    if noise:
        chosen = NoisyPolicy(chosen, env.action, noise, repeat, seed)
    claim_output(out, overwrite)
    with Writer(out, env.spec, truth=env.truth, source=source) as writer:
        try:
            _run(env, chosen, _Shelf(writer), budget, seed, progress, stop)
        finally:
            if any(env.tally.faults.values()):
                noted = replace(source, options={**source.options, "faults": env.tally.faults})
                replace(writer.schema, source=noted).write(out)
    return load(out)


class _Shelf:
    """Add episodes to a writer, and seal them early while there are few."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def add(self, episode: Episode) -> None:
        """Add an episode."""
        self._writer.add(episode)
        gathered = self._writer.gathered
        if gathered >= rows_to_seal(self._writer.rows - gathered):
            self._writer.seal()


class _Recorder:
    """Cut the rows that arrive into episodes, shelve those, and keep account of the budget.

    Attributes:
        done: how much of the budget is spent, in episodes or steps.
    """

    def __init__(self, shelf: _Shelf, budget: _Budget, envs: int) -> None:
        self.done = 0
        self._shelf, self._budget, self._tape = shelf, budget, Tape(envs)
        self._left = [budget.share(index, envs) for index in range(envs)]  # episodes that each may still store

    def add(self, rows: Rows) -> None:
        """Record what arrived; where an episode ended or another began, shelve it."""
        kept = self._within_budget(rows)
        self._tape.add(rows, kept)
        now = self._tape.length
        for index in (rows.is_first | (rows.is_last & kept)).nonzero()[0].tolist():
            if rows.is_first[index]:
                self._shelve(self._tape.cut(index, now - 1), index)  # what followed the last row never came
                if self._left[index] > 0:
                    self._tape.begin(index)
            else:
                self._shelve(self._tape.cut(index, now, is_terminal=bool(rows.is_terminal[index])), index)

    def finish(self) -> None:
        """Shelve what there is of the episodes that will not go on."""
        for index in range(len(self._left)):
            self._shelve(self._tape.cut(index, self._tape.length), index)

    def _within_budget(self, rows: Rows) -> np.ndarray:
        """Return which rows are kept, [N] bool: those that arrived, unless they are steps beyond the budget."""
        if self._budget.of_episodes:
            return rows.arrived
        taken, left = rows.arrived & ~rows.is_first, self._budget.total - self.done
        count = int(np.count_nonzero(taken))
        self.done += min(count, left)
        if count <= left:
            return rows.arrived
        beyond = np.zeros_like(taken)
        beyond[np.flatnonzero(taken)[left:]] = True
        return rows.arrived & ~beyond

    def _shelve(self, episode: Episode | None, index: int) -> None:
        """Store an episode, if there is one; one row alone says nothing and is dropped."""
        if episode is None or len(next(iter(episode.obs.values()))) < 2:
            return
        self._shelf.add(episode)
        self._left[index] -= 1
        self.done += self._budget.of_episodes


def _run(
    env: Vector,
    policy: Policy,
    shelf: _Shelf,
    budget: _Budget,
    seed: int,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Act until the budget is spent; every episode is added whole when it ends, or up to where it was cut off."""
    recorder = _Recorder(shelf, budget, env.num_envs)
    rows = env.reset(seed=seed)
    while True:
        recorder.add(rows)
        if progress is not None:
            progress(recorder.done, budget.total)
        if recorder.done >= budget.total or (stop is not None and stop()):
            break
        try:
            rows = env.step(policy(rows))
        except EnvironmentFault:
            # a signal to a whole group of processes takes the workers along, which is no fault of theirs
            if stop is None or not stop():
                raise
            break
    recorder.finish()
