"""What planning must beat: behaviour cloning to goals. python benchmarks/peers/goal_cloning.py --data DIR [--help].

The baseline learns from the same episodes as a model would: from what is seen now and what is seen up to 25 steps later
it names the action that was taken now. Acting, it is shown the goal in place of what came later. It reads pictures with
the encoder of the JEPA, plays the same episodes as `foreworld plan` with the same seed, and is judged in the same way;
its budget is CPU time, so that it can be set beside a model that was trained for as long. Beside both stands who goes
straight to the place where the pusher belongs, and pushes what is in the way.

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import foreworld as fw
from foreworld.agents.acting import as_taken
from foreworld.agents.goal import See
from foreworld.core import Spec
from foreworld.encoders.latent import LatentEncoder, Vision
from foreworld.envs import Rows, make
from foreworld.nn import MLP, Linear
from foreworld.ops import wilson
from foreworld.rollout.collect import RECORDED
from foreworld.studies.aiming import world_judge
from foreworld.studies.planning import SEED
from foreworld.studies.trials import play
from foreworld.train.run import environment
from foreworld.worlds.catalogue import rebuild

AHEAD = 25
"""Steps from now to the latest goal: those of the peers' protocol for PushT."""
BATCH, SLICE = 64, 8
"""Windows in a batch, and pairs of moments that each gives."""


class GoalCloning(nn.Module):
    """From what is seen now and what shall be seen to an action.

    Args:
        spec: of the data, with actions that are vectors.
        latent: width E of what is made of an observation.
        units: width of the hidden layers.
    """

    def __init__(self, spec: Spec, latent: int = 128, units: int = 256) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = LatentEncoder(spec, latent, units, Vision())
        self.head = nn.Sequential(MLP(2 * latent, units, 2), Linear(units, spec.action_width))

    def forward(self, now: Tensor, goal: Tensor) -> Tensor:
        """Map latents [N, E] of now and of the goal to actions [N, A]."""
        return torch.tanh(self.head(torch.cat([now, goal], -1)))

    def loss(self, segment: fw.Segment, rng: np.random.Generator) -> Tensor:
        """Draw pairs of moments from windows [B, T] of one episode each; return the mean squared error."""
        batch, length = segment.is_first.shape
        assert segment.prev_action is not None
        now = torch.from_numpy(rng.integers(0, length - AHEAD, (batch, SLICE)))
        later = now + torch.from_numpy(rng.integers(1, AHEAD + 1, (batch, SLICE)))
        which = torch.arange(batch)[:, None].expand(-1, SLICE)
        moments = {key: torch.cat([value[which, now], value[which, later]]) for key, value in segment.obs.items()}
        start, goal = self.encoder(moments).flatten(0, 1).chunk(2)
        return (self(start, goal) - segment.prev_action[which, now + 1].flatten(0, 1)).square().mean()


class GoalCloningPolicy:
    """Act by cloned behaviour towards the goal of each episode.

    Args:
        net: names actions.
        see: shows the goal of an environment's episode.
        num_envs: N.
    """

    def __init__(self, net: GoalCloning, see: See, num_envs: int) -> None:
        """Begin without goals."""
        self.net, self.see = net, see
        self.goals = torch.zeros(num_envs, net.encoder.out[-1].out_features)

    @torch.no_grad()
    def __call__(self, rows: Rows) -> np.ndarray:
        """Choose an action [N, ...] for every row."""
        fresh = np.flatnonzero(rows.is_first)
        if len(fresh):
            seen = [self.see(index) for index in fresh.tolist()]
            self.goals[fresh] = self.net.encoder({k: _tensor([one[k] for one in seen]) for k in self.net.spec.obs})
        now = self.net.encoder({key: torch.from_numpy(rows.obs[key]) for key in self.net.spec.obs})
        return as_taken(self.net.spec, self.net(now, self.goals), rows)


def straight(rows: Rows) -> np.ndarray:
    """Go to where the pusher belongs, which only the truth of `PushT` tells."""
    return rows.truth["state"][:, 5:7].astype(rows.prev_action.dtype)


def trained(net: GoalCloning, data: fw.Dataset, budget: float, seed: int) -> list[float]:
    """Train for so many CPU seconds; return the losses."""
    rng, losses = np.random.default_rng(seed), []
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-5)
    began = time.process_time()
    while (spent := (time.process_time() - began) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (1 + len(losses)) / 100) * min(1, 2 * (1 - spent) + 0.05)
        loss = net.loss(data.sample(BATCH, AHEAD + SLICE, seed=seed, step=len(losses)), rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def judged(net: GoalCloning | None, env_id: str, options: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Let it act, in the episodes of `foreworld plan`; None goes straight."""
    env = make(env_id, num_envs=min(args.num_envs, args.episodes), max_steps=args.max_steps, **options)
    with closing(env):
        world: Any = rebuild(env.env_id, env.options)
        policy = straight if net is None else GoalCloningPolicy(net.eval(), env.goal, env.num_envs)
        found = play(env, policy, episodes=args.episodes, seed=SEED + args.seed, judge=world_judge(world))
    assert found.success is not None
    interval = wilson(int(found.success.sum()), args.episodes, 0.95)
    return {
        **{"success": float(interval.value), "ci_low": float(interval.low), "ci_high": float(interval.high)},
        "episodes": args.episodes,
        "every": found.success.tolist(),
    }


def main() -> None:
    """Train and judge at every budget, each from its own start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cpu-minutes", type=float, nargs="+", default=[10.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--num-envs", type=int, default=50)
    parser.add_argument("--max-steps", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = fw.load(args.data)
    train, _ = data.split(0.1)
    options = {key: value for key, value in data.source.options.items() if key not in (*RECORDED, "max_steps")}
    cells = []
    for minutes in args.cpu_minutes:
        torch.manual_seed(args.seed)
        net = GoalCloning(train.spec)
        net.encoder.fit(train.sample(BATCH, AHEAD + SLICE, seed=args.seed, step=step) for step in range(4))
        losses = trained(net, train, 60 * minutes, args.seed)
        found = judged(net, data.source.env, options, args)
        cells.append({"cpu_minutes": minutes, "updates": len(losses), "loss": float(np.mean(losses[-50:])), **found})
        print(f"{minutes:g} CPU minutes: {found['success']:.2f} of {args.episodes}", file=sys.stderr, flush=True)
    floor = judged(None, data.source.env, options, args)
    command = " ".join(["python", "benchmarks/peers/goal_cloning.py", *sys.argv[1:]])
    made = {**environment(args.seed), "command": command}
    print(json.dumps({"seed": args.seed, "cells": cells, "straight": floor, "made": made}, indent=2))


def _tensor(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


if __name__ == "__main__":
    main()
