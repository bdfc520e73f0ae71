"""How agents are compared: the environments, budgets and ratios of DreamerV3's published configurations, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from foreworld.core.errors import ConfigError, UnknownName
from foreworld.core.registry import unknown


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a result on a benchmark must share with others to be compared with them.

    Attributes:
        name: of the protocol.
        env: the environment; any other of its kind is chosen by `on`.
        options: of the environment, for `make`.
        num_envs: environments side by side.
        steps: actions of all of them together; the budget is a tenth smaller, so that its end is on the curve.
        budget: actions after which published results are read.
        train_ratio: replayed steps for each action: with batches of 16 windows of 64 rows, a 1024th of it is how many
            updates there are for each action.
        size: of the RSSM.
        kind: what ids of its environments begin with; empty for any.
        differs: what the paper's table says otherwise, and what this library does otherwise.
    """

    name: str
    env: str
    options: Mapping[str, Any] = field(default_factory=dict)
    num_envs: int
    steps: int
    budget: int
    train_ratio: float
    size: str
    kind: str = ""
    differs: str = ""

    def on(self, env_id: str) -> Protocol:
        """Return the same for another environment of its kind.

        Raises:
            ConfigError: one of another kind.
        """
        if not env_id.startswith(self.kind):
            raise ConfigError(f"{self.name} is a protocol for {self.kind}..., found {env_id}; choose another for it")
        return replace(self, env=env_id)


ATARI = "pictures are averaged over areas (there: bilinear); an episode cut off is no terminal state (there it is one)"

PROTOCOLS: Mapping[str, Protocol] = {
    found.name: found
    for found in (
        Protocol(
            name="atari100k",
            env="ALE/Pong-v5",
            options={"image_size": 64, "frame_skip": 4, "noop_max": 30, "sticky": 0.0, "full_actions": False},
            num_envs=1,
            steps=110_000,
            budget=100_000,
            train_ratio=256,
            size="200m",
            kind="ALE/",
            differs=f"paper: train ratio 128. Here: {ATARI}",
        ),
        Protocol(
            name="atari",
            env="ALE/Pong-v5",
            options={
                "image_size": 96,
                "frame_skip": 4,
                "noop_max": 30,
                "sticky": 0.25,
                "full_actions": True,
                "grey": True,
            },
            num_envs=16,
            steps=51_000_000,
            budget=50_000_000,
            train_ratio=32,
            size="200m",
            kind="ALE/",
            differs=f"here: {ATARI}",
        ),
        Protocol(
            name="dmc_proprio",
            env="dmc/walker-walk",
            options={"proprio": True, "image": False, "repeat": 1},
            num_envs=16,
            steps=1_100_000,
            budget=500_000,
            train_ratio=1024,
            size="1m",
            kind="dmc/",
            differs="paper: action repeat 2, train ratio 512, size 12m",
        ),
        Protocol(
            name="dmc_vision",
            env="dmc/walker-walk",
            options={"proprio": False, "image": True, "image_size": 64, "repeat": 1},
            num_envs=16,
            steps=1_100_000,
            budget=1_000_000,
            train_ratio=256,
            size="200m",
            kind="dmc/",
            differs="paper: action repeat 2, train ratio 512, size 12m. Here, with plain=True: other, faster pictures",
        ),
        Protocol(
            name="crafter",
            env="crafter/reward",
            options={"image_size": 64},
            num_envs=1,
            steps=1_100_000,
            budget=1_000_000,
            train_ratio=512,
            size="200m",
            kind="crafter/",
            differs="here: creatures move in an order that the seed decides, in the package it changes from run to run",
        ),
    )
}
"""By name. The configuration files are those of danijar/dreamerv3 in 2026; what is said of the paper is its table."""


def protocol(name: str, **changes: Any) -> Protocol:
    """Return a protocol by its name, with some of its fields changed.

    Args:
        name: one of `atari100k`, `atari`, `dmc_proprio`, `dmc_vision`, `crafter`.
        **changes: fields of `Protocol` that are to differ; `options` are added to those that it has.

    Returns:
        The protocol.

    Raises:
        UnknownName: no such protocol.
        ConfigError: no such field, or an environment of another kind.

    Example:
        >>> found = protocol("atari100k", env="ALE/Boxing-v5", options={"sticky": 0.25})
        >>> found.env, found.options["sticky"], found.options["frame_skip"], found.train_ratio
        ('ALE/Boxing-v5', 0.25, 4, 256)
    """
    if name not in PROTOCOLS:
        raise UnknownName(unknown("protocol", name, list(PROTOCOLS)))
    found, known = PROTOCOLS[name], [part.name for part in fields(Protocol)]
    for key in changes:
        if key not in known:
            raise ConfigError(f"{name}: {unknown('field', key, known)}")
    if "options" in changes:
        changes = changes | {"options": {**found.options, **changes["options"]}}
    return replace(found, **changes).on(changes.get("env", found.env))
