"""A user's own environment by the name of its class, `module:Class`."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym

from foreworld.core.errors import EnvironmentFault, UnknownName
from foreworld.core.registry import unknown

NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def own_class(env_id: str) -> type[gym.Env] | None:
    """Return the class that an id names, `module:Class`; None when the id is none of that kind.

    The module is looked for in the current directory too. Importing it runs it: an id of this kind must come from a
    user, never from a file that somebody else wrote.

    Args:
        env_id: for example `my_envs:Pusher`; an id with a version, `my_envs:Pusher-v0`, is one that the module
            registers with Gymnasium.

    Raises:
        UnknownName: no such module, or no such class in it; the message lists near matches.
        EnvironmentFault: the module cannot be imported, or the name is no environment.
    """
    look_here_too(env_id)
    found = NAMED.fullmatch(env_id)
    if found is None:
        return None
    home, name = found.groups()
    try:
        module = import_module(home)
    except ModuleNotFoundError as fault:
        if fault.name is None or not f"{home}.".startswith(f"{fault.name}."):
            raise _broken(env_id, fault) from fault
        said = f"there is no module {fault.name!r}, neither installed nor in {Path.cwd()}"
        raise UnknownName(f"{env_id}: {said}; go to its folder, or install it") from fault
    except Exception as fault:
        raise _broken(env_id, fault) from fault
    if not hasattr(module, name):
        if name in gym.registry:
            return None
        known = [key for key, value in vars(module).items() if _is_environment(value)]
        raise UnknownName(f"{env_id}: {unknown(f'class of {home}', name, known)}")
    named = getattr(module, name)
    if not _is_environment(named):
        raise EnvironmentFault(f"{env_id}: is no class of environments; derive it from gymnasium.Env")
    return named


def look_here_too(env_id: str) -> None:
    """Let modules of the current directory be found when an id names one, as `python -m` does."""
    here = str(Path.cwd())
    if ":" in env_id and here not in sys.path:
        sys.path.insert(0, here)


def _is_environment(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, gym.Env)


def _broken(env_id: str, fault: Exception) -> EnvironmentFault:
    return EnvironmentFault(f"{env_id}: its module cannot be imported ({type(fault).__name__}: {fault}); mend it")
