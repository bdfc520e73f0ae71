"""What combines families: evaluation with baselines, the demo, reports; and whether data can be trained on."""

from foreworld.studies.audit import check as check
from foreworld.studies.evaluation import evaluate as evaluate
from foreworld.studies.filming import film_dreams as film_dreams
