"""What a JEPA is good for: python benchmarks/jepa.py [--task rooms] [--seeds 0 1 2] [--variants full] [--steps N].

Of a task episodes are collected once. Of each variant and seed a model is trained on them by `foreworld train --preset
jepa`, and `foreworld plan` reaches for goals of new episodes, given as pictures. Beside seed 0 stand random
actions, the oracle, who knows the way, and in fewer episodes random shooting with as many rollouts.

Variants leave one thing out, or prevent collapse in another way: the table of them says what each is needed for. They
are compared after fewer updates: `--variants all --steps 1000 --seeds 0 --episodes 50`.

Two more variants read pictures with a frozen encoder from a file in the form of DINOv2's. As no published weights come
with foreworld, they are drawn at random: a floor for what an encoder that has learned can do. `frozen token` takes its
answer for the whole picture, `frozen fields` those of 8 x 8 fields of it, in principal components.

For pushing a T the rival is cloned behaviour, `python benchmarks/peers/goal_cloning.py`, on the same data in
as many CPU minutes: `--task pusht --seeds 0`, and for the learning curve again with other `--steps`.

Every cell lies in benchmarks/results/jepa-<task>.json with all its episodes. What is done is kept in --work: after an
interruption the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from foreworld.core import Space, Spec
from foreworld.core.files import write_json
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.encoders.weight_names import original_name

RESULTS = Path(__file__).parent / "results"
EPISODES = 2000
"""Added to the seed of the model for that of the episodes; settings were chosen on others."""
SHOT = 20
"""Episodes that random shooting plays too."""
KEPT = (
    *("measure", "success", "ci_low", "ci_high", "confidence", "episodes", "random_floor", "oracle"),
    *("latency_ms_p50", "latency_ms_p95", "planning_seconds", "mean_length", "rollouts", "protocol"),
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A world, what is collected there, and how goals are reached.

    Attributes:
        env: environment id.
        options: of the environment, beside its defaults.
        collect: flags of `foreworld collect`.
        train: flags of `foreworld train`, beside the variant's.
        plan: flags of `foreworld plan`.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    collect: str
    train: str = ""
    plan: str


TASKS = {
    "rooms": Task(
        env="foreworld/TwoRooms-v0",
        collect="--policy oracle --noise 0.75 --repeat 5 --steps 200000 --max-steps 60 --num-envs 16 --image-size 65",
        plan="--planner icem --horizon 60 --candidates 200 --iterations 2 --std 1.0 --execute 5 --max-steps 200",
    ),
    "maze": Task(
        env="foreworld/PointMaze-v0",
        options={"pictures": True, "goal_seen": False},
        collect="--policy oracle --noise 0.75 --repeat 5 --steps 100000 --max-steps 100 --num-envs 16",
        train="--steps 2000",
        plan="--planner icem --horizon 60 --candidates 200 --iterations 4 --std 1.0 --execute 10 --max-steps 200",
    ),
    "pusht": Task(
        env="foreworld/PushT-v0",
        options={"criterion": "pose", "goal_after": 25, "goal_pushed": True, "goal_seen": False},
        collect="--policy oracle --noise 0.5 --keys image --repeat 5 --steps 80000 --max-steps 40 --num-envs 20",
        train="--steps 1500",
        plan="--planner icem --horizon 25 --candidates 300 --iterations 6 --std 1.0 --execute 5 --max-steps 50",
    ),
}
VARIANTS = {
    "full": "",
    "no inverse": "--model.inverse 0",
    "no variance": "--model.variance 0",
    "no covariance": "--model.covariance 0",
    "no similarity": "--model.similarity 0",
    "sigreg": "--model.variance 0 --model.covariance 0 --model.sigreg 0.05",
    "barlow": "--model.variance 0 --model.covariance 0 --model.barlow 0.02",
    "asymmetric": "--model.variance 0 --model.covariance 0 --model.target ema",
    "nothing": "--model.variance 0 --model.covariance 0 --model.inverse 0",
}
"""Name to what `foreworld train` is told besides."""

DRAWN = "drawn.safetensors"
FROZEN = (
    "--model.encoder frozen --model.latent 128 --model.vision.kind dino --model.vision.patch 5 "
    "--model.vision.tokens 32 --model.vision.blocks 2 --model.vision.heads 2 --fit.precision float32"
)
VARIANTS_FROZEN = {
    "frozen token": FROZEN,
    "frozen fields": f"{FROZEN} --model.vision.fields 8 --model.vision.out principal",
}
"""Those whose encoder is read from a file."""


def drawn(path: Path) -> None:
    """Write a vision transformer that has learned nothing, of the size that `FROZEN` says, in the form of DINOv2's."""
    torch.manual_seed(0)
    spec = Spec(obs={"image": Space(kind="image", shape=(3, 65, 65), dtype="uint8")}, action=None)
    net = LatentEncoder(spec, 1, 1, Vision(kind="dino", patch=5, tokens=32, blocks=2, heads=2)).pixels
    assert net is not None
    outside = {"own": "cls_token", "place": "pos_embed", "inward.": "patch_embed.proj.", "norm.": "norm."}
    weights: dict[str, Tensor] = {}
    for name, value in net.state_dict().items():
        if name.endswith(".factors"):  # DINOv2's are learned; those that are drawn would hide the blocks
            block = name.removesuffix(".factors")
            weights |= {f"{block}.ls{i}.gamma": torch.ones_like(value[0]) for i in (1, 2)}
            continue
        known = next((old for old in outside if name.startswith(old)), None)
        new = original_name(name) if known is None else name.replace(known, outside[known])
        weights[new] = value.unflatten(1, (3, 5, 5)) if name == "inward.weight" else value
    save_file(weights, path)


