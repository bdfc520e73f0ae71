"""Ensembles: sizes and training are those of the members' family."""

from __future__ import annotations

from foreworld.core.registry import load
from foreworld.models.ensemble import Ensemble, EnsembleConfig
from foreworld.presets.family import Family


def ensemble_of(member: str) -> Family:
    """Return the family of ensembles whose members are of one family.

    Args:
        member: its registered name.

    Raises:
        UnknownName: no family has that name.
        ConfigError: it is itself a family of ensembles.
    """
    inner = load("models", member)
    configs = {size: EnsembleConfig(member=member, each=each) for size, each in inner.configs.items()}
    return Family(
        name="ensemble",
        config_type=EnsembleConfig,
        build=Ensemble,
        configs=configs,
        fits=inner.fits,
        of=ensemble_of,
    )


FAMILY = ensemble_of("rssm")
