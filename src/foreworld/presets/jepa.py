"""JEPA sizes."""

from __future__ import annotations

from foreworld.encoders.latent import Vision
from foreworld.models.jepa import JEPA, JEPAConfig
from foreworld.presets.family import Family
from foreworld.train import FitConfig

CONFIGS = {
    # VICReg beside naming the action, and clipped gradients: of what was tried in two rooms, this alone held dot, wall
    # and door after 250 updates (docs/log.md)
    "tiny": JEPAConfig(
        latent=32,
        layers=1,
        vision=Vision(widths=(16, 32), patch=4),
        sigreg=0.0,
        variance=0.8,
        covariance=0.4,
        similarity=0.6,
        inverse=2.0,
        decoder=True,
    )
}

FITS = {
    "tiny": FitConfig(
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-5,
        clip=0.03,
        warmup=100,
        batch=128,
        length=9,
        across=False,
        decay=0.5,
        steps=4000,
        calibration=4,
    )
}

FAMILY = Family(name="jepa", config_type=JEPAConfig, build=JEPA, configs=CONFIGS, fits=FITS)
"""What the registry holds for the family."""
