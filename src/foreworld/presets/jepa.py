"""JEPA sizes."""

from __future__ import annotations

from foreworld.encoders.latent import Vision
from foreworld.models.jepa import JEPA, JEPAConfig
from foreworld.presets.family import Family
from foreworld.train import FitConfig

CONFIGS = {
    # VICReg beside naming the action: of what was tried in two rooms, this alone held dot, wall and door (docs/log.md)
    "tiny": JEPAConfig(
        latent=64,
        layers=1,
        vision=Vision(widths=(16, 32), patch=4),
        sigreg=0.0,
        variance=0.8,
        covariance=0.4,
        similarity=0.6,
        inverse=2.0,
        decoder=True,
    ),
    # for a GPU: two losses and a vision transformer, after LeWorldModel's recipe for pictures of 224 pixels
    "base": JEPAConfig(
        latent=192,
        window=3,
        units=384,
        layers=6,
        heads=6,
        predictor="transformer",
        rollout=1,
        vision=Vision(kind="vit", patch=14, tokens=192, blocks=12, heads=3, side=224),
        sigreg=0.09,
        directions=1024,
    ),
}

FITS = {
    "tiny": FitConfig(
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-5,
        clip=0.03,
        precision="bfloat16",
        warmup=100,
        # many short windows first: what stays the same in an episode, such as a door, is seen once a window
        batch=384,
        length=3,
        long_share=0.75,
        long_factor=3,
        across=False,
        decay=0.5,
        steps=4000,
        calibration=4,
    ),
    "base": FitConfig(
        optimizer="adamw",
        lr=5e-5,
        weight_decay=1e-3,
        precision="bfloat16",
        warmup=1000,
        batch=128,
        length=4,
        across=False,
        decay=0.5,
        steps=100_000,
        calibration=4,
    ),
}

FAMILY = Family(name="jepa", config_type=JEPAConfig, build=JEPA, configs=CONFIGS, fits=FITS)
"""What the registry holds for the family."""
