"""What pages take from the code and from measured results, so that neither can drift from them.

A page says where by a comment on a line of its own, such as `<!-- generated: verbs -->`.
"""

from __future__ import annotations

import io
import json
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from foreworld.cli.main import VERBS, main

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "benchmarks" / "results" / "demo-seed0.json"
ENSEMBLE = ROOT / "benchmarks" / "results" / "ensemble.json"
PLANNERS = ROOT / "benchmarks" / "results" / "planners.json"
RECEDING = ROOT / "benchmarks" / "results" / "receding.json"
SWM_PLAN = ROOT / "benchmarks" / "results" / "swm_plan.json"
PLANNING = ROOT / "benchmarks" / "results" / "planning.json"
JEPAS = {
    "two rooms": ROOT / "benchmarks" / "results" / "jepa-rooms.json",
    "point maze": ROOT / "benchmarks" / "results" / "jepa-maze.json",
}
PUSHING, CLONING = (ROOT / "benchmarks" / "results" / f"{name}.json" for name in ("jepa-pusht", "pusht-cloning"))
GOAL_DISTANCE = ROOT / "benchmarks" / "results" / "goal_distance.json"
REWARD_SCALE = ROOT / "benchmarks" / "results" / "reward_scale-CartPole-v1.json"
REPLANNING = ROOT / "benchmarks" / "results" / "replanning.json"
WORLDS = ROOT / "benchmarks" / "results" / "worlds.json"
TRUST = ROOT / "benchmarks" / "results" / "trust.json"
MARK = re.compile(r"^<!-- generated: (?P<name>[a-z-]+) -->$", re.MULTILINE)
HELP_WIDTH = 86

BASELINES = {"copy_last": "copy last frame", "mean": "mean frame", "linear": "linear model"}


def fill(page: str) -> str:
    """Replace every mark in a page by what it stands for."""
    return MARK.sub(lambda mark: PARTS[mark["name"]](), page)


def demo_facts() -> str:
    """List how the demo's result was made."""
    stored = json.loads(DEMO.read_text())
    made, result = stored["made"], stored["result"]
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    hardware = f"{made['processor']}, {made['cores']} cores, " + (made["gpu"] or "no GPU")
    facts = {
        "command": f"`{made['command']}`",
        "seed": made["seed"],
        "world": result["env"],
        "hardware": hardware,
        "time, everything": f"{stored['wall_seconds'] / 60:.1f} minutes",
        "updates": result["steps_trained"],
        "versions": f"foreworld {made['foreworld']} ({made['git']}), Python {made['python']}, {packages}",
        "frames seen before the dream": result["context"],
        "dreams averaged": result["samples"],
        "stretches, of games": f"{result['windows']}, of {result['episodes']}",
        "deviation of a pixel": f"{result['deviation']:.4f} of the range from black to white",
        "useful horizon": f"{result['useful_horizon']} steps",
    }
    return table(["what", "value"], list(facts.items()))


def demo_errors() -> str:
    """Return errors and skill over all pixels."""
    return errors(json.loads(DEMO.read_text())["result"]["horizons"])


def demo_changed() -> str:
    """Return errors and skill over the pixels that changed."""
    return errors(json.loads(DEMO.read_text())["result"]["changed_pixels"])


def demo_actions() -> str:
    """Return errors under true and under shuffled actions."""
    cells = json.loads(DEMO.read_text())["result"]["actions"]
    rows = [
        [step, number(cell["true"]), number(cell["shuffled"]), interval(cell, "gain")] for step, cell in cells.items()
    ]
    return table(["steps ahead", "true actions", "another game's actions", "smaller by (95 % interval)"], rows)


def errors(cells: dict[str, dict[str, Any]]) -> str:
    """Write errors by horizon as a table."""
    head = ["steps ahead", "model", *BASELINES.values(), "skill (95 % interval)"]
    rows = [
        [step, *(number(cell[name]) for name in ("model", *BASELINES)), interval(cell, "skill")]
        for step, cell in cells.items()
    ]
    return table(head, rows)


