"""Has an embedding collapsed? Its rank, its deviations, and whether neighbours in it are alike in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreworld.core import require, seeded, tree
from foreworld.data import Dataset
from foreworld.eval.quantities import device_of, expected, named, truth_spaces
from foreworld.eval.windows import random_windows
from foreworld.ops import effective_rank

ROWS = 1024
"""Rows looked at, one of each window."""
LEAST_RANK, LEAST_SHARE = 3.0, 0.02
"""An embedding that uses fewer directions than both (a share of all) has collapsed, or is about to."""
DEAD = 0.01
"""A dimension whose deviation is below this share of the mean deviation is dead."""
MOST_DEAD = 0.5
ALIKE = 0.1
"""Neighbours that are less alike than this tell nothing of the world."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What a look at an embedding found.

    Attributes:
        width: E, dimensions.
        rank: effective rank, 1 to E; 0 of a point.
        std_least: deviation of the dimension that varies least.
        std_mean: mean deviation of the dimensions.
        dead: share of the dimensions that do not vary.
        alike: how much nearer than random rows the nearest neighbours in the embedding are in the world: 1 the same,
            0 no nearer. Of the simulator's state where the data has it, the median over its variables; else of the
            observations.
        by: `truth` or `obs`, what `alike` is measured in.
    """

    width: int
    rank: float
    std_least: float
    std_mean: float
    dead: float
    alike: float
    by: str

    def advice(self) -> str:
        """Say what is wrong and what to do; empty where nothing is."""
        if self.rank < max(LEAST_RANK, LEAST_SHARE * self.width):
            return (
                f"the embedding has collapsed to {self.rank:.1f} of its {self.width} directions: predictions are good "
                "because there is nothing to predict. Raise --model.sigreg (or --model.variance and "
                "--model.covariance), or lower --fit.lr; where the encoder is frozen or given, take another"
            )
        if self.dead > MOST_DEAD:
            return (
                f"{self.dead:.0%} of the embedding's dimensions do not vary: use fewer (--model.latent), or raise "
                "--model.sigreg or --model.variance"
            )
        if self.alike < ALIKE:
            return (
                "rows that are neighbours in the embedding are hardly more alike than random rows "
                f"({self.alike:.2f}, where 1 is the same): it varies with something else than the world's state. "
                "Train longer, or raise --model.inverse so that it shows what the actions decide; where the "
                "encoder is frozen or given, take another"
            )
        return ""


@torch.no_grad()
def inspect_embedding(model: Any, data: Dataset, *, rows: int = ROWS, batch: int = 128, seed: int = 0) -> Embedding:
    """Look at the embedding of held-out rows.

    Args:
        model: provides `embed`.
        data: episodes that it was not trained on.
        rows: how many.
        batch: rows at a time.
        seed: chooses them.

    Returns:
        Rank, deviations and likeness of neighbours; two rows of one episode are never neighbours, as they are alike
        anyway.

    Raises:
        MissingCapability: the model has no embedding.

    Reference:
        Garrido et al., RankMe, 2023, for the rank as a sign of collapse.
    """
    require(model, "embed", "a look at the embedding")
    windows = random_windows(data, 1, rows, seed).in_order()
    spaces = {name: space for name, space in truth_spaces(data).items() if space.kind == "vector"}
    by = "truth" if spaces else "obs"
    spaces = spaces or dict(data.spec.obs)
    latents, values = [], []
    for _, segment, truth in windows.batches(data, batch):
        latents.append(model.embed(tree.to({k: v[:, 0] for k, v in segment.obs.items()}, device_of(model))).cpu())
        found = expected(spaces, segment.obs | named(truth))
        values.append(torch.cat([found[name][:, 0].flatten(1) for name in spaces], 1))
    z, world = torch.cat(latents).double(), torch.cat(values).double()
    deviation = z.std(0)
    return Embedding(
        width=z.shape[1],
        rank=effective_rank(z),
        std_least=float(deviation.min()),
        std_mean=float(deviation.mean()),
        dead=float((deviation < DEAD * deviation.mean().clamp(min=1e-12)).double().mean()),
        alike=_alike(z, world, windows.episode, by == "obs", seed),
        by=by,
    )


def _alike(z: Tensor, world: Tensor, episode: np.ndarray, pooled: bool, seed: int) -> float:
    """Compare the world's distance to the nearest neighbour in the embedding with that to a random row."""
    foreign = torch.from_numpy(episode[:, None] != episode[None, :])
    usable = foreign.any(1)
    if not usable.any():
        return float("nan")
    far = torch.cdist(z, z).masked_fill(~foreign, torch.inf)
    with seeded(seed):
        other = torch.where(foreign, torch.rand(foreign.shape), -1.0).argmax(1)
    near = (world - world[far.argmin(1)]).abs()[usable]
    random = (world - world[other]).abs()[usable]
    if pooled:  # pixels share a unit
        near, random = near.mean(1, keepdim=True), random.mean(1, keepdim=True)
    varies = random.mean(0) > 1e-9
    if not varies.any():
        return float("nan")
    return float((1 - near.mean(0)[varies] / random.mean(0)[varies]).median())
