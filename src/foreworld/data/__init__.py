"""The native store of interaction data: written whole, memory-mapped, sampled by arithmetic."""

from foreworld.data.dataset import Dataset as Dataset
from foreworld.data.dataset import DatasetSummary as DatasetSummary
from foreworld.data.dataset import Stretches as Stretches
from foreworld.data.dataset import load as load
from foreworld.data.episode import Episode as Episode
from foreworld.data.schema import Source as Source
from foreworld.data.store import Writer as Writer
