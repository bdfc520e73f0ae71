"""What can predict: a world model, and the trivial baselines that it must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec, seeded, tree
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval.probe import Probe
from foreworld.eval.quantities import (
    EMBED,
    LATENT,
    RETURN,
    device_of,
    expected,
    named,
    predicted_return,
    real_rows,
    truth_spaces,
)
from foreworld.eval.windows import random_windows
from foreworld.rollout import imagine


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """What a predictor may look at, and the actions to come; nothing else of the future.

    Attributes:
        rows: [B, C] rows of the context.
        truth: `truth/<key>` to [B, C, ...]: for baselines and simulators, never for a model.
        actions: [B, H, A] the actions to come; None for plain video.
        horizon: H.
    """

    rows: Segment
    truth: Mapping[str, Tensor]
    actions: Tensor | None
    horizon: int


COPY_LAST = "copy_last"

Forecast = dict[str, Tensor]
"""Name of a quantity to S samples of what is expected of it, [B, S, H, ...]; what cannot be predicted is absent."""

Predictor = Callable[[Past], Forecast]
"""From a past to a forecast."""

Probes = Mapping[str, Probe]


def open_loop(
    model: Any, samples: int = 1, seed: int = 0, probes: Probes | None = None, rows: int | None = None
) -> Predictor:
    """Let a model filter the context and imagine the rest.

    Args:
        model: any family.
        samples: S, futures drawn per start; an ensemble gives its M members instead, each the mean of its futures.
        seed: the same noise for every call, so that two action sequences can be compared.
        probes: read simulator state off its features.
        rows: how many of the last rows of the context it may see; None for all.
    """

    @torch.no_grad()
    def predict(past: Past) -> Forecast:
        count = past.rows.length
        context = past.rows if rows is None else past.rows.rows(count - rows, count)
        with seeded(seed):
            start = tree.repeat(last_state(model, context), samples)
            actions = None if past.actions is None else past.actions.repeat_interleave(samples, 0).to(device_of(model))
            dream = imagine(model, start, actions, past.horizon, keep=("states",))
        said = _said(dream.feat, dream.reward, dream.cont, probes)
        found = {name: value.unflatten(0, (-1, samples)) for name, value in said.items()}
        found |= tree.to(_decoded(model, dream.states, samples), "cpu")
        return found | tree.to(_embedded(model, dream.states, samples), "cpu")

    return predict


@torch.no_grad()
def watched(
    model: Any, segment: Segment, context: int, probes: Probes | None = None
) -> tuple[Forecast, Forecast, Tensor]:
    """Let a model see every row, the future included, and say what it then knows.

    Args:
        model: any family.
        segment: [B, C + H] rows.
        context: C.
        probes: read simulator state off its features.

    Returns:
        The teacher-forced forecast: each row predicted one step ahead from all rows before it, [B, 1, H, ...].
        The floor: the same quantities read off the states that have seen the row, which no prediction can beat.
        The features after the last row of the context, [B, D].
    """
    segment = tree.to(segment, device_of(model))
    states = model.observe(model.initial(segment.batch), segment)
    before = tree.flatten_time(tree.index(states, (slice(None), slice(context - 1, -1))))
    action = None if segment.prev_action is None else segment.prev_action[:, context:].flatten(0, 1)
    after = model.step(before, action)
    shape = (segment.batch, segment.length - context)
    forced = _read(model, tree.map(lambda leaf: leaf.unflatten(0, shape), after), probes)
    floor = _read(model, tree.index(states, (slice(None), slice(context, None))), probes)
    last = model.read(tree.index(states, (slice(None), context - 1))).feat
    return forced, floor, last.flatten(1).float().cpu()


def copy_last(spaces: Mapping[str, Space]) -> Predictor:
    """Predict that nothing changes after the last context row, the reward included.

    Args:
        spaces: of observations and simulator state.
    """

    def predict(past: Past) -> Forecast:
        values = expected(spaces, past.rows.obs | dict(past.truth))
        found = {key: _held(value[:, -1], past.horizon) for key, value in values.items()}
        found[RETURN] = _held(past.rows.reward[:, -1], past.horizon).cumsum(2)
        return found

    return predict


def mean(train: Dataset, rows: int = 4096) -> Predictor:
    """Predict the mean of the training episodes, whatever the context.

    Args:
        train: the training episodes.
        rows: how many of their rows the mean is taken from.
    """
    spaces, total, count = dict(train.spec.obs) | truth_spaces(train), dict[str, Tensor](), 0
    reward = torch.zeros((), dtype=torch.float64)
    for _, segment, truth in random_windows(train, 4, rows // 4).batches(train, 16):
        real = real_rows(segment)
        for key, value in expected(spaces, segment.obs | named(truth)).items():
            total[key] = total.get(key, torch.zeros((), dtype=torch.float64)) + value[real].double().sum(0)
        reward, count = reward + segment.reward[real].double().sum(), count + int(real.sum())
    centre = {key: (value / count).float() for key, value in total.items()}
    a_step = (reward / count).float()

    def predict(past: Past) -> Forecast:
        batch = past.rows.batch
        found = {key: _held(value.expand(batch, *value.shape), past.horizon) for key, value in centre.items()}
        return found | {RETURN: _held(a_step.expand(batch), past.horizon).cumsum(2)}

    return predict


def of_truth(predictor: Predictor, keys: Mapping[str, Space]) -> Predictor:
    """Let a predictor of observations predict simulator state instead: it is shown that in their place.

    Args:
        predictor: of a world whose observations are called `truth/<key>`.
        keys: the simulator state.
    """

    def predict(past: Past) -> Forecast:
        seen = Segment(
            obs={key: past.truth[key] for key in keys},
            prev_action=past.rows.prev_action,
            reward=past.rows.reward,
            is_first=past.rows.is_first,
            is_terminal=past.rows.is_terminal,
            is_last=past.rows.is_last,
        )
        found = predictor(Past(rows=seen, truth={}, actions=past.actions, horizon=past.horizon))
        return {key: value for key, value in found.items() if key.startswith(TRUTH)}

    return predict


def together(*predictors: Predictor) -> Predictor:
    """Join what several predictors say; the earlier one counts where two say the same."""

    def predict(past: Past) -> Forecast:
        found: Forecast = {}
        for predictor in predictors:
            found = predictor(past) | found
        return found

    return predict


def last_state(model: Any, context: Segment) -> Any:
    """Filter a context from the initial state; return the state after its last row, leaves [B, ...]."""
    states = model.observe(model.initial(context.batch), tree.to(context, device_of(model)))
    return tree.index(states, (slice(None), -1))


def truth_spec(data: Dataset) -> Spec:
    """Return a spec in which the recorded simulator state takes the place of the observations."""
    return Spec(obs=truth_spaces(data), action=data.spec.action, fps=data.spec.fps, frame_skip=data.spec.frame_skip)


def _held(value: Tensor, horizon: int) -> Tensor:
    """Repeat one value per row, [B, ...], over all steps: [B, 1, H, ...]."""
    return value[:, None, None].expand(-1, 1, horizon, *value.shape[1:])


def _decoded(model: Any, states: Any, samples: int) -> Forecast:
    """Decode states [B * S, H, ...]: S samples each; of an ensemble M members, each the mean of its samples."""
    if "decode" not in model.provides:
        return {}
    if "spread" not in model.provides:
        return {name: value.unflatten(0, (-1, samples)) for name, value in model.decode(states).items()}
    members = model.decode_members(states)
    return {name: value.unflatten(0, (-1, samples)).mean(1).movedim(2, 1) for name, value in members.items()}


def _embedded(model: Any, states: Any, samples: int) -> Forecast:
    """Say where states [B * S, H, ...] lie in an embedding that training does not change, likewise."""
    if "fixed_embed" not in model.provides:
        return {}
    step = model.read(states)
    if "spread" not in model.provides or step.members is None:
        return {EMBED: step.embed.unflatten(0, (-1, samples))}
    return {EMBED: step.members.embed.unflatten(0, (-1, samples)).mean(1).movedim(2, 1)}


def _read(model: Any, states: Any, probes: Probes | None) -> Forecast:
    """Read every quantity off the states of a stretch, leaves [B, H, ...]."""
    step = model.read(states)
    said = _said(step.feat, step.reward, step.cont, probes)
    said |= tree.to(model.decode(states), "cpu") if "decode" in model.provides else {}
    said |= {EMBED: step.embed.cpu()} if "fixed_embed" in model.provides else {}
    return {name: value.unsqueeze(1) for name, value in said.items()}


def _said(feat: Tensor, reward: Tensor | None, cont: Tensor | None, probes: Probes | None) -> dict[str, Tensor]:
    """Name what was read off a stretch, [B, H, ...] on the CPU; rewards become the sum so far."""
    feat = feat.cpu()
    said = {name: probe(feat) for name, probe in (probes or {}).items()}
    if reward is not None:
        said[RETURN] = predicted_return(reward, cont).cpu()
    return said | {LATENT: feat.flatten(2).float()}
