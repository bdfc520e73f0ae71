"""`evaluate`: open-loop evaluation with all baselines, the linear model fitted on the training episodes included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foreworld.data import Dataset
from foreworld.eval import Evaluation, evaluate_open_loop
from foreworld.eval.predictors import Predictor, copy_last, mean, open_loop
from foreworld.models.linear import Linear
from foreworld.presets.linear import FAMILY
from foreworld.train import fit


def evaluate(
    model: Any,
    heldout: Dataset,
    train: Dataset,
    *,
    horizon: int = 50,
    context: int = 10,
    samples: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a model's open-loop error against copy-last, mean and linear baselines.

    Args:
        model: any family that decodes.
        heldout: episodes that the model has not seen.
        train: the training episodes; mean and linear baseline come from them.
        horizon: steps to predict.
        context: rows to filter first.
        samples: futures averaged for one prediction.
        seed: of samples and bootstrap.
        progress: called with (stretches done, stretches).
        settings: further arguments of `foreworld.eval.evaluate_open_loop`.

    Returns:
        Errors, skill and intervals by step.

    Raises:
        MissingCapability: the model cannot decode.
        DataError: no held-out episode is long enough.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=12, out=f"{folder}/episodes")
        ...     train, heldout = data.split(0.5)
        ...     model = fw.RSSM(data.spec, deter=16, units=8, latents=4)  # not trained
        ...     found = fw.evaluate(model, heldout, train, horizon=3, context=2, samples=2)
        >>> found.every.skill.value.shape, found.useful_horizon
        ((3,), 0)
    """
    return evaluate_open_loop(
        model,
        heldout,
        trivial_baselines(train),
        horizon=horizon,
        context=context,
        samples=samples,
        seed=seed,
        progress=progress,
        **settings,
    )


def trivial_baselines(train: Dataset) -> dict[str, Predictor]:
    """Build the baselines that every model must beat, from the training episodes."""
    return {"copy_last": copy_last(train.spec), "mean": mean(train), "linear": open_loop(linear_baseline(train))}


def linear_baseline(train: Dataset) -> Linear:
    """Fit the linear model in closed form."""
    model = Linear(train.spec, FAMILY.config())
    fit(model, train, FAMILY.fit())
    return model
