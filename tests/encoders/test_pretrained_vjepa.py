"""V-JEPA 2's weights from elsewhere: against plain products of clips of two frames, under both kinds of names."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from foreworld.core import Space, Spec
from foreworld.core.errors import CheckpointError, ConfigError
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.encoders.pretrained import MEAN, STD, load_vit
from foreworld.nn.rotary import GridRotary

WIDTH, LAYERS, HEADS, PATCH, HIDDEN = 32, 2, 2, 4, 72  # heads of 16: four for each axis, and four left over


def encoder(height: int = 12, width: int = 12, **fields: object) -> LatentEncoder:
    sizes = {"kind": "vjepa", "patch": PATCH, "tokens": WIDTH, "blocks": LAYERS, "heads": HEADS, "hidden": HIDDEN}
    spec = Spec(obs={"image": Space(kind="image", shape=(3, height, width), dtype="uint8")}, action=None)
    torch.manual_seed(1)
    return LatentEncoder(spec, 8, 16, Vision(**(sizes | fields)))  # type: ignore[arg-type]


def drawn() -> dict[str, Tensor]:
    """Random weights under the original names."""
    torch.manual_seed(0)
    shapes = {
        "pos_embed": (1, 9, WIDTH),  # in the files, and without use
        "patch_embed.proj.weight": (WIDTH, 3, 2, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        shapes |= {f"blocks.{i}.norm{j}.{kind}": (WIDTH,) for j in (1, 2) for kind in ("weight", "bias")}
        sizes = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        sizes |= {"mlp.fc1": (HIDDEN, WIDTH), "mlp.fc2": (WIDTH, HIDDEN)}
        for name, (outs, ins) in sizes.items():
            shapes |= {f"blocks.{i}.{name}.weight": (outs, ins), f"blocks.{i}.{name}.bias": (outs,)}
    return {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}


def hugging(weights: dict[str, Tensor], between: str = "") -> dict[str, Tensor]:
    """The same weights as the Hugging Face version names them, with a predictor's beside them."""
    found: dict[str, Tensor] = {"predictor.layer.0.norm1.weight": torch.zeros(5)}
    for kind in ("weight", "bias"):
        found[f"encoder.embeddings.patch_embeddings.proj.{kind}"] = weights[f"patch_embed.proj.{kind}"]
        found[f"encoder.layernorm.{kind}"] = weights[f"norm.{kind}"]
        for i in range(LAYERS):
            old, new = f"blocks.{i}.", f"encoder.layer.{i}."
            three = weights[f"{old}attn.qkv.{kind}"].chunk(3)
            for name, value in zip(("query", "key", "value"), three, strict=True):
                found[f"{new}attention.{between}{name}.{kind}"] = value.clone()
            found[f"{new}attention.proj.{kind}"] = weights[f"{old}attn.proj.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{new}{name}.{kind}"] = weights[f"{old}{name}.{kind}"]
    return found


NAMINGS = {
    "original": lambda weights: weights,
    "wrapped": lambda weights: {f"module.backbone.{name}": value for name, value in weights.items()},
    "hugging": hugging,
    "hugging for a task": lambda weights: {f"vjepa2.{name}": value for name, value in hugging(weights).items()},
    "hugging, early": lambda weights: hugging(weights, "attention."),
}


