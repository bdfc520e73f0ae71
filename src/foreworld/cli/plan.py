"""`foreworld plan`: act by planning, without an actor."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

import torch

from foreworld.cli.options import device, environment_options, parse, print_json, say
from foreworld.cli.plan_source import Source, exact_source, run_source
from foreworld.cli.planner_flags import (
    default_planner,
    described,
    named_planner,
    planner_options,
    settings_of,
    with_horizon,
    with_options,
)
from foreworld.core.errors import ConfigError, ForeworldError
from foreworld.core.files import claim_output, write_json
from foreworld.data.schema import Source as Origin
from foreworld.envs import Rows, Vector, make
from foreworld.models.simulated import Simulated
from foreworld.rollout.recorder import Budget, Recorder, recording
from foreworld.studies.aiming import Control, Goal, Player, Worth
from foreworld.studies.plan_film import PlanFilm, can_film_plans
from foreworld.studies.planning import PlanStudy, study_planning
from foreworld.train.log import Display
from foreworld.train.run import environment
from foreworld.worlds.catalogue import WORLDS
from foreworld.worlds.world import Aiming

RESULT = "plan.json"
QUICK_EPISODES, QUICK_STEPS = 2, 8
NUMBERS = re.compile(r"[-+]?[\d.]+(,[-+]?[\d.]+)*")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Let a world model act by planning alone, and print what it reaches beside floors and a ceiling.

    All play the same episodes: the planner, random actions, random shooting with as many rollouts, and the oracle, who
    knows the truth, in bundled worlds that have one. Settings of the planner are flags: --candidates, --iterations and
    so on; `--planner NAME --help` shows those of another one.

    example: foreworld plan --run runs/cartpole --episodes 20

    example: foreworld plan --run runs/rooms --env foreworld/TwoRooms-v0 --planner icem --execute 5 --out planned

    example: foreworld plan --exact --env foreworld/PointMaze-v0 --goal 2.5,0.5 --planner mppi
    """

    run: Path | None = None
    """Run folder of a world model; or of an agent, of which model and critic are used, and not the actor."""
    exact: bool = False
    """Instead of a run: plan with the bundled world itself, which is never wrong about the future."""
    env: str = ""
    """Where to act; by default where the run's data come from. A class of your own (module:Class) must be named."""
    env_options: str = ""
    """Further options of the environment, as JSON: '{"gravity": 1.62}'."""
    goal: str = ""
    """What for: `own`, the environment's own goals; `reward`; a picture file; or coordinates, x,y, where a bundled
    world can place a goal. By default `own` where environment and model know of that, else `reward`."""
    planner: str = ""
    """See `foreworld list planners`; by default cem for numbers and categorical_cem for choices."""
    horizon: int | None = None
    """Actions in a plan; the planner's own number by default."""
    execute: int = 1
    """Actions of a plan that are carried out before the next search."""
    chance: bool = False
    """Dream by samples; else by the model's modes, so that no plan wins by luck."""
    deadline_ms: float | None = None
    """Milliseconds for a decision, filtering included; what comes later all the same is counted."""
    episodes: int = 20
    """How many to play."""
    num_envs: int = 8
    """Environments that are planned for in one batch; with 1, latency is what a control loop would see."""
    max_steps: int | None = None
    """Truncate episodes after this many steps."""
    seed: int = 0
    """Of starts, goals and everything random."""
    confidence: float = 0.95
    """Of the intervals."""
    no_floors: bool = False
    """Let the planner play alone, without random actions, random shooting and the oracle."""
    no_shooting: bool = False
    """Leave out random shooting alone, which takes as long as the planner, and longer where it reaches less."""
    record: Path | None = None
    """Folder of a new dataset: the planner's own episodes, to train on, or to find the horizon of what it chooses by
    `foreworld horizon --data`."""
    out: Path | None = None
    """Folder for the result (plan.json) and clips: what happened, and what the model imagined if it can show it."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    threads: int = 1
    """Threads on a CPU; 0 for torch's own choice."""
    quick: bool = False
    """Two episodes of at most 8 steps: to see that all is well."""
    overwrite: bool = False
    """Replace an existing folder."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("planner", "run", "env", "env-options", "device"):
        first.add_argument(f"--{name}", default="")
    first.add_argument("--exact", action="store_true")
    chosen, _ = first.parse_known_args(argv)
    asked = {"-h", "--help"} & set(argv)
    source = None if asked else _source(chosen)
    space = None if source is None else source.model.spec.action
    planner = named_planner(chosen.planner or ("cem" if space is None else default_planner(space)))
    taken = {one.name for one in fields(Plan)} | {"objective"}
    flags = [*planner_options(planner, taken), ("objective", Worth, field(default=Worth()))]
    options = make_dataclass("Plan", flags, bases=(Plan,), frozen=True, kw_only=True)
    options.__doc__ = f"{Plan.__doc__}\n{described(planner)}"
    args: Any = parse(options, argv, "plan")
    assert source is not None  # with --help, parsing was the end
    if args.episodes < 2 or args.num_envs < 1 or not 0 < args.confidence < 1:
        raise ConfigError("--episodes must be at least 2, --num-envs at least 1, and --confidence between 0 and 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    planner = with_horizon(with_options(planner, args), args.horizon)
    _plan(args, source, planner)


def _source(chosen: argparse.Namespace) -> Source:
    """Load what plans."""
    options = environment_options(chosen.env_options, make)
    if bool(chosen.run) == chosen.exact:
        raise ConfigError("give either --run DIR, or --exact with a bundled world as --env")
    if chosen.exact:
        return exact_source(chosen.env, options)
    return run_source(Path(chosen.run), chosen.env, options, device(chosen.device or "auto"))


def _plan(args: Any, source: Source, planner: Any) -> None:
    """Play, and say what came of it."""
    goal, episodes = _goal(args.goal, source), QUICK_EPISODES if args.quick else args.episodes
    control = Control(
        execute=args.execute,
        deadline=None if args.deadline_ms is None else args.deadline_ms / 1000,
        chance=args.chance,
    )
    env = _open(args, source, goal, min(args.num_envs, episodes))
    with closing(env):
        player = Player(source.model, env, goal, args.objective, source.agent)
        film = PlanFilm(player) if args.out is not None and can_film_plans() else None
        out = None if args.out is None else claim_output(args.out, args.overwrite)  # before anything is played
        display = Display(f"plan {env.env_id}", "episodes", quiet=args.json)
        with _recording(args, env, planner, episodes) as recorder, display:
            watchers = [] if film is None else [film.watching]
            watchers += [] if recorder is None else [lambda _: recorder.add]
            found = study_planning(
                player,
                planner,
                control,
                episodes=episodes,
                seed=args.seed,
                confidence=args.confidence,
                floors=not args.no_floors,
                shoot=not args.no_shooting,
                progress=display.show,
                watch=lambda policy: _shown_to([watcher(policy) for watcher in watchers]),
            )
        result = _result(args, source, planner, player, control, found)
    clips: list[Path] = []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RESULT, result)
        if film is not None:
            clips = film.write(out, f"{env.env_id}, {type(planner).__name__}")
    if args.json:
        print_json(result)
        return
    say(found.in_words())
    written = [] if out is None else [out / RESULT, *clips]
    written += [] if args.record is None else [args.record]
    if written:
        say(f"written: {', '.join(map(str, written))}")


def _recording(args: Any, env: Vector, planner: Any, episodes: int) -> AbstractContextManager[Recorder | None]:
    """Open the dataset of the planner's own episodes, if there shall be one."""
    if args.record is None:
        return nullcontext()
    origin = Origin(
        env=env.env_id,
        policy=f"{type(planner).__name__} with {args.run or 'the world itself'}",
        seed=args.seed,
        options={**env.options, "num_envs": env.num_envs, "repeat": 1.0},
    )
    return recording(env, args.record, origin, Budget(episodes, of_episodes=True), args.overwrite)


