"""Agents: what acts, and how it learns to."""

from foreworld.agents.acting import AgentPolicy as AgentPolicy
from foreworld.agents.dreamer import Dreamer as Dreamer
from foreworld.agents.dreamer import DreamerConfig as DreamerConfig
from foreworld.agents.dreamer import DreamerLearner as DreamerLearner
from foreworld.agents.goal import GoalMPC as GoalMPC
from foreworld.agents.mpc import MPC as MPC
from foreworld.agents.mpc import PlanLog as PlanLog
from foreworld.agents.returns import ReturnRange as ReturnRange
