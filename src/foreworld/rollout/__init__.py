"""What unfolds over time: imagination in a model, and collection in an environment."""

from foreworld.rollout.collect import collect as collect
from foreworld.rollout.imagine import imagine as imagine
from foreworld.rollout.record import record as record
