"""V-JEPA 2's encoder in foreworld and elsewhere, on the same weights: python benchmarks/peers/vjepa.py.

No published weights are needed: those of every form are drawn at random, saved by the other side under its own names,
and loaded here by `load_vit`. The other side is transformers' `VJEPA2Model` and, with `--original`, the original code.
Neither is a dependency of foreworld; they run in a child process in an environment of its own:

    python -m venv peers && peers/bin/pip install torch==2.13.0 transformers safetensors einops
    git clone https://github.com/facebookresearch/vjepa2
    python benchmarks/peers/vjepa.py --peer-python peers/bin/python --original vjepa2 [--json]

Each side gets the same pictures of bytes; there they are centred, scaled and repeated to clips of two frames. Beside
the greatest difference of any number of any token (`apart`) stands what it would be if both entries of a pair had one
angle, as in a textbook's rotation (`apart_by_the_book`): V-JEPA 2's weights were trained otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreworld.core import Space, Spec
from foreworld.core.errors import ForeworldError
from foreworld.core.files import write_json
from foreworld.core.tensorfile import read_tensors
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.encoders.pretrained import load_vit
from foreworld.encoders.vision import RotaryViT
from foreworld.nn.rotary import GridRotary
from foreworld.train.run import environment

RESULT = Path(__file__).parents[1] / "results" / "vjepa.json"
CHILD = Path(__file__).with_name("vjepa_features.py")
INSTALL = "pip install torch==2.13.0 transformers safetensors einops"
SEED = 0
NARROW = {"patch": 16, "blocks": 3, "ratio": 4}
FORMS: list[dict[str, Any]] = [
    {"name": "heads of 64, as in ViT-L", **NARROW, "tokens": 192, "heads": 3},
    {"name": "heads of 80, as in ViT-H", **NARROW, "tokens": 160, "heads": 2},
    {"name": "hidden layer of 48/11, as in ViT-g", **NARROW, "tokens": 176, "heads": 4, "ratio": 48 / 11},
    {"name": "ViT-L", "patch": 16, "tokens": 1024, "blocks": 24, "heads": 16, "ratio": 4, "sides": [[256, 256]]},
]
AGREED = 1e-4
"""Greatest difference that float32 explains; tokens are of the size of 1."""
SQUARE, ANY = [[64, 64], [96, 96], [160, 160]], [[64, 64], [96, 96], [48, 112]]
"""Sizes of pictures; transformers counts places on squares of the size that its config names."""


class PeerError(ForeworldError):
    """The peer cannot be run, or makes something else of the weights."""


def forms(source: str, quick: bool) -> list[dict[str, Any]]:
    """Return the forms that a source shall be compared in."""
    sides = SQUARE if source == "transformers" else ANY
    return [
        {"sides": sides, **form, "source": source, "name": f"{source}: {form['name']}"}
        for form in FORMS
        if "sides" not in form or not quick
    ]


def run_peer(python: str, asked: dict[str, Any]) -> dict[str, str]:
    """Let the child write weights and features; return versions.

    Raises:
        PeerError: it cannot be run, or ended with an error.
    """
    try:
        done = subprocess.run(
            [python, str(CHILD), json.dumps(asked)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": ""},
        )
    except OSError as error:
        raise PeerError(f"--peer-python {python} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise PeerError(f"the peer ended with exit code {done.returncode}; it needs: {INSTALL}")
    return json.loads(done.stdout)


def compared(form: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Compare tokens and features of every size of pictures."""
    rows = []
    for height, width in form["sides"]:
        given = read_tensors(folder / f"{height}x{width}.safetensors", lambda forms: None)
        net, units = loaded(form, folder / "model.safetensors", given["pictures"])
        tokens = net.tokens(units)
        row: dict[str, Any] = {"form": form["name"], "pictures": [height, width]}
        row |= {"numbers": tokens.numel(), "largest": float(given["tokens"].abs().max())}
        row |= {"apart": apart(tokens, given["tokens"]), "features_apart": apart(net(units), given["tokens"].mean(1))}
        by_the_book(net.rotate)
        rows.append(row | {"apart_by_the_book": apart(net.tokens(units), given["tokens"])})
    return rows


def loaded(form: dict[str, Any], file: Path, pictures: Tensor) -> tuple[RotaryViT, Tensor]:
    """Return an encoder with the weights of a file, and pictures in its units."""
    spec = Spec(obs={"image": Space(kind="image", shape=tuple(pictures.shape[1:]), dtype="uint8")}, action=None)
    sizes = {name: form[name] for name in ("patch", "tokens", "blocks", "heads")}
    encoder = LatentEncoder(spec, 8, 8, Vision(kind="vjepa", hidden=int(form["tokens"] * form["ratio"]), **sizes))
    load_vit(encoder, file)
    assert isinstance(encoder.pixels, RotaryViT) and encoder.scale is not None
    return encoder.pixels, encoder.scale(pictures)


def by_the_book(rotary: GridRotary) -> None:
    """Give both entries of every pair the angle that the pair should have."""
    share = 2 * (rotary.cos.shape[-1] // 6)
    for table in (rotary.cos, rotary.sin):
        for axis in (1, 2):
            part = table[:, axis * share : (axis + 1) * share]
            part.copy_(part[:, : share // 2].repeat_interleave(2, -1))


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Return the greatest difference of any two numbers.

    Raises:
        PeerError: other shapes.
    """
    if ours.shape != theirs.shape:
        raise PeerError(f"the peer's features are {list(theirs.shape)} where foreworld's are {list(ours.shape)}")
    return float((ours - theirs).abs().max())


@torch.no_grad()
def main() -> None:
    """Compare and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter of the environment with transformers")
    parser.add_argument("--original", help="checkout of the original code; compare with it too")
    parser.add_argument("--quick", action="store_true", help="narrow forms only; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = forms("transformers", args.quick) + (forms("original", args.quick) if args.original else [])
    rows, versions = [], {}
    try:
        for form in asked:  # one at a time, as weights of a published size are large
            with tempfile.TemporaryDirectory() as folder:
                settings = {"folder": folder, "seed": SEED, "original": args.original, "form": form}
                versions = run_peer(args.peer_python, settings)
                rows += compared(form, Path(folder))
        if (most := max(row["apart"] for row in rows)) > AGREED:
            raise PeerError(f"features of the same weights differ by {most:.2g}; nothing is kept")
    except PeerError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    shown = {args.peer_python: "peers/bin/python", args.original: "vjepa2"}
    given = [shown.get(one, one) for one in sys.argv[1:]]
    made = {**environment(SEED), "command": " ".join(["python", "benchmarks/peers/vjepa.py", *given])}
    result = {"made": made, "peer": versions, "rows": rows}
    if not args.quick:
        write_json(RESULT, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for row in rows:
        size = "x".join(map(str, row["pictures"]))
        print(f"{row['form']}, {size}: apart {row['apart']:.1e}, by the book {row['apart_by_the_book']:.1e}")


if __name__ == "__main__":
    main()
