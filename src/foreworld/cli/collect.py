"""`foreworld collect`: let a policy act and store the episodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foreworld.cli.options import environment_options, parse, print_json, say
from foreworld.core.errors import ConfigError, DataError
from foreworld.core.interrupt import Interrupted, graceful
from foreworld.data import Dataset
from foreworld.envs import Tally, make
from foreworld.rollout import collect, record
from foreworld.train.log import Display
from foreworld.worlds.catalogue import passive


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Let a policy act in an environment and store the episodes as a dataset.

    A bundled world without actions is recorded as it goes on by itself.

    example: foreworld collect --env ALE/Freeway-v5 --episodes 10 --repeat 8 --out episodes

    example: foreworld collect --env foreworld/TwoRooms-v0 --policy oracle --noise 0.75 --repeat 5 --steps 9000 --out r

    example: foreworld collect --env foreworld/Balls-v0 --episodes 50 --image-size 32 --out balls
    """

    env: str
    """Gymnasium id, for example CartPole-v1 or ALE/Pong-v5, a bundled world (see `foreworld list envs`), or your own
    class as module:Class, installed or in the current directory."""
    out: Path
    """Folder of the new dataset."""
    episodes: int | None = None
    """Whole episodes to store."""
    steps: int | None = None
    """Or: environment steps to store; open episodes end there as truncated."""
    num_envs: int = 4
    """Environments that run side by side."""
    max_steps: int | None = None
    """Truncate episodes after this many steps."""
    workers: bool = False
    """Run every environment in a process of its own; one that dies or hangs is started again."""
    timeout: float = 60.0
    """Seconds after which a worker that does not answer is killed."""
    fault_rate: float = 0.01
    """Stop when more than this share of the steps is bad: NaN, outside the declared spaces, or an exception."""
    policy: Literal["random", "walk", "oracle"] = "random"
    """Who acts: evenly at random; a random walk with momentum (box actions); or who knows the truth (bundled worlds
    with a goal)."""
    repeat: float = 1.0
    """Mean number of steps that a random action is held."""
    noise: float = 0.0
    """Share of the time, from 0 to 1, at which the policy gives way to random actions."""
    image_size: int = 64
    """Side that image observations are resized to, by area averaging."""
    keys: tuple[str, ...] = ()
    """Observation keys to keep; all by default."""
    env_options: str = ""
    """Options of the environment as one JSON object, for example '{"gravity": 1.62}'."""
    seed: int = 0
    """Of environments and policy; the same seed gives the same episodes."""
    overwrite: bool = False
    """Replace an existing dataset."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Collect, argv, "collect")
    if (args.episodes is None) == (args.steps is None):
        raise ConfigError("give either --episodes or --steps")
    unit = "episodes" if args.episodes is not None else "steps"
    with graceful() as interruption, Display(f"collect {args.env}", unit, quiet=args.json) as display:
        try:
            gather = _recorded if passive(args.env) else _collected
            data, tally = gather(args, display, lambda: interruption.requested)
        except DataError:
            if interruption.signal is None:
                raise
            raise Interrupted(interruption.signal, "stopped before the first step; nothing is kept") from None
    found = data.summary()
    if args.json:
        print_json(
            {
                "out": str(args.out),
                "episodes": found.episodes,
                "steps": found.steps,
                "return": found.return_mean,
                "faults": tally.faults,
                "first_fault": tally.first,
            }
        )
    else:
        say(
            f"{found.episodes} episodes, {found.steps} steps, mean return {found.return_mean:.3g}, "
            f"{found.bytes / 2**20:.1f} MiB in {args.out}"
        )
        if any(tally.faults.values()):
            counts = ", ".join(f"{number} {what}" for what, number in tally.faults.items() if number)
            say(f"cut off by faults: {counts}{f'; the first: {tally.first}' if tally.first else ''}")
    if interruption.signal is not None:
        raise Interrupted(interruption.signal, f"stopped early; {found.episodes} episodes are kept in {args.out}")


def _collected(args: Collect, display: Display, stop: Callable[[], bool]) -> tuple[Dataset, Tally]:
    """Let the policy act."""
    env = make(
        args.env,
        num_envs=min(args.num_envs, args.episodes or args.num_envs),
        image_size=args.image_size,
        keys=args.keys or None,
        max_steps=args.max_steps,
        workers=args.workers,
        timeout=args.timeout,
        fault_rate=args.fault_rate,
        **environment_options(args.env_options, make),
    )
    with closing(env):
        data = collect(
            env,
            args.policy,
            episodes=args.episodes,
            steps=args.steps,
            out=args.out,
            seed=args.seed,
            repeat=args.repeat,
            noise=args.noise,
            overwrite=args.overwrite,
            progress=display.show,
            stop=stop,
        )
    return data, env.tally


def _recorded(args: Collect, display: Display, stop: Callable[[], bool]) -> tuple[Dataset, Tally]:
    """Let a world go on by itself; nothing of it can fail."""
    if args.policy != "random" or args.noise:
        raise ConfigError(
            f"{args.env}: takes no action, so that a policy has nothing to decide; leave out --policy and --noise"
        )
    data = record(
        args.env,
        episodes=args.episodes,
        steps=args.steps,
        max_steps=args.max_steps,
        image_size=args.image_size,
        keys=args.keys or None,
        out=args.out,
        seed=args.seed,
        overwrite=args.overwrite,
        progress=display.show,
        stop=stop,
        **environment_options(args.env_options, record),
    )
    return data, Tally()