def ensemble() -> str:
    """Return the errors of an ensemble beside those of its members, and the factor between them."""
    names = ("ensemble", "member", "best_member", *BASELINES)
    rows = [
        [
            step,
            *(f"{cell[name]:.3f}" for name in names),
            f"{number(cell['factor'])} ({number(cell['factor_min'])} to {number(cell['factor_max'])})",
            number(cell["correlation"]),
        ]
        for step, cell in json.loads(ENSEMBLE.read_text())["horizons"].items()
    ]
    head = ["steps ahead", "ensemble", "one member", "best member", "copy last", "mean", "linear model"]
    return table([*head, "factor (least and greatest)", "correlation"], rows)


def planners_on_systems() -> str:
    """Return cost over least cost of planners, on systems with a known optimum."""
    head = ["planner", "rollouts", "median", "worst", "plans within 1 %", "systems within 1 %", "CPU ms for 4 plans"]
    names = ("rollouts", "median", "worst", "within_1_percent", "systems_within_1_percent", "cpu_ms_per_call")
    return _planners("systems", head, names)


def planners_on_processes() -> str:
    """Return how often planners find the best plan, on processes with a known optimum."""
    head = ["planner", "rollouts", "solved", "of", "return lost", "CPU ms for 10 plans"]
    names = ("rollouts", "solved_problems", "problems", "mean_lost", "cpu_ms_per_call")
    return _planners("processes", head, names)


def planners_receding() -> str:
    """Return what planners earn that plan anew at every step, task by task."""
    tasks = json.loads(RECEDING.read_text())["tasks"]
    planners = list(next(iter(tasks.values()))["planners"])
    rows = []
    for task, row in tasks.items():
        mean, low, high = (number(value) for value in row["gain"])
        earned = [number(row["planners"][name]["mean"]) for name in planners]
        rows.append([task.replace("_", " "), *earned, f"{mean} ({low} to {high})"])
    head = [name.replace("_", " ") for name in planners]
    return table(["task", *head, "icem 100 less cem 1000 (95 % interval)"], rows)


def planner_speed() -> str:
    """Return CPU seconds of plans beside those of a peer."""
    found = json.loads(SWM_PLAN.read_text())
    names = {"foreworld": "foreworld", "peer": f"{found['peer']}, one by one", "peer_batched": "the same, at once"}
    rows = [
        [count, label, f"{row[f'{name}_cpu_s']:.2f}", f"{row[f'{name}_fraction_of_matmul']:.0%}"]
        for count, row in found["environments"].items()
        for name, label in names.items()
        if f"{name}_cpu_s" in row
    ]
    return table(["environments", "planner", "CPU s for all plans", "of the matmul bound"], rows)


def planning_alone() -> str:
    """Return what world models earn by planning alone."""
    rows = []
    for name, cell in _acted("mean_return"):
        reached = f"{cell['mean_return']:.0f} ({cell['ci_low']:.0f} to {cell['ci_high']:.0f})"
        floors = ["–" if cell[key] is None else f"{cell[key]:.0f}" for key in ("random_floor", "shooting_floor")]
        latency = f"{cell['latency_ms_p50']:.0f}, {cell['latency_ms_p95']:.0f} ms for {cell['protocol']['num_envs']}"
        late = "–" if cell["protocol"]["deadline_ms"] is None else percent(cell["deadline_misses"] / cell["decisions"])
        rows.append([name, cell["protocol"]["budget"], reached, *floors, latency, late])
    head = ["model, planner", "rollouts", "return (95 % interval)", "random actions", "random shooting"]
    return table([*head, "a decision: median, 95 %", "too late"], rows)


