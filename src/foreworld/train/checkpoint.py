"""Checkpoints: a sealed folder of safetensors and JSON, never a pickle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from foreworld.core import from_json
from foreworld.core.disk import remove_folder
from foreworld.core.errors import CheckpointError, ConfigError, NonFinite
from foreworld.core.files import make_folder, read_json, sealed_folder, sweep_partial, verify_folder, write_json
from foreworld.core.tensorfile import FLOATS, Form, form_of, read_tensors, write_tensors

WEIGHTS = "model.safetensors"
TRAINING = "training.safetensors"
STATE = "state.json"
KEEP = 2
"""Checkpoints kept: the newest, and one before it in case of damage."""

SLOWER = "lower the learning rate (--fit.lr, of an agent --online.lr)"
"""What to do about numbers that overflow."""

_NAME = re.compile(r"([0-9]{8,18})(?:-([0-9]{8,18}))?")
_SLOT = re.compile(r"(0|[1-9][0-9]{0,6})\.([A-Za-z_][A-Za-z0-9_]*)")


class HasTensors(Protocol):
    """A module, as far as its tensors go."""

    def state_dict(self, *, keep_vars: bool = False) -> dict[str, Any]:
        """Return parameters and buffers by name; the very ones with `keep_vars`."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a training had come.

    Attributes:
        step: updates done.
        seconds: time spent training.
        rollbacks: returns to an earlier checkpoint.
        skips: updates skipped, by what was not finite.
        env_steps: actions taken in environments; 0 for a training on stored episodes.
    """

    step: int
    seconds: float
    rollbacks: int = 0
    skips: dict[str, int] = field(default_factory=dict)
    env_steps: int = 0

    @property
    def name(self) -> str:
        """Name of the checkpoint: updates, and actions where there are any, as between two updates many are taken."""
        return f"{self.step:08d}" + (f"-{self.env_steps:08d}" if self.env_steps else "")


def save_checkpoint(
    folder: Path,
    model: HasTensors,
    optimizer: Optimizer,
    progress: Progress,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write `folder/<name of the progress>` whole or not at all, and drop checkpoints older than the last two.

    Args:
        folder: the run's `checkpoints` folder.
        model: its parameters and buffers are saved.
        optimizer: its state is saved.
        progress: step and time.
        beside: further files: name without ending to tensors by name, such as those of an agent.

    Returns:
        The new checkpoint's folder.

    Raises:
        NonFinite: a weight or a number of the optimiser is NaN or infinite; it is named.
        WriteFailed: the disk refused. In both cases the earlier checkpoints are intact.
    """
    make_folder(folder)
    for place in (folder.parent, folder):
        sweep_partial(place)
    target = folder / progress.name
    if target.exists():
        return target
    groups, slots = _optimizer_state(optimizer)
    try:
        with sealed_folder(target) as partial:
            write_tensors(partial / WEIGHTS, tensors(model))
            write_tensors(partial / TRAINING, {**slots, "rng": torch.get_rng_state()})
            for name, found in (beside or {}).items():
                write_tensors(partial / f"{name}.safetensors", found)
            meta = {**asdict(progress), "optimizer": groups}
            write_json(partial / STATE, meta, durable=False)
    except NonFinite as fault:
        raise NonFinite(
            f"{fault}; step {progress.step} was not saved, the checkpoint before it is intact; {SLOWER}"
        ) from None
    for old in list_checkpoints(folder)[:-KEEP]:
        remove_folder(old)
    return target


