"""`Grounded`: a model that predicts in observations instead of its latent, to measure what the latent is worth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, Step, tree


class Grounded(torch.nn.Module):
    """Predict in observations instead of the latent: every step is decoded, and read back as if it had been seen.

    Args:
        model: decodes.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec
        self.provides = frozenset({"decode", "reward", "cont"} & model.provides)

    def initial(self, batch: int) -> Any:
        """Return the model's own start."""
        return self.model.initial(batch)

    def observe(self, state: Any, segment: Segment) -> Any:
        """Filter as the model does."""
        return self.model.observe(state, segment)

    def step(self, state: Any, action: Tensor | None) -> Any:
        """Predict a step, decode it, and filter what was decoded."""
        shown = self.model.decode(self.model.step(state, action))
        batch = tree.leaves(state)[0].shape[0]
        device = tree.leaves(state)[0].device
        no = torch.zeros(batch, 1, dtype=torch.bool, device=device)
        row = Segment(
            obs={key: self.spec.obs[key].from_decoded(value).unsqueeze(1) for key, value in shown.items()},
            prev_action=None if action is None else action.unsqueeze(1),
            reward=torch.zeros(batch, 1, device=device),
            is_first=no,
            is_terminal=no,
            is_last=no,
        )
        return tree.index(self.model.observe(state, row), (slice(None), 0))

    def read(self, state: Any) -> Step:
        """Read what the model reads."""
        return self.model.read(state)

    def decode(self, state: Any) -> dict[str, Tensor]:
        """Decode as the model does."""
        return self.model.decode(state)
