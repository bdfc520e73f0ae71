"""`foreworld agent`: train an agent in the dreams of a world model."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foreworld.agents import Dreamer, DreamerConfig
from foreworld.cli.options import device, difference, environment_options, parse, print_json, say
from foreworld.core import from_json
from foreworld.core.errors import ConfigError
from foreworld.core.files import claim_output
from foreworld.core.interrupt import Interrupted
from foreworld.core.registry import load as find
from foreworld.core.spaces import Spec
from foreworld.envs import make
from foreworld.models.rssm import RSSM
from foreworld.presets.agents import AgentPreset, agent_preset
from foreworld.studies.filming import can_film, film_agent
from foreworld.train import Film, OnlineConfig, OnlineResult, load_agent, state_hash, train_agent
from foreworld.train.log import Display
from foreworld.train.online_loop import Report
from foreworld.train.run import CONFIG, read_config
from foreworld.train.sinks import Sinks

QUICK = {"steps": 600, "prefill": 100, "batch": 8, "length": 16, "log_every": 10, "train_ratio": 128}


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Train an agent that learns in the dreams of a world model, which learns from what the agent does.

    The world model sees every row of the environment; actor and critic learn in imagination alone (DreamerV3). Every
    setting is reachable as --model.X, --agent.X and --online.X. All rows are kept in `replay` of the run folder, a
    dataset that other verbs read.

    example: foreworld agent --env CartPole-v1 --out runs/cartpole

    example: foreworld agent --env Pendulum-v1 --steps 10000 --seed 1 --out runs/pendulum

    example: foreworld agent --resume runs/cartpole
    """

    env: str = ""
    """Gymnasium id, bundled world, or module:Class of your own; with --resume only the last must be named again."""
    env_options: str = ""
    """Further options of the environment, as JSON: '{"gravity": 1.62}'."""
    preset: str | None = None
    """Settings that belong together (`foreworld list agents`); by default pixels where the environment shows pictures,
    else classic."""
    size: str | None = None
    """Size of the world model (`foreworld list models`); the preset's own by default."""
    out: Path | None = None
    """Run folder to write: config, metrics, checkpoints, replay."""
    steps: int | None = None
    """Actions to take; the preset's number by default."""
    minutes: float | None = None
    """Stop after this many minutes."""
    seed: int | None = None
    """Of environments, weights, batches and samples."""
    resume: Path | None = None
    """Go on with the run in this folder, exactly; nothing else is needed."""
    sink: tuple[str, ...] = ()
    """Where metrics and clips go besides the run folder: tensorboard, wandb, trackio."""
    no_clips: bool = False
    """Film nothing. Else the agent plays an episode at every checkpoint, and it is filmed beside what the model dreams
    of it, and as the environment shows it where it can, if the extra `video` is there."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    threads: int = 1
    """Threads on a CPU. More help only large models, and only where no other work needs the cores; 0 for torch's own
    choice."""
    quick: bool = False
    """At most 600 steps and small batches: to see that all is well."""
    overwrite: bool = False
    """Replace an existing run."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--size")
    first.add_argument("--resume", type=Path)
    first.add_argument("--env", default="")
    first.add_argument("--env-options", "--env_options", default="")
    chosen, _ = first.parse_known_args(argv)
    # a run to be resumed has its settings already
    name = "classic" if chosen.resume is not None else chosen.preset or _fitting(chosen.env, chosen.env_options)
    preset = agent_preset(name, chosen.size)
    model, agent, online = preset.model, preset.agent, preset.online
    if chosen.resume is not None:
        model, agent, online = _stored(chosen.resume)
    parts = {"model": model, "agent": agent, "online": online}
    nested = [(name, type(part), field(default=part)) for name, part in parts.items()]
    options = make_dataclass("Agent", nested, bases=(Agent,), frozen=True, kw_only=True)
    options.__doc__ = Agent.__doc__
    args: Any = parse(options, argv, "agent")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.preset is None and args.resume is None:
        say(f"preset {name}, for {preset.about}", args.json)
    folder, result = _start(args, preset) if args.resume is None else _resume(args, parts)
    last = result.history[-1] if result.history else {}
    if args.json:
        found = {"run": str(folder), "steps": result.steps, "updates": result.updates, "episodes": result.episodes}
        stopped = result.interrupted is not None
        found |= {"seconds": result.seconds, "interrupted": stopped, "faults": result.faults}
        found["state_hash"] = state_hash(folder)
        print_json(found | {"metrics": last})
    if result.interrupted is not None:
        again = f"go on with: foreworld agent --resume {shlex.quote(str(folder))}"
        if ":" in args.env:  # a run folder names no code to run
            again += f" --env {shlex.quote(args.env)}"
        raise Interrupted(result.interrupted, f"stopped at step {result.steps}, checkpoint saved; {again}")
    say(
        f"{result.steps} steps, {result.updates} updates, {result.episodes} episodes in {result.seconds:.0f} s; "
        f"the run is in {folder}; see what it does with: foreworld act --run {shlex.quote(str(folder))}",
        args.json,
    )


