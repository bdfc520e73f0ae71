"""Features of V-JEPA 2's encoder by transformers and by the original code, with weights drawn at random.

vjepa.py starts this with the interpreter of an environment that has transformers; see there. foreworld is not imported
here. For the form in the argument, a JSON object, it writes safetensors files: the weights, under the names of their
source, and pictures of every size with their tokens. Then it prints one line of JSON: versions.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import logging

PICTURES = 2
FRAMES = 2
"""Of the clip that a picture is repeated to: one tubelet."""


def main() -> None:
    """Write weights and features."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(asked["seed"])
    logging.disable_progress_bar()
    if asked["form"]["source"] == "original":
        original(asked["form"], Path(asked["folder"]), asked["original"])
    else:
        hugging(asked["form"], Path(asked["folder"]))
    found = {name: version(name) for name in ("transformers", "torch", "safetensors")}
    print(json.dumps(found), flush=True)


def hugging(form: dict[str, Any], folder: Path) -> None:
    """Let transformers' model, of the crop size of each size of pictures, say what it makes of them."""
    # `crop_size` decides what a place is: with pictures of another size the model would count rows wrongly
    model = configured(form, form["sides"][0][0])
    draw(model)
    model.save_pretrained(folder)
    for height, width in form["sides"]:
        assert height == width, "transformers counts places on squares"
        resized = configured(form, height)
        resized.load_state_dict(model.state_dict())
        keep(folder, height, width, lambda clips, net=resized: net.get_vision_features(clips.transpose(1, 2)))


def configured(form: dict[str, Any], side: int) -> nn.Module:
    """Build transformers' model."""
    config = transformers.VJEPA2Config(
        patch_size=form["patch"],
        crop_size=side,
        frames_per_clip=FRAMES,
        hidden_size=form["tokens"],
        num_attention_heads=form["heads"],
        num_hidden_layers=form["blocks"],
        mlp_ratio=form["ratio"],
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return transformers.VJEPA2Model(config).eval()


def original(form: dict[str, Any], folder: Path, source: str) -> None:
    """Let the original code, from a checkout of its repository, say what it makes of pictures of each size."""
    sys.path.insert(0, source)
    # of timm the code takes one function, which does nothing outside training; the rest of timm needs torchvision
    layers = types.ModuleType("timm.models.layers")
    layers.drop_path = lambda x, *_: x  # type: ignore[attr-defined]
    sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models")}
    sys.modules["timm.models.layers"] = layers
    transformer = importlib.import_module("src.models.vision_transformer").VisionTransformer
    model = transformer(
        img_size=tuple(form["sides"][0]),
        patch_size=form["patch"],
        num_frames=FRAMES,
        embed_dim=form["tokens"],
        depth=form["blocks"],
        num_heads=form["heads"],
        mlp_ratio=form["ratio"],
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_sdpa=False,
        use_rope=True,
    ).eval()
    draw(model)
    weights = {f"module.backbone.{name}": value for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    for height, width in form["sides"]:
        keep(folder, height, width, model)


def draw(model: nn.Module) -> None:
    """Draw weights for which attention is far from even and biases matter."""
    for parameter in model.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
        nn.init.normal_(parameter, float(parameter.dim() == 1 and bool((parameter == 1).all())), scale)


@torch.no_grad()
def keep(folder: Path, height: int, width: int, encode: Any) -> None:
    """Write pictures and the tokens that an encoder makes of them as clips [N, C, 2, H, W]."""
    pictures = torch.randint(0, 256, (PICTURES, 3, height, width), dtype=torch.uint8)
    mean, std = (torch.tensor(of)[:, None, None] for of in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    clips = ((pictures / 255 - mean) / std).unsqueeze(2).repeat(1, 1, FRAMES, 1, 1)
    tokens: Tensor = encode(clips)
    save_file({"pictures": pictures, "tokens": tokens.contiguous()}, folder / f"{height}x{width}.safetensors")


if __name__ == "__main__":
    main()
