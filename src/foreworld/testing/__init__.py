"""The conformance kit: does a world model, or a planner, keep the protocol, and does what is stored survive faults?

Every check of `CHECKS` takes `make`, which builds a fresh model for a spec, and the `spec` to check it on. It raises
`NonConforming` with what was compared and where it differs, or `Inapplicable` where it does not concern the model.
Likewise every check of `PLANNER_CHECKS`, with `make`, which builds a planner with a horizon, and a `Problem`.
"""

from foreworld.testing.alignment import check_alignment as check_alignment
from foreworld.testing.alignment import check_arrival_rows as check_arrival_rows
from foreworld.testing.compare import Factory as Factory
from foreworld.testing.compare import Inapplicable as Inapplicable
from foreworld.testing.compare import NonConforming as NonConforming
from foreworld.testing.counting import CountingEnv as CountingEnv
from foreworld.testing.counting import counting_segment as counting_segment
from foreworld.testing.counting import counting_spec as counting_spec
from foreworld.testing.faults import Tally as Tally
from foreworld.testing.faults import dying as dying
from foreworld.testing.faults import failing as failing
from foreworld.testing.faults import flip_bit as flip_bit
from foreworld.testing.faults import in_child as in_child
from foreworld.testing.faults import watch_calls as watch_calls
from foreworld.testing.filtering import check_acting_row_by_row as check_acting_row_by_row
from foreworld.testing.filtering import check_carry as check_carry
from foreworld.testing.filtering import check_compile as check_compile
from foreworld.testing.filtering import check_imagine_equals_step as check_imagine_equals_step
from foreworld.testing.filtering import check_imagine_under_policy as check_imagine_under_policy
from foreworld.testing.filtering import check_input_untouched as check_input_untouched
from foreworld.testing.filtering import check_is_first_resets as check_is_first_resets
from foreworld.testing.filtering import check_observe_in_pieces as check_observe_in_pieces
from foreworld.testing.filtering import check_rows_independent as check_rows_independent
from foreworld.testing.kit import CHECKS as CHECKS
from foreworld.testing.kit import Check as Check
from foreworld.testing.kit import CheckResult as CheckResult
from foreworld.testing.kit import check_world_model as check_world_model
from foreworld.testing.kit import parametrize_conformance as parametrize_conformance
from foreworld.testing.planners import PLANNER_CHECKS as PLANNER_CHECKS
from foreworld.testing.planners import PlannerFactory as PlannerFactory
from foreworld.testing.planners import Problem as Problem
from foreworld.testing.planners import check_planner as check_planner
from foreworld.testing.samples import random_actions as random_actions
from foreworld.testing.samples import random_segment as random_segment
from foreworld.testing.samples import specs as specs
from foreworld.testing.shapes import check_shapes as check_shapes
from foreworld.testing.training import check_dreaming as check_dreaming
from foreworld.testing.training import check_gradients as check_gradients
from foreworld.testing.training import check_mask as check_mask
from foreworld.testing.training import check_save_load as check_save_load
from foreworld.testing.training import check_seeds as check_seeds
