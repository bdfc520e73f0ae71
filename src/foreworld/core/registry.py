"""Names of families, planners, environments, formats and metric sinks, loaded only when asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from foreworld.core.errors import UnknownName

KINDS = ("models", "planners", "envs", "formats", "sinks")

_BUILTIN: dict[str, dict[str, str]] = {
    "models": {
        "ensemble": "foreworld.presets.ensemble:FAMILY",
        "jepa": "foreworld.presets.jepa:FAMILY",
        "linear": "foreworld.presets.linear:FAMILY",
        "rssm": "foreworld.presets.rssm:FAMILY",
    },
    "planners": {
        "categorical_cem": "foreworld.plan:CategoricalCEM",
        "cem": "foreworld.plan:CEM",
        "gradient": "foreworld.plan:Gradient",
        "hybrid": "foreworld.plan:Hybrid",
        "icem": "foreworld.plan:ICEM",
        "mppi": "foreworld.plan:MPPI",
        "quasi_newton": "foreworld.plan:QuasiNewton",
        "random_shooting": "foreworld.plan:RandomShooting",
        "tree_search": "foreworld.plan:TreeSearch",
    },
    "envs": {
        "ALE": "foreworld.envs.atari:make_atari",
        "crafter": "foreworld.envs.crafter:make_crafter",
        "dmc": "foreworld.envs.dmc:make_dmc",
        "foreworld": "foreworld.envs.worlds:make_world",
        "gym_pusht": "foreworld.envs.pusht:make_pusht",
        "ogbench": "foreworld.envs.ogbench:make_ogbench",
        "robotics": "foreworld.envs.robotics:make_robotics",
    },
    "formats": {
        "minari": "foreworld.data.formats.minari:FORMAT",
        "npz": "foreworld.data.formats.npz:FORMAT",
        "robomimic": "foreworld.data.formats.robomimic:FORMAT",
    },
    "sinks": {
        "tensorboard": "foreworld.train.sinks:TensorBoard",
        "trackio": "foreworld.train.sinks:trackio",
        "wandb": "foreworld.train.sinks:wandb",
    },
}


def names(kind: str) -> list[str]:
    """List the names registered under a kind, built in or by an installed package.

    Args:
        kind: one of `models`, `planners`, `envs`, `formats`, `sinks`.
    """
    return sorted(_table(kind))


def load(kind: str, name: str) -> Any:
    """Import and return what is registered under a name.

    Args:
        kind: one of `models`, `planners`, `envs`, `formats`, `sinks`.
        name: the registered name; an outside package adds one by the entry point
            group `foreworld.<kind>`.

    Raises:
        UnknownName: nothing has that name; the message lists near matches.
    """
    table = _table(kind)
    if name not in table:
        raise UnknownName(unknown(kind.removesuffix("s"), name, list(table)))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def unknown(what: str, name: str, known: list[str]) -> str:
    """Say in one sentence that a name is unknown, with the nearest known ones.

    Args:
        what: the kind of thing that was named.
        name: as it was given.
        known: names that would do.
    """
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}; {hint}"


def _table(kind: str) -> dict[str, str]:
    if kind not in KINDS:
        raise UnknownName(unknown("registry kind", kind, list(KINDS)))
    found = {point.name: point.value for point in entry_points(group=f"foreworld.{kind}")}
    return {**found, **_BUILTIN[kind]}
