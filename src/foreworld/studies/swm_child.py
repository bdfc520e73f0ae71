"""The cross-entropy solver of stable-worldmodel, in an environment of its own; foreworld is not imported here.

`foreworld.studies.plan_peer` runs this file with another interpreter, and asks line by line, in JSON. Only the solver
is imported, so that nothing has to be installed that other parts of the package need.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor


def solver_class() -> Any:
    """Return `CEMSolver`, imported without the rest of its package."""
    found = importlib.util.find_spec("stable_worldmodel")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("stable_worldmodel")
    bare = types.ModuleType("stable_worldmodel")
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules["stable_worldmodel"] = bare
    return importlib.import_module("stable_worldmodel.solver.cem").CEMSolver


class Costs(torch.nn.Module):
    """The predictor with the distance to a goal, as the solver asks for it; weights and products as foreworld's."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        """Take weights."""
        super().__init__()
        given = {name: torch.from_numpy(value) for name, value in weights.items()}
        self.into, self.out = (
            torch.nn.Linear(given[f"{name}.weight"].shape[1], len(given[f"{name}.weight"])) for name in ("into", "out")
        )
        self.load_state_dict(given)

    def get_cost(self, info: dict[str, Tensor], candidates: Tensor) -> Tensor:
        """Return the cost [B, N] of candidates [B, N, H, A]."""
        batch, number, horizon, _ = candidates.shape
        place, actions = info["place"].reshape(batch * number, -1), candidates.flatten(0, 1)
        for h in range(horizon):
            place = place + self.out(torch.relu(self.into(torch.cat([place, actions[:, h]], -1))))
        goal = info["goal"].reshape(batch * number, -1)
        return (place - goal).square().mean(-1).reshape(batch, number)


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    settings = json.loads(sys.argv[1])
    given = dict(np.load(settings["file"]))
    start, goal = torch.from_numpy(given.pop("start")), torch.from_numpy(given.pop("goal"))
    check = torch.from_numpy(given.pop("check"))
    costs = Costs(given)
    make, answers = solver_class(), sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        count = asked["environments"]
        info = {"place": start[:count], "goal": goal[:count]}
        if asked["what"] == "costs":
            wide = {name: value[:, None].expand(-1, check.shape[1], -1) for name, value in info.items()}
            with torch.inference_mode():
                answer: dict[str, Any] = {"costs": costs.get_cost(wide, check[:count]).tolist()}
            answer |= {"version": importlib.metadata.version("stable-worldmodel")}
        else:
            solver = make(
                costs,
                batch_size=asked["batch_size"],
                num_samples=settings["samples"],
                n_steps=settings["iterations"],
                topk=settings["elites"],
            )
            box = gym.spaces.Box(-1, 1, (count, check.shape[-1]), np.float32)
            config = SimpleNamespace(horizon=settings["horizon"], action_block=1)
            solver.configure(action_space=box, n_envs=count, config=config)
            with contextlib.redirect_stdout(sys.stderr):  # it prints how long it took
                began = time.process_time()
                solver.solve(info)
                spent = time.process_time() - began
            answer = {"cpu_s": spent}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
