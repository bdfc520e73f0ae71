"""What happens when numbers go bad: updates are skipped, then undone, then the training stops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from foreworld.core.errors import NonFinite
from foreworld.train.checkpoint import (
    SLOWER,
    HasTensors,
    Progress,
    load_model,
    load_training,
    newest_checkpoint,
    save_checkpoint,
    tensors,
)
from foreworld.train.update import Learns, Outcome

ROLLBACKS = 3
"""Times to go back to the same checkpoint before giving up."""


class Guard:
    """Count skipped updates, and say when to go back to the last checkpoint and when to give up.

    Going back halves the learning rate for the rest of the run, and the training goes on with the batches that
    follow: weights that diverged would diverge again, and a batch that cannot be learned would come again.

    Args:
        model: names the culprit.
        progress: where the training starts; counts go on from there.
        patience: skipped updates in a row after which to go back.
        every: updates between two looks; a look waits for the device.

    Attributes:
        skips: how often, by culprit.
        rollbacks: how often the training went back, in all.
        sound: whether the last update seen was done; only then is the state worth keeping.
        lost: whether to go back now.
        done: updates that were not skipped, since this process started.
    """

    def __init__(self, model: Learns, progress: Progress, patience: int, every: int = 1) -> None:
        self.model, self.patience, self.every = model, patience, every
        self.skips, self.rollbacks = dict(progress.skips), progress.rollbacks
        self.sound, self.lost, self.done = True, False, 0
        self._pending: list[Outcome] = []
        self._streak = self._failed = 0
        self._culprit = ""

    @property
    def rate(self) -> float:
        """Factor of the learning rate."""
        return 0.5**self.rollbacks

    def add(self, outcome: Outcome) -> None:
        """Note what an update found; look at it now or later."""
        self._pending.append(outcome)
        if len(self._pending) >= self.every:
            self.look()

    def look(self) -> None:
        """Read the outcomes that were not read yet, in one go."""
        if not self._pending:
            return
        read, self._pending = self._pending, []
        for outcome, sound in zip(read, torch.stack([one.sound for one in read]).tolist(), strict=True):
            self.sound = sound
            self.done += sound
            self._streak = 0 if sound else self._streak + 1
            if not sound:
                self._culprit = outcome.culprit(self.model)
                self.skips[self._culprit] = self.skips.get(self._culprit, 0) + 1
            self.lost = self.lost or self._streak >= self.patience

    def go_back(self, step: int) -> None:
        """Note that the training goes back to its last checkpoint.

        Raises:
            NonFinite: it has done so too often.
        """
        self.lost, self._streak = False, 0
        self._failed += 1
        if self._failed > ROLLBACKS:
            raise NonFinite(
                f"{self._culprit} was NaN or infinite in {self.patience} updates in a row, again after {ROLLBACKS} "
                f"returns to the last checkpoint at half the learning rate each (update {step}); {SLOWER}, or look "
                f"for extreme values in the data; that checkpoint is intact"
            )
        self.rollbacks += 1

    def kept(self) -> None:
        """Note that there is a new checkpoint: what failed before it is past."""
        self._failed = 0

    def numbers(self) -> dict[str, float]:
        """Return what to log: skipped updates in all and by culprit, and returns to a checkpoint."""
        found: dict[str, float] = {"skipped": sum(self.skips.values())}
        if self.rollbacks:
            found["rollbacks"] = self.rollbacks
        return found | {f"skipped/{name}": count for name, count in self.skips.items()}

    def finish(self, step: int) -> None:
        """Look a last time.

        Raises:
            NonFinite: not one update was done.
        """
        self.look()
        if self.skips and not self.done and not self.sound:
            raise NonFinite(
                f"{self._culprit} was NaN or infinite in every update up to {step}; {SLOWER}, or look for "
                f"extreme values in the data"
            )


class Checkpoints:
    """Keep and restore weights, optimiser and torch's random state: in a folder, or in memory without one.

    Args:
        model: what is trained.
        optimizer: its settings (not its state) are those of now whatever is restored.
        folder: the run's `checkpoints` folder; None keeps one copy in memory.
        beside: what is trained with it, such as an agent, by the name of its file.
    """

    def __init__(
        self,
        model: HasTensors,
        optimizer: Optimizer,
        folder: Path | None,
        beside: Mapping[str, HasTensors] | None = None,
    ) -> None:
        self.model, self.optimizer, self.folder, self.beside = model, optimizer, folder, beside or {}
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self._copy: tuple[Progress, dict[str, Tensor], dict[str, Any], Tensor] | None = None

    def save(self, progress: Progress, extra: Mapping[str, Mapping[str, Tensor]] | None = None) -> None:
        """Keep the state of now; in a folder with further tensors, by the name of their file."""
        if self.folder is not None:
            found = {name: tensors(part) for name, part in self.beside.items()} | dict(extra or {})
            save_checkpoint(self.folder, self.model, self.optimizer, progress, found)
            return
        weights = {name: _copied(tensor) for name, tensor in self._tensors().items()}
        full = self.optimizer.state_dict()
        slots = {i: {name: _copied(value) for name, value in slot.items()} for i, slot in full["state"].items()}
        self._copy = progress, weights, full | {"state": slots}, torch.get_rng_state()

    def restore(self) -> Progress:
        """Go back to what was kept last.

        Raises:
            CheckpointError: it is damaged, or of another model or optimiser.
        """
        if self.folder is not None:
            checkpoint = newest_checkpoint(self.folder)
            load_model(checkpoint, self.model)
            for name, part in self.beside.items():
                load_model(checkpoint, part, f"{name}.safetensors")
            progress = load_training(checkpoint, self.optimizer)
        else:
            assert self._copy is not None, "save comes before restore"
            progress, weights, state, rng = self._copy
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    tensor.copy_(weights[name])
            # loading takes tensors over as they are, and the copy may be needed again
            slots = {i: {name: _copied(value) for name, value in slot.items()} for i, slot in state["state"].items()}
            self.optimizer.load_state_dict(state | {"state": slots})
            torch.set_rng_state(rng)
        for group, settings in zip(self.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        return progress

    def _tensors(self) -> dict[str, Tensor]:
        beside = {
            f"{name}/{key}": tensor for name, part in self.beside.items() for key, tensor in tensors(part).items()
        }
        return tensors(self.model) | beside


def check_weights(model: Learns) -> None:
    """Refuse a model that cannot be trained.

    Raises:
        NonFinite: a weight is NaN or infinite; it is named.
    """
    for name, param in model.named_parameters():
        if not bool(param.detach().isfinite().all()):
            raise NonFinite(f"weight {name} is NaN or infinite before the first update; build or load the model anew")


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
