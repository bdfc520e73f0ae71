"""The settings of a planner as flags, whoever made it."""

from __future__ import annotations

from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from typing import Any, get_type_hints

from foreworld.core.errors import ConfigError
from foreworld.core.registry import load as find
from foreworld.core.registry import names
from foreworld.core.spaces import Space
from foreworld.plan import kind_of

PLAIN = (bool, int, float, str)
DEFAULTS = {"vector": "cem", "discrete": "categorical_cem"}
HORIZON = "horizon"


def named_planner(name: str) -> Any:
    """Return the planner of a registered name with its defaults.

    Raises:
        UnknownName: nothing has that name.
        ConfigError: it cannot be made without arguments, or is no dataclass, so that it has no flags.
    """
    made = find("planners", name)
    try:
        planner = made()
    except TypeError as fault:
        raise ConfigError(f"--planner {name}: has settings without a default ({fault})") from None
    if not is_dataclass(planner):
        raise ConfigError(f"--planner {name}: is no dataclass, so that its settings are no flags; make it one")
    return planner


def default_planner(action: Space) -> str:
    """Return the name of the planner that is taken where none is named."""
    return DEFAULTS.get(action.kind, "random_shooting")


def planner_options(planner: Any, taken: set[str]) -> list[tuple[str, Any, Any]]:
    """Return the flags of a planner: (name, type, default) of every setting that is a number, a word or a truth value.

    A setting that is a planner itself is a group of flags. The horizon is left out: it is a flag of the verb, for all
    planners.

    Args:
        planner: a dataclass.
        taken: flags that the verb has already.

    Raises:
        ConfigError: a setting is called like a flag of the verb.
    """
    hints, found = get_type_hints(type(planner)), list[tuple[str, Any, Any]]()
    for one in fields(planner):
        value = getattr(planner, one.name)
        if one.name in taken - {HORIZON}:
            raise ConfigError(f"the planner's setting {one.name!r} is called like a flag of the verb; rename it")
        if isinstance(value, PLAIN) and one.name != HORIZON:
            found.append((one.name, hints[one.name], field(default=value)))
        elif _is_planner(value):
            group = make_dataclass(type(value).__name__, planner_options(value, set()), frozen=True, kw_only=True)
            group.__doc__ = f"{type(value).__name__}.\n\n{described(value)}"
            found.append((one.name, group, field(default=group())))
    return found


def with_options(planner: Any, given: Any) -> Any:
    """Return a planner with the settings that were given as flags."""
    chosen = {}
    for name in (one.name for one in fields(planner) if one.name != HORIZON and hasattr(given, one.name)):
        value, told = getattr(planner, name), getattr(given, name)
        chosen[name] = with_options(value, told) if _is_planner(value) else told
    return replace(planner, **chosen)


def with_horizon(planner: Any, horizon: int | None) -> Any:
    """Return a planner that plans so many actions; one that is made of planners hands the number on to them."""
    if horizon is None:
        return planner
    known = {one.name: getattr(planner, one.name) for one in fields(planner)}
    if HORIZON in known:
        return replace(planner, horizon=horizon)
    return replace(planner, **{name: with_horizon(one, horizon) for name, one in known.items() if _is_planner(one)})


def _is_planner(value: Any) -> bool:
    return is_dataclass(value) and hasattr(value, HORIZON)


def settings_of(planner: Any) -> dict[str, Any]:
    """Return all settings of a planner as plain values; what is none is named."""
    found: dict[str, Any] = {}
    for name, value in ((one.name, getattr(planner, one.name)) for one in fields(planner)):
        if _is_planner(value):
            found[name] = {"planner": type(value).__name__} | settings_of(value)
        else:
            found[name] = value if isinstance(value, PLAIN) else getattr(value, "__name__", None) or repr(value)
    return found


def described(planner: Any) -> str:
    """Return what the docstring of a planner says of its settings, for `--help`; empty if nothing."""
    _, head, told = (type(planner).__doc__ or "").partition("Attributes:")
    return f"    {head}{told.partition(chr(10) * 2)[0]}\n" if head else ""


def listed() -> list[list[Any]]:
    """Return a row for every planner: name, actions, horizon and budget by default, and what it does."""
    kinds = {"vector": "numbers", "discrete": "choices", None: "any"}
    rows = []
    for name in names("planners"):
        planner = named_planner(name)
        about = (type(planner).__doc__ or "").strip().splitlines()[:1]
        rows.append([name, kinds[kind_of(planner)], planner.horizon, planner.budget, *about])
    return rows
