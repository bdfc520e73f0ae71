"""The example package adds a family by entry point, and the kit passes on it."""

from __future__ import annotations

import pytest
from foreworld_gru.model import GRU, GRUConfig

from foreworld.core import from_json, registry, to_json
from foreworld.core.errors import ConfigError
from foreworld.testing import Check, parametrize_conformance, specs


@pytest.mark.usefixtures("gru_installed")
def test_the_registry_finds_the_family_by_its_entry_point() -> None:
    assert "gru" in registry.names("models")
    family = registry.load("models", "gru")
    config = family.config("small")
    assert (family.name, family.config_type) == ("gru", GRUConfig)
    assert isinstance(family.build(specs()["vector_box"], config), GRU)
    assert set(family.fits) == set(family.sizes) == {"tiny", "small"}
    assert from_json(family.config_type, to_json(config)) == config


@parametrize_conformance(lambda spec: GRU(spec, GRUConfig(units=48)), updates=0)
def test_the_family_passes_the_kit(check: Check) -> None:
    check()


def test_a_size_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        GRUConfig(units=0)
