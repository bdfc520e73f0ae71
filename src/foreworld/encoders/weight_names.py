"""Names of tensors in files of published vision transformers, brought to those of their original code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

PREFIX = re.compile(r"(module\.|backbone\.|dinov2\.|vjepa2\.)*")
"""Of wrappers around the encoder, in checkpoints as they were trained and in models for a task."""

_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "encoder.embeddings.patch_embeddings.proj": "patch_embed.proj",
    "encoder.layernorm": "norm",
}
_LAYERS = {
    "attention.output.dense": "attn.proj",
    "attention.proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_BLOCK = {
    "norms.0": "norm1",
    "norms.1": "norm2",
    "attention.inward": "attn.qkv",
    "attention.outward": "attn.proj",
    "hidden.0": "mlp.fc1",
    "hidden.2": "mlp.fc2",
}
"""Parts of a `Block` of foreworld, and what the originals call them."""


def original_names(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of DINOv2 and V-JEPA 2 their original names, whether they have those or Hugging Face's.

    Args:
        found: tensors [...] by the names of a file.

    Returns:
        Tensors [...] by original names; query, key and value [D, ...] as one [3 D, ...].

    Example:
        >>> import torch
        >>> from foreworld.encoders.weight_names import original_names
        >>> three = {f"encoder.layer.0.attention.{name}.bias": torch.zeros(4) for name in ("query", "key", "value")}
        >>> [(name, tuple(value.shape)) for name, value in original_names(three).items()]
        [('blocks.0.attn.qkv.bias', (12,))]
    """
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for wrapped, value in found.items():
        name = PREFIX.sub("", wrapped, count=1)
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
        split = layer and re.fullmatch(r"attention\.(?:attention\.)?(query|key|value)\.(weight|bias)", layer[2])
        if layer and split:
            parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{split[2]}", {})[split[1]] = value
        elif layer:
            renamed[f"blocks.{layer[1]}.{_renamed(layer[2], _LAYERS)}"] = value
        else:
            renamed[_renamed(name, _OUTSIDE)] = value
    joined = {
        name: torch.cat([three[kind] for kind in ("query", "key", "value")])
        for name, three in parts.items()
        if len(three) == 3
    }
    return renamed | joined


def original_name(own: str) -> str:
    """Return the original name of a tensor of a `Block` in foreworld's vision transformers.

    Args:
        own: foreworld's name.

    Returns:
        The name that DINOv2 and V-JEPA 2 share.

    Example:
        >>> from foreworld.encoders.weight_names import original_name
        >>> original_name("blocks.3.hidden.2.weight")
        'blocks.3.mlp.fc2.weight'
    """
    blocks, index, part = own.split(".", 2)
    return f"{blocks}.{index}.{_renamed(part, _BLOCK)}"


def kind_of(weights: Mapping[str, Tensor]) -> Literal["dino", "vjepa"] | None:
    """Say whose encoder it is: V-JEPA 2's cuts clips, DINOv2's cuts pictures.

    Args:
        weights: tensors [...] by original names.

    Returns:
        The `Vision.kind`; None where nothing cuts either.

    Example:
        >>> import torch
        >>> from foreworld.encoders.weight_names import kind_of
        >>> kind_of({"patch_embed.proj.weight": torch.zeros(8, 3, 2, 16, 16)})
        'vjepa'
    """
    patches = weights.get("patch_embed.proj.weight")
    if patches is None or patches.dim() not in (4, 5):
        return None
    return "vjepa" if patches.dim() == 5 else "dino"


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name
