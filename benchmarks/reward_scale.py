"""Does the scale of rewards matter? python benchmarks/reward_scale.py [--env CartPole-v1] [--seeds 3] [--steps 2500].

The same settings learn the same task with its rewards times 1e-3, 1 and 1e3: once with DreamerV3's two-hot heads over
exponentially spaced bins for reward and value, once with plain heads that regress both by squared error. Observations
are the same in all, and so is everything else. At the end of training an agent plays 100 episodes by its policy's mode,
and returns are divided by the scale again.

Returns are divided by their range, but not by less than 1, so at 1e-3 the advantages are small beside the entropy
bonus: that is DreamerV3's rule, and part of what is measured. Whether it matters is seen by the third kind of heads,
which are two-hot, with 1e-3 in place of that 1; it is asked at times 1e-3 alone.

benchmarks/results/reward_scale-<env>.json is written after every run; a run that is in there is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import TransformReward
from torch import Tensor, nn

import foreworld as fw
from foreworld.agents.acting import AgentPolicy
from foreworld.core.files import write_json
from foreworld.envs import make
from foreworld.nn import MLP, Linear
from foreworld.ops import bootstrap
from foreworld.presets.agents import agent_preset
from foreworld.rollout import collect
from foreworld.train import train_agent
from foreworld.train.run import environment

RESULTS = Path(__file__).parent / "results"
SCALES = (1e-3, 1.0, 1e3)
FREE = "two-hot, any range"
HEADS = ("two-hot", "plain", FREE)
EPISODES = 100
UNSEEN = 1_000_000
"""Added to the seed of the last episodes: other starting states than those of the training."""


class PlainHead(nn.Module):
    """Regress a scalar by squared error, with the methods of the two-hot head that it stands in for.

    Args:
        inputs: width of the features.
        units: width of the layers.
        layers: how many.
    """

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.body = MLP(inputs, units, layers)
        self.out = Linear(units, 1, outscale=0.0)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the prediction [..] for features [.., D]."""
        return self.out(self.body(feat)).squeeze(-1)

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """Return half the squared error [..] to targets [..]."""
        return self.cross_entropy(self(feat), target)

    def log_probs(self, feat: Tensor) -> Tensor:
        """Return what `mean` and `cross_entropy` read: here the prediction [..] itself."""
        return self(feat)

    def mean(self, log_probs: Tensor) -> Tensor:
        """Return the prediction [..], to look at and not to learn by."""
        return log_probs.detach()

    def cross_entropy(
        self, log_probs: Tensor, target: Tensor, other: Tensor | None = None, weight: float = 1.0
    ) -> Tensor:
        """Return half the squared errors [..]: minus the log-likelihood under a normal of unit width."""
        loss = 0.5 * (log_probs - target).square()
        return loss if other is None else loss + weight * 0.5 * (log_probs - other).square()


def scaled(env: str, scale: float) -> str:
    """Register an environment whose rewards are those of another, times a number; return its id."""
    name = f"Scaled-{env.rpartition('/')[2].rpartition('-')[0]}-times-{scale:g}-v0".replace(".", "_")
    if name not in gym.registry:
        gym.register(name, lambda **options: TransformReward(gym.make(env, **options), lambda r: scale * float(r)))
    return name


def learner(env: str, preset: str, heads: str, scale: float) -> tuple[fw.RSSM, fw.Dreamer]:
    """Build model and agent, with the heads that are asked for."""
    chosen = agent_preset(preset)
    with closing(make(env, **chosen.env)) as opened:
        model = fw.RSSM(opened.spec, chosen.model)
    agent = fw.Dreamer(model, replace(chosen.agent, range_least=scale) if heads == FREE else chosen.agent)
    if heads == "plain":
        width = model.read(model.initial(1)).feat.shape[-1]
        model.reward = PlainHead(width, chosen.model.units, 1)
        agent.critic = PlainHead(width, chosen.agent.units, chosen.agent.layers)
        agent.slow = PlainHead(width, chosen.agent.units, chosen.agent.layers).requires_grad_(False)
        agent.slow.load_state_dict(agent.critic.state_dict())
    return model, agent


