"""Evaluation: measured, never assumed."""

from foreworld.eval.calibration import Calibration as Calibration
from foreworld.eval.calibration import calibrate as calibrate
from foreworld.eval.counterfactual import Counterfactual as Counterfactual
from foreworld.eval.counterfactual import counterfactual as counterfactual
from foreworld.eval.prediction import Evaluation as Evaluation
from foreworld.eval.prediction import evaluate_open_loop as evaluate_open_loop
from foreworld.eval.probe import fit_probes as fit_probes
from foreworld.eval.summary import to_json as to_json
from foreworld.eval.trust import Trust as Trust
from foreworld.eval.trust import measure_trust as measure_trust
