"""foreworld: train world models, measure how far to trust them, act with them.

Names are loaded on first use, so that `import foreworld` and `foreworld --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "Spec": "foreworld.core",
    "Segment": "foreworld.core",
    "tree": "foreworld.core",
    "seeded": "foreworld.core",
    "deterministic": "foreworld.core",
    "RSSM": "foreworld.models.rssm",
    "JEPA": "foreworld.models.jepa",
    "Linear": "foreworld.models.linear",
    "Ensemble": "foreworld.models.ensemble",
    "Dreamer": "foreworld.agents",
    "load": "foreworld.data",
    "collect": "foreworld.rollout",
    "imagine": "foreworld.rollout",
    "DreamEnv": "foreworld.rollout",
    "fit": "foreworld.train",
    "load_run": "foreworld.train",
    "load_agent": "foreworld.train",
    "train_agent": "foreworld.train",
    "evaluate": "foreworld.studies",
    "check": "foreworld.studies",
    "film_dreams": "foreworld.studies",
    "watch_collapse": "foreworld.studies",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from foreworld.agents import Dreamer
    from foreworld.core import Segment, Spec, deterministic, seeded, tree
    from foreworld.data import load
    from foreworld.models.ensemble import Ensemble
    from foreworld.models.jepa import JEPA
    from foreworld.models.linear import Linear
    from foreworld.models.rssm import RSSM
    from foreworld.rollout import DreamEnv, collect, imagine
    from foreworld.studies import check, evaluate, film_dreams, watch_collapse
    from foreworld.train import fit, load_agent, load_run, train_agent


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'foreworld' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
