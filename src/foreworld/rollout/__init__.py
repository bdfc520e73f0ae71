"""What unfolds over time: imagination in a model, and collection in an environment."""

from foreworld.rollout.branch import Branches as Branches
from foreworld.rollout.branch import branch as branch
from foreworld.rollout.collect import collect as collect
from foreworld.rollout.dreamenv import DreamEnv as DreamEnv
from foreworld.rollout.dreamenv import DreamVectorEnv as DreamVectorEnv
from foreworld.rollout.imagine import imagine as imagine
from foreworld.rollout.record import record as record
from foreworld.rollout.starts import recorded_starts as recorded_starts
