"""Agents by name."""

from __future__ import annotations

import pytest

from foreworld.core.errors import UnknownName
from foreworld.presets.agents import PRESETS, agent_preset
from foreworld.presets.protocols import PROTOCOLS
from foreworld.presets.rssm import CONFIGS


def test_every_protocol_has_an_agent_of_its_numbers() -> None:
    assert set(PRESETS) == {"classic", "pixels", *PROTOCOLS}
    for name, protocol in PROTOCOLS.items():
        found = agent_preset(name)
        online = found.online
        assert (online.steps, online.num_envs, online.train_ratio) == (
            protocol.steps,
            protocol.num_envs,
            protocol.train_ratio,
        )
        assert (online.batch, online.length, online.lr, online.warmup) == (16, 64, 4e-5, 1000)
        assert found.model == CONFIGS[protocol.size] and found.agent.units == found.model.units
        assert found.env == protocol.options


def test_a_size_changes_model_and_actor_and_nothing_else() -> None:
    small = agent_preset("atari100k", "1m")
    assert small.model == CONFIGS["1m"] and small.agent.units == 64
    assert small.online == agent_preset("atari100k").online
    with pytest.raises(UnknownName, match="did you mean 'atari100k'"):
        agent_preset("atari10k")
    with pytest.raises(UnknownName, match="size of rssm"):
        agent_preset("classic", "huge")
