"""`make`: open environments by id as a `Vector` of arrival rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from foreworld.core import registry
from foreworld.core.errors import ConfigError, EnvironmentFault, ForeworldError, MissingExtra, UnknownName
from foreworld.envs.contract import Guard
from foreworld.envs.driver import Builder
from foreworld.envs.fleet import Local
from foreworld.envs.mujoco import make_mujoco
from foreworld.envs.own import own_class
from foreworld.envs.vector import Vector
from foreworld.envs.workers import Workers
from foreworld.envs.wrappers import KeepKeys, ResizeImages, has_size

PLUGINS = {"MiniGrid-": ("minigrid", "minigrid"), "BabyAI-": ("minigrid", "minigrid")}
"""Prefix of ids that a package registers when it is imported, to the package and its extra."""

FAMILIES = {"PointMaze_": "robotics", "AntMaze_": "robotics"}
"""Prefix of ids without a `/` to the name under which what opens them is registered."""

MUJOCO = "gymnasium.envs.mujoco"
"""Where Gymnasium keeps its environments on MuJoCo."""

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "classic_control": "classic", "minigrid": "minigrid"}
"""Part of an entry point to the extra that installs what it needs."""


def make(
    env_id: str,
    *,
    num_envs: int = 1,
    image_size: int | None = 64,
    keys: Sequence[str] | None = None,
    max_steps: int | None = None,
    workers: bool = False,
    timeout: float = 60.0,
    fault_rate: float = 0.01,
    **options: Any,
) -> Vector:
    """Open environments by id.

    Args:
        env_id: any Gymnasium id, one whose part before `/` is registered (`ALE/Pong-v5`), or a class of your own,
            `module:Class`, installed or in the current directory.
        num_envs: N, how many.
        image_size: side to which pictures are averaged; None leaves them as they are.
        keys: observation keys to keep; None keeps all. Simulator state is always kept.
        max_steps: steps after which an episode is cut off (a truncation, no terminal state).
        workers: run every environment in a process of its own; one that dies or hangs is started again.
        timeout: seconds after which a worker that does not answer is killed.
        fault_rate: share of bad steps (values that break the declared spaces, NaN, exceptions) above which
            the run stops, once 100 were taken. A bad step is refused and counted in `Vector.tally`, its episode ends
            at the row before. Ten in a row stop the run at any rate.
        **options: passed to the environment.

    Raises:
        ConfigError: a count or size below 1.
        UnknownName: no environment has that id; the message lists near matches.
        MissingExtra: a package is not installed; the message says how to get it.
        EnvironmentFault: the environment could not be opened.
        SpecError: an unsupported space; the message names its key.

    Example:
        >>> import numpy as np
        >>> from foreworld.envs import make
        >>> env = make("CartPole-v1", num_envs=2)
        >>> rows = env.reset(seed=0)
        >>> rows = env.step(np.array([0, 1]))
        >>> rows.obs["obs"].shape, rows.prev_action.tolist(), rows.is_first.tolist()
        ((2, 4), [0, 1], [False, False])
    """
    if num_envs < 1 or (max_steps is not None and max_steps < 1) or (image_size is not None and image_size < 1):
        found = f"{num_envs}, {max_steps} and {image_size}"
        raise ConfigError(f"num_envs, max_steps and image_size must be at least 1, found {found}")
    build = builder(env_id, image_size=image_size, keys=keys, max_steps=max_steps, **options)
    builders = [build] * num_envs
    fleet = (
        Workers(builders, env_id, timeout=timeout, fault_rate=fault_rate)
        if workers
        else Local(builders, env_id, fault_rate=fault_rate)
    )
    record = {"image_size": image_size, "keys": None if keys is None else list(keys), "max_steps": max_steps}
    try:
        return Vector(fleet, env_id, record | options)
    except BaseException:
        fleet.close()
        raise


def builder(
    env_id: str,
    *,
    image_size: int | None = 64,
    keys: Sequence[str] | None = None,
    max_steps: int | None = None,
    **options: Any,
) -> Builder:
    """Return what opens one environment, in this process or another; what it gives is checked by the fleet it joins.

    Args:
        env_id: as in `make`.
        image_size: side to which pictures are averaged; None leaves them as they are.
        keys: observation keys to keep; None keeps all.
        max_steps: steps after which an episode is cut off.
        **options: passed to the environment.

    Returns:
        A function without arguments; calling it raises what `make` raises.
    """
    # what was registered by hand is unknown to a worker, which imports modules afresh
    registered = gym.registry.get(env_id)
    return partial(_one, env_id, registered, image_size=image_size, keys=keys, max_steps=max_steps, options=options)


def _one(
    env_id: str,
    registered: EnvSpec | None,
    *,
    image_size: int | None,
    keys: Sequence[str] | None,
    max_steps: int | None,
    options: dict[str, Any],
) -> gym.Env:
    """Open and wrap one environment."""
    prefix, slash, _ = env_id.partition("/")
    family = prefix if slash else next((name for start, name in FAMILIES.items() if env_id.startswith(start)), "")
    if family in registry.names("envs"):
        env: gym.Env = registry.load("envs", family)(env_id, image_size=image_size, **options)
    elif (own := own_class(env_id)) is not None:
        env = _own(env_id, own, options)
    else:
        env = _gym(env_id, registered, image_size, options)
    if max_steps is not None:
        env = TimeLimit(env, max_steps)
    if keys is not None:
        env = KeepKeys(Guard(env), keys)
    if image_size is not None and not has_size(env.observation_space, image_size):
        env = ResizeImages(Guard(env), image_size)
    return env


def _own(env_id: str, own: type[gym.Env], options: dict[str, Any]) -> gym.Env:
    try:
        return own(**options)
    except Exception as fault:
        raise EnvironmentFault(f"{env_id}: cannot be opened ({type(fault).__name__}: {fault})") from fault


def _gym(env_id: str, registered: EnvSpec | None, image_size: int | None, options: dict[str, Any]) -> gym.Env:
    if registered is not None:
        gym.registry.setdefault(env_id, registered)
    for start, (package, extra) in PLUGINS.items():
        if env_id.startswith(start):
            _import(package, extra, env_id)
    if ":" not in env_id and env_id not in gym.registry:  # Gymnasium's `module:id` registers on import
        raise UnknownName(registry.unknown("environment", env_id, list(gym.registry)))
    home = getattr(gym.registry.get(env_id), "entry_point", None)
    try:
        if isinstance(home, str) and home.startswith(MUJOCO):
            return make_mujoco(env_id, image_size=image_size, **options)
        return gym.make(env_id, disable_env_checker=True, **options)
    except ForeworldError:
        raise
    except (error.DependencyNotInstalled, ModuleNotFoundError) as fault:
        entry = str(getattr(gym.registry.get(env_id), "entry_point", ""))
        extra = next((extra for part, extra in EXTRAS.items() if part in entry), None)
        remedy = f"pip install 'foreworld[{extra}]'" if extra else "install the package that it comes with"
        raise MissingExtra(f"{env_id} needs a package that is not installed ({fault}); {remedy}") from fault
    except error.UnregisteredEnv as fault:
        raise UnknownName(f"{env_id}: {fault}") from fault
    except Exception as fault:
        raise EnvironmentFault(f"{env_id}: cannot be opened ({type(fault).__name__}: {fault})") from fault


def _import(package: str, extra: str, env_id: str) -> None:
    try:
        import_module(package)
    except ImportError as fault:
        raise MissingExtra(f"{env_id} needs {package}: pip install 'foreworld[{extra}]'") from fault