def _fitting(env: str, options: str) -> str:
    """Return the name of the preset for what the environment shows."""
    return "pixels" if env and _spec(env, environment_options(options, make)).images else "classic"


def _spec(env_id: str, options: Mapping[str, Any]) -> Spec:
    env = make(env_id, **options)
    try:
        return env.spec
    finally:
        env.close()


def _stored(folder: Path) -> tuple[Any, DreamerConfig, OnlineConfig]:
    stored, where = read_config(folder), folder / CONFIG
    if "agent" not in stored:
        raise ConfigError(f"{folder}: a run without an agent; go on with it by `foreworld train --resume`")
    model = from_json(find("models", stored["family"]).config_type, stored["model"], f"{where}: model")
    agent = from_json(DreamerConfig, stored["agent"], f"{where}: agent")
    return model, agent, from_json(OnlineConfig, stored["fit"], f"{where}: fit")


def _start(args: Any, preset: AgentPreset) -> tuple[Path, OnlineResult]:
    if not args.env or args.out is None:
        raise ConfigError("--env and --out are needed (or --resume DIR to go on with a run)")
    config, where = _with_flags(args.online, args), device(args.device)
    env_options = preset.options_on(args.env) | environment_options(args.env_options, make)
    torch.manual_seed(config.seed)
    model = RSSM(_spec(args.env, env_options), args.model).to(where)
    agent = Dreamer(model, args.agent).to(where)
    # made here and again by train_agent, so that a missing package is found before an old run is replaced
    Sinks(args.sink, args.out, {})
    claim_output(args.out, args.overwrite)
    with Display(f"agent {args.env}", "steps", args.json, limit=60 * config.minutes) as display:
        return args.out, train_agent(
            args.env,
            model,
            agent,
            config,
            env_options=env_options,
            out=args.out,
            report=show(display),
            sinks=args.sink,
            film=_film(args, model, agent, args.env, env_options),
        )


def _resume(args: Any, stored: Mapping[str, Any]) -> tuple[Path, OnlineResult]:
    folder = args.resume
    for name in ("env_options", "preset", "size", "out", "overwrite"):
        if getattr(args, name) != getattr(Agent, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} cannot be given with --resume, which restores it from {folder}; leave it out")
    for name in ("model", "agent"):
        if getattr(args, name) != stored[name]:
            changed = difference(stored[name], getattr(args, name))
            raise ConfigError(f"--{name}.* cannot change with --resume ({changed}); train a new run with --out")
    config = _with_flags(args.online, args)
    if config != stored["online"]:
        say(f"resume: settings differ from the run's: {difference(stored['online'], config)}", args.json)
    found = load_agent(folder, device(args.device), args.env or None)
    with Display(f"agent {found.env} (resumed)", "steps", args.json, limit=60 * config.minutes) as display:
        return folder, train_agent(
            found.env,
            found.run.model,
            found.agent,
            config,
            env_options=found.env_options,
            out=folder,
            resume=True,
            report=show(display),
            sinks=args.sink or None,
            film=_film(args, found.run.model, found.agent, found.env, found.env_options),
        )


def _film(args: Any, model: Any, agent: Dreamer, env: str, options: Mapping[str, Any]) -> Film | None:
    return film_agent(agent, env, options) if not args.no_clips and can_film(model) else None


def show(display: Display) -> Report:
    """Return a report function for `train_agent` that shows return, updates and waiting on a display."""
    note, before = "", {"seconds": 0.0, "data_wait": 0.0, "step": 0.0}

    def report(steps: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal note, before
        if metrics:
            passed, waited, updates = (metrics[name] - before[name] for name in ("seconds", "data_wait", "step"))
            parts = []
            if "episode_return" in metrics:
                parts.append(f"return {metrics['episode_return']:.4g}")
            if passed > 0:
                parts += [f"{updates / passed:.3g} updates/s", f"{waited / passed:.0%} waiting for data"]
            counted = {"skipped": "skipped", "env_died": "workers died", "env_hung": "hung", "env_refused": "bad rows"}
            parts += [f"{metrics[name]:.0f} {words}" for name, words in counted.items() if metrics.get(name)]
            note, before = ", ".join(parts), metrics
        display.show(steps, total, note)

    return report


def _with_flags(config: OnlineConfig, args: Any) -> OnlineConfig:
    given = {name: getattr(args, name) for name in ("steps", "minutes", "seed") if getattr(args, name) is not None}
    config = replace(config, **given)
    if args.quick:
        smaller: dict[str, Any] = {name: min(getattr(config, name), most) for name, most in QUICK.items()}
        config = replace(config, **smaller)
    return config
