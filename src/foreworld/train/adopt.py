"""Beginning with the weights of another run, as far as they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foreworld.core.errors import ConfigError
from foreworld.core.registry import load as find
from foreworld.train.checkpoint import tensors
from foreworld.train.run import Run, load_run


def adopt(model: Any, run: str | Path) -> tuple[list[str], list[str]]:
    """Take over every tensor of another run that a model has by the same name and shape.

    So a model that was trained on plain video gives its encoder to one with actions. A single model gives its encoder,
    and nothing else, to an ensemble whose members have one that is frozen: they must begin apart to disagree.

    Args:
        model: changed in place.
        run: folder of a run of the same family, or of the members'.

    Returns:
        Names of the tensors that were taken over, and of those that were not.

    Raises:
        CheckpointError: no such run, or a damaged one.
        ConfigError: a run of another family; nothing fits; a frozen encoder that does not fit as a whole; or several
            encoders where the members share one.

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
    mine, found, theirs = tensors(model), tensors(source.model), _counterparts(model, source)
    taken = [name for name, other in theirs.items() if other in found and found[other].shape == mine[name].shape]
    if not taken:
        raise ConfigError(f"{run}: none of its {len(found)} tensors has name and shape of one of this model's")
    left = [name for name in mine if name not in set(taken)]
    alien = sorted(_frozen(model) & set(left))
    if alien:
        raise ConfigError(
            f"{run}: its encoder is another than this model's, which is frozen and needs all of it, {alien[0]!r} for "
            "one; give the model the sizes that the run has"
        )
    with torch.no_grad():
        for name in taken:
            mine[name].copy_(found[theirs[name]])
    return taken, left


def _counterparts(model: Any, source: Run) -> dict[str, str]:
    """Return which tensor of a run stands for which of a model's: all by the same names, or an encoder's alone."""
    member = model.config.member if find("models", model.family).of is not None else None
    if source.family == model.family:
        if member is not None and "fixed_embed" in model.provides and "fixed_embed" not in source.model.provides:
            raise ConfigError(
                f"{source.path}: its members learned an encoder each, and those of this ensemble share one that is "
                "frozen; begin with a run of one model, or of an ensemble whose encoder is frozen too"
            )
        return {name: name for name in tensors(model)}
    if source.family != member:
        raise ConfigError(
            f"{source.path} is a run of {source.family}, not of {model.family}: its weights mean nothing here"
        )
    if "fixed_embed" not in model.provides or "embed" not in source.model.provides:
        raise ConfigError(
            f"{source.path} is one model, and the members of this ensemble must begin apart; they can take over its "
            "encoder where that is frozen (--model.each.encoder frozen), or begin with a run of an ensemble"
        )
    return {name: f"encoder.{inner}" for name, inner in _encoder_names(model).items()}


def _frozen(model: Any) -> set[str]:
    """Name the weights of an encoder that training does not change; scales that it takes from data do not count."""
    if "fixed_embed" not in model.provides:
        return set()
    weights = {name for name, _ in model.encoder.named_parameters()}
    return {name for name, inner in _encoder_names(model).items() if inner in weights}


def _encoder_names(model: Any) -> dict[str, str]:
    """Return what the tensors of a model's encoder are called in the model, and what in the encoder."""
    inner = {id(tensor): name for name, tensor in model.encoder.state_dict(keep_vars=True).items()}
    whole = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: inner[whole[name]] for name in tensors(model) if whole[name] in inner}
