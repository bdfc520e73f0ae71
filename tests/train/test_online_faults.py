"""What may go wrong while an agent is trained: numbers, disks, environments; it is said, and nothing is lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.agents import Dreamer, DreamerLearner
from foreworld.core.errors import NonFinite, WriteFailed
from foreworld.data import load
from foreworld.envs import make
from foreworld.models.rssm import RSSM
from foreworld.testing import random_segment
from foreworld.testing.watching import TroubledEnv, check_stored
from foreworld.train import OnlineResult, guard, load_agent, train_agent
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.log import read_metrics
from foreworld.train.online import OnlineConfig
from foreworld.train.optim import make_optimizer
from foreworld.train.update import update

SETTINGS: dict[str, Any] = {"steps": 90, "prefill": 10, "batch": 2, "length": 5, "train_ratio": 5, "log_every": 1}


def agent_for(env: str) -> tuple[Any, Dreamer]:
    spec = make(env).spec
    torch.manual_seed(0)
    model = RSSM(spec, deter=16, units=8, latents=2, classes=3, layers=1)
    return model, Dreamer(model, units=8, layers=1, horizon=2)


def trained(env: str = "CartPole-v1", **settings: Any) -> OnlineResult:
    return train_agent(env, *agent_for(env), **SETTINGS | settings)


def nan_gradient(learner: DreamerLearner) -> None:
    learner.agent.critic.out.weight.register_hook(lambda grad: grad * float("nan"))


def infinite_loss(learner: DreamerLearner) -> None:
    learner.loss_weights["actor"] = float("inf")


def absurd_returns(learner: DreamerLearner) -> None:
    """Returns that are finite, of an update that is skipped for another reason."""
    found = learner.agent.range.update
    learner.agent.range.update = lambda returns: found(returns + 1e30)  # type: ignore[method-assign]
    nan_gradient(learner)


@pytest.mark.parametrize("spoil", [nan_gradient, infinite_loss, absurd_returns])
def test_a_skipped_update_changes_no_bit_of_model_and_agent(spoil: Callable[[DreamerLearner], None]) -> None:
    learner = DreamerLearner(*agent_for("CartPole-v1"))
    optimizer = make_optimizer(learner, OnlineConfig(lr=1e-2, warmup=1))

    def everything() -> dict[str, Tensor]:
        slots = {f"{i}/{k}": v for i, slot in optimizer.state_dict()["state"].items() for k, v in slot.items()}
        return {name: tensor.clone() for name, tensor in {**learner.state_dict(), **slots}.items()}

    def learn() -> bool:
        return bool(update(learner, optimizer, random_segment(learner.model.spec, 2, 5)).sound)

    assert learn() and learn() and learn()
    before = everything()
    assert float(before["agent.range.upper"]) != 0
    spoil(learner)
    assert not learn()
    after = everything()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


class Rich(TroubledEnv):
    """Counts, but its rewards are those of `rewards`, one after the other."""

    rewards = (1.0, 1e38, -1e38, 3e300, 0.1)

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, *rest = super().step(action)
        return obs, self.rewards[self.at % len(self.rewards)], *rest


def test_absurd_rewards_leave_all_numbers_finite_and_those_beyond_float32_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gym.registry, "Rich-v0", gym.envs.registration.EnvSpec("Rich-v0", Rich))
    found = trained("Rich-v0", out=tmp_path / "run", fault_rate=1.0, lr=1e-2, warmup=1)
    assert found.faults["refused"] > 10
    assert found.faults["refused"] == found.history[-1]["env_refused"]
    again = load_agent(tmp_path / "run")
    assert all(bool(tensor.isfinite().all()) for tensor in again.agent.state_dict().values())
    assert float(np.abs(load(tmp_path / "run" / "replay").column("reward")).max()) == np.float32(1e38)
    more = trained("Rich-v0", out=tmp_path / "run", fault_rate=1.0, resume=True, steps=120)
    assert more.faults["refused"] > found.faults["refused"], "counts go on after a resume"


def test_numbers_that_turn_bad_are_skipped_counted_undone_and_end_the_run_with_a_name(tmp_path: Path) -> None:
    model, agent = agent_for("CartPole-v1")
    plain, calls = model.losses, 0

    def losses(segment: Any, state: Any = None) -> Any:
        nonlocal calls
        found, calls = plain(segment, state), calls + 1
        bad = calls == 5 or calls > 12
        return plain_with(found, float("nan") if bad else 1.0)

    def plain_with(found: Any, factor: float) -> Any:
        found.terms["cont"] = found.terms["cont"] * factor
        return found

    model.losses = losses
    with pytest.raises(NonFinite, match=r"loss/cont.*3 returns to the last checkpoint.*--online\.lr"):
        train_agent("CartPole-v1", model, agent, out=tmp_path / "run", max_skips=3, save_every=5, **SETTINGS)
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (last["skipped"], last["skipped/loss/cont"], last["rollbacks"]) == (13, 13, 3)
    assert [path.name[:8] for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["00000006", "00000010"]
    assert all(bool(tensor.isfinite().all()) for tensor in load_agent(tmp_path / "run").agent.state_dict().values())
    assert trained(out=tmp_path / "run", resume=True, max_skips=3, save_every=5).steps == SETTINGS["steps"]


def test_a_disk_that_refuses_episodes_costs_nothing_once_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gym.registry, "Calm-v0", gym.envs.registration.EnvSpec("Calm-v0", Calm))
    trained("Calm-v0", out=tmp_path / "whole", steps=300, train_ratio=1)
    with monkeypatch.context() as patch:
        patch.setattr("foreworld.data.store.write_shard", refuse)
        with pytest.raises(WriteFailed):  # the very last try, which nothing can follow
            trained("Calm-v0", out=tmp_path / "run", steps=200, train_ratio=1)
    assert capsys.readouterr().err.count("episodes are not stored") == 1
    trained("Calm-v0", out=tmp_path / "run", steps=300, train_ratio=1, resume=True)
    _, spliced, _ = check_stored(load(tmp_path / "run" / "replay"))
    assert spliced == 0
    columns = [load(tmp_path / name / "replay").column("obs/count") for name in ("whole", "run")]
    assert np.array_equal(*columns), "the same rows as of a run whose disk never failed"


def test_a_checkpoint_that_the_disk_refuses_is_tried_again_at_the_next_one_and_not_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = guard.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(guard, "save_checkpoint", lambda *args: refuse() if 0 < args[3].step < 25 else save(*args))
        trained(out=tmp_path / "run", save_every=10, capacity=40)
    assert capsys.readouterr().err.count("no checkpoint at update") == 2
    trained(out=tmp_path / "whole", save_every=10, capacity=40)
    newest = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "run"))
    assert len({(path / "model.safetensors").read_bytes() for path in newest}) == 1


@pytest.mark.slow
def test_checkpoints_that_failed_do_not_let_go_of_what_the_last_good_one_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"out": tmp_path / "run", "capacity": 60, "save_every": 5, "train_ratio": 2, "steps": 300}
    save = guard.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(WriteFailed):
        patch.setattr(guard, "save_checkpoint", lambda *args: refuse() if args[3].step > 5 else save(*args))
        trained(**settings)
    trained(**settings | {"out": tmp_path / "whole"})
    assert trained(**settings, resume=True).steps == 300
    newest = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "run"))
    assert len({(path / "model.safetensors").read_bytes() for path in newest}) == 1


def refuse(*_: Any) -> None:
    raise WriteFailed(errno.ENOSPC, "No space left on device")


class Calm(TroubledEnv):
    """Counts, whatever is done."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)
