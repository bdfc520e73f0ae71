"""Which model plans, and in which environment, by what was given on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreworld.agents import Dreamer
from foreworld.core import Spec
from foreworld.core.errors import ConfigError, DataError
from foreworld.data import load
from foreworld.models.simulated import Simulated
from foreworld.rollout.collect import RECORDED
from foreworld.train import load_agent, load_run
from foreworld.train.run import read_config
from foreworld.worlds.catalogue import WORLDS, rebuild


@dataclass(frozen=True, kw_only=True)
class Source:
    """What plans.

    Attributes:
        model: a world model.
        agent: of the same run, whose critic may say what follows a dream; None where there is none.
        env: the environment, as `make` opens it.
        options: further arguments of `make`.
        updates: that the model was trained with.
    """

    model: Any
    agent: Dreamer | None
    env: str
    options: dict[str, Any]
    updates: int


def exact_source(env: str, options: dict[str, Any]) -> Source:
    """Return a bundled world as a model of itself.

    Raises:
        ConfigError: another environment, or a world without actions.
    """
    if env not in WORLDS:
        raise ConfigError(f"--exact takes a bundled world (foreworld list envs) as --env, found {env!r}")
    world: Any = rebuild(env, options)
    if world.action is None:
        raise ConfigError(f"--exact: {env} takes no action, so that there is nothing to plan")
    model = Simulated(world)
    return Source(model=model, agent=None, env=env, options=_seen(model.spec) | options, updates=0)


def run_source(run: Path, env: str, options: dict[str, Any], device: str) -> Source:
    """Return the model of a run, and the environment that it was trained in, or another one of the same kind.

    Args:
        run: run folder.
        env: what was asked for; empty for that of the run.
        options: of the environment; they go before those of the run.
        device: where to put the model.

    Raises:
        ConfigError: nothing says which environment; or it is somebody's own code and was not named.
    """
    if "agent" in read_config(run):
        found = load_agent(run, device, env or None)
        own = found.env_options if found.env == env or not env else {}
        return Source(
            model=found.run.model,
            agent=found.agent,
            env=found.env,
            options=_seen(found.run.model.spec) | own | options,
            updates=found.run.step,
        )
    loaded = load_run(run, device)
    stored, own = _recorded(loaded.data)
    if not env and (not stored or ":" in stored):
        raise ConfigError(f"{run}: does not say where it was trained, or names code; name the environment: --env")
    env = env or stored
    own = own if env == stored else {}
    return Source(
        model=loaded.model,
        agent=None,
        env=env,
        options=_seen(loaded.model.spec) | own | options,
        updates=loaded.step,
    )


def _recorded(data: Path) -> tuple[str, dict[str, Any]]:
    """Return environment and options that a dataset was recorded with; nothing where it is gone."""
    try:
        source = load(data).source
    except DataError:
        return "", {}
    return source.env, {name: value for name, value in source.options.items() if name not in RECORDED}


def _seen(spec: Spec) -> dict[str, Any]:
    """Return what makes an environment show pictures of the size that a model was trained on."""
    sides = {spec.obs[key].shape[-1] for key in spec.images}
    return {"image_size": sides.pop()} if len(sides) == 1 else {}
