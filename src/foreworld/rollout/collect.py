"""`collect`: let a policy act, and store what arrives as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.data.dataset import Dataset, load
from foreworld.data.schema import Source
from foreworld.envs.make import make
from foreworld.envs.vector import Vector
from foreworld.rollout.policies import NoisyPolicy, Policy, RandomPolicy, named_policy
from foreworld.rollout.record import record
from foreworld.rollout.recorder import Budget, Recorder, budget_of, recording
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
    budget = budget_of(episodes, steps)
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


def _collect(
    env: Vector,
    policy: Policy | str | None,
    out: Path,
    budget: Budget,
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
    with recording(env, out, source, budget, overwrite) as recorder:
        _run(env, chosen, recorder, seed, progress, stop)
    return load(out)


def _run(
    env: Vector,
    policy: Policy,
    recorder: Recorder,
    seed: int,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Act until the budget is spent; every episode is added whole when it ends, or up to where it was cut off."""
    rows = env.reset(seed=seed)
    while True:
        recorder.add(rows)
        if progress is not None:
            progress(recorder.done, recorder.budget.total)
        if recorder.done >= recorder.budget.total or (stop is not None and stop()):
            break
        try:
            rows = env.step(policy(rows))
        except EnvironmentFault:
            # a signal to a whole group of processes takes the workers along, which is no fault of theirs
            if stop is None or not stop():
                raise
            break
