"""Checkpoints: a sealed folder of safetensors and JSON, never a pickle."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from foreworld.core import TrainableModel
from foreworld.core.errors import CheckpointError
from foreworld.core.files import read_json, sealed_folder, sweep_partial, verify_folder, write_json

KEEP = 2
"""Checkpoints kept: the newest, and one before it in case of damage."""


@dataclass(frozen=True)
class Progress:
    """How far a training had come.

    Attributes:
        step: updates done.
        seconds: time spent training.
        rollbacks: returns to an earlier checkpoint.
        skips: updates skipped, by what was not finite.
    """

    step: int
    seconds: float
    rollbacks: int = 0
    skips: dict[str, int] = field(default_factory=dict)


def save_checkpoint(folder: Path, model: TrainableModel[Any], optimizer: Optimizer, progress: Progress) -> Path:
    """Write `folder/<step>` whole or not at all, and drop checkpoints older than the last two.

    Args:
        folder: the run's `checkpoints` folder.
        model: its parameters and buffers are saved.
        optimizer: its state is saved.
        progress: step and time.

    Returns:
        The new checkpoint's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep_partial(folder)
    target = folder / f"{progress.step:08d}"
    if target.exists():
        return target
    with sealed_folder(target) as partial:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors(model).items()}
        save_file(weights, partial / "model.safetensors")
        groups, slots = _optimizer_state(optimizer)
        save_file({**slots, "rng": torch.get_rng_state()}, partial / "training.safetensors")
        write_json(partial / "state.json", {**asdict(progress), "optimizer": groups})
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return target


def load_model(checkpoint: Path, model: TrainableModel[Any]) -> None:
    """Load verified weights into a model of the same shape.

    Raises:
        CheckpointError: damaged, or of another shape; the file and the tensor are named.
    """
    verify_folder(checkpoint, CheckpointError)
    path = checkpoint / "model.safetensors"
    found, expected = _load(path), tensors(model)
    if missing := sorted(set(expected) ^ set(found)):
        raise CheckpointError(f"{path}: tensor {missing[0]!r} is not in both file and model; config.json was changed")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(f"{path}: {name!r} is {tuple(found[name].shape)}, model has {tuple(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def load_training(checkpoint: Path, optimizer: Optimizer) -> Progress:
    """Restore the optimiser and torch's random state; call after `load_model`.

    Raises:
        CheckpointError: damaged or of another optimiser.
    """
    meta = read_json(checkpoint / "state.json", CheckpointError)
    slots = _load(checkpoint / "training.safetensors")
    torch.set_rng_state(slots.pop("rng"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in slots.items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": meta["optimizer"]})
    except (ValueError, KeyError) as fault:
        raise CheckpointError(
            f"{checkpoint}: optimiser state does not fit ({fault}); resume with its own config"
        ) from fault
    return Progress(meta["step"], meta["seconds"], meta.get("rollbacks", 0), meta.get("skips", {}))


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def newest_checkpoint(folder: Path) -> Path:
    """Return the newest complete checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint; train first, or name a run folder that has one")
    return found[-1]


def tensors(model: TrainableModel[Any]) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once although modules may share them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as fault:
        raise CheckpointError(f"{path}: not readable as safetensors ({fault})") from fault


def _optimizer_state(optimizer: Optimizer) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    full = optimizer.state_dict()
    slots = {f"{i}.{name}": value for i, slot in full["state"].items() for name, value in slot.items()}
    return full["param_groups"], {name: value.detach().cpu().contiguous() for name, value in slots.items()}
