"""Train PPO of stable-baselines3 inside a dream of CartPole, then play in the real environment.

    pip install foreworld stable-baselines3
    python examples/dream_ppo.py

The agent sees 5,000 real steps, all of them taken at random, and none while it learns. What it earns in the dream is
what the model promises; the last lines say what that was worth. With stable-baselines3 2.9.2 on two cores, in 170
CPU-seconds: from 16.1 to 45.1 of 50 in dreams, from 22.4 to 241.2 of 500 in the world.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import foreworld as fw
from foreworld.presets.rssm import FAMILY

EPISODES = 30


def main() -> None:
    """Collect at random, learn a model, learn to act in its dreams, and play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1500, help="of the world model")
    parser.add_argument("--steps", type=int, default=40_000, help="in dreams")
    parser.add_argument("--horizon", type=int, default=50, help="steps of a dream")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = fw.collect("CartPole-v1", steps=5000, seed=args.seed, out=f"{folder}/random")
        model = fw.RSSM(data.spec, FAMILY.config("1m"))
        began = time.process_time()
        fw.fit(model, data, steps=args.updates, batch=16, length=32, lr=1e-3, warmup=100, seed=args.seed)
        print(f"model: {args.updates} updates, {time.process_time() - began:.0f} CPU-seconds")
        agent = PPO("MlpPolicy", fw.DreamEnv(model, data, args.horizon), seed=args.seed, gamma=0.98)
        for name, total in (("before", 0), ("after", args.steps)):
            began = time.process_time()
            if total:
                agent.learn(total)
                print(f"PPO: {total} dreamt steps, {time.process_time() - began:.0f} CPU-seconds")
            dreamt, _ = evaluate_policy(agent, agent.get_env(), EPISODES, deterministic=False)
            real, _ = evaluate_policy(agent, Monitor(gym.make("CartPole-v1")), EPISODES, deterministic=False)
            print(f"{name}: return {dreamt:.1f} of {args.horizon} in dreams, {real:.1f} of 500 in the world")


if __name__ == "__main__":
    main()
