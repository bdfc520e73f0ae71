"""Types, protocols, states, trees, the registry, files and errors: what every layer stands on."""

from foreworld.core import tree as tree
from foreworld.core.config import from_json as from_json
from foreworld.core.config import to_json as to_json
from foreworld.core.protocols import Calibrates as Calibrates
from foreworld.core.protocols import Decodes as Decodes
from foreworld.core.protocols import Disagrees as Disagrees
from foreworld.core.protocols import LearnsDreaming as LearnsDreaming
from foreworld.core.protocols import TrainableModel as TrainableModel
from foreworld.core.protocols import Unrolls as Unrolls
from foreworld.core.protocols import WorldModel as WorldModel
from foreworld.core.protocols import require as require
from foreworld.core.randomness import deterministic as deterministic
from foreworld.core.randomness import is_deterministic as is_deterministic
from foreworld.core.randomness import seeded as seeded
from foreworld.core.restore import Restorable as Restorable
from foreworld.core.spaces import TRUTH as TRUTH
from foreworld.core.spaces import Space as Space
from foreworld.core.spaces import Spec as Spec
from foreworld.core.state import state as state
from foreworld.core.types import Losses as Losses
from foreworld.core.types import Rollout as Rollout
from foreworld.core.types import Segment as Segment
from foreworld.core.types import Step as Step
