"""Training: the offline loop, the optimiser, checkpoints and run folders."""

from foreworld.train.offline import FitConfig as FitConfig
from foreworld.train.offline import FitResult as FitResult
from foreworld.train.offline import fit as fit
from foreworld.train.run import Run as Run
from foreworld.train.run import load_run as load_run
from foreworld.train.videos import Film as Film
