"""JEPA sizes."""

from __future__ import annotations

from foreworld.models.jepa import JEPA, JEPAConfig
from foreworld.presets.family import Family
from foreworld.train import FitConfig

CONFIGS = {"tiny": JEPAConfig()}

FITS = {
    "tiny": FitConfig(optimizer="adamw", lr=1e-3, warmup=100, batch=64, length=16, decay=0.5, steps=2000, calibration=4)
}

FAMILY = Family(name="jepa", config_type=JEPAConfig, build=JEPA, configs=CONFIGS, fits=FITS)
"""What the registry holds for the family."""
