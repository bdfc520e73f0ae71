"""Environments as batches of arrival rows: made by id, reset by the library."""

from foreworld.envs.episodes import OpenEpisode as OpenEpisode
from foreworld.envs.fleet import Local as Local
from foreworld.envs.fleet import Tally as Tally
from foreworld.envs.make import builder as builder
from foreworld.envs.make import make as make
from foreworld.envs.restore import restorable as restorable
from foreworld.envs.vector import Rows as Rows
from foreworld.envs.vector import Vector as Vector
from foreworld.envs.workers import Workers as Workers
from foreworld.envs.worlds import WorldEnv as WorldEnv