def planning_exact() -> str:
    """Return how often worlds that plan with themselves reach their goals."""
    rows = [
        [
            name,
            cell["protocol"]["budget"],
            f"{percent(cell['success'])} ({percent(cell['ci_low'])} to {percent(cell['ci_high'])})",
            *(percent(cell[key]) for key in ("random_floor", "shooting_floor", "oracle")),
        ]
        for name, cell in _acted("success")
    ]
    head = [
        "world, planner",
        "rollouts",
        "goals reached (95 % interval)",
        "random actions",
        "random shooting",
        "oracle",
    ]
    return table(head, rows)


def goal_distance() -> str:
    """Return how often goals are reached by which states of a dream are compared with them."""
    cells = json.loads(GOAL_DISTANCE.read_text())["cells"]
    worlds = dict.fromkeys(one["world"] for one in cells)
    rows = []
    for world in worlds:
        found = {one["over"]: one for one in cells if one["world"] == world}
        said = [
            f"{percent(one['success'])} ({percent(one['ci_low'])} to {percent(one['ci_high'])}), "
            f"{one['mean_length']:.0f} steps"
            for one in (found[over] for over in ("sum", "last", "nearest"))
        ]
        rows.append([world, *said])
    return table(["world", "summed over all states", "the last", "the nearest"], rows)


def jepas() -> str:
    """Return how often JEPAs of the preset reach goals given as pictures."""
    rows = []
    for world, path in JEPAS.items():
        cells = json.loads(path.read_text())["cells"]
        for one in sorted(cells, key=lambda cell: cell["seed"]):
            if one["asked"] is not None:
                continue
            trained, said = one["train"], [_share(one), f"{one['mean_length']:.0f}"]
            times = [f"{trained['seconds'] / 60:.0f} min", f"{one['planning_seconds'] / 60:.1f} min"]
            beside = [percent(one["random_floor"]), percent(one["oracle"])] if one["oracle"] is not None else ["", ""]
            shot = one.get("shooting")
            beside.insert(1, f"{percent(shot['shooting_floor'])} of {shot['episodes']}" if shot else "")
            rows.append([world, one["seed"], f"{said[0]} of {one['episodes']}", said[1], *beside, *times])
    head = ["world", "seed", "goals reached", "steps", "random", "random shooting", "oracle", "training", "planning"]
    return table(head, rows)


def jepa_variants() -> str:
    """Return what becomes of the JEPA of two rooms without one of its losses, or with another."""
    cells = [one for one in json.loads(JEPAS["two rooms"].read_text())["cells"] if one["asked"] == 1000]
    rows = [
        [one["variant"], f"{_share(one)} of {one['episodes']}", number(one["train"]["explained"])]
        + [number(one["train"][f"embed/{name}"]) for name in ("rank", "alike")]
        for one in cells
    ]
    return table(["variant", "goals reached", "change explained", "effective rank", "alike"], rows)


def frozen_encoders() -> str:
    """Return how often goals are reached through a transformer that has learned nothing, by what it is asked for."""
    said = {
        "frozen token": "its token for the whole picture, a layer as drawn",
        "frozen fields": "8 x 8 fields, principal components",
    }
    rows = [
        [said[one["variant"]], f"{_share(one)} of {one['episodes']}"]
        + [number(one["train"][key]) for key in ("explained", "embed/alike")]
        for one in json.loads(JEPAS["two rooms"].read_text())["cells"]
        if one["variant"] in said
    ]
    return table(["what is read of a picture", "goals reached", "change explained", "alike"], rows)


def pushing() -> str:
    """Return how often a T is pushed where it belongs, by planning and by cloned behaviour, and for what training."""
    planned = [one for one in json.loads(PUSHING.read_text())["cells"] if one["variant"] == "full"]
    rows = [
        [
            f"planning with a JEPA, seed {one['seed']}",
            f"{one['train']['cpu_seconds'] / 60:.0f}",
            one["train"]["steps"],
            _share(one),
        ]
        for one in sorted(planned, key=lambda cell: (cell["train"]["steps"], cell["seed"]))
    ]
    rival = json.loads(CLONING.read_text())
    rows += [["cloned behaviour", f"{one['cpu_minutes']:.0f}", one["updates"], _share(one)] for one in rival["cells"]]
    rows.append(["straight to the pusher's place", "", "", _share(rival["straight"])])
    beside = next(one for one in planned if one["oracle"] is not None)
    rows += [["random actions", "", "", percent(beside["random_floor"])], ["oracle", "", "", percent(beside["oracle"])]]
    return table(["who acts", "CPU minutes of training", "updates", "goals reached of 100"], rows)


