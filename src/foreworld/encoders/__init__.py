"""Observations to tokens and states to observations, built from a Spec."""

from foreworld.encoders.hybrid import ObsDecoder as ObsDecoder
from foreworld.encoders.hybrid import ObsEncoder as ObsEncoder
from foreworld.encoders.hybrid import fit_control_weight as fit_control_weight
from foreworld.encoders.hybrid import fit_pixel_scale as fit_pixel_scale
from foreworld.encoders.hybrid import pixel_scale as pixel_scale
from foreworld.encoders.pixel import PixelScale as PixelScale