def load_model(checkpoint: Path, model: HasTensors, file: str = WEIGHTS) -> None:
    """Load verified weights into a model of the same shape.

    Args:
        checkpoint: folder of the checkpoint.
        model: where they go.
        file: which of its files holds them.

    Raises:
        CheckpointError: damaged, or of another shape; the file and the tensor are named.
    """
    expected = tensors(model)
    verify_checkpoint(checkpoint)
    found = read_tensors(checkpoint / file, lambda forms: check_forms(checkpoint / file, forms, expected))
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def read_beside(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """Read one of the further files of a checkpoint, after its hash.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    file = f"{name}.safetensors"
    verify_folder(checkpoint, CheckpointError, (file,))
    return read_tensors(checkpoint / file, lambda forms: None)


def verify_checkpoint(checkpoint: Path) -> None:
    """Check every file of a checkpoint against its hash.

    Raises:
        CheckpointError: the file at fault is named, and the checkpoint before it, if there is one.
    """
    try:
        verify_folder(checkpoint, CheckpointError)
    except CheckpointError as fault:
        listed = list_checkpoints(checkpoint.parent)
        at = listed.index(checkpoint) if checkpoint in listed else 0
        hint = f"; or remove {checkpoint.name} to go on from {listed[at - 1].name}" if at else ""
        raise CheckpointError(f"{fault}{hint}") from None


def check_forms(path: Path, found: dict[str, Form], expected: dict[str, Tensor]) -> None:
    """Compare the header of a file of weights with a model; nothing is loaded for this.

    Raises:
        CheckpointError: a tensor is missing, added, or of another type or shape; it is named.
    """
    if missing := sorted(set(expected) ^ set(found)):
        raise CheckpointError(f"{path}: tensor {missing[0]!r} is not in both file and model; config.json was changed")
    for name, tensor in expected.items():
        (dtype, shape), (own_dtype, own_shape) = found[name], form_of(tensor)
        if (dtype, shape) != (own_dtype, own_shape):
            raise CheckpointError(f"{path}: {name!r} is {dtype} {shape}, the model has {own_dtype} {own_shape}")


def load_training(checkpoint: Path, optimizer: Optimizer) -> Progress:
    """Restore the optimiser and torch's random state; call after `load_model`.

    Raises:
        CheckpointError: damaged or of another optimiser; nothing was changed.
    """
    verify_folder(checkpoint, CheckpointError, (STATE, TRAINING))
    own = optimizer.state_dict()["param_groups"]
    where = checkpoint / STATE
    meta = read_json(where, CheckpointError)
    groups: Any = meta.pop("optimizer", None) if isinstance(meta, dict) else None
    if not _same_form(groups, own) or any(a["params"] != b["params"] for a, b in zip(groups, own, strict=True)):
        raise CheckpointError(f"{where}: its optimiser is not the run's; resume with the run's own config")
    try:
        progress = from_json(Progress, meta, str(where))
    except ConfigError as fault:
        raise CheckpointError(f"{fault}; it is damaged, restore it from a copy") from fault
    if min(progress.step, progress.seconds, progress.env_steps) < 0:
        raise CheckpointError(f"{where}: {progress} is not possible; it is damaged, restore it from a copy")
    params = [param for group in optimizer.param_groups for param in group["params"]]
    path = checkpoint / TRAINING
    slots = read_tensors(path, lambda forms: _check_slots(path, forms, params))
    rng = slots.pop("rng")
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in slots.items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for index, slot in state.items():  # torch turns whole numbers into the parameter's type, which loses count
        optimizer.state[params[index]].update({k: v for k, v in slot.items() if not v.is_floating_point()})
    torch.set_rng_state(rng)
    return progress


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return [path for *_, path in sorted((int(name[1]), int(name[2] or 0), path) for name, path in found if name)]


def updates_of(checkpoint: Path) -> int:
    """Return after how many updates a checkpoint was saved."""
    return int(checkpoint.name.partition("-")[0])


def newest_checkpoint(folder: Path) -> Path:
    """Return the newest complete checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint; train first, or name a run folder that has one")
    if found[-1].is_symlink():
        raise CheckpointError(f"{found[-1]}: is a link; copy the run with `cp -rL` and use the copy")
    return found[-1]


def tensors(model: HasTensors) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once although modules may share them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    # with keep_vars these are the tensors themselves: shared ones are known also where nothing is stored yet
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _optimizer_state(optimizer: Optimizer) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    full = optimizer.state_dict()
    slots = {f"{i}.{name}": value for i, slot in full["state"].items() for name, value in slot.items()}
    return full["param_groups"], slots


def _check_slots(path: Path, found: dict[str, Form], params: list[Tensor]) -> None:
    """Refuse what is not the state of these parameters: each slot is one number, or has its parameter's shape."""
    if found.pop("rng", None) != form_of(torch.get_rng_state()):
        raise CheckpointError(f"{path}: holds no state of torch's random numbers; restore it from a copy")
    slots: dict[int, set[str]] = {}
    for name, (dtype, shape) in found.items():
        match = _SLOT.fullmatch(name)
        known = match is not None and int(match[1]) < len(params)
        like = known and shape == tuple(params[int(match[1])].shape) and dtype in FLOATS
        if match is None or not known or not (like or shape == ()):
            raise CheckpointError(
                f"{path}: {name!r:.80} of shape {shape} does not fit the optimiser; use its own config"
            )
        slots.setdefault(int(match[1]), set()).add(match[2])
    if len({frozenset(names) for names in slots.values()}) > 1:
        raise CheckpointError(f"{path}: the optimiser's state is not complete; restore it from a copy")


def _same_form(found: Any, own: Any) -> bool:
    """Return whether JSON values could be settings of an optimiser: the same fields and types, other numbers."""
    if isinstance(own, dict):
        return isinstance(found, dict) and set(found) == set(own) and all(_same_form(found[k], own[k]) for k in own)
    if isinstance(own, list | tuple):
        same = isinstance(found, list) and len(found) == len(own)
        return same and all(map(_same_form, found, own))
    if isinstance(own, int | float) and not isinstance(own, bool):
        return type(found) in (int, float)
    return type(found) is type(own)
