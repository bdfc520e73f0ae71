"""How long planning takes: what a replanning interval must leave time for."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from foreworld.core import tree
from foreworld.eval.quantities import device_of
from foreworld.rollout import imagine

CANDIDATES, STEPS, REPEATS = 512, 15, 10


def planning_latency(
    model: Any, *, candidates: int = CANDIDATES, steps: int = STEPS, repeats: int = REPEATS, share: float = 0.95
) -> float:
    """Measure the wall time in which candidates are imagined once, with rewards, on this machine.

    A planner with n rounds needs n times as much.

    Args:
        model: any family.
        candidates: action sequences.
        steps: of each.
        repeats: how often it is measured, after one try to warm up.
        share: which quantile of the times is returned: plans must be ready even when the machine is slow.

    Returns:
        Seconds.
    """
    device = device_of(model)
    actions = None
    if model.spec.action is not None:
        actions = torch.rand(candidates, steps, model.spec.action_width, device=device) * 2 - 1
    start, spent = tree.to(model.initial(candidates), device), []
    with torch.no_grad():
        for _ in range(repeats + 1):
            began = time.perf_counter()
            dream = imagine(model, start, actions, steps)
            float(dream.feat.sum())  # waits for the device
            spent.append(time.perf_counter() - began)
    return float(np.quantile(spent[1:], share))