def turned(entries: Tensor, places: tuple[int, int, int]) -> Tensor:
    """Turn one head's query or key [D] of one patch, entry by entry, as the published code does."""
    share = 2 * (len(entries) // 3 // 2)
    found = entries.clone()
    for axis, place in enumerate(places):
        for e in range(share):
            angle = place / 10_000 ** ((e % (share // 2)) / (share / 2))
            at = axis * share + e
            other = -entries[at + 1] if e % 2 == 0 else entries[at - 1]
            found[at] = entries[at] * math.cos(angle) + other * math.sin(angle)
    return found


def turned_all(entries: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
    """Turn one head's queries or keys [N, T, D] by the places of the T patches."""
    return torch.stack([torch.stack([turned(*pair) for pair in zip(of, places, strict=True)]) for of in entries])


def independent(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """The mean token of clips of two equal frames, by a convolution over the clips and loops over heads and patches."""
    x = (pictures.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    clip = torch.stack([x, x], 2)
    cut = F.conv3d(clip, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], (2, PATCH, PATCH))
    rows, columns = cut.shape[-2:]
    places = [(0, row, column) for row in range(rows) for column in range(columns)]
    tokens = cut.flatten(2).transpose(1, 2)

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def layer(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for i in range(LAYERS):
        query, key, value = layer(normed(tokens, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").chunk(3, -1)
        mixed = torch.zeros_like(value)
        for head in torch.arange(WIDTH).chunk(HEADS):
            q, k = (turned_all(x[..., head], places) for x in (query, key))
            shares = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(len(head)), -1)
            mixed[..., head] = shares @ value[..., head]
        tokens = tokens + layer(mixed, f"blocks.{i}.attn.proj")
        hidden = F.gelu(layer(normed(tokens, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"))
        tokens = tokens + layer(hidden, f"blocks.{i}.mlp.fc2")
    return normed(tokens, "norm").mean(1)


@pytest.mark.parametrize("names", NAMINGS)
def test_it_is_what_plain_products_make_of_the_same_weights(names: str, tmp_path: Path) -> None:
    weights, net = drawn(), encoder()
    save_file(NAMINGS[names](weights), tmp_path / "vit.safetensors")
    load_vit(net, tmp_path / "vit.safetensors")
    pictures = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(net.pixels(net.scale(pictures)), independent(weights, pictures), rtol=0, atol=1e-5)


def test_rows_and_columns_are_counted_at_any_size(tmp_path: Path) -> None:
    weights, net = drawn(), encoder(8, 20)
    save_file(weights, tmp_path / "vit.safetensors")
    load_vit(net, tmp_path / "vit.safetensors")
    pictures = torch.randint(0, 256, (1, 3, 8, 20), dtype=torch.uint8)
    with torch.no_grad():
        found = net.pixels(net.scale(pictures))
    torch.testing.assert_close(found, independent(weights, pictures), rtol=0, atol=1e-5)
    mirrored = independent(weights, pictures.transpose(-1, -2)).squeeze()
    assert (found - mirrored).abs().max() > 1e-2  # rows are not columns


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), half=st.integers(3, 14))
@settings(max_examples=20, deadline=None)
def test_queries_are_turned_entry_by_entry(rows: int, columns: int, half: int) -> None:
    x = torch.randn(2, rows * columns, 2 * half, generator=torch.Generator().manual_seed(half))
    places = [(0, row, column) for row in range(rows) for column in range(columns)]
    found = GridRotary((rows, columns), 2 * half)(x)
    torch.testing.assert_close(found, turned_all(x, places), rtol=0, atol=1e-5)


def test_heads_too_narrow_for_places_are_refused() -> None:
    with pytest.raises(ConfigError, match="even width of at least 6, found 4"):
        encoder(heads=8)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path, weights = tmp_path / "vit.safetensors", drawn()
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="its sha256 is"):
        load_vit(encoder(), path, "0" * 64)
    with pytest.raises(CheckpointError, match=r"holds an encoder of V-JEPA 2, .* one of DINOv2; use vision.kind=vjepa"):
        load_vit(encoder(kind="dino"), path)
    with pytest.raises(CheckpointError, match=r"inward.weight has shape \[32, 48\] where the encoder has \[32, 192\]"):
        load_vit(encoder(patch=8, height=16, width=16), path)
    with pytest.raises(CheckpointError, match=r"hidden.0.weight has shape \[72, 32\] where .* has \[128, 32\]"):
        load_vit(encoder(hidden=0), path)
    with pytest.raises(CheckpointError, match=r"has no tensor blocks.2.norm1.weight; .* like V-JEPA 2's"):
        load_vit(encoder(blocks=3), path)
    with pytest.raises(CheckpointError, match=r"has 2 blocks where the encoder has 1; set vision.blocks=2"):
        load_vit(encoder(blocks=1), path)
    del weights["patch_embed.proj.bias"]
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"has no tensor patch_embed.proj.bias"):
        load_vit(encoder(), path)
    weights["patch_embed.proj.weight"] = torch.zeros(WIDTH, 3, PATCH, PATCH)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"holds an encoder of DINOv2, .* one of V-JEPA 2; use vision.kind=dino"):
        load_vit(encoder(), path)
