"""Let a trained agent act, and say what it earns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.agents import AgentPolicy
from foreworld.data import Dataset
from foreworld.envs import make
from foreworld.ops import Interval, bootstrap_ratio
from foreworld.rollout import collect
from foreworld.train import AgentRun

SIDE_BY_SIDE = 8
"""Environments that episodes are played in."""

SEED = 1_000_000
"""Added to the seed: other episodes than those that the agent was trained in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Acted:
    """What an agent did.

    Attributes:
        data: its episodes.
        returns: [N] sums of rewards.
        mean: their mean and its interval.
        mode: whether it took the likeliest actions, or samples.
        confidence: of the interval.
    """

    data: Dataset
    returns: np.ndarray
    mean: Interval
    mode: bool
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "episodes": len(self.returns),
            "mode": "mode" if self.mode else "sample",
            "mean_return": float(self.mean.value),
            "ci_low": float(self.mean.low),
            "ci_high": float(self.mean.high),
            "confidence": self.confidence,
            "std": float(self.returns.std()),
            "min": float(self.returns.min()),
            "max": float(self.returns.max()),
            "mean_length": float(self.data.steps / self.data.episodes),
        }

    def in_words(self) -> str:
        """Say it in one sentence."""
        how = "likeliest actions" if self.mode else "sampled actions"
        return (
            f"{len(self.returns)} episodes with {how}: mean return {self.mean.value:.4g} "
            f"({self.confidence:.0%} interval {self.mean.low:.4g} to {self.mean.high:.4g}), "
            f"from {self.returns.min():.4g} to {self.returns.max():.4g}."
        )


def act(
    found: AgentRun,
    *,
    out: Path,
    episodes: int = 100,
    mode: bool = True,
    seed: int = 0,
    confidence: float = 0.95,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Acted:
    """Play episodes that the agent has not seen, and store them.

    Args:
        found: the agent.
        out: folder of the dataset.
        episodes: N.
        mode: take the likeliest actions; else samples.
        seed: of environments and samples.
        confidence: of the interval, from a bootstrap over episodes.
        overwrite: replace what is at `out`.
        progress: called with (episodes done, episodes).

    Raises:
        EnvironmentFault: the environment failed too often.
        OutputExists: `out` is there and `overwrite` is false.
    """
    model = found.run.model
    with closing(make(found.env, num_envs=min(SIDE_BY_SIDE, episodes), **found.env_options)) as env:
        policy = AgentPolicy(model, found.agent, env.num_envs, mode=mode)
        data = collect(
            env, policy, out=out, episodes=episodes, seed=SEED + seed, overwrite=overwrite, progress=progress
        )
    returns = np.array([data.raw(i)["reward"].sum(dtype=np.float64) for i in range(data.episodes)])
    mean = bootstrap_ratio(returns, np.ones(len(returns)), confidence=confidence, seed=seed)
    return Acted(data=data, returns=returns, mean=mean, mode=mode, confidence=confidence)
