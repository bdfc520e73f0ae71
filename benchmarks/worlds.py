"""How fast are the worlds with goals, and how far is chance from the best? python benchmarks/worlds.py [--json].

Speed is CPU time of one copy: pictures of 64 x 64 drawn in a second, steps of the Gymnasium environment in a second
with what it shows. Floor and ceiling are random actions, fresh at every step, and the world's own oracle, over the same
starts. `--picture` draws the page's picture instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.core.files import write_json
from foreworld.envs.worlds import WorldEnv
from foreworld.report.png import encode
from foreworld.train.run import environment
from foreworld.worlds import WORLDS, Acting, Aiming, Guided, build

RESULT = Path(__file__).parent / "results" / "worlds.json"
NAMES = ("TwoRooms", "PointMaze", "PointMazeMedium", "PointMazeLarge", "PushT", "Reach", "Catch")
SHOWN = (("TwoRooms", {}), ("PointMazeMedium", {"pictures": True}), ("PushT", {}), ("Reach", {}), ("Catch", {}))
EPISODES = 500
FRAMES = 6
TIMES, REPEATS = 200, 7
SIZE = 64


def main() -> None:
    """Measure all and keep the result, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="write the picture of the documentation there, and nothing else")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    if args.picture is not None:
        args.picture.write_bytes(encode(grid()))
        return
    started = time.process_time()
    rows = {name: measured(f"foreworld/{name}-v0") for name in NAMES}
    result = {
        "made": {**environment(0), "command": " ".join(["python", "benchmarks/worlds.py", *sys.argv[1:]])},
        "cpu_seconds": round(time.process_time() - started),
        "settings": {"episodes": EPISODES, "size": SIZE},
        "worlds": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, result)
    print(json.dumps(result, indent=2) if args.json else "\n".join(f"{name}: {row}" for name, row in rows.items()))


def measured(env_id: str) -> dict[str, Any]:
    """Return speed, and what chance and the oracle reach."""
    world: Any = build(env_id, image_size=SIZE)
    steps, rng = WORLDS[env_id].steps, np.random.default_rng(0)
    state = world.start(rng, 1)
    env = WorldEnv(world, steps=steps)
    env.reset(seed=0)
    env.action_space.seed(0)
    acts = [env.action_space.sample() for _ in range(TIMES)]
    found = {
        "frames_per_second": per_second(lambda _: world.render(state), TIMES),
        "env_steps_per_second": per_second(lambda i: env.step(acts[i]), TIMES),
        "steps": steps,
        "random": played(world, steps, oracle=False),
    }
    return found | ({"oracle": played(world, steps, oracle=True)} if isinstance(world, Guided) else {})


def per_second(act: Callable[[int], Any], times: int) -> int:
    """Return how often something is done in a second of CPU time, at the best of a few tries."""
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        for i in range(times):
            act(i)
        spent.append(time.process_time() - started)
    return round(times / min(spent))


def played(world: Acting, steps: int, *, oracle: bool) -> dict[str, float]:
    """Return mean return and share of successes of episodes under the oracle, or under random actions."""
    rng, acting = np.random.default_rng(1), np.random.default_rng(2)
    state, total = world.start(rng, EPISODES), np.zeros(EPISODES)
    won = np.zeros(EPISODES, bool)
    for _ in range(steps):
        act = world.oracle(state) if oracle and isinstance(world, Guided) else chance(world, acting)
        after = world.step(state, act, rng)
        total += world.reward(state, act, after)
        won |= world.success(after) if isinstance(world, Aiming) else total > 0
        state = after
    return {"return": round(float(total.mean()), 3), "success": round(float(won.mean()), 3)}


def chance(world: Acting, rng: np.random.Generator) -> np.ndarray:
    """Draw actions evenly for all episodes."""
    space = world.action
    assert space is not None
    if space.kind == "discrete":
        return rng.integers(space.classes[0], size=EPISODES)
    return rng.uniform(space.low, space.high, (EPISODES, space.width))


def grid() -> np.ndarray:
    """Draw moments of an episode of each world in a row, [H, W, 3]; where there is no oracle, of chance."""
    rows = []
    for name, options in SHOWN:
        env_id = f"foreworld/{name}-v0"
        world: Any = build(env_id, image_size=SIZE, **({"goal_seen": True} if name == "TwoRooms" else {}), **options)
        rng = np.random.default_rng(5)
        states = [world.start(rng, 1)]
        while len(states) < WORLDS[env_id].steps and not (len(states) > 1 and world.over(states[-1])[0]):
            near = states[-1][:, 2:4] + rng.normal(0, 0.15, (1, 2)) if name == "PushT" else None
            states.append(world.step(states[-1], world.oracle(states[-1]) if near is None else near, rng))
            if isinstance(world, Aiming) and world.success(states[-1])[0]:
                break
        chosen = np.linspace(0, min(len(states), 60) - 1, FRAMES).round().astype(int)
        frames = [np.pad(world.render(states[i])[0], ((0, 0), (1, 1), (1, 1)), constant_values=255) for i in chosen]
        rows.append(np.concatenate(frames, 2))
    return np.concatenate(rows, 1).transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)


if __name__ == "__main__":
    main()
