"""Pure functions: the maths, without modules or state."""

from foreworld.ops.bootstrap import Interval as Interval
from foreworld.ops.bootstrap import bootstrap as bootstrap
from foreworld.ops.kl import categorical_kl as categorical_kl
from foreworld.ops.kl import free_nats as free_nats
from foreworld.ops.kl import gaussian_kl as gaussian_kl
from foreworld.ops.returns import discounted_return as discounted_return
from foreworld.ops.returns import lambda_return as lambda_return
from foreworld.ops.sums import bootstrap_sums as bootstrap_sums
from foreworld.ops.symlog import symexp as symexp
from foreworld.ops.symlog import symlog as symlog
from foreworld.ops.twohot import symexp_bins as symexp_bins
from foreworld.ops.twohot import twohot as twohot
from foreworld.ops.twohot import twohot_loss as twohot_loss
from foreworld.ops.twohot import twohot_mean as twohot_mean
