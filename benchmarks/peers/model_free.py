"""Count the environment steps that model-free agents need: python benchmarks/peers/model_free.py [--seeds 5].

PPO, DQN and SAC as Stable-Baselines3 packages them, with the tuned settings that rl_zoo3 2.9.2 ships
(rl_zoo3/hyperparams/ppo.yml, dqn.yml, sac.yml). They are no dependency of foreworld; this runs in an environment of
its own:

    python -m venv peers && peers/bin/pip install stable-baselines3==2.9.2 gymnasium==1.4.0 torch==2.13.0 numpy==2.4.6
    OMP_NUM_THREADS=1 nice -n 10 peers/bin/python benchmarks/peers/model_free.py

Every 1,000 steps of the agent, counted over all of its environments, 20 episodes are played with the policy's mode,
from starting states not seen before. The threshold is reached at the first such evaluation whose mean return is no
smaller: 475 on CartPole-v1, -200 on Pendulum-v1. Evaluation episodes are not counted as steps. The first mean above a
line is a lucky one, so the run goes on for 10 more evaluations, and the step from which all means are above it is kept
too. Without a threshold reached it goes on for all the steps that the settings were tuned for.

benchmarks/results/model_free.json is written after every seed; a seed that is in there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from threshold import THRESHOLDS, reached, summary

RESULT = Path(__file__).parents[1] / "results" / "model_free.json"
ALGORITHMS = {"PPO": PPO, "DQN": DQN, "SAC": SAC}
EVERY = 1_000
EPISODES = 20
AFTER = 10


@dataclass(frozen=True)
class Setting:
    """One algorithm on one task, as rl_zoo3 tuned it; `lin_x` falls from x to 0 over all steps."""

    algorithm: str
    env: str
    steps: int
    envs: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


SETTINGS = [
    Setting(
        "DQN",
        "CartPole-v1",
        steps=50_000,
        settings={
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    Setting(
        "PPO",
        "CartPole-v1",
        steps=100_000,
        envs=8,
        settings={
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2",
        },
    ),
    Setting("SAC", "Pendulum-v1", steps=20_000, settings={"learning_rate": 1e-3}),
    Setting(
        "PPO",
        "Pendulum-v1",
        steps=100_000,
        envs=4,
        settings={
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "n_epochs": 10,
            "ent_coef": 0.0,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
]


class Curve(BaseCallback):
    """Evaluate every so many steps, keep what came out, and end the run when enough was seen."""

    def __init__(self, env: str, seed: int) -> None:
        super().__init__()
        self.test = DummyVecEnv([lambda: gym.make(env)] * EPISODES)
        self.test.seed(10_000 * (seed + 1))
        self.threshold = THRESHOLDS[env]
        self.steps: list[int] = []
        self.returns: list[list[float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps // EVERY > len(self.steps):
            self.steps.append(self.num_timesteps)
            self.returns.append(evaluate(self.model, self.test))
        return not any(np.mean(earned) >= self.threshold for earned in self.returns[:-AFTER])


def evaluate(model: BaseAlgorithm, test: DummyVecEnv) -> list[float]:
    """Play one episode in every environment by the policy's mode and return what each earned."""
    obs, open_ = test.reset(), np.ones(test.num_envs, bool)
    earned = np.zeros(test.num_envs)
    while open_.any():
        action, _ = model.predict(obs, deterministic=True)
        obs, reward, done, _ = test.step(action)
        earned += reward * open_
        open_ &= ~done
    return earned.round(2).tolist()


def learn(setting: Setting, seed: int) -> dict[str, Any]:
    """Train one agent from one seed and say when it got where."""
    envs = DummyVecEnv([lambda: gym.make(setting.env)] * setting.envs)
    settings = {name: scheduled(value) for name, value in setting.settings.items()}
    model = ALGORITHMS[setting.algorithm]("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    curve = Curve(setting.env, seed)
    wall, cpu = time.monotonic(), time.process_time()
    model.learn(setting.steps, callback=curve)
    return {
        "seed": seed,
        **reached(curve.steps, curve.returns, THRESHOLDS[setting.env]),
        "wall_seconds": round(time.monotonic() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
        "steps": curve.steps,
        "mean_return": np.mean(curve.returns, 1).round(2).tolist(),
        "returns": curve.returns,
    }


def scheduled(value: Any) -> Any:
    """Turn `lin_x` into a function of the remaining fraction."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    start = float(value.removeprefix("lin_"))
    return lambda remaining: remaining * start


def made() -> dict[str, Any]:
    """Describe where and how this was measured."""
    names = ("stable-baselines3", "gymnasium", "torch", "numpy")
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
        "platform": platform.platform(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", "benchmarks/peers/model_free.py", *sys.argv[1:]]),
    }


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    result |= {"made": made(), "every": EVERY, "episodes": EPISODES, "after": AFTER, "thresholds": THRESHOLDS}
    arms = result.setdefault("arms", {})
    for seed in range(args.seeds):
        for setting in SETTINGS:
            arm = arms.setdefault(f"{setting.algorithm} {setting.env}", {**asdict(setting), "runs": []})
            if any(run["seed"] == seed for run in arm["runs"]):
                continue
            arm["runs"].append(learn(setting, seed))
            arm["summary"] = summary(arm["runs"])
            part = args.out.with_suffix(".part")
            part.write_text(json.dumps(result) + "\n")
            part.replace(args.out)
            print(f"{setting.algorithm} {setting.env} seed {seed}: {arm['runs'][-1]['first_step']}", flush=True)
    for name, arm in arms.items():
        print(f"{name}: {json.dumps(arm['summary'])}")


if __name__ == "__main__":
    main()
