"""`foreworld train`: train a world model on stored episodes."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from foreworld.cli.options import device, difference, parse, print_json, say
from foreworld.core import from_json
from foreworld.core.errors import ConfigError
from foreworld.core.files import claim_output
from foreworld.core.interrupt import Interrupted
from foreworld.core.registry import load as find
from foreworld.data import Dataset, load
from foreworld.encoders.latent import LatentEncoder
from foreworld.encoders.pretrained import load_vit
from foreworld.models.jepa import JEPA
from foreworld.studies.collapse import watch_collapse
from foreworld.studies.filming import can_film, film_dreams
from foreworld.train import FitConfig, FitResult, adopt, fit, load_run
from foreworld.train.log import Display
from foreworld.train.offline import Report
from foreworld.train.run import CONFIG, read_config
from foreworld.train.sinks import Sinks

QUICK_STEPS = 50
ONLY_AT_THE_START = {"preset", "size", "as_video", "init", "vision_weights", "vision_sha256"}
ONLY_AT_THE_START |= {"out", "heldout", "heldout_by", "overwrite"}
"""Options that a resumed run takes from its folder."""
COUNTED = {"skipped": "skipped", "rollbacks": "returns to a checkpoint"}


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a world model on stored episodes; every field of the preset is reachable as --model.X and --fit.X.

    example: foreworld train --preset rssm --size tiny --data episodes --steps 500 --out runs/first

    example: foreworld train --size 1m --data episodes --model.latent gaussian --fit.lr 3e-4 --out r

    example: foreworld train --resume runs/first
    """

    preset: str = "rssm"
    """Family of models; see `foreworld list models`."""
    size: str = "tiny"
    """Size of the model; see `foreworld list models`."""
    data: Path | None = None
    """Dataset to train on; with --resume, where the run's dataset is now."""
    out: Path | None = None
    """Run folder to write: config, metrics, checkpoints, videos."""
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
    as_video: bool = False
    """Train a model of plain video: leave out the actions that the data has."""
    init: Path | None = None
    """Begin with the weights of this run, as far as names and shapes fit: an encoder trained on plain video, say.
    An ensemble whose encoder is frozen (--model.each.encoder frozen) takes it over from a run of a single model."""
    vision_weights: Path | None = None
    """Weights of DINOv2 or V-JEPA 2, a local safetensors file, for jepa with --model.vision.kind dino or vjepa."""
    vision_sha256: str | None = None
    """What the hash of that file must be."""
    resume: Path | None = None
    """Go on with the run in this folder, exactly; nothing else is needed. Options given besides change its settings."""
    sink: tuple[str, ...] = ()
    """Where metrics and clips go besides the run folder: tensorboard, wandb, trackio."""
    no_clips: bool = False
    """Film nothing. Else a dream of held-out rows is filmed at every checkpoint, where the extra `video` is there."""
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
    first.add_argument("--model.member", dest="member")
    first.add_argument("--resume", type=Path)
    chosen, _ = first.parse_known_args(argv)
    if chosen.resume is None:
        family = find("models", chosen.preset)
        if chosen.member is not None and family.of is not None:
            family = family.of(chosen.member)
        model, settings = family.config(chosen.size), family.fit(chosen.size)
    else:
        family, model, settings = _stored(chosen.resume)
    nested = [("model", family.config_type, field(default=model)), ("fit", FitConfig, field(default=settings))]
    options = make_dataclass("Train", nested, bases=(Train,), frozen=True, kw_only=True)
    options.__doc__ = Train.__doc__
    args: Any = parse(options, argv, "train")
    folder, result = _start(args, family) if args.resume is None else _resume(args, model, settings)
    last = result.history[-1] if result.history else {}
    if args.json:
        stopped = result.interrupted is not None
        print_json(
            {"run": str(folder), "steps": result.steps, "seconds": result.seconds, "interrupted": stopped}
            | {"metrics": last}
        )
    if result.interrupted is not None:
        again = f"go on with: foreworld train --resume {shlex.quote(str(folder))}"
        raise Interrupted(result.interrupted, f"stopped at step {result.steps}, checkpoint saved; {again}")
    say(f"{result.steps} updates in {result.seconds:.0f} s; the run is in {folder}", args.json)


def _stored(folder: Path) -> tuple[Any, Any, FitConfig]:
    stored, where = read_config(folder), folder / CONFIG
    family = find("models", stored["family"])
    model = from_json(family.config_type, stored["model"], f"{where}: model")
    return family, model, from_json(FitConfig, stored["fit"], f"{where}: fit")


