"""Predictors: from a window of latents and the actions after each to the next latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreworld.nn.attention import Block
from foreworld.nn.mlp import MLP, Linear, RMSNorm


class RecurrentPredictor(nn.Module):
    """A residual cell whose hidden state is the latent itself, fed with the action and the older latents.

    It predicts the change, and begins with none: what an action leaves alone stays as it is. In two rooms, on true
    states, its error is half to a third of that of a gated recurrent unit as wide (docs/log.md).

    Args:
        latent: width E.
        actions: width A.
        window: K.
        units: width of the hidden layers.
        layers: residual blocks, each two layers deep.

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016, section 3: norms in front.
    """

    def __init__(self, latent: int, actions: int, window: int, units: int, layers: int) -> None:
        super().__init__()
        # PyTorch's own initialisation, whose biases differ, puts the bends of units where few inputs need them
        self.inward = nn.Linear(window * (latent + actions), units)
        self.blocks = nn.ModuleList(
            nn.Sequential(RMSNorm(units), nn.Linear(units, units), nn.SiLU(), nn.Linear(units, units))
            for _ in range(layers)
        )
        self.outward = nn.Sequential(nn.SiLU(), Linear(units, latent, outscale=0.0))

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Map latents [N, K, E] and the actions after each [N, K, A] to the next latents [N, E]."""
        x = self.inward(torch.cat([latents.flatten(1), actions.flatten(1)], -1))
        for block in self.blocks:
            x = x + block(x)
        return latents[:, -1] + self.outward(x)


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