def run(
    env: str, preset: str, ratio: int, heads: str, scale: float, seed: int, steps: int, episodes: int
) -> dict[str, Any]:
    """Train one agent and let it act."""
    name, chosen, started = scaled(env, scale), agent_preset(preset), time.process_time()
    torch.manual_seed(seed)
    model, agent = learner(name, preset, heads, scale)
    online = replace(chosen.online, train_ratio=ratio)
    found = train_agent(name, model, agent, online, env_options=chosen.env, steps=steps, minutes=0.0, seed=seed)
    if found.interrupted is not None:
        sys.exit(
            f"interrupted by signal {found.interrupted}: this run is not counted; the same command begins it again"
        )
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder, closing(make(name, num_envs=8, **chosen.env)) as opened:
        model.eval()
        policy = AgentPolicy(model, agent, opened.num_envs, mode=True)
        data = collect(opened, policy, out=f"{folder}/played", episodes=episodes, seed=UNSEEN + seed)
        returns = [float(data.raw(i)["reward"].sum(dtype=np.float64)) / scale for i in range(data.episodes)]
    curve = [(line["env_steps"], line["episode_return"] / scale) for line in found.history if "episode_return" in line]
    return {
        "heads": heads,
        "scale": scale,
        "seed": seed,
        "mean_return": round(float(np.mean(returns)), 3),
        "returns": np.round(returns, 3).tolist(),
        "training": [(int(step), round(earned, 3)) for step, earned in curve],
        "steps": found.steps,
        "updates": found.updates,
        "cpu_seconds": round(time.process_time() - started),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over seeds, for every kind of heads and every scale, with an interval where there are four or more."""
    rows = []
    for heads in HEADS:
        for scale in SCALES:
            means = np.array([one["mean_return"] for one in runs if (one["heads"], one["scale"]) == (heads, scale)])
            if len(means):
                row = {"heads": heads, "scale": scale, "seeds": len(means), "mean_return": float(means.mean())}
                row |= {"least": float(means.min()), "greatest": float(means.max())}
                if len(means) >= 4:  # of fewer seeds no interval can be had
                    around = bootstrap(lambda x: x.mean(1), means, method="t")
                    row |= {"ci_low": float(around.low), "ci_high": float(around.high)}
                rows.append(row)
    return rows


def main() -> None:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--train-ratio", type=int, default=256, help="half of what the preset has, for twice the cells")
    parser.add_argument("--heads", choices=HEADS, nargs="+", default=list(HEADS))
    parser.add_argument("--quick", action="store_true", help="a minute's worth; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds, steps, episodes = (1, 250, 8) if args.quick else (args.seeds, args.steps, EPISODES)
    path = RESULTS / f"reward_scale-{args.env.replace('/', '-')}.json"
    settings = {
        "env": args.env,
        "preset": args.preset,
        "train_ratio": args.train_ratio,
        "steps": steps,
        "episodes": episodes,
    }
    result: dict[str, Any] = {"settings": settings, "runs": []}
    if path.exists() and not args.quick:
        result = json.loads(path.read_text())
        if result["settings"] != settings:
            sys.exit(f"{path} has results with other settings, {result['settings']}; move it away first")
    done = {(one["seed"], one["heads"], one["scale"]) for one in result["runs"]}
    kinds = [(heads, scale) for heads in args.heads for scale in SCALES if heads != FREE or scale < 1]
    cells = [(seed, heads, scale) for seed in range(seeds) for heads, scale in kinds]
    for seed, heads, scale in [cell for cell in cells if cell not in done]:
        result["runs"].append(run(args.env, args.preset, args.train_ratio, heads, scale, seed, steps, episodes))
        command = " ".join(["python", "benchmarks/reward_scale.py", *sys.argv[1:]])
        result |= {"made": {**environment(seed), "command": command}, "summary": summary(result["runs"])}
        if not args.quick:
            write_json(path, result)
        last = result["runs"][-1]
        said = (
            f"{heads}, rewards times {scale:g}, seed {seed}: {last['mean_return']:.4g}, {last['cpu_seconds']} s of CPU"
        )
        print(said, file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for row in result["summary"]:
            print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
