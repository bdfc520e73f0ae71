"""`foreworld train --vision-weights`: a JEPA whose pictures are read by an encoder from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from foreworld.cli.main import main
from foreworld.data import load
from foreworld.encoders.pretrained import MEAN
from foreworld.models.jepa import JEPA
from foreworld.train import load_run

WIDTH, PATCH, SIDE = 16, 8, 16
SIZES = {"patch": PATCH, "tokens": WIDTH, "blocks": 1, "heads": 2, "side": SIDE}


def weights(kind: str) -> dict[str, Tensor]:
    """Draw an encoder of one block, under the original names."""
    torch.manual_seed(0)
    shapes = {"patch_embed.proj.weight": (WIDTH, 3, *([2] if kind == "vjepa" else []), PATCH, PATCH)}
    if kind == "dino":
        shapes |= {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 5, WIDTH)}
        shapes |= {f"blocks.0.ls{i}.gamma": (WIDTH,) for i in (1, 2)}
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for name, (outs, ins) in layers.items():
        shapes |= {f"blocks.0.{name}.weight": (outs * WIDTH, ins * WIDTH), f"blocks.0.{name}.bias": (outs * WIDTH,)}
    norms = [f"{name}.{what}" for name in ("blocks.0.norm1", "blocks.0.norm2", "norm") for what in ("weight", "bias")]
    shapes |= dict.fromkeys([*norms, "patch_embed.proj.bias"], (WIDTH,))
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes with pictures of three channels."""
    data = tmp_path_factory.mktemp("vision") / "rooms"
    assert (
        main(["collect", "--env", "foreworld/PushT-v0", "--episodes", "4", "--max-steps", "12", "--out", str(data)])
        == 0
    )
    return data


def train(rooms: Path, out: Path, kind: str, file: Path) -> list[str]:
    vision = [text for name, value in SIZES.items() for text in (f"--model.vision.{name}", str(value))]
    few = ["--steps", "2", "--fit.batch", "4", "--fit.length", "4", "--no-clips", "--heldout", "0"]
    chosen = ["--model.encoder", "frozen", "--model.vision.kind", kind, *vision, "--vision-weights", str(file)]
    return ["train", "--preset", "jepa", "--data", str(rooms), "--out", str(out), *few, *chosen]


@pytest.mark.parametrize(("kind", "other"), [("dino", "vjepa"), ("vjepa", "dino")])
def test_a_frozen_encoder_is_that_of_the_file_and_stays_so(
    kind: str, other: str, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run, drawn = tmp_path / "vit.safetensors", tmp_path / "run", weights(kind)
    save_file(drawn, file)
    assert main(train(rooms, run, kind, file)) == 0
    model = load_run(run).model
    assert isinstance(model, JEPA)
    state = model.encoder.state_dict()
    assert torch.equal(state["pixels.blocks.0.hidden.2.weight"], drawn["blocks.0.mlp.fc2.weight"])
    assert state["scale.mean"].flatten().tolist() == pytest.approx(MEAN)
    capsys.readouterr()
    assert main(train(rooms, tmp_path / "wrong", other, file)) == 2
    assert f"use vision.kind={kind}" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("kind", ["dino", "vjepa"])
def test_fields_in_principal_components(
    kind: str, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "vit.safetensors", tmp_path / "run"
    save_file(weights(kind), file)
    argv = [*train(rooms, run, kind, file), "--model.latent", "16", "--model.vision.fields", "2"]
    argv += ["--model.vision.out", "principal"]
    assert main(argv) == 0
    model = load_run(run).model
    assert isinstance(model, JEPA)
    episode = load(rooms).sample(16, 4, seed=0, step=0)
    latents = model.encoder(episode.obs).flatten(0, 1)
    assert 0.3 < float(latents.square().mean()) < 3 and bool((latents.std(0) > 0).all())
    again = [text.replace(str(run), str(tmp_path / "again")) for text in argv]
    at = again.index("--vision-weights")
    assert main([*again[:at], *again[at + 2 :], "--init", str(run), "--seed", "1"]) == 0
    assert torch.equal(load_run(tmp_path / "again").model.encoder(episode.obs).flatten(0, 1), latents)
    capsys.readouterr()
    assert main([text.replace("frozen", "learned").replace(str(run), str(tmp_path / "no")) for text in argv]) == 2
    assert "set jepa.encoder=frozen" in capsys.readouterr().err


def test_the_members_of_an_ensemble_have_one_encoder_from_the_file(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, drawn = tmp_path / "vit.safetensors", weights("dino")
    save_file(drawn, file)
    alone = [text.replace("--model.", "--model.each.") for text in train(rooms, tmp_path / "run", "dino", file)]
    together = ["--model.member", "jepa", "--model.members", "2"]
    argv = [*("ensemble" if text == "jepa" else text for text in alone), *together]
    assert main(argv) == 0
    first, second = load_run(tmp_path / "run").model.members
    assert first.encoder is second.encoder
    found = first.encoder.state_dict()["pixels.blocks.0.hidden.2.weight"]
    assert torch.equal(found, drawn["blocks.0.mlp.fc2.weight"])
    learned = [text.replace("frozen", "learned") for text in argv]
    capsys.readouterr()
    assert main(learned) == 2
    assert "or an ensemble of jepas whose encoder is frozen" in capsys.readouterr().err
