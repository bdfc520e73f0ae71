"""A GRU world model in about a hundred lines: one recurrent vector, predicted and then corrected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Losses, Segment, Space, Spec, Step, state, tree
from foreworld.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GRUConfig:
    """Size of the model.

    Attributes:
        units: width of the recurrent vector.
    """

    units: int = 64

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ConfigError(f"units must be at least 1, found {self.units}")


@state
class Memory:
    """What the model remembers: one vector [..., units]."""

    hidden: Tensor


class GRU(nn.Module):
    """Predict the memory by one GRU under the action, then correct it by another with what was seen.

    Args:
        spec: the world; every kind of observation and action, also none.
        config: the size.
    """

    family = "gru"

    def __init__(self, spec: Spec, config: GRUConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.provides = frozenset({"reward", "cont", "decode"})
        self.loss_weights = {"obs": 1.0, "reward": 1.0, "cont": 1.0, "dynamics": 5.0}
        width = sum(space.width for space in spec.obs.values())
        self.predict = nn.GRUCell(max(spec.action_width, 1), config.units)
        self.correct = nn.GRUCell(width, config.units)
        self.decoder = nn.Linear(config.units, width)
        self.heads = nn.Linear(config.units, 2)

    def initial(self, batch: int) -> Memory:
        """Return zeros, [batch, units]."""
        return Memory(hidden=self.heads.weight.new_zeros(batch, self.config.units))

    def observe(self, state: Memory, segment: Segment) -> Memory:
        """Filter a segment; return the memories after every row, [B, T, units]."""
        return self._filter(state, segment)[1]

    def step(self, state: Memory, action: Tensor | None) -> Memory:
        """Predict the next memory, [B, units]."""
        if action is None:
            action = state.hidden.new_ones(state.hidden.shape[0], 1)
        return Memory(hidden=self.predict(action, state.hidden))

    def read(self, state: Memory) -> Step:
        """Read reward and continuation off a memory."""
        reward, cont = self.heads(state.hidden).unbind(-1)
        return Step(feat=state.hidden, reward=reward, cont=cont.sigmoid())

    def decode(self, state: Memory) -> dict[str, Tensor]:
        """Return the expected observations."""
        widths = [space.width for space in self.spec.obs.values()]
        parts = self.decoder(state.hidden).split(widths, -1)
        pairs = zip(self.spec.obs.items(), parts, strict=True)
        return {name: _shaped(space, part) for (name, space), part in pairs}

    def losses(self, segment: Segment, state: Memory | None = None) -> Losses[Memory]:
        """Compare what predicted and corrected memories say with what happened, [B, T] each."""
        prior, posterior = self._filter(self.initial(segment.batch) if state is None else state, segment)
        before, after = self._errors(prior, segment), self._errors(posterior, segment)
        terms = {name: before[name] + after[name] for name in before}
        terms["dynamics"] = (prior.hidden - posterior.hidden).square().mean(-1)
        return Losses(terms=terms, metrics={}, states=posterior)

    def _errors(self, memory: Memory, segment: Segment) -> dict[str, Tensor]:
        """Compare what memories say with the rows that they belong to, [B, T] each."""
        reward, logit = self.heads(memory.hidden).unbind(-1)
        decoded = self.decode(memory)
        shown = torch.cat([decoded[name].flatten(2) for name in self.spec.obs], -1)
        return {
            "obs": (shown - self._flat(segment)).square().mean(-1),
            "reward": (reward - segment.reward).square(),
            "cont": F.binary_cross_entropy_with_logits(logit, segment.cont, reduction="none"),
        }

    def _filter(self, state: Memory, segment: Segment) -> tuple[Memory, Memory]:
        """Return the memories before and after looking, [B, T, units] each."""
        seen, priors, posteriors = self._flat(segment), [], []
        for t in range(segment.length):
            first = segment.is_first[:, t]
            state = tree.where(first, self.initial(segment.batch), state)
            action = None if segment.prev_action is None else segment.prev_action[:, t] * ~first[:, None]
            priors.append(self.step(state, action))
            state = Memory(hidden=self.correct(seen[:, t], priors[-1].hidden))
            posteriors.append(state)
        return tree.stack(priors), tree.stack(posteriors)

    def _flat(self, segment: Segment) -> Tensor:
        """Join all observations into one vector, [B, T, width]."""
        return torch.cat([_floats(space, segment.obs[name]) for name, space in self.spec.obs.items()], -1)


def _floats(space: Space, values: Tensor) -> Tensor:
    if space.kind == "discrete":
        return space.one_hot(values)
    return values.flatten(2).float() / (255 if space.kind == "image" else 1)


def _shaped(space: Space, values: Tensor) -> Tensor:
    if space.kind == "discrete":
        return torch.cat([part.softmax(-1) for part in values.split(list(space.classes), -1)], -1)
    values = values.unflatten(-1, space.shape) if space.shape else values.squeeze(-1)
    return values.sigmoid() if space.kind == "image" else values
