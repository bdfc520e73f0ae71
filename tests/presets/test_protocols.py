from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.core.registry import load
from foreworld.envs import make
from foreworld.presets import PROTOCOLS, protocol

PACKAGES = {"ALE/": "ale_py", "dmc/": "dm_control", "crafter/": "crafter"}

OFFICIAL = {
    # name: environments, actions, train ratio, size; danijar/dreamerv3, dreamerv3/configs.yaml
    "atari100k": (1, 1.1e5, 256, "200m"),
    "atari": (16, 5.1e7, 32, "200m"),
    "dmc_proprio": (16, 1.1e6, 1024, "1m"),
    "dmc_vision": (16, 1.1e6, 256, "200m"),
    "crafter": (1, 1.1e6, 512, "200m"),
}


def test_the_numbers_are_those_of_the_published_configuration() -> None:
    found = {name: (one.num_envs, one.steps, one.train_ratio, one.size) for name, one in PROTOCOLS.items()}
    assert found == OFFICIAL
    assert all(one.budget <= one.steps for one in PROTOCOLS.values())
    assert all(one.size in load("models", "rssm").configs for one in PROTOCOLS.values())


SEEN: dict[str, Any] = {
    "atari100k": ({"image": (3, 64, 64)}, 6, 4),
    "atari": ({"image": (1, 96, 96)}, 18, 4),
    "dmc_proprio": ({"height": (1,), "orientations": (14,), "velocity": (9,)}, 6, 1),
    "crafter": ({"image": (3, 64, 64)}, 17, 1),
}


@pytest.mark.parametrize("name", SEEN)
def test_its_environment_opens_and_looks_as_stated(name: str) -> None:
    found = protocol(name)
    if not find_spec(PACKAGES[found.kind]):
        pytest.skip(f"{PACKAGES[found.kind]} is not installed")
    env = make(found.env, **found.options)
    shapes = {key: space.shape for key, space in env.spec.obs.items()}
    assert (shapes, env.spec.action_width, env.spec.frame_skip) == SEEN[name]
    env.close()


def test_fields_can_be_changed_and_what_is_unknown_is_refused() -> None:
    found = protocol("dmc_proprio", env="dmc/cartpole-swingup", options={"repeat": 2}, train_ratio=512)
    assert (found.env, found.options, found.train_ratio) == (
        "dmc/cartpole-swingup",
        {"proprio": True, "image": False, "repeat": 2},
        512,
    )
    assert PROTOCOLS["dmc_proprio"].options["repeat"] == 1
    with pytest.raises(UnknownName, match="unknown protocol 'atari10k'; did you mean 'atari100k'"):
        protocol("atari10k")
    with pytest.raises(ConfigError, match="crafter: unknown field 'train_ration'; did you mean 'train_ratio'"):
        protocol("crafter", train_ration=3)
    with pytest.raises(ConfigError, match=r"atari100k is a protocol for ALE/\.\.\., found CartPole-v1"):
        protocol("atari100k", env="CartPole-v1")


def test_options_that_the_environment_does_not_know_are_refused() -> None:
    pytest.importorskip("ale_py")
    found = protocol("atari100k", options={"stickyness": 0.25})
    with pytest.raises(EnvironmentFault, match=r"option was refused.*stickyness"):
        make(found.env, **found.options)
