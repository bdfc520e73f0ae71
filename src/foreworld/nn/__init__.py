"""Building blocks: layers, cells, heads and latent distributions."""

from foreworld.nn.actions import Actions as Actions
from foreworld.nn.actions import actions_of as actions_of
from foreworld.nn.distributions import CategoricalLatent as CategoricalLatent
from foreworld.nn.distributions import DeterministicLatent as DeterministicLatent
from foreworld.nn.distributions import GaussianLatent as GaussianLatent
from foreworld.nn.distributions import Latent as Latent
from foreworld.nn.distributions import sample as sample
from foreworld.nn.heads import BernoulliHead as BernoulliHead
from foreworld.nn.heads import TwoHotHead as TwoHotHead
from foreworld.nn.heads import at_least_single as at_least_single
from foreworld.nn.mlp import MLP as MLP
from foreworld.nn.mlp import Linear as Linear
from foreworld.nn.mlp import RMSNorm as RMSNorm
from foreworld.nn.recurrent import BlockGRU as BlockGRU
from foreworld.nn.recurrent import BlockLinear as BlockLinear
from foreworld.nn.scan import Head as Head
from foreworld.nn.scan import Layer as Layer
from foreworld.nn.scan import follow as follow
from foreworld.nn.scan import layout as layout
from foreworld.nn.scan import scan as scan
