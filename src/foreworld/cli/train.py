"""`foreworld train`: train a world model on stored episodes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from foreworld.cli.options import parse, print_json, say
from foreworld.core import from_json
from foreworld.core.errors import CheckpointError, ConfigError
from foreworld.core.files import claim_output, read_json
from foreworld.core.registry import load as find
from foreworld.data import load
from foreworld.train import FitConfig, FitResult, fit, load_run
from foreworld.train.log import Display
from foreworld.train.run import CONFIG

QUICK_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a world model on stored episodes; every field of the preset is reachable as --model.X and --fit.X.

    example: foreworld train --preset rssm --size tiny --data episodes --steps 500 --out runs/first

    example: foreworld train --preset rssm --size 1m --data episodes --model.latent gaussian --fit.lr 3e-4 --out r

    example: foreworld train --resume runs/first
    """

    preset: str = "rssm"
    """Family of models; see `foreworld list models`."""
    size: str = "tiny"
    """Size of the model; see `foreworld list models`."""
    data: Path | None = None
    """Dataset to train on."""
    out: Path | None = None
    """Run folder to write: config, metrics, checkpoints."""
    steps: int | None = None
    """Updates; the preset's number by default."""
    minutes: float | None = None
    """Stop early after this many minutes of training."""
    seed: int | None = None
    """Of initial weights, batches and samples."""
    heldout: float = 0.1
    """Share of the data that is not trained on, for `foreworld eval`; 0 trains on all."""
    heldout_by: Literal["episode", "time"] = "episode"
    """Hold out whole episodes, or the end of every episode."""
    resume: Path | None = None
    """Go on with the run in this folder, exactly; nothing else is needed."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    quick: bool = False
    """At most 50 updates: to see that all is well."""
    overwrite: bool = False
    """Replace an existing run."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="rssm")
    first.add_argument("--size", default="tiny")
    chosen, _ = first.parse_known_args(argv)
    family = find("models", chosen.preset)
    nested = [
        ("model", family.config_type, field(default=family.config(chosen.size))),
        ("fit", FitConfig, field(default=family.fit(chosen.size))),
    ]
    options = make_dataclass("Train", nested, bases=(Train,), frozen=True, kw_only=True)
    options.__doc__ = Train.__doc__
    args: Any = parse(options, argv, "train")
    folder, result = _resume(args) if args.resume is not None else _start(args, family)
    last = result.history[-1] if result.history else {}
    if args.json:
        print_json({"run": str(folder), "steps": result.steps, "seconds": result.seconds, "metrics": last})
    else:
        say(f"{result.steps} updates in {result.seconds:.0f} s; the run is in {folder}")


def _start(args: Any, family: Any) -> tuple[Path, FitResult]:
    if args.data is None or args.out is None:
        raise ConfigError("--data and --out are needed (or --resume DIR to go on with a run)")
    config = _with_flags(args.fit, args)
    data = load(args.data)
    train = data if args.heldout == 0 else data.split(args.heldout, by=args.heldout_by)[0]
    torch.manual_seed(config.seed)
    model = family.build(train.spec, args.model).to(_device(args.device))
    claim_output(args.out, args.overwrite)
    with Display(f"train {family.name}", "updates", quiet=args.json) as display:
        return args.out, fit(model, train, config, out=args.out, report=show(display))


def _resume(args: Any) -> tuple[Path, FitResult]:
    folder = args.resume
    trained = load_run(folder, _device(args.device))
    stored = read_json(folder / CONFIG, CheckpointError)
    before = from_json(FitConfig, stored["fit"], f"{folder / CONFIG}: fit")
    config = _with_flags(before, args)
    data = trained.training_data()
    if config != before:
        say(f"resume: settings differ from the run's: {_difference(before, config)}", args.json)
    with Display("train (resumed)", "updates", quiet=args.json) as display:
        return folder, fit(trained.model, data, config, out=folder, resume=True, report=show(display))


def show(display: Display) -> Any:
    """Return a report function for `fit` that shows the loss on a display."""
    note = ""

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        nonlocal note
        losses = [f"{name.removeprefix('loss/')} {value:.3g}" for name, value in metrics.items() if "loss/" in name]
        note = " ".join(losses) or note
        display.show(step, steps, note)

    return report


def _with_flags(config: FitConfig, args: Any) -> FitConfig:
    given = {name: getattr(args, name) for name in ("steps", "minutes", "seed") if getattr(args, name) is not None}
    config = replace(config, **given)
    return replace(config, steps=min(config.steps, QUICK_STEPS)) if args.quick else config


def _difference(before: FitConfig, after: FitConfig) -> str:
    names = [name for name in vars(before) if getattr(before, name) != getattr(after, name)]
    return ", ".join(f"{name} {getattr(before, name)} -> {getattr(after, name)}" for name in names)


def _device(name: str) -> str:
    if name != "auto":
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"--device {name}: no CUDA device was found; use --device cpu")
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
