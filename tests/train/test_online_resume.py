"""An agent's training that was interrupted equals the one that was not; where that cannot be, nothing is spliced."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from foreworld.agents import Dreamer
from foreworld.core.errors import CheckpointError, EnvironmentFault, InUse
from foreworld.core.files import lock_folder
from foreworld.core.interrupt import Interrupted
from foreworld.data import Batch, Replay, load
from foreworld.envs import make
from foreworld.models.rssm import RSSM
from foreworld.testing.agents import Trainee, state_of
from foreworld.testing.faults import flip_bit
from foreworld.testing.striking import Watch, watched
from foreworld.testing.watching import TroubledEnv, check_stored
from foreworld.train import OnlineResult, online, state_hash, train_agent
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.run import read_config

pytestmark = pytest.mark.usefixtures("plain_handlers")

SHORT: dict[str, Any] = {"steps": 34, "prefill": 10, "length": 4, "train_ratio": 8, "save_every": 5, "log_every": 4}
CARTPOLE = Trainee(env="CartPole-v1", settings=SHORT)
TWO = Trainee(env="CartPole-v1", settings=SHORT | {"steps": 60, "num_envs": 2, "train_ratio": 4})


class Death(BaseException):
    """The process is gone: nothing after this may count."""


def die_at(update: int, patch: pytest.MonkeyPatch) -> None:
    """End a training when it draws the batch of an update."""
    sample = Replay.sample

    def dying(self: Replay, batch: int, step: int, out: Batch | None = None) -> Batch:
        if step == update:
            raise Death
        return sample(self, batch, step, out)

    patch.setattr(Replay, "sample", dying)


@pytest.mark.parametrize("trainee", [CARTPOLE, TWO], ids=["one", "two"])
def test_it_goes_on_from_wherever_it_died(trainee: Trainee, tmp_path: Path) -> None:
    trainee.train(tmp_path / "whole")
    for update in (0, 8, 9, 16):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Death):
            die_at(update, patch)
            trainee.train(tmp_path / "parts")
    trainee.train(tmp_path / "parts")
    assert state_of(tmp_path / "parts") == state_of(tmp_path / "whole")


def trained(run: Path, resume: bool = False, env: str = "CartPole-v1", **settings: Any) -> OnlineResult:
    spec = make(env).spec
    torch.manual_seed(5)
    model = RSSM(spec, deter=16, units=8, latents=2, classes=3, layers=1)
    agent = Dreamer(model, units=8, layers=1, horizon=2)
    return train_agent(env, model, agent, out=run, resume=resume, **SHORT | {"batch": 2} | settings)


def at_step(number: int, act: Callable[[], object]) -> Callable[[int, int, dict[str, float]], None]:
    return lambda steps, total, line: act() if steps == number else None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 20])
def test_a_signal_ends_it_with_a_checkpoint_and_it_goes_on_exactly(
    number: signal.Signals, step: int, tmp_path: Path
) -> None:
    trained(tmp_path / "whole")
    found = trained(tmp_path / "parts", report=at_step(step, lambda: signal.raise_signal(number)))
    assert (found.interrupted, found.steps) == (number, step)
    assert list_checkpoints(tmp_path / "parts" / "checkpoints")[-1].name.endswith(f"-{step:08d}")
    again = trained(tmp_path / "parts", resume=True)
    assert again.interrupted is None
    assert state_of(tmp_path / "parts") == state_of(tmp_path / "whole")


def test_the_second_signal_ends_it_at_once_and_what_was_saved_stays(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", report=at_step(30, twice))
    trained(tmp_path / "parts", resume=True)
    trained(tmp_path / "whole")
    assert state_hash(tmp_path / "parts") == state_hash(tmp_path / "whole")


def test_steps_between_two_updates_are_saved_too(tmp_path: Path) -> None:
    """Each interruption keeps the steps so far, though there was no update since the one before."""
    for step in (4, 6, 8):
        found = trained(
            tmp_path / "run", resume=step > 4, report=at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        )
        assert (found.steps, found.updates) == (step, 0)
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["00000000-00000006", "00000000-00000008"]


def test_settings_that_do_not_fit_are_refused_and_not_remembered(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    before = read_config(tmp_path / "run")
    for wrong in ({"length": 3}, {"num_envs": 2}, {"optimizer": "adamw"}):
        with pytest.raises(CheckpointError):
            trained(tmp_path / "run", resume=True, **wrong)
    assert read_config(tmp_path / "run") == before
    assert trained(tmp_path / "run", resume=True, steps=36, lr=1e-5).steps == 36
    assert read_config(tmp_path / "run")["history"][0]["fit"].keys() == {"steps", "lr"}


@pytest.mark.slow
def test_without_its_newest_checkpoint_it_goes_on_from_the_one_before(tmp_path: Path) -> None:
    """Though the replay has sealed and evicted episodes since."""
    full = Trainee(env="CartPole-v1", settings=SHORT | {"steps": 200, "train_ratio": 2, "capacity": 70})
    full.train(tmp_path / "whole")
    full.train(tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    flip_bit(newest / "replay.safetensors", 4000)
    with pytest.raises(CheckpointError, match=f"replay.safetensors.*or remove {newest.name} to go on from"):
        full.train(tmp_path / "run")
    shutil.rmtree(newest)
    full.train(tmp_path / "run")
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


@pytest.mark.slow
def test_states_that_were_too_many_to_be_saved_are_missed_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "whole", steps=40)
    trained(tmp_path / "whole", resume=True, steps=44)
    assert "windows begin from zero" not in capsys.readouterr().err
    monkeypatch.setattr("foreworld.data.replay.LARGEST_CARRIES", 0)
    trained(tmp_path / "part", steps=40)
    trained(tmp_path / "part", resume=True, steps=44)
    assert "windows begin from zero" in capsys.readouterr().err


def test_two_cannot_train_in_one_folder(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    with lock_folder(tmp_path / "run"), pytest.raises(InUse):
        trained(tmp_path / "run", resume=True)
    trained(tmp_path / "run", resume=True)


class Mortal(TroubledEnv):
    """Counts, and fails for good once `lives` steps were taken by all of its kind."""

    lives = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        type(self).lives -= 1
        if self.lives < 0:
            raise RuntimeError("the server is gone")
        return super().step(action)


def test_when_the_environment_fails_for_good_the_last_checkpoint_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gym.registry, "Mortal-v0", gym.envs.registration.EnvSpec("Mortal-v0", Mortal))
    trained(tmp_path / "whole", env="Mortal-v0", steps=60)
    monkeypatch.setattr(Mortal, "lives", 41)
    with pytest.raises(EnvironmentFault, match=r"10 faults in a row.*the server is gone"):
        trained(tmp_path / "run", env="Mortal-v0", steps=60)
    monkeypatch.setattr(Mortal, "lives", 10**9)
    trained(tmp_path / "run", env="Mortal-v0", steps=60, resume=True)
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


def test_another_train_ratio_holds_from_now_on(tmp_path: Path) -> None:
    first = trained(tmp_path / "run")
    assert first.updates == 24 + 2  # not for the first rows, until a window could be cut
    second = trained(tmp_path / "run", resume=True, steps=44, train_ratio=16)
    assert second.updates - first.updates == 20


def test_an_observation_may_be_a_single_number(tmp_path: Path) -> None:
    for name, resume in (("whole", False), ("parts", False), ("parts", True)):
        stop = at_step(17, lambda: signal.raise_signal(signal.SIGTERM)) if name == "parts" and not resume else None
        trained(tmp_path / name, resume=resume, env="FrozenLake-v1", report=stop)
    assert state_of(tmp_path / "parts") == state_of(tmp_path / "whole")


class Moody(TroubledEnv):
    """Counts, and is another every time: what it shows does not follow from the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=int(np.random.default_rng().integers(2**31)), options=options)


