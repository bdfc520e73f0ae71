"""The block-diagonal GRU of DreamerV3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.nn.mlp import Hidden, RMSNorm, init_
from foreworld.nn.scan import Core


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: block g of the output sees block g of the input.

    Args:
        inputs: width in, divisible by `blocks`.
        outputs: width out, divisible by `blocks`.
        blocks: number of blocks.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"BlockLinear: widths {inputs} and {outputs} are not divisible by {blocks} blocks")
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_(self.weight, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [.., inputs] to [.., outputs], as one batched matrix product."""
        lead = x.shape[:-1]
        grouped = x.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)
        return torch.bmm(grouped, self.weight).transpose(0, 1).reshape(*lead, -1) + self.bias


class BlockGRU(nn.Module):
    """The deterministic path h' = f(h, z, a) of a recurrent state-space model.

    Args:
        deter: width D of h.
        stoch: width Z of the flat stochastic state.
        action: width A of the model-ready action with its condition; 0 for none.
        units: width of the three input layers.
        blocks: blocks of the recurrent weights.

    Reference:
        Hafner et al., Mastering diverse control tasks through world models, Nature 2025,
        and its code (rssm.py): inputs are normalised layers repeated to every block.
    """

    def __init__(self, deter: int, stoch: int, action: int, units: int, blocks: int) -> None:
        super().__init__()
        self.deter, self.units, self.blocks = deter, units, blocks
        self.from_deter = Hidden(deter, units)
        self.from_stoch = Hidden(stoch, units)
        self.from_action = Hidden(action, units) if action else None
        inputs = units * (3 if action else 2)
        self.hidden = BlockLinear(inputs * blocks + deter, deter, blocks)
        self.norm = RMSNorm(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def embed_action(self, action: Tensor | None) -> Tensor | None:
        """Map actions [.., A] to [.., units]; done for all time steps at once, as it needs no state."""
        if self.from_action is None or action is None:
            return None
        return self.from_action(action / action.detach().abs().clamp(min=1))

    def core(self) -> Core:
        """Lay the weights out for `scan`."""
        size, units = self.deter // self.blocks, self.units
        deter, stoch = self.from_deter, self.from_stoch
        shared = self._shared()
        # the update gate starts mostly closed: forward subtracts one from it
        offset = self.gates.bias.new_zeros(3, size)
        offset[2] = -1
        return Core(
            deter_in=deter.linear.weight.t(),
            deter_bias=deter.linear.bias,
            stoch_in=stoch.linear.weight.t(),
            stoch_bias=stoch.linear.bias,
            scales=torch.stack([deter.norm.scale, stoch.norm.scale]).unsqueeze(1),
            deter_out=shared[:units],
            stoch_out=shared[units : 2 * units],
            near=self.hidden.weight[:, :size],
            scale=self.norm.scale,
            gates=self.gates.weight,
            gates_bias=self.gates.bias.view(self.blocks, 1, -1) + offset.flatten(),
        )

    def drive(self, action: Tensor | None) -> Tensor:
        """Return what embedded actions [.., units] and the bias add to the hidden layer: [.., D], or [D]."""
        return self.driver()(action)

    def driver(self) -> Callable[[Tensor | None], Tensor]:
        """Lay the weights out for many calls of `drive`."""
        weight, bias = self._shared()[2 * self.units :], self.hidden.bias

        def drive(action: Tensor | None) -> Tensor:
            return bias if action is None else action @ weight + bias

        return drive

    def _shared(self) -> Tensor:
        """Return the weights [inputs, D] from the input layers, which every block sees, to all blocks."""
        return self.hidden.weight[:, self.deter // self.blocks :].transpose(0, 1).flatten(1)

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor | None) -> Tensor:
        """Advance one step.

        Args:
            deter: [B, D].
            stoch: [B, Z].
            action: [B, units] from `embed_action`, or None.

        Returns:
            [B, D].
        """
        parts = [self.from_deter(deter), self.from_stoch(stoch)]
        if action is not None:
            parts.append(action)
        batch, size = deter.shape[0], self.deter // self.blocks
        shared = torch.cat(parts, -1).unsqueeze(1).expand(-1, self.blocks, -1)
        x = torch.cat([deter.view(batch, self.blocks, size), shared], -1).flatten(1)
        x = F.silu(self.norm(self.hidden(x)))
        reset, cand, update = self.gates(x).view(batch, self.blocks, 3, size).unbind(2)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        update = torch.sigmoid(update - 1)
        return (update * cand + (1 - update) * deter.view(batch, self.blocks, size)).flatten(1)
