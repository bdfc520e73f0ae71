"""Planning: search for actions in the dreams of a world model, at the moment of acting."""

from foreworld.plan.categorical import CategoricalCEM as CategoricalCEM
from foreworld.plan.cem import CEM as CEM
from foreworld.plan.cem import ICEM as ICEM
from foreworld.plan.gradient import Gradient as Gradient
from foreworld.plan.hybrid import Hybrid as Hybrid
from foreworld.plan.mppi import MPPI as MPPI
from foreworld.plan.noise import Coloured as Coloured
from foreworld.plan.noise import white as white
from foreworld.plan.objectives import GoalDistance as GoalDistance
from foreworld.plan.objectives import PredictedReturn as PredictedReturn
from foreworld.plan.objectives import SpreadPenalty as SpreadPenalty
from foreworld.plan.objectives import Sum as Sum
from foreworld.plan.protocols import Objective as Objective
from foreworld.plan.protocols import Plan as Plan
from foreworld.plan.protocols import Planner as Planner
from foreworld.plan.protocols import Warm as Warm
from foreworld.plan.protocols import kind_of as kind_of
from foreworld.plan.quasi_newton import QuasiNewton as QuasiNewton
from foreworld.plan.shooting import RandomShooting as RandomShooting
from foreworld.plan.tree import TreeSearch as TreeSearch
