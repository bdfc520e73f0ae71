"""Linear baselines: solved in closed form, so no updates are needed."""

from __future__ import annotations

from foreworld.models.linear import Linear, LinearConfig
from foreworld.presets.family import Family
from foreworld.train import FitConfig

CONFIGS = {"tiny": LinearConfig(window=2, components=128), "wide": LinearConfig(window=4, components=256)}

FITS = {size: FitConfig(steps=0, length=24, calibration=128) for size in CONFIGS}

FAMILY = Family(name="linear", config_type=LinearConfig, build=Linear, configs=CONFIGS, fits=FITS)
