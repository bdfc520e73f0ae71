"""Loading a run with an agent."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core.errors import CheckpointError, ConfigError, SpecError
from foreworld.envs import make


class Corridor(gym.Env):
    """Walk to the end of ten steps; sees a small picture and where it is, acts by numbers in a box."""

    observation_space = gym.spaces.Dict(
        {"image": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8), "place": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = gym.spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:  # type: ignore[type-arg]
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple:  # type: ignore[type-arg]
        self.at = np.clip(self.at + 0.1 * action, -1, 1).astype(np.float32)
        return self.seen(), float(-np.abs(self.at).sum()), bool((np.abs(self.at) < 0.05).all()), False, {}

    def seen(self) -> dict[str, np.ndarray]:
        image = np.zeros((16, 16, 3), np.uint8)
        x, y = ((self.at + 1) * 7.5).astype(int)
        image[x, y] = 255
        return {"image": image, "place": self.at}


OWN = f"{__name__}:Corridor"
SMALL = {"deter": 16, "units": 8, "latents": 4, "classes": 4, "depth": 2}
SHORT = {"prefill": 20, "batch": 2, "length": 8, "train_ratio": 4}


def trained(env: str, folder: Path, steps: int = 40, **options: object) -> None:
    torch.manual_seed(0)
    model = fw.RSSM(make(env, **options).spec, **SMALL)
    agent = fw.Dreamer(model, units=8, horizon=3)
    fw.train_agent(env, model, agent, steps=steps, out=folder, env_options=options, **SHORT)


def test_an_agent_learns_in_an_environment_that_nobody_named_here(tmp_path: Path) -> None:
    """A picture and a vector to see, a box to act in, a class of a user's own."""
    trained(OWN, tmp_path / "run", max_steps=10)
    with pytest.raises(ConfigError, match="environment is code"):
        fw.load_agent(tmp_path / "run")
    found = fw.load_agent(tmp_path / "run", env=OWN)
    assert found.env_options == {"max_steps": 10} and found.run.step == 5
    data = fw.load(tmp_path / "run" / "replay")
    assert set(data.spec.obs) == {"image", "place"} and data.lengths.max() == 11
    assert not found.agent.training and not found.run.model.training


def test_what_is_loaded_is_what_was_trained_and_knows_what_it_was_trained_on(tmp_path: Path) -> None:
    trained("CartPole-v1", tmp_path / "run")
    found = fw.load_agent(tmp_path / "run")
    again = fw.load_agent(tmp_path / "run")
    for one, two in ((found.agent, again.agent), (found.run.model, again.run.model)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))  # type: ignore[attr-defined]
    assert (found.agent.range.upper > 0).all() or (found.agent.range.upper == 0).all()
    run = fw.load_run(tmp_path / "run")  # the model alone, for every other verb
    data = fw.load(tmp_path / "run" / "replay")
    assert run.trained_on == data.stretches and run.training_data().rows == data.rows


def test_runs_without_an_agent_and_environments_of_another_kind_are_refused(tmp_path: Path) -> None:
    data = fw.collect("CartPole-v1", episodes=3, out=tmp_path / "episodes")
    fw.fit(fw.Linear(data.spec), data, steps=0, length=8, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="without an agent"):
        fw.load_agent(tmp_path / "run")
    model = fw.RSSM(make("CartPole-v1").spec, **SMALL)
    with pytest.raises(SpecError, match="not the model's"):
        fw.train_agent("Acrobot-v1", model, fw.Dreamer(model, units=8), steps=10)
