"""Predictors: from a window of latents and the actions after each to the next latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreworld.nn.attention import Block
from foreworld.nn.mlp import MLP, Linear


class RecurrentPredictor(nn.Module):
    """A gated recurrent cell whose hidden state is the latent itself, fed with the action and the older latents.

    The candidate comes from hidden layers and has no bound, as latents have none.

    Args:
        latent: width E.
        actions: width A.
        window: K.
        units: width of the hidden layers.
        layers: how many.

    Reference:
        Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, section 2.3, without the reset
        gate, whose part the hidden layers take over.
    """

    def __init__(self, latent: int, actions: int, window: int, units: int, layers: int) -> None:
        super().__init__()
        self.body = MLP(window * (latent + actions), units, layers)
        self.candidate, self.gate = Linear(units, latent), Linear(units, latent)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Map latents [N, K, E] and the actions after each [N, K, A] to the next latents [N, E]."""
        hidden = self.body(torch.cat([latents.flatten(1), actions.flatten(1)], -1))
        return torch.lerp(latents[:, -1], self.candidate(hidden), torch.sigmoid(self.gate(hidden)))


class TransformerPredictor(nn.Module):
    """Causal attention over the window; each action scales and shifts the entry that it follows.

    Args:
        latent: width E.
        actions: width A.
        window: K.
        units: width of the entries.
        layers: blocks.
        heads: of the attention.

    Reference:
        Maes et al., LeWorldModel, 2026, arXiv 2603.19312, section 3.
    """

    def __init__(self, latent: int, actions: int, window: int, units: int, layers: int, heads: int) -> None:
        super().__init__()
        self.inward = Linear(latent, units)
        self.place = nn.Parameter(0.02 * torch.randn(window, units))
        self.action = nn.Sequential(MLP(actions, units, 1), Linear(units, units)) if actions else None
        self.blocks = nn.ModuleList(Block(units, heads, True, units if actions else 0) for _ in range(layers))
        self.norm, self.outward = nn.LayerNorm(units), Linear(units, latent)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Map latents [N, K, E] and the actions after each [N, K, A] to the next latents [N, E]."""
        x = self.inward(latents) + self.place
        condition = None if self.action is None else self.action(actions)
        for block in self.blocks:
            x = block(x, condition)
        return latents[:, -1] + self.outward(self.norm(x[:, -1]))
