"""`evaluate`: errors against all baselines, the linear model fitted on the training episodes included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from foreworld.core import Segment
from foreworld.data import Dataset
from foreworld.eval import Evaluation, evaluate_open_loop, fit_probes
from foreworld.eval.predictors import Predictor, copy_last, mean, of_truth, open_loop, together, truth_spec
from foreworld.eval.quantities import named, truth_spaces
from foreworld.eval.simulator import noisy_simulator, simulator_of
from foreworld.eval.windows import random_windows
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
    """Measure a model's errors against copy-last, mean and linear baselines, for everything that it predicts.

    Where the data hold simulator state, probes are trained that read it off the model's features.

    Args:
        model: any family.
        heldout: episodes that the model has not seen.
        train: the training episodes; probes, mean and linear baseline come from them.
        horizon: steps to predict.
        context: rows to filter first.
        samples: futures per prediction.
        seed: of samples, probes and bootstrap.
        progress: called with (stretches done, stretches).
        settings: further arguments of `foreworld.eval.evaluate_open_loop`.

    Returns:
        Errors, skill and intervals by step.

    Raises:
        DataError: no held-out episode is long enough.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=12, out=f"{folder}/episodes")
        ...     train, heldout = data.split(0.5)
        ...     model = fw.RSSM(data.spec, deter=16, units=8, latents=4)  # not trained
        ...     found = fw.evaluate(model, heldout, train, horizon=3, context=2, samples=2)
        >>> found.main.every.skill.value.shape, found.main.useful_horizon
        ((3,), 0)
    """
    return evaluate_open_loop(
        model,
        heldout,
        trivial_baselines(train),
        references=references(heldout, seed),
        probes=fit_probes(model, train, heldout, seed=seed),
        horizon=horizon,
        context=context,
        samples=samples,
        seed=seed,
        progress=progress,
        **settings,
    )


def trivial_baselines(train: Dataset) -> dict[str, Predictor]:
    """Build the baselines that every model must beat, from the training episodes."""
    spaces = dict(train.spec.obs) | truth_spaces(train)
    linear = open_loop(linear_baseline(train))
    if truth_spaces(train):
        linear = together(linear, of_truth(open_loop(linear_of_truth(train)), truth_spaces(train)))
    return {"copy_last": copy_last(spaces), "mean": mean(train), "linear": linear}


def references(data: Dataset, seed: int = 0) -> dict[str, Predictor]:
    """Build what errors are set beside and not counted against: in a bundled world, the simulator slightly wrong."""
    world = simulator_of(data)
    return {} if world is None else {"noisy_simulator": noisy_simulator(world, data.spec, seed=seed)}


def linear_baseline(train: Dataset) -> Linear:
    """Fit the linear model in closed form."""
    model = Linear(train.spec, FAMILY.config())
    fit(model, train, FAMILY.fit())
    return model


def linear_of_truth(train: Dataset) -> Linear:
    """Fit the linear model to the simulator state in place of the observations."""
    settings = FAMILY.fit()
    windows = random_windows(train, settings.length, settings.calibration * settings.batch, settings.seed)

    def read() -> Iterator[Segment]:
        for _, rows, truth in windows.batches(train, settings.batch):
            yield Segment(
                obs=named(truth),
                prev_action=rows.prev_action,
                reward=rows.reward,
                is_first=rows.is_first,
                is_terminal=rows.is_terminal,
                is_last=rows.is_last,
                mask=rows.mask,
            )

    model = Linear(truth_spec(train), FAMILY.config())
    model.calibrate(read)
    return model
