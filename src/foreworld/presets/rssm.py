"""RSSM sizes: `tiny` for minutes on a CPU, `1m` to `400m` as in DreamerV3."""

from __future__ import annotations

from foreworld.models.rssm import RSSM, RSSMConfig
from foreworld.presets.family import Family
from foreworld.train import FitConfig


def _official(deter: int, units: int, classes: int, depth: int) -> RSSMConfig:
    return RSSMConfig(deter=deter, units=units, latents=32, classes=classes, depth=depth)


TINY = RSSMConfig(
    deter=512,
    units=256,
    latents=32,
    depth=16,
    # chosen by measurement (docs/log.md): Gaussian latents carry information within 100 updates, where
    # categorical ones sit at the free nats for hundreds; a larger rep_weight empties them again
    latent="gaussian",
    rep_weight=0.05,
    convolutions="strided",
    pixel_loss="normalised",
    control_weight=10.0,
)

CONFIGS = {
    "tiny": TINY,
    "1m": _official(512, 64, 4, 4),
    "12m": _official(2048, 256, 16, 16),
    "25m": _official(3072, 384, 24, 24),
    "50m": _official(4096, 512, 32, 32),
    "100m": _official(6144, 768, 48, 48),
    "200m": _official(8192, 1024, 64, 64),
    "400m": _official(12288, 1536, 96, 96),
}
"""The parameter counts behind the names are nominal, as in the official presets."""

FITS = {
    size: FitConfig(
        lr=1.5e-3,
        warmup=100,
        batch=8,
        length=16,
        long_share=0.65,
        dream_share=0.3,
        decay=0.4,
        steps=2000,
        calibration=128,
    )
    if size == "tiny"
    else FitConfig(lr=4e-5, warmup=1000, length=64, steps=20_000)
    for size in CONFIGS
}

FAMILY = Family(name="rssm", config_type=RSSMConfig, build=RSSM, configs=CONFIGS, fits=FITS)
