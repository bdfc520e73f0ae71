"""Beginning with the weights of another run, as far as they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foreworld.core.errors import ConfigError
from foreworld.train.checkpoint import tensors
from foreworld.train.run import load_run


def adopt(model: Any, run: str | Path) -> tuple[list[str], list[str]]:
    """Take over every tensor of another run that a model has by the same name and shape.

    So a model that was trained on plain video gives its encoder to one with actions.

    Args:
        model: changed in place.
        run: folder of a run of the same family.

    Returns:
        Names of the tensors that were taken over, and of those that were not.

    Raises:
        CheckpointError: no such run, or a damaged one.
        ConfigError: a run of another family, or nothing fits.

    Example:
        >>> import tempfile, foreworld as fw
        >>> from foreworld.train import adopt
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/episodes")
        ...     _ = fw.fit(fw.JEPA(data.spec, latent=8, units=16), data, steps=1, out=f"{folder}/run")
        ...     taken, left = adopt(fw.JEPA(data.spec, latent=8, units=16, layers=3), f"{folder}/run")
        >>> [name for name in left if "encoder" in name]
        []
    """
    source = load_run(run)
    if source.family != model.family:
        raise ConfigError(f"{run} is a run of {source.family}, and this is a {model.family}: its weights mean nothing")
    mine, found = tensors(model), tensors(source.model)
    taken = [name for name, tensor in mine.items() if name in found and found[name].shape == tensor.shape]
    if not taken:
        raise ConfigError(f"{run}: none of its {len(found)} tensors has name and shape of one of this model's")
    with torch.no_grad():
        for name in taken:
            mine[name].copy_(found[name])
    return taken, [name for name in mine if name not in set(taken)]
