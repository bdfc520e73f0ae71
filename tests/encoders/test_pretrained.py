"""Weights of vision transformers from elsewhere: against torch's own transformer, under both kinds of names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Space, Spec
from foreworld.core.errors import CheckpointError
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.encoders.pretrained import MEAN, STD, load_vit

WIDTH, LAYERS, HEADS, PATCH, SIDE = 24, 2, 4, 7, 28
SPEC = Spec(obs={"image": Space(kind="image", shape=(3, SIDE, SIDE), dtype="uint8")}, action=None)


def encoder(**fields: object) -> LatentEncoder:
    sizes = {"kind": "dino", "patch": PATCH, "tokens": WIDTH, "blocks": LAYERS, "heads": HEADS, "side": SIDE}
    return LatentEncoder(SPEC, 8, 16, Vision(**(sizes | fields)))  # type: ignore[arg-type]


def drawn(patches: int = 16) -> dict[str, Tensor]:
    """Random weights under the original names."""
    torch.manual_seed(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "mask_token": (1, WIDTH),
        "pos_embed": (1, 1 + patches, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        shapes |= {f"blocks.{i}.norm{j}.{kind}": (WIDTH,) for j in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"blocks.{i}.ls{j}.gamma": (WIDTH,) for j in (1, 2)}
        for name, outs, ins in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes[f"blocks.{i}.{name}.weight"] = (outs * WIDTH, ins * WIDTH)
            shapes[f"blocks.{i}.{name}.bias"] = (outs * WIDTH,)
    return {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}


def hugging(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as the Hugging Face version names them."""
    found: dict[str, Tensor] = {
        "embeddings.cls_token": weights["cls_token"],
        "embeddings.mask_token": weights["mask_token"],
        "embeddings.position_embeddings": weights["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": weights["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": weights["patch_embed.proj.bias"],
        "layernorm.weight": weights["norm.weight"],
        "layernorm.bias": weights["norm.bias"],
    }
    for i in range(LAYERS):
        old, new = f"blocks.{i}.", f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            three = weights[f"{old}attn.qkv.{kind}"].chunk(3)
            for name, value in zip(("query", "key", "value"), three, strict=True):
                found[f"{new}attention.attention.{name}.{kind}"] = value.clone()
            found[f"{new}attention.output.dense.{kind}"] = weights[f"{old}attn.proj.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{new}{name}.{kind}"] = weights[f"{old}{name}.{kind}"]
        for j in (1, 2):
            found[f"{new}layer_scale{j}.lambda1"] = weights[f"{old}ls{j}.gamma"]
    return found


def independent(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """All tokens of DINOv2 by torch's own layers; the factors are folded into the layers that they follow."""
    x = pictures.float() / 255
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    patches = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=PATCH)
    tokens = torch.cat([weights["cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    tokens = tokens + weights["pos_embed"]
    for i in range(LAYERS):
        start = f"blocks.{i}."
        own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        first, second = own["ls1.gamma"], own["ls2.gamma"]
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": own["attn.qkv.weight"],
                "self_attn.in_proj_bias": own["attn.qkv.bias"],
                "self_attn.out_proj.weight": first[:, None] * own["attn.proj.weight"],
                "self_attn.out_proj.bias": first * own["attn.proj.bias"],
                "linear1.weight": own["mlp.fc1.weight"],
                "linear1.bias": own["mlp.fc1.bias"],
                "linear2.weight": second[:, None] * own["mlp.fc2.weight"],
                "linear2.bias": second * own["mlp.fc2.bias"],
                **{
                    f"{name}.{kind}": own[f"{name}.{kind}"]
                    for name in ("norm1", "norm2")
                    for kind in ("weight", "bias")
                },
            }
        )
        tokens = layer(tokens)
    return F.layer_norm(tokens, (WIDTH,), weights["norm.weight"], weights["norm.bias"], 1e-6)


@pytest.mark.parametrize("names", ["original", "hugging"])
def test_it_is_what_torch_makes_of_the_same_weights(names: str, tmp_path: Path) -> None:
    weights, net = drawn(), encoder()
    save_file(weights if names == "original" else hugging(weights), tmp_path / "vit.safetensors")
    digest = hashlib.sha256((tmp_path / "vit.safetensors").read_bytes()).hexdigest()
    load_vit(net, tmp_path / "vit.safetensors", digest)
    pictures = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        tokens = independent(weights, pictures)
        assert torch.allclose(net.pixels(net.scale(pictures)), tokens[:, 0], atol=1e-4)
        parted = encoder(fields=4)
        load_vit(parted, tmp_path / "vit.safetensors")
        fields = parted.pixels(parted.scale(pictures)).unflatten(1, (WIDTH, 16)).transpose(1, 2)
        assert torch.allclose(fields, tokens[:, 1:], atol=1e-4)  # as many fields as patches


def test_places_are_resampled_to_the_size_of_the_pictures(tmp_path: Path) -> None:
    weights, net = drawn(patches=9), encoder()
    ramp = torch.arange(3.0).repeat(3)[:, None].expand(9, WIDTH)  # rises from left to right
    weights["pos_embed"] = torch.cat([torch.zeros(1, WIDTH), ramp])[None]
    save_file(weights, tmp_path / "vit.safetensors")
    load_vit(net, tmp_path / "vit.safetensors")
    placed = net.pixels.place[0, 1:, 0].detach().view(4, 4)
    assert torch.allclose(placed[0], placed[3])
    assert bool((placed[0].diff() > 0.4).all())


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path, weights = tmp_path / "vit.safetensors", drawn()
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="its sha256 is"):
        load_vit(encoder(), path, "0" * 64)
    with pytest.raises(CheckpointError, match=r"inward.weight has shape \[24, 147\] where the encoder has \[24, 48\]"):
        load_vit(encoder(patch=4), path)
    with pytest.raises(CheckpointError, match="has 2 blocks where the encoder has 1"):
        load_vit(encoder(blocks=1), path)
    with pytest.raises(CheckpointError, match="the encoder has none"):
        load_vit(encoder(kind="impala", patch=1), path)
    save_file(weights | {"register_tokens": torch.zeros(1, 4, WIDTH)}, path)
    with pytest.raises(CheckpointError, match="register_tokens, which the encoder has no place for"):
        load_vit(encoder(), path)
    del weights["blocks.1.ls2.gamma"]
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"has no tensor blocks.1.ls2.gamma"):
        load_vit(encoder(), path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_vit(encoder(), path)