def reward_scale() -> str:
    """Return what agents earn whose rewards are a thousand times larger or smaller, with two kinds of heads."""
    runs = json.loads(REWARD_SCALE.read_text())["runs"]
    heads = list(dict.fromkeys(one["heads"] for one in runs))
    rows = []
    for scale in sorted({one["scale"] for one in runs}):
        cells = [
            [one["mean_return"] for one in runs if (one["heads"], one["scale"]) == (kind, scale)] for kind in heads
        ]
        rows.append([f"{scale:g}", *(", ".join(f"{value:.0f}" for value in sorted(cell)) for cell in cells)])
    return table(["rewards times", *heads], rows)


def replanning() -> str:
    """Return how often goals are reached with plans of which more or less is carried out."""
    found = json.loads(REPLANNING.read_text())
    rows = [
        [one["every"], f"{_share(one)} of {one['episodes']}", f"{one['mean_length']:.0f}", one["plans"]]
        for one in found["cells"]
    ]
    return table(["actions of each plan", "goals reached", "steps", "plans"], rows)


def _share(cell: dict[str, Any]) -> str:
    return f"{percent(cell['success'])} ({percent(cell['ci_low'])} to {percent(cell['ci_high'])})"


def _acted(measure: str) -> list[tuple[str, dict[str, Any]]]:
    cells = json.loads(PLANNING.read_text())["cells"]
    return [(name, cell) for name, cell in cells.items() if cell["measure"] == measure]


def _planners(kind: str, head: Sequence[str], names: Sequence[str]) -> str:
    write = {
        "rollouts": str,
        "within_1_percent": "{:.0%}".format,
        "systems_within_1_percent": str,
        "solved_problems": str,
        "problems": str,
        "cpu_ms_per_call": "{:.0f}".format,
    }
    rows = [
        [planner.replace("_", " "), *(write.get(name, number)(row[name]) for name in names)]
        for kinds in json.loads(PLANNERS.read_text())["budgets"].values()
        for planner, row in kinds[kind].items()
    ]
    return table(head, rows)


def verbs() -> str:
    """Return the table of verbs."""
    return table(["verb", "what it does"], [[f"[`{verb}`](#{verb})", what] for verb, what in VERBS.items()])


def helps() -> str:
    """Return a section for every verb with its own help."""
    return "\n\n".join(f"## {verb}\n\n```text\n{wrapped(shown([verb, '--help']))}\n```" for verb in VERBS)


def wrapped(text: str) -> str:
    """Break the lines of prose that the command line leaves to the terminal; a command stays on one line."""
    lines = (line if line.startswith("example: ") else textwrap.fill(line, HELP_WIDTH) for line in text.splitlines())
    return "\n".join(lines)


def sizes() -> str:
    """Return the table of families and sizes."""
    rows = json.loads(shown(["list", "models", "--json"]))
    counted = [[f"{value:,}" if isinstance(value, int) else value for value in row.values()] for row in rows]
    return table(list(rows[0]), counted)


def horizon() -> str:
    """Return the table of `foreworld horizon`."""
    answer = json.loads(shown(["horizon", "--per-step-error", "0.01", "--max-error", "0.2", "--json"]))
    steps = list(answer["table"][0]["percent"])
    rows = [[row["label"], *row["percent"].values(), row["safe_horizon"]] for row in answer["table"]]
    return table(["error in % after", *(f"T = {step}" for step in steps), "steps to 20 %"], rows)


