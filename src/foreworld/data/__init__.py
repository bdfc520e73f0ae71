"""The native store of interaction data: written whole, memory-mapped, sampled by arithmetic."""

from foreworld.data.dataset import Dataset as Dataset
from foreworld.data.dataset import DatasetSummary as DatasetSummary
from foreworld.data.dataset import Stretches as Stretches
from foreworld.data.dataset import load as load
from foreworld.data.episode import Episode as Episode
from foreworld.data.page import Arrived as Arrived
from foreworld.data.ratio import Ratio as Ratio
from foreworld.data.replay import Replay as Replay
from foreworld.data.schema import Source as Source
from foreworld.data.store import Writer as Writer
from foreworld.data.windows import Batch as Batch
