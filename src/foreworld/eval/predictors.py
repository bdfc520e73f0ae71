"""What can predict observations: a world model, and the trivial baselines it must beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, Spec, require, seeded, tree
from foreworld.data import Dataset
from foreworld.rollout import imagine

Observations = dict[str, Tensor]

Predictor = Callable[[Segment, Tensor | None, int], Observations]
"""(context [B, C], actions [B, H, A] or None, H) to expected observations [B, H, ...]."""


def open_loop(model: Any, samples: int = 1, seed: int = 0) -> Predictor:
    """Let a model filter the context and imagine the rest; the mean over samples is its prediction.

    Args:
        model: provides `decode`.
        samples: futures drawn per start; their mean minimises the expected squared error.
        seed: the same noise for every call, so that two action sequences can be compared.

    Returns:
        A predictor.

    Raises:
        MissingCapability: the model cannot decode.
    """
    require(model, "decode", "open-loop evaluation in observations")

    @torch.no_grad()
    def predict(context: Segment, actions: Tensor | None, horizon: int) -> Observations:
        with seeded(seed):
            start = last_state(model, context)
            many = tree.repeat(start, samples)
            acts = None if actions is None else actions.repeat_interleave(samples, 0)
            dream = imagine(model, many, acts, horizon, keep=("obs",)).obs or {}
        return {key: value.unflatten(0, (-1, samples)).mean(1) for key, value in dream.items()}

    return predict


def copy_last(spec: Spec) -> Predictor:
    """Predict that nothing changes after the last context row."""

    def predict(context: Segment, actions: Tensor | None, horizon: int) -> Observations:
        last = {key: value[:, -1:] for key, value in as_expected(spec, context.obs).items()}
        return {key: value.expand(-1, horizon, *value.shape[2:]) for key, value in last.items()}

    return predict


def mean(train: Dataset, batches: int = 32) -> Predictor:
    """Predict the mean observation of the training episodes, whatever the context.

    Args:
        train: the training episodes.
        batches: how many batches of 64 rows the mean is taken from.
    """
    total: Observations = {}
    for step in range(batches):
        segment = train.sample(16, 4, seed=0, step=step)
        rows = segment.mask if segment.mask is not None else torch.ones_like(segment.is_first)
        for key, value in as_expected(train.spec, segment.obs).items():
            total[key] = total.get(key, torch.zeros(())) + value[rows].double().mean(0) / batches
    centre = {key: value.float() for key, value in total.items()}

    def predict(context: Segment, actions: Tensor | None, horizon: int) -> Observations:
        return {key: value.expand(context.batch, horizon, *value.shape) for key, value in centre.items()}

    return predict


def last_state(model: Any, context: Segment) -> Any:
    """Filter a context from the initial state; return the state after its last row, leaves [B, ...]."""
    states = model.observe(model.initial(context.batch), context)
    return tree.index(states, (slice(None), -1))


def as_expected(spec: Spec, obs: dict[str, Tensor]) -> Observations:
    """Turn stored observations into what `decode` predicts: [0, 1] images, numbers, one-hots."""
    found = {}
    for key, space in spec.obs.items():
        value = obs[key]
        if space.kind == "image":
            found[key] = value.float() / 255
        else:
            found[key] = value.float() if space.kind == "vector" else space.one_hot(value)
    return found