def _shown_to(watchers: list[Callable[[Rows], None]]) -> Callable[[Rows], None]:
    """Return what shows rows to all of some."""

    def watch(rows: Rows) -> None:
        for one in watchers:
            one(rows)

    return watch


def _goal(text: str, source: Source) -> Goal:
    """Return what to plan for, by what was given to --goal."""
    aiming = source.env in WORLDS and isinstance(WORLDS[source.env].world, Aiming)
    if not text:
        knows = isinstance(source.model, Simulated) or "embed" in source.model.provides
        return "own" if aiming and knows else "reward"
    if text == "own" or text == "reward":
        return text
    if NUMBERS.fullmatch(text):
        with suppress(ValueError):
            if not aiming:
                raise ConfigError(f"--goal {text}: {source.env} can place no goal; give a picture or reward")
            return tuple(float(part) for part in text.split(","))
    path = Path(text)
    if path.suffix and path.exists():
        return path
    raise ConfigError(f"--goal {text}: is neither own, reward, coordinates (2.5,0.5) nor a picture that exists")


def _open(args: Any, source: Source, goal: Goal, num_envs: int) -> Vector:
    """Open the environments; those with a goal end where it is reached."""
    options: dict[str, Any] = {"num_envs": num_envs, **source.options}
    if args.max_steps is not None or args.quick:
        given = options.get("max_steps") if args.max_steps is None else args.max_steps
        options["max_steps"] = min(given or QUICK_STEPS, QUICK_STEPS) if args.quick else given
    if isinstance(goal, tuple):
        options["goal"] = list(goal)
    if goal != "reward" and source.env in WORLDS and hasattr(WORLDS[source.env].world, "stop"):
        options.setdefault("stop", True)
    if args.out is not None and source.env not in WORLDS:
        drawn: dict[str, Any] = {"render_mode": "rgb_array", **options}
        with suppress(ForeworldError, TypeError):  # not everything can be looked at
            return make(env_id=source.env, **drawn)
    return make(env_id=source.env, **options)


def _result(
    args: Any, source: Source, planner: Any, player: Player, control: Control, found: PlanStudy
) -> dict[str, Any]:
    """Put everything into one JSON value that says how it was made."""
    goal = args.goal or ("reward" if player.judge is None else "own")
    protocol = {
        "goal": goal,
        "starts": "drawn by the environment from (seed, environment, episode); the same for all arms",
        "success": None if found.measure != "success" else "the goal is reached at some row of the episode",
        "env_options": player.env.options,
        "num_envs": player.env.num_envs,
        "execute": control.execute,
        "deadline_ms": args.deadline_ms,
        "chance": control.chance,
        "objective": asdict(args.objective) | {"critic": source.agent is not None and args.objective.critic},
        "planner": type(planner).__name__,
        "horizon": planner.horizon,
        "budget": planner.budget,
        "settings": settings_of(planner),
        "seed": args.seed,
    }
    head = {"run": None if args.run is None else str(args.run), "env": player.env.env_id, "updates": source.updates}
    return head | found.to_json() | {"protocol": protocol, "made": environment(args.seed)}
