"""Weights of vision transformers that were trained elsewhere: DINOv2's and V-JEPA 2's, from a local file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core.disk import open_regular
from foreworld.core.errors import CheckpointError
from foreworld.core.tensorfile import Form, read_tensors
from foreworld.encoders.latent import LatentEncoder
from foreworld.encoders.vision import RotaryViT, ViT
from foreworld.encoders.weight_names import kind_of, original_name, original_names

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's pictures, by which the input of both is centred and scaled."""

MOST_NUMBERS = 2**31
"""In one tensor; the largest published encoder has less."""

WHOSE = {"dino": "DINOv2", "vjepa": "V-JEPA 2"}
"""By `Vision.kind`."""


def load_vit(encoder: LatentEncoder, path: str | Path, sha256: str | None = None) -> None:
    """Put published weights into the vision transformer of an encoder, and the scale of pictures that belongs to them.

    Names are those of the original DINOv2 or V-JEPA 2, or of their Hugging Face versions. A file of the originals is
    converted by `safetensors.torch.save_file(torch.load(path, weights_only=True), "vit.safetensors")`; of V-JEPA 2 it
    is `torch.load(...)["encoder"]`.

    DINOv2's position embeddings are resampled to the pictures' size. V-JEPA 2 has none, and counts rows and columns at
    any size; its kernel for two frames is summed, as a picture is a clip of two equal frames. Heads leave no trace in a
    file, so that a wrong number of them cannot be found; nor can a file of the first V-JEPA, which has the names of
    the second and other places.

    Args:
        encoder: with `Vision(kind="dino", ...)` or `Vision(kind="vjepa", ...)` of the sizes of the file; changed in
            place.
        path: the safetensors file.
        sha256: what its hash must be; None does not check it.

    Raises:
        CheckpointError: no such file, another hash, the other one's file, or other sizes; names the tensor.

    Reference:
        Oquab et al., DINOv2, 2023, arXiv 2304.07193; Assran et al., V-JEPA 2, 2025, arXiv 2506.09985; their published
        code and weights for the names.

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
    path, net, scale = Path(path), encoder.pixels, encoder.scale
    kind = _kind(net)
    if not isinstance(net, ViT | RotaryViT) or kind is None or scale is None:
        raise CheckpointError(
            f"{path}: holds a vision transformer, and the encoder has none; use vision.kind=dino or vjepa"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: not found")
    if sha256 is not None and (found := _hash(path)) != sha256.lower():
        raise CheckpointError(f"{path}: its sha256 is {found}, expected {sha256}; download it again")
    if len(scale.mean) != len(MEAN):
        raise CheckpointError(f"{path}: takes pictures with 3 channels, and these have {len(scale.mean)}")
    weights = original_names(read_tensors(path, lambda forms: _check(path, forms)))
    if (other := kind_of(weights)) is not None and other != kind:
        raise CheckpointError(
            f"{path}: holds an encoder of {WHOSE[other]}, and the encoder is one of {WHOSE[kind]}; "
            f"use vision.kind={other}"
        )
    net.load_state_dict(_of_the_sizes(net, weights, kind, path))
    scale.mean.copy_(torch.tensor(MEAN)[:, None, None])
    scale.std.copy_(torch.tensor(STD)[:, None, None])


def _kind(net: nn.Module | None) -> Literal["dino", "vjepa"] | None:
    """Return whose weights a network takes."""
    if isinstance(net, RotaryViT):
        return "vjepa"
    return "dino" if isinstance(net, ViT) and net.blocks[0].factors is not None else None


def _hash(path: Path) -> str:
    with open_regular(path, CheckpointError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, forms: dict[str, Form]) -> None:
    for name, (_, shape) in forms.items():
        if torch.Size(shape).numel() > MOST_NUMBERS:
            raise CheckpointError(f"{path}: {name} of shape {list(shape)} is larger than any known encoder's")


def _of_the_sizes(net: ViT | RotaryViT, weights: dict[str, Tensor], kind: str, path: Path) -> dict[str, Tensor]:
    """Return all tensors of ours out of those of the file, or refuse other sizes."""
    wanted = net.state_dict()
    own = {name: _own(name, weights, net, f"{path}: has no tensor", f"like {WHOSE[kind]}'s") for name in wanted}
    for name, value in own.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(value.shape)} where the encoder has {list(wanted[name].shape)}; "
                "set vision.patch, tokens, hidden, blocks and heads to those of the file"
            )
    _refuse_more(weights, len(net.blocks), path)
    return own


def _refuse_more(names: Iterable[str], blocks: int, path: Path) -> None:
    """Refuse what the file's encoder has and ours has no place for: without, features would be others, unnoticed."""
    found = 1 + max(int(block[1]) for name in names if (block := re.match(r"blocks\.(\d+)\.", name)))
    if found > blocks:
        raise CheckpointError(f"{path}: has {found} blocks where the encoder has {blocks}; set vision.blocks={found}")
    for name in names:
        if name.endswith("register_tokens"):
            raise CheckpointError(f"{path}: has {name}, which the encoder has no place for; take a file without")


def _own(name: str, weights: dict[str, Tensor], net: ViT | RotaryViT, missing: str, kind: str) -> Tensor:
    """Return a tensor of ours, by its name, out of those of the file."""

    def of(key: str) -> Tensor:
        if key not in weights:
            raise CheckpointError(f"{missing} {key}; it holds no vision transformer {kind}")
        return weights[key].float()

    if name == "own":
        return of("cls_token")
    if name == "place":
        return _resampled(of("pos_embed"), net.patches.grid)
    if name.startswith("inward."):
        value = of(f"patch_embed.proj.{name.removeprefix('inward.')}")
        value = value.sum(2) if value.dim() == 5 else value  # all frames of a clip are the same picture
        return value.flatten(1) if value.dim() == 4 else value
    if name.startswith("norm."):
        return of(name)
    if name.endswith(".factors"):
        block = name.removesuffix(".factors")
        return torch.stack([of(f"{block}.ls{i}.gamma") for i in (1, 2)])
    return of(original_name(name))


def _resampled(places: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample position embeddings [1, 1 + N, D] of a square of N patches to a grid of another size."""
    own, rest = places[:, :1], places[:, 1:]
    side = round(rest.shape[1] ** 0.5)
    if side * side != rest.shape[1] or (side, side) == grid:
        return places
    square = rest.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    return torch.cat([own, resized.flatten(2).transpose(1, 2)], 1)
