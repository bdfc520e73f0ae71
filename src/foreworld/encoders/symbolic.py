"""Vectors and integers to tokens and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Space
from foreworld.nn.mlp import MLP, Linear
from foreworld.ops import symexp, symlog


class SymbolicEncoder(nn.Module):
    """Join vectors under symlog and integers as one-hots, then an MLP.

    Args:
        spaces: vector and discrete spaces by name.
        units: width of the layers, and of the tokens.
        layers: how many.
    """

    def __init__(self, spaces: dict[str, Space], units: int, layers: int) -> None:
        super().__init__()
        self.spaces = dict(sorted(spaces.items()))
        self.width = units
        self.body = MLP(sum(s.width for s in spaces.values()), units, layers)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [.., *shape] to [.., width]."""
        return self.body(torch.cat([as_floats(space, obs[key]) for key, space in self.spaces.items()], -1))


class SymbolicDecoder(nn.Module):
    """Features to vectors and class probabilities, one output layer per key.

    Args:
        spaces: vector and discrete spaces by name.
        inputs: width of the features.
        units: width of the layers.
        layers: how many.
    """

    def __init__(self, spaces: dict[str, Space], inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.spaces = dict(sorted(spaces.items()))
        self.body = MLP(inputs, units, layers)
        self.outs = nn.ModuleList(Linear(units, space.width) for space in self.spaces.values())

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        """Map [.., D] to raw outputs [.., width] by key."""
        hidden = self.body(feat)
        return {key: out(hidden) for key, out in zip(self.spaces, self.outs, strict=True)}

    def observations(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn raw outputs into vectors in source units and probabilities [.., sum of classes]."""
        found = {}
        for key, space in self.spaces.items():
            if space.kind == "vector":
                lead = raw[key].shape[:-1]
                found[key] = symexp(raw[key]).reshape(*lead, *space.shape)
            else:
                groups = raw[key].split(list(space.classes), -1)
                found[key] = torch.cat([torch.softmax(g, -1) for g in groups], -1)
        return found

    def losses(self, raw: dict[str, Tensor], obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute per key [..]: squared error under symlog, or cross-entropy, summed over components."""
        terms = {}
        for key, space in self.spaces.items():
            target = as_floats(space, obs[key])
            if space.kind == "vector":
                terms[key] = (raw[key] - target).square().sum(-1)
            else:
                pairs = zip(raw[key].split(list(space.classes), -1), target.split(list(space.classes), -1), strict=True)
                terms[key] = -torch.stack([(t * F.log_softmax(r, -1)).sum(-1) for r, t in pairs]).sum(0)
        return terms


def as_floats(space: Space, values: Tensor) -> Tensor:
    """Turn symbolic observations [.., *shape] into network floats [.., width]: symlog or one-hot."""
    if space.kind == "discrete":
        return space.one_hot(values)
    lead = values.shape[: values.dim() - len(space.shape)]
    return symlog(values.reshape(*lead, space.width).float())
