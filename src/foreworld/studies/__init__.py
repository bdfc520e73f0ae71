"""What combines families: evaluation with baselines, the demo, reports."""

from foreworld.studies.evaluation import evaluate as evaluate
