"""Training: the offline and the online loop, the optimiser, checkpoints and run folders."""

from foreworld.train.adopt import adopt as adopt
from foreworld.train.offline import FitConfig as FitConfig
from foreworld.train.offline import FitResult as FitResult
from foreworld.train.offline import fit as fit
from foreworld.train.online import train_agent as train_agent
from foreworld.train.online_config import OnlineConfig as OnlineConfig
from foreworld.train.online_loop import OnlineResult as OnlineResult
from foreworld.train.run import AgentRun as AgentRun
from foreworld.train.run import Run as Run
from foreworld.train.run import actor_of as actor_of
from foreworld.train.run import load_agent as load_agent
from foreworld.train.run import load_run as load_run
from foreworld.train.state import state_hash as state_hash
from foreworld.train.videos import Film as Film