def _start(args: Any, family: Any) -> tuple[Path, FitResult]:
    if args.data is None or args.out is None:
        raise ConfigError("--data and --out are needed (or --resume DIR to go on with a run)")
    config = _with_flags(args.fit, args)
    data = load(args.data)
    train, heldout = (data, None) if args.heldout == 0 else data.split(args.heldout, by=args.heldout_by)
    if args.as_video:
        train = train.with_spec(replace(train.spec, action=None))
    torch.manual_seed(config.seed)
    model = family.build(train.spec, args.model).to(device(args.device))
    if args.vision_weights is not None:
        _read_vision(model, args)
    if args.init is not None:
        taken, left = adopt(model, args.init)
        say(f"{len(taken)} of {len(taken) + len(left)} tensors are those of {args.init}", args.json)
    # made here and again by fit, so that a missing package is found before an old run is replaced
    Sinks(args.sink, args.out, {})
    claim_output(args.out, args.overwrite)
    with Display(f"train {family.name}", "updates", args.json, limit=60 * config.minutes) as display:
        watched = _watched(args, model, heldout)
        return args.out, fit(model, train, config, out=args.out, report=show(display), sinks=args.sink, **watched)


def _read_vision(model: Any, args: Any) -> None:
    encoder = model.encoder if isinstance(model, JEPA) or "fixed_embed" in model.provides else None
    if not isinstance(encoder, LatentEncoder):
        raise ConfigError(
            "--vision-weights: only a jepa that encodes pictures can take them, or an ensemble of jepas whose encoder "
            "is frozen"
        )
    load_vit(encoder, args.vision_weights, args.vision_sha256)
    say(f"the vision transformer is that of {args.vision_weights}", args.json)


def _resume(args: Any, model: Any, before: FitConfig) -> tuple[Path, FitResult]:
    folder = args.resume
    for name in sorted(ONLY_AT_THE_START):
        if getattr(args, name) != getattr(Train, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} cannot be given with --resume, which restores it from {folder}; leave it out")
    if args.model != model:
        raise ConfigError(
            f"the architecture of a trained run cannot change ({difference(model, args.model)}); "
            f"leave out --model.* with --resume, or train a new run with --out"
        )
    config = _with_flags(args.fit, args)
    trained = load_run(folder, device(args.device))
    if args.data is not None:
        trained = replace(trained, data=args.data)
    data = trained.training_data()
    watched = _watched(args, trained.model, trained.heldout_data())
    if config != before:
        say(f"resume: settings differ from the run's: {difference(before, config)}", args.json)
    with Display("train (resumed)", "updates", args.json, limit=60 * config.minutes) as display:
        report, sinks = show(display), args.sink or None
        result = fit(trained.model, data, config, out=folder, resume=True, report=report, sinks=sinks, **watched)
        return folder, result


def _watched(args: Any, model: Any, heldout: Dataset | None) -> dict[str, Any]:
    """Return who looks at the model at every checkpoint: a film of its dreams, a monitor of its embedding."""
    if heldout is None:
        return {}
    film = film_dreams(heldout) if not args.no_clips and can_film(model) else None
    return {"film": film, "monitor": watch_collapse(heldout) if "embed" in model.provides else None}


def show(display: Display) -> Report:
    """Return a report function for `fit` that shows losses, waiting and skipped updates on a display."""
    note, before = "", {"seconds": 0.0, "data_wait": 0.0}

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        nonlocal note, before
        if metrics:
            passed, waited = (metrics[name] - before[name] for name in ("seconds", "data_wait"))
            parts = [f"{waited / passed:.0%} waiting for data"] if passed > 0 else []
            parts += [f"{metrics[name]:.0f} {words}" for name, words in COUNTED.items() if metrics.get(name)]
            losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
            parts += [" ".join(f"{name.removeprefix('loss/')} {value:.3g}" for name, value in losses.items())]
            note, before = ", ".join(parts), metrics
        display.show(step, steps, note)

    return report


def _with_flags(config: FitConfig, args: Any) -> FitConfig:
    given = {name: getattr(args, name) for name in ("steps", "minutes", "seed") if getattr(args, name) is not None}
    config = replace(config, **given)
    return replace(config, steps=min(config.steps, QUICK_STEPS)) if args.quick else config
