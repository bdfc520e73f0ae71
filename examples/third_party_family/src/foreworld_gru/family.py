"""What the entry point names: the sizes of this family, how to train them and how to build it."""

from __future__ import annotations

from foreworld.presets import Family
from foreworld.train import FitConfig
from foreworld_gru.model import GRU, GRUConfig

CONFIGS = {"tiny": GRUConfig(units=64), "small": GRUConfig(units=256)}

FITS = {size: FitConfig(lr=1e-3, warmup=100, length=24, decay=0.3) for size in CONFIGS}

FAMILY = Family(name="gru", config_type=GRUConfig, build=GRU, configs=CONFIGS, fits=FITS)
