"""Dreams beside the truth: what a model imagines on held-out episodes, ready to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from foreworld.core import Spec, seeded, showing, tree
from foreworld.core.errors import SpecError
from foreworld.core.registry import unknown
from foreworld.data import Dataset
from foreworld.eval.quantities import expected
from foreworld.report import Clip, Trace
from foreworld.rollout import imagine

MOST_TRACES = 16
"""Dimensions drawn at most."""


@dataclass(frozen=True)
class Dream:
    """One imagined stretch and what really happened, by observation key.

    Attributes:
        spec: the world's.
        real: key to [context + H, ...], as `decode` would say it.
        dreamed: the same; reconstructions in the context, one sampled future after it.
        context: rows that the model saw.
        episode: number of the held-out episode.
        start: its first row shown.
    """

    spec: Spec
    real: dict[str, np.ndarray]
    dreamed: dict[str, np.ndarray]
    context: int
    episode: int
    start: int

    def clip(self, key: str, trusted: int | None = None) -> Clip:
        """Return an image observation as a clip, with the safe horizon if there is one.

        Raises:
            SpecError: no image observation has that name; those that do are listed.
        """
        if key not in self.spec.images:
            raise SpecError(unknown("image observation", key, self.spec.images))
        return Clip(
            real=_pixels(self.real[key]),
            dreamed=_pixels(self.dreamed[key]),
            context=self.context,
            title=f"Held-out episode {self.episode + 1}, from row {self.start}",
            fps=self.spec.fps or 10.0,
            trusted=trusted,
        )

    def trace(self) -> Trace:
        """Return the vector and integer observations as one trace, the first dimensions of them."""
        keys = [key for key, space in self.spec.obs.items() if space.kind != "image"]
        names = [name for key in keys for name in _names(self.spec, key)]
        real, dreamed = (np.concatenate([_flat(part[k]) for k in keys], 1) for part in (self.real, self.dreamed))
        return Trace(
            real=real[:, :MOST_TRACES],
            dreamed=dreamed[:, :MOST_TRACES],
            context=self.context,
            names=tuple(names[:MOST_TRACES]),
            title=f"Held-out episode {self.episode + 1}, from row {self.start}",
        )


@torch.no_grad()
def dream(
    model: Any, data: Dataset, episodes: Sequence[int], starts: Sequence[int], context: int, horizon: int, seed: int = 0
) -> list[Dream]:
    """Let a model watch `context` rows of each stretch and imagine the rest under the true actions.

    A stretch that reaches its episode's end is shown up to there.

    Args:
        model: provides `decode`, or `look`.
        data: held-out episodes.
        episodes: one for each dream.
        starts: first row of each.
        context: rows that the model sees.
        horizon: steps to imagine at most.
        seed: of the sampled future.

    Returns:
        A dream for each stretch.

    Raises:
        MissingCapability: the model cannot show what it predicts.
    """
    show = showing(model, "a dream to look at")
    stored = data.windows(np.asarray(episodes), np.asarray(starts), context + horizon)
    segment = tree.to(stored, next(model.parameters()).device)
    seen = segment.rows(0, context)
    actions = None if segment.prev_action is None else segment.prev_action[:, context:]
    with seeded(seed):
        states = model.observe(model.initial(segment.batch), seen)
        dreamed = imagine(model, tree.index(states, (slice(None), -1)), actions, horizon, keep=("states",)).states
        before, ahead = show(states), show(dreamed)
    real = expected(data.spec.obs, stored.obs)
    lengths = np.full(len(episodes), context + horizon) if stored.mask is None else stored.mask.sum(1).numpy()
    return [
        Dream(
            spec=data.spec,
            real={key: real[key][i, :length].numpy() for key in real},
            dreamed={key: torch.cat([before[key][i], ahead[key][i]])[:length].cpu().numpy() for key in real},
            context=min(context, int(length)),
            episode=int(episodes[i]),
            start=int(starts[i]),
        )
        for i, length in enumerate(lengths)
    ]


def spread_starts(data: Dataset, context: int, horizon: int, count: int) -> tuple[list[int], list[int]]:
    """Choose stretches to show: long enough episodes, evenly spread, each from another relative place.

    Returns:
        Episode numbers and first rows.
    """
    long = [i for i, rows in enumerate(data.lengths.tolist()) if rows >= context + horizon]
    chosen = long or [int(np.argmax(data.lengths))]
    picked = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, min(count, len(chosen)))]
    room = [max(0, int(data.lengths[i]) - context - horizon) for i in picked]
    starts = [int(r * place) for r, place in zip(room, np.linspace(0.1, 0.9, len(room)), strict=True)]
    return picked, starts


def _pixels(image: np.ndarray) -> np.ndarray:
    if image.shape[1] not in (1, 3):  # stacked frames: the newest
        image = image[:, -1:]
    return (image * 255).round().clip(0, 255).astype(np.uint8)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)


def _names(spec: Spec, key: str) -> list[str]:
    space = spec.obs[key]
    return [key] if space.width == 1 else [f"{key}[{i}]" for i in range(space.width)]
