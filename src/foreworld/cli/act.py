"""`foreworld act`: let a trained agent act."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from foreworld.cli.options import device, parse, print_json, say
from foreworld.core.errors import ConfigError, MissingExtra
from foreworld.studies.acting import act
from foreworld.studies.filming import can_film, film_dreams
from foreworld.train import load_agent
from foreworld.train.log import Display


@dataclass(frozen=True, kw_only=True)
class Act:
    """Let a trained agent play episodes, and print its mean return with an interval.

    example: foreworld act --run runs/cartpole --episodes 100

    example: foreworld act --run runs/cartpole --episodes 40 --out played --clip played.mp4
    """

    run: Path
    """Run folder of the agent."""
    env: str | None = None
    """Where to act; by default where it learned. A class of your own (module:Class) must be named."""
    episodes: int = 100
    """How many to play."""
    mode: Literal["mode", "sample"] = "mode"
    """Take the likeliest actions, or samples as in training."""
    out: Path | None = None
    """Store the episodes here, as a dataset for `foreworld eval` and `horizon`: the model has not seen them."""
    clip: Path | None = None
    """Write a video of an episode beside what the model dreams of it; .mp4 or .gif."""
    seed: int = 0
    """Of environments and samples."""
    confidence: float = 0.95
    """Of the interval."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    overwrite: bool = False
    """Replace an existing dataset."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Act, argv, "act")
    if args.episodes < 1 or not 0 < args.confidence < 1:
        raise ConfigError("--episodes must be at least 1, and --confidence between 0 and 1")
    found = load_agent(args.run, device(args.device), args.env)
    if args.clip is not None and not can_film(found.run.model):
        raise MissingExtra(
            "--clip needs PyAV and Pillow (pip install 'foreworld[video]') and a model that shows what it predicts"
        )
    torch.manual_seed(args.seed)
    with ExitStack() as stack:
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "episodes"
        with Display(f"act {found.env}", "episodes", quiet=args.json) as display:
            acted = act(
                found,
                out=out,
                episodes=args.episodes,
                mode=args.mode == "mode",
                seed=args.seed,
                confidence=args.confidence,
                overwrite=args.overwrite,
                progress=display.show,
            )
        if args.clip is not None:
            film_dreams(acted.data)(found.run.model, args.clip)
    if args.json:
        head = {"run": str(args.run), "env": found.env, "updates": found.run.step}
        print_json(head | acted.to_json() | {"out": None if args.out is None else str(args.out)})
        return
    say(acted.in_words())
