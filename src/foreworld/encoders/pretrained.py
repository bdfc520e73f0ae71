"""Weights of vision transformers that were trained elsewhere: DINOv2's, from a local safetensors file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core.disk import open_regular
from foreworld.core.errors import CheckpointError
from foreworld.core.tensorfile import Form, read_tensors
from foreworld.encoders.latent import LatentEncoder
from foreworld.encoders.vision import ViT

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's pictures, by which DINO's input is centred and scaled."""

MOST_NUMBERS = 2**31
"""In one tensor; the largest published encoder has less."""

_HUGGING = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_LAYERS = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


def load_vit(encoder: LatentEncoder, path: str | Path, sha256: str | None = None) -> None:
    """Put published weights into the vision transformer of an encoder, and the scale of pictures that belongs to them.

    Names are those of the original DINOv2 or of its Hugging Face version; a file of the former is converted by
    `safetensors.torch.save_file(torch.load(path, weights_only=True), "vit.safetensors")`. Position embeddings are
    resampled to the pictures' size.

    Args:
        encoder: with `Vision(kind="dino", ...)` of the sizes of the file; changed in place.
        path: the safetensors file.
        sha256: what its hash must be; None does not check it.

    Raises:
        CheckpointError: no such file, another hash, or other sizes; names the tensor.

    Reference:
        Oquab et al., DINOv2, 2023, arXiv 2304.07193; its published code and weights for the names.

    Example:
        >>> from foreworld.encoders.latent import LatentEncoder, Vision
        >>> from foreworld.encoders.pretrained import load_vit
        >>> from foreworld.testing import specs
        >>> vision = Vision(kind="dino", patch=14, tokens=384, blocks=12, heads=6, side=224)  # ViT-S/14
        >>> encoder = LatentEncoder(specs()["plain_video"], 64, 32, vision)
        >>> load_vit(encoder, "dinov2_vits14.safetensors")
        Traceback (most recent call last):
        foreworld.core.errors.CheckpointError: dinov2_vits14.safetensors: not found
    """
    path, net = Path(path), encoder.pixels
    if not isinstance(net, ViT) or encoder.scale is None or net.blocks[0].factors is None:
        raise CheckpointError(f"{path}: holds a vision transformer, and the encoder has none; use vision.kind=dino")
    if not path.is_file():
        raise CheckpointError(f"{path}: not found")
    if sha256 is not None and (found := _hash(path)) != sha256.lower():
        raise CheckpointError(f"{path}: its sha256 is {found}, expected {sha256}; download it again")
    weights = _original_names(read_tensors(path, lambda forms: _check(path, forms)))
    wanted = net.state_dict()
    own = {name: _own(name, weights, net, path) for name in wanted}
    for name, value in own.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(value.shape)} where the encoder has {list(wanted[name].shape)}; "
                "set vision.patch, tokens, blocks and heads to those of the file"
            )
    net.load_state_dict(own)
    channels = len(encoder.scale.mean)
    if channels != len(MEAN):
        raise CheckpointError(f"{path}: takes pictures with 3 channels, and these have {channels}")
    encoder.scale.mean.copy_(torch.tensor(MEAN)[:, None, None])
    encoder.scale.std.copy_(torch.tensor(STD)[:, None, None])


def _hash(path: Path) -> str:
    with open_regular(path, CheckpointError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, forms: dict[str, Form]) -> None:
    for name, (_, shape) in forms.items():
        if torch.Size(shape).numel() > MOST_NUMBERS:
            raise CheckpointError(f"{path}: {name} of shape {list(shape)} is larger than any known encoder's")


def _original_names(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of the Hugging Face version their original names; query, key and value become one."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in found.items():
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
        split = layer and re.fullmatch(r"attention\.attention\.(query|key|value)\.(weight|bias)", layer[2])
        if layer and split:
            parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{split[2]}", {})[split[1]] = value
        elif layer:
            renamed[f"blocks.{layer[1]}.{_renamed(layer[2], _LAYERS)}"] = value
        else:
            renamed[_renamed(name, _HUGGING)] = value
    joined = {
        name: torch.cat([three[kind] for kind in ("query", "key", "value")])
        for name, three in parts.items()
        if len(three) == 3
    }
    return renamed | joined


def _renamed(name: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def _own(name: str, weights: dict[str, Tensor], net: ViT, path: Path) -> Tensor:
    """Return a tensor of ours, by its name, out of those of the file."""

    def of(key: str) -> Tensor:
        if key not in weights:
            raise CheckpointError(f"{path}: has no tensor {key}; it holds no vision transformer like DINOv2's")
        return weights[key].float()

    if name == "own":
        return of("cls_token")
    if name == "place":
        return _resampled(of("pos_embed"), net.grid)
    if name.startswith("inward."):
        value = of(f"patch_embed.proj.{name.removeprefix('inward.')}")
        return value.flatten(1) if value.dim() == 4 else value
    if name.startswith("norm."):
        return of(name)
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    assert block is not None
    if block[2] == "factors":
        return torch.stack([of(f"blocks.{block[1]}.ls{i}.gamma") for i in (1, 2)])
    theirs = block[2]
    for old, new in (
        ("norms.0", "norm1"),
        ("norms.1", "norm2"),
        ("attention.inward", "attn.qkv"),
        ("attention.outward", "attn.proj"),
        ("hidden.0", "mlp.fc1"),
        ("hidden.2", "mlp.fc2"),
    ):
        theirs = theirs.replace(old, new)
    return of(f"blocks.{block[1]}.{theirs}")


def _resampled(places: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample position embeddings [1, 1 + N, D] of a square of N patches to a grid of another size."""
    own, rest = places[:, :1], places[:, 1:]
    side = round(rest.shape[1] ** 0.5)
    if side * side != rest.shape[1] or (side, side) == grid:
        return places
    square = rest.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    return torch.cat([own, resized.flatten(2).transpose(1, 2)], 1)