@pytest.mark.parametrize("env_count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_environment_that_is_not_deterministic_begins_anew_and_says_so(
    env_count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gym.registry, "Moody-v0", gym.envs.registration.EnvSpec("Moody-v0", Moody))
    watch = Watch()
    monkeypatch.setattr(online, "Replay", watched(watch))
    for steps in (60, 80, 100):
        trained(tmp_path / "run", resume=steps > 60, env="Moody-v0", steps=steps * env_count, num_envs=env_count)
    said = capsys.readouterr().err.count("the same seed and actions led elsewhere")
    assert said == 2
    stored, spliced, _ = check_stored(load(tmp_path / "run" / "replay"))
    assert (spliced, watch.spliced) == (0, 0)
    assert watch.windows > 60
    assert watch.finished() - stored == set()


def test_a_worker_that_was_being_started_again_begins_its_next_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next first row comes after the resume; rows after it must not join the episode that broke off."""
    monkeypatch.setitem(gym.registry, "Moody-v0", gym.envs.registration.EnvSpec("Moody-v0", Calm))
    watch = Watch()
    monkeypatch.setattr(online, "Replay", watched(watch))
    settings = {"env": "Moody-v0", "num_envs": 2}
    save = online.Collector.save

    def losing(self: Any) -> Any:
        """Save as at a moment when the row of environment 1 had not come."""
        if self.steps != 60:
            return save(self)
        newest, numbers = self.env._newest, self.env._env.slots.episode
        self.env._newest = replace(newest, arrived=np.array([True, False]))
        numbers[1] += 1
        return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(online.Collector, "save", losing)
        trained(tmp_path / "run", steps=60, **settings)
    trained(tmp_path / "run", resume=True, steps=140, **settings)
    stored, spliced, cut_off = check_stored(load(tmp_path / "run" / "replay"))
    assert (spliced, watch.spliced, cut_off) == (0, 0, 1)
    assert watch.finished() - stored == set()


class Calm(TroubledEnv):
    """Counts, whatever is done."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)
