"""What combines families: evaluation with baselines, the demo, reports; and whether data can be trained on."""

from foreworld.studies.audit import check as check
from foreworld.studies.collapse import watch_collapse as watch_collapse
from foreworld.studies.evaluation import evaluate as evaluate
from foreworld.studies.filming import film_dreams as film_dreams
