"""Batches from a replay to the device where the model learns, and what it remembers of them back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foreworld.core import Segment, tree
from foreworld.data import Batch, Replay
from foreworld.train.update import Outcome


@dataclass(frozen=True, eq=False)
class Fed:
    """A batch on the device.

    Attributes:
        batch: as the replay gave it.
        step: which one it is.
        segment: [B, T, ...].
        carry: [B, C], or None of a replay without states.
    """

    batch: Batch
    step: int
    segment: Segment
    carry: Tensor | None


@dataclass(frozen=True, eq=False)
class _Found:
    """What an update found, on its way to the host; `arrived` is None where there is nothing to wait for."""

    batch: Batch
    carry: Tensor
    sound: Tensor
    arrived: torch.cuda.Event | None


class Feed:
    """Take batches, and write the states that the model found for their rows back.

    In turn, a batch is drawn after the states of the one before are written: exact, and all that a CPU needs. Ahead,
    the next batch is drawn and on its way while the device still learns from this one, and states are written one
    update later: the device never waits for the host. Then new rows that were drawn ahead when a run ended abruptly
    are not the first to be replayed after a resume.

    Args:
        replay: where they come from.
        batch: B, windows in a batch.
        device: where they go.
        ahead: whether to draw ahead.
    """

    def __init__(self, replay: Replay, batch: int, device: torch.device, ahead: bool) -> None:
        self._replay, self._batch, self._device, self._ahead = replay, batch, device, ahead
        self._next: Fed | None = None
        self._found: _Found | None = None

    def take(self, step: int) -> Fed:
        """Return batch number `step` on the device."""
        ready, self._next = self._next, None
        return ready if ready is not None and ready.step == step else self._draw(step)

    def give(self, fed: Fed, outcome: Outcome) -> None:
        """Take what an update found in a batch; where the device still computes, nothing waits for it."""
        found = self._fetch(fed, outcome) if self._replay.carry else None
        if self._ahead:
            self._next = self._draw(fed.step + 1)
            found, self._found = self._found, found
        _write(self._replay, found)

    def settle(self) -> None:
        """Write what is still on its way; after this, the replay has all states."""
        found, self._found = self._found, None
        _write(self._replay, found)

    def _draw(self, step: int) -> Fed:
        batch = self._replay.sample(self._batch, step=step)
        carry = self._move(batch.carry) if self._replay.carry else None
        return Fed(batch=batch, step=step, segment=tree.map(self._move, batch.segment), carry=carry)

    def _move(self, x: Tensor) -> Tensor:
        if self._device.type == "cuda":
            x = x.pin_memory()
        return x.to(self._device, non_blocking=True)

    def _fetch(self, fed: Fed, outcome: Outcome) -> _Found:
        carry, sound = tree.to_vector(outcome.states, 2), outcome.sound
        if self._device.type != "cuda":
            return _Found(fed.batch, carry.cpu(), sound.cpu(), None)
        on_host = [torch.empty_like(x, device="cpu", pin_memory=True) for x in (carry, sound)]
        for here, there in zip(on_host, (carry, sound), strict=True):
            here.copy_(there, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return _Found(fed.batch, on_host[0], on_host[1], arrived)


def _write(replay: Replay, found: _Found | None) -> None:
    if found is None:
        return
    if found.arrived is not None:
        found.arrived.synchronize()
    if bool(found.sound):
        replay.write_back(found.batch, found.carry)