def foreworld(*arguments: str) -> dict[str, Any]:
    """Run `foreworld ... --json`; return what it printed."""
    command = [sys.executable, "-m", "foreworld.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"foreworld {' '.join(arguments)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def trained(task: Task, variant: str, seed: int, steps: int | None, data: Path, run: Path) -> dict[str, Any]:
    """Train one model, from its start or from where it stopped; return what was done and how long it took."""
    spent, anew = resource.getrusage(resource.RUSAGE_CHILDREN), not any((run / "checkpoints").glob("*"))
    if not anew:
        foreworld("train", "--resume", str(run))
    else:
        if run.exists():  # ended before its first checkpoint
            shutil.rmtree(run)
        flags = [*task.train.split(), *(["--steps", str(steps)] if steps else [])]
        if variant in VARIANTS_FROZEN:
            drawn(run.parent / DRAWN)
            flags += [*VARIANTS_FROZEN[variant].split(), "--vision-weights", str(run.parent / DRAWN)]
        else:
            flags += VARIANTS[variant].split()
        where = ["--data", str(data), "--seed", str(seed), "--out", str(run), "--no-clips"]
        foreworld("train", "--preset", "jepa", *where, *flags)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "seconds" in line][-1]
    watched = {name: round(value, 4) for line in lines for name, value in line.items() if name.startswith("embed/")}
    return {
        "steps": last["step"],
        "seconds": round(last["seconds"], 1),
        "cpu_seconds": round(cpu, 1) if anew else None,
        "explained": round(last["explained"], 4),
    } | watched


def cell(task: Task, variant: str, seed: int, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train and judge one model."""
    run = work / f"{variant.replace(' ', '-')}-{seed}-{args.steps or 'preset'}"
    done = trained(task, variant, seed, args.steps, work / "data", run)
    acting = ["--run", str(run), "--env", task.env, "--episodes", str(args.episodes), "--num-envs", "50"]
    beside = variant == "full" and not args.steps and seed == 0
    floors = ["--no-shooting" if beside else "--no-floors"]
    found = foreworld("plan", *acting, *task.plan.split(), "--seed", str(EPISODES + seed), *floors)
    kept = {name: found.get(name) for name in KEPT}
    if beside:  # as long as it takes, few episodes tell enough
        fewer = foreworld("plan", *acting, *task.plan.split(), "--seed", str(EPISODES + seed), "--episodes", str(SHOT))
        kept["shooting"] = {name: fewer[name] for name in ("episodes", "success", "shooting_floor", "against")}
    return {
        "variant": variant,
        "seed": seed,
        "asked": args.steps,
        "train": done,
        **kept,
        "every": found["every"],
        "made": found["made"],
    }


def said(one: dict[str, Any]) -> str:
    """Return a cell in a line."""
    trained, minutes = one["train"], one["train"]["seconds"] / 60
    return (
        f"{one['variant']}, seed {one['seed']}: {one['success']:.2f} ({one['ci_low']:.2f} to {one['ci_high']:.2f}) of "
        f"{one['episodes']}, after {trained['steps']} updates in {minutes:.0f} minutes"
    )


def main() -> None:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="rooms")
    parser.add_argument("--variants", choices=[*VARIANTS, *VARIANTS_FROZEN, "all"], nargs="+", default=["full"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="updates; by default the preset's")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("runs") / "jepa")
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    if "all" in args.variants:
        args.variants = list(VARIANTS)
    task, work = TASKS[args.task], args.work / (f"{args.task}-quick" if args.quick else args.task)
    path = RESULTS / f"jepa-{args.task}.json"
    if args.quick:
        args.variants, args.seeds, args.steps, args.episodes = ["full"], [0], 20, 2
        shutil.rmtree(work, ignore_errors=True)
    if not (work / "data").exists():
        where = ["--env", task.env, "--env-options", json.dumps(task.options), "--out", str(work / "data")]
        foreworld("collect", *where, *task.collect.split())
    result = json.loads(path.read_text()) if path.exists() and not args.quick else {"cells": []}
    done = {(one["variant"], one["seed"], one["asked"]) for one in result["cells"]}
    for variant, seed in [(variant, seed) for seed in args.seeds for variant in args.variants]:
        if (variant, seed, args.steps) in done:
            continue
        found = cell(task, variant, seed, args, work)
        if not args.quick:  # read again: another of these may run beside
            result = json.loads(path.read_text()) if path.exists() else {"cells": []}
        result["cells"].append(found)
        if not args.quick:
            write_json(path, result)
        print(said(found), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
