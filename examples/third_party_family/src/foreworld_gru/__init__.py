"""A world-model family that foreworld finds by entry point."""

from foreworld_gru.model import GRU as GRU
from foreworld_gru.model import GRUConfig as GRUConfig
