"""`restorable`: put an environment back to an earlier moment, whoever made it, or say that it cannot be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from foreworld.core.errors import DataError, EnvironmentFault
from foreworld.core.restore import Restorable, generator_from, generator_words, saved_fields
from foreworld.envs.contract import Guard
from foreworld.envs.mujoco import Pictured, Simulation
from foreworld.envs.wrappers import KeepKeys, ResizeImages

STATELESS = (Guard, KeepKeys, ResizeImages, Pictured, PassiveEnvChecker)
"""Wrappers that remember nothing between steps."""

CLASSIC = {
    "CartPoleEnv": ("state", "steps_beyond_terminated"),
    "PendulumEnv": ("state",),
    "AcrobotEnv": ("state",),
    "MountainCarEnv": ("state",),
    "Continuous_MountainCarEnv": ("state",),
}
"""Gymnasium's classic control: what each remembers."""


def restorable(env: gym.Env) -> Restorable | None:
    """Return what saves and restores an environment exactly, time limits and random numbers included.

    It works for environments that implement `Restorable` (the bundled worlds, Atari, the mazes of OGBench and
    Gymnasium-Robotics, PushT), for Gymnasium's MuJoCo and classic control environments, and for what `make` and
    `gym.make` wrap around them.

    Args:
        env: an open environment, wrapped or not.

    Returns:
        Its saver; None where it, or a wrapper, remembers something that cannot be known here.

    Example:
        >>> import numpy as np
        >>> from foreworld.envs import builder, restorable
        >>> env = builder("foreworld/Pendulum-v0")()
        >>> _ = env.reset(seed=0)
        >>> keeper = restorable(env)
        >>> saved = keeper.save()
        >>> went = env.step(np.array([1.0], np.float32))
        >>> keeper.restore(saved)
        >>> bool((env.step(np.array([1.0], np.float32))[0]["obs"] == went[0]["obs"]).all())
        True
    """
    wrappers = list(_wrappers(env))
    core = _core(env.unwrapped)
    if core is None or any(type(wrapper) not in (*STATELESS, TimeLimit, OrderEnforcing) for wrapper in wrappers):
        return None
    return _Wrapped(core, wrappers)


@dataclass(frozen=True)
class _Wrapped:
    """An environment with the counters of its wrappers."""

    core: Restorable
    wrappers: list[Any]

    def save(self) -> dict[str, np.ndarray]:
        elapsed = [limit._elapsed_steps for limit in self._limits()]
        if None in elapsed:
            raise EnvironmentFault("nothing to save yet; call reset first")
        return {**self.core.save(), "elapsed": np.array(elapsed, np.int64)}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        limits = self._limits()
        if "elapsed" not in saved or np.shape(saved["elapsed"]) != (len(limits),):
            raise DataError(
                f"a saved moment lacks the counts of {len(limits)} time limits; restore what this one saved"
            )
        self.core.restore({name: value for name, value in saved.items() if name != "elapsed"})
        for limit, count in zip(limits, saved["elapsed"], strict=True):
            limit._elapsed_steps = int(count)
        for wrapper in self.wrappers:
            if isinstance(wrapper, OrderEnforcing):
                wrapper._has_reset = True

    def _limits(self) -> list[Any]:
        return [wrapper for wrapper in self.wrappers if isinstance(wrapper, TimeLimit)]


@dataclass(frozen=True)
class _Classic:
    """An environment of classic control: a few numbers in attributes; NaN stands for None."""

    env: Any
    names: tuple[str, ...]

    def save(self) -> dict[str, np.ndarray]:
        if self.env.state is None:
            raise EnvironmentFault("nothing to save yet; call reset first")
        held = {name: getattr(self.env, name) for name in self.names}
        plain = {name: np.array(np.nan if value is None else value) for name, value in held.items()}
        return {**plain, "random": generator_words(self.env.np_random)}

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        fields = saved_fields(saved, dict.fromkeys(self.names) | {"random": (6,)})
        for name in self.names:
            value = fields[name].copy()
            plain = None if np.isnan(value).all() else int(value) if value.ndim == 0 else value
            setattr(self.env, name, plain)
        self.env.np_random = generator_from(fields["random"])


def _wrappers(env: gym.Env) -> Iterator[gym.Wrapper]:
    """Walk the wrappers of an environment from the outside in."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def _core(env: gym.Env) -> Restorable | None:
    """Return what saves the innermost environment, if that is known."""
    if isinstance(env, Restorable):
        return env
    home, name = type(env).__module__, type(env).__name__
    if home.startswith("gymnasium.envs.classic_control.") and name in CLASSIC:
        return _Classic(env, CLASSIC[name])
    if home.startswith("gymnasium.envs.mujoco.") and any(base.__name__ == "MujocoEnv" for base in type(env).__mro__):
        return Simulation(env)
    return None