def trust_promises() -> str:
    """Return how often the safe horizon and the rules of thumb were right, system by system."""
    stored = json.loads(TRUST.read_text())
    head = ["system", "oracle", "kept in", "violated by", "reaches", "from 1,000", "1 - (1 - e)^T", "mean error"]
    rows = [
        [
            one["system"],
            one["oracle"],
            percent(one["kept"]),
            percent(one["violations"]),
            percent(one["reach"]),
            percent(more["reach"]),
            *(f"{percent(one[rule][0])} at {percent(one[rule][1])}" for rule in ("closed_form", "mean_curve")),
        ]
        for one, more in zip(stored["promises"], stored["promises_from_1000"], strict=True)
    ]
    return table(head, rows)


def trust_bands() -> str:
    """Return how often the bands covered, system by system."""
    rows = [
        [one["system"], f"{percent(one['pointwise'][0])} to {percent(one['pointwise'][1])}", percent(one["trajectory"])]
        for one in json.loads(TRUST.read_text())["promises"]
    ]
    return table(["system", "at a step, lowest to highest of 100", "whole trajectories"], rows)


def trust_recoveries() -> str:
    """Return known numbers beside what was measured from error curves."""
    rows = [
        [one["what"], f"{one['truth']:.4f}", f"{one['found']:.4f} ({one['low']:.4f} to {one['high']:.4f})"]
        for one in json.loads(TRUST.read_text())["recoveries"]
    ]
    return table(["what", "truth", "measured (95 % interval)"], rows)


def worlds() -> str:
    """Return how fast the worlds with goals are, and what chance and the oracle reach."""

    def reach(row: dict[str, Any], who: str) -> str:
        return f"{row[who]['return']:.1f}, {percent(row[who]['success'])}" if who in row else "–"

    head = ["world", "pictures a second", "steps a second", "chance: return, success", "oracle: return, success"]
    rows = [
        [f"`{name}-v0`", f"{one['frames_per_second']:,}", f"{one['env_steps_per_second']:,}", *both]
        for name, one in json.loads(WORLDS.read_text())["worlds"].items()
        for both in [[reach(one, who) for who in ("random", "oracle")]]
    ]
    return table(head, rows)


def percent(share: float) -> str:
    """Write a share with one decimal."""
    return f"{100 * share:.1f} %"


def shown(arguments: Sequence[str]) -> str:
    """Return what the command line prints."""
    out = io.StringIO()
    width = patch.dict(os.environ, COLUMNS=str(HELP_WIDTH))
    with width, redirect_stdout(out), redirect_stderr(out), suppress(SystemExit):
        main(list(arguments))
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None) -> str:
    """Write an error with two decimals."""
    return "–" if value is None else f"{value:.2f}"


def interval(cell: dict[str, Any], name: str) -> str:
    """Write a value with its interval."""
    low, high = number(cell[f"{name}_ci_low"]), number(cell[f"{name}_ci_high"])
    return f"{number(cell[name])} ({low} to {high})"


PARTS: dict[str, Callable[[], str]] = {
    "demo-facts": demo_facts,
    "demo-errors": demo_errors,
    "demo-changed": demo_changed,
    "demo-actions": demo_actions,
    "ensemble": ensemble,
    "planners-on-systems": planners_on_systems,
    "planners-on-processes": planners_on_processes,
    "planners-receding": planners_receding,
    "planner-speed": planner_speed,
    "planning-alone": planning_alone,
    "planning-exact": planning_exact,
    "goal-distance": goal_distance,
    "jepas": jepas,
    "jepa-variants": jepa_variants,
    "frozen-encoders": frozen_encoders,
    "pushing": pushing,
    "replanning": replanning,
    "reward-scale": reward_scale,
    "verbs": verbs,
    "helps": helps,
    "sizes": sizes,
    "horizon": horizon,
    "trust-promises": trust_promises,
    "trust-bands": trust_bands,
    "trust-recoveries": trust_recoveries,
    "worlds": worlds,
}
