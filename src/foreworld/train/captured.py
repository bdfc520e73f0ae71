"""An update recorded once and replayed as a whole: on a GPU, launching small kernels takes longer than running them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Segment, tree
from foreworld.train.update import Outcome

Compute = Callable[[Segment, Any, Tensor], Outcome]
"""An update from a segment, the state before it and a learning rate, all on the device."""

WARM_UP = 3
"""Updates before the recording: memory, libraries and the optimiser's state are set up by doing."""


class Captured:
    """Do the same update again and again as a CUDA graph.

    The first updates are done plainly. Then one is recorded: every kernel with the addresses that it reads and
    writes. Later ones copy their inputs to those addresses and launch the whole. So an update must change weights,
    buffers and the state of the optimiser in place, read no number on the host, and see batches of one shape.

    Args:
        compute: the update.
        device: a GPU; on any other, updates are done plainly, through the same fixed inputs.

    Reference:
        PyTorch, "CUDA Graphs" (notes on CUDA semantics), whole-network capture.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._done = 0
        self._inputs: tuple[Segment, Any, Tensor] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outcome: Outcome | None = None

    def __call__(self, segment: Segment, state: Any, rate: float) -> Outcome:
        """Do an update.

        Args:
            segment: [B, T, ...], of the same shapes at every call.
            state: before it.
            rate: the learning rate.
        """
        inputs = self._fill(segment, state, rate)
        self._done += 1
        if self._device.type != "cuda":
            return self._compute(*inputs)
        if self._done <= WARM_UP:
            return self._beside(inputs)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # records, and does nothing yet; other threads, such as one that collects, may use the device meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outcome = self._compute(*inputs)
        self._graph.replay()
        assert self._outcome is not None
        return _kept(self._outcome)

    def forget(self) -> None:
        """Record anew: weights or the optimiser's state lie elsewhere since they were restored."""
        self._done, self._inputs, self._graph, self._outcome = 0, None, None, None

    def _fill(self, segment: Segment, state: Any, rate: float) -> tuple[Segment, Any, Tensor]:
        """Copy the inputs to where the recorded kernels look for them."""
        if self._inputs is None:
            known = torch.full((), rate, device=self._device)
            self._inputs = tree.map(torch.clone, segment), tree.map(torch.clone, state), known
        fixed = self._inputs
        for here, new in zip(tree.leaves(fixed[:2]), tree.leaves((segment, state)), strict=True):
            here.copy_(new, non_blocking=True)
        fixed[2].fill_(rate)
        return fixed

    def _beside(self, inputs: tuple[Segment, Any, Tensor]) -> Outcome:
        """Do an update on a stream of its own, as what is recorded later must not depend on the main one."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            outcome = self._compute(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return outcome


def _kept(outcome: Outcome) -> Outcome:
    """Return a copy: the next replay writes over the memory of what was recorded."""
    values = {name: value.clone() for name, value in outcome.values.items()}
    checked, sound = outcome.checked.clone(), outcome.sound.clone()
    return replace(outcome, values=values, checked=checked, sound=sound, states=tree.map(torch.clone, outcome.states))
