"""Complete configs by name: one size dial per family."""

from foreworld.presets.family import Family as Family
from foreworld.presets.protocols import PROTOCOLS as PROTOCOLS
from foreworld.presets.protocols import Protocol as Protocol
from foreworld.presets.protocols import protocol as protocol
