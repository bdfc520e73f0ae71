"""Agents by name: model, actor-critic, training and environment options that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from foreworld.agents import DreamerConfig
from foreworld.core.errors import UnknownName
from foreworld.core.registry import unknown
from foreworld.models.rssm import RSSMConfig
from foreworld.presets.protocols import PROTOCOLS, Protocol
from foreworld.presets.rssm import CONFIGS
from foreworld.train import OnlineConfig


@dataclass(frozen=True, kw_only=True)
class AgentPreset:
    """Everything that `foreworld agent` needs but the environment's name.

    Attributes:
        model: the world model.
        agent: actor and critic.
        online: the training.
        env: further arguments of `make`.
        about: in a few words.
        protocol: the published one that it follows, if it does.
    """

    model: RSSMConfig
    agent: DreamerConfig
    online: OnlineConfig
    env: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    protocol: Protocol | None = None

    def options_on(self, env_id: str) -> dict[str, Any]:
        """Return the options of an environment.

        Raises:
            ConfigError: the preset follows a protocol for environments of another kind.
        """
        if self.protocol is not None:
            self.protocol.on(env_id)
        return dict(self.env)

    def sized(self, size: str) -> AgentPreset:
        """Return the same with a model of another size, and an actor-critic as wide.

        Raises:
            UnknownName: no such size; near ones are listed.
        """
        if size not in CONFIGS:
            raise UnknownName(unknown("size of rssm", size, list(CONFIGS)))
        return replace(self, model=CONFIGS[size], agent=replace(self.agent, units=CONFIGS[size].units))


CLASSIC = AgentPreset(
    model=RSSMConfig(deter=256, units=64, latents=16, classes=8, layers=2),
    agent=DreamerConfig(units=64),
    online=OnlineConfig(steps=8_000, batch=16, length=32, prefill=200, lr=3e-4, warmup=200, capacity=200_000),
    about="small vectors on a CPU, such as CartPole-v1",
)

PIXELS = AgentPreset(
    model=RSSMConfig(deter=256, units=64, latents=16, classes=8, layers=2, depth=8, convolutions="strided"),
    # an actor that is sure of itself before the model can see what it does learns little more
    agent=DreamerConfig(units=64, entropy=1e-2),
    online=OnlineConfig(
        steps=3_000, batch=16, length=16, train_ratio=128, prefill=500, lr=1e-3, warmup=200, capacity=200_000
    ),
    about="64x64 pictures of short games on a CPU, such as foreworld/Catch-v0",
)


def _by(protocol: Protocol) -> AgentPreset:
    """Return the agent of a published protocol, with the official sizes and learning rate."""
    model = CONFIGS[protocol.size]
    online = OnlineConfig(steps=protocol.steps, num_envs=protocol.num_envs, train_ratio=protocol.train_ratio)
    return AgentPreset(
        model=model,
        agent=DreamerConfig(units=model.units),
        online=replace(online, capacity=min(5_000_000, protocol.steps)),
        env=protocol.options,
        about=f"{protocol.kind}...: size {protocol.size}, as published",
        protocol=protocol,
    )


PRESETS = {"classic": CLASSIC, "pixels": PIXELS} | {name: _by(found) for name, found in PROTOCOLS.items()}


def agent_preset(name: str, size: str | None = None) -> AgentPreset:
    """Return a complete agent.

    Args:
        name: of the preset.
        size: of the model; None for the preset's own.

    Raises:
        UnknownName: no such preset or size; near ones are listed.

    Example:
        >>> agent_preset("classic").online.length
        32
    """
    if name not in PRESETS:
        raise UnknownName(unknown("agent preset", name, list(PRESETS)))
    return PRESETS[name] if size is None else PRESETS[name].sized(size)
