"""Actions that are taken while the updates run: the ratio holds, nothing is spliced, no end goes unnoticed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.agents import AgentPolicy, Dreamer
from foreworld.core.errors import EnvironmentFault, NonFinite
from foreworld.core.interrupt import Interrupted
from foreworld.data import load
from foreworld.envs import Rows, Vector, make
from foreworld.models.rssm import RSSM
from foreworld.testing.striking import Watch, strike_training, watched
from foreworld.testing.watching import TroubledEnv, check_stored
from foreworld.train import OnlineResult, online, train_agent
from foreworld.train.checkpoint import list_checkpoints
from foreworld.train.online_config import MOST_LEAD, OnlineConfig

pytestmark = pytest.mark.usefixtures("plain_handlers")

SHORT: dict[str, Any] = {
    "steps": 60, "prefill": 10, "batch": 2, "length": 4, "train_ratio": 4, "save_every": 5, "log_every": 4,
    "collector": "async",
}  # fmt: skip


def collecting() -> list[str]:
    """Name the threads that collect; other tests may have left threads of libraries."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("foreworld")]


class Calm(TroubledEnv):
    """Counts, whatever is done, and fails for good once `lives` steps were taken by all of its kind."""

    lives = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(5)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        type(self).lives -= 1
        if self.lives < 0:
            raise RuntimeError("the server is gone")
        return super().step(action)


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "Calm-v0", gym.envs.registration.EnvSpec("Calm-v0", Calm))


def trained(run: Path | None, resume: bool = False, **settings: Any) -> OnlineResult:
    torch.manual_seed(5)
    model = RSSM(make("Calm-v0").spec, deter=16, units=8, latents=2, classes=3, layers=1)
    agent = Dreamer(model, units=8, layers=1, horizon=2)
    return train_agent("Calm-v0", model, agent, out=run, resume=resume, **SHORT | settings)


def at_step(number: int, act: Callable[[], object]) -> Callable[[int, int, dict[str, float]], None]:
    return lambda steps, total, line: act() if steps == number else None


@pytest.mark.parametrize(("num_envs", "train_ratio"), [(1, 1), (2, 4), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_neither_side_runs_ahead(num_envs: int, train_ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OnlineConfig(**SHORT | {"num_envs": num_envs, "train_ratio": train_ratio})
    acted, counted, leads, step = 0, 0, [], Vector.step

    def stepping(self: Vector, actions: np.ndarray) -> Rows:
        nonlocal acted
        assert threading.current_thread() is not threading.main_thread()
        acted += 1
        leads.append(acted - counted)
        return step(self, actions)

    def report(steps: int, total: int, line: dict[str, float]) -> None:
        nonlocal counted
        counted += 1

    with monkeypatch.context() as patch:
        patch.setattr(Vector, "step", stepping)
        found = trained(None, num_envs=num_envs, train_ratio=train_ratio, report=report)
    assert max(leads) <= config.lead + 1, "the one that is asked for comes on top"
    assert counted == acted, "and none is taken that is not counted"
    same = trained(None, num_envs=num_envs, train_ratio=train_ratio, collector="sync")
    assert (found.steps, found.updates) == (same.steps, same.updates)


def test_the_lead_is_what_one_update_is_owed_for() -> None:
    def lead(**fields: Any) -> int:
        return OnlineConfig(**{"batch": 16, "length": 64, "collector": "async"} | fields).lead

    assert [lead(train_ratio=ratio) for ratio in (512, 64, 1024, 5000)] == [2, 16, 1, 1]
    assert lead(train_ratio=64, num_envs=5) == 4
    assert lead(train_ratio=0) == lead(train_ratio=1e-6) == MOST_LEAD
    assert lead(collector="sync") == 0


def test_nothing_is_spliced_also_across_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(online, "Replay", watched(watch))
    for number, steps in enumerate((90, 170, 240)):
        found = trained(tmp_path / "run", resume=number > 0, steps=steps, num_envs=2, capacity=100)
        assert found.steps in (steps, steps + 1)
    stored, spliced, _ = check_stored(load(tmp_path / "run" / "replay"))
    assert (spliced, watch.spliced) == (0, 0)
    assert watch.windows > 100 and stored


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_it_with_a_checkpoint_and_no_update_is_lost_by_going_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    whole = trained(tmp_path / "whole")
    for step in (20, 33, 47):
        found = trained(tmp_path / "run", resume=step > 20, report=at_step(step, lambda: signal.raise_signal(number)))
        assert (found.interrupted, found.steps) == (number, step)
    again = trained(tmp_path / "run", resume=True)
    assert (again.steps, again.updates, again.episodes) == (whole.steps, whole.updates, whole.episodes)
    _, spliced, _ = check_stored(load(tmp_path / "run" / "replay"))
    assert spliced == 0
    assert not collecting()


def test_the_second_signal_ends_it_at_once_even_while_a_step_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, step, taken = threading.Event(), Calm.step, 0

    def hanging(self: Calm, action: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 40:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            go.wait()
        return step(self, action)

    monkeypatch.setattr(Calm, "step", hanging)
    monkeypatch.setattr("foreworld.train.collecting.PATIENCE", 0.0)
    before = set(threading.enumerate())
    with pytest.raises(Interrupted):
        trained(tmp_path / "run")
    go.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    monkeypatch.setattr(Calm, "step", step)
    assert trained(tmp_path / "run", resume=True).steps == 60


def test_an_environment_that_fails_for_good_is_named_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calm, "lives", 41)
    with pytest.raises(EnvironmentFault, match=r"10 faults in a row.*the server is gone"):
        trained(tmp_path / "run")
    assert not collecting()
    monkeypatch.setattr(Calm, "lives", 10**9)
    assert trained(tmp_path / "run", resume=True).steps == 60
    assert check_stored(load(tmp_path / "run" / "replay"))[1] == 0


def test_numbers_that_stay_bad_end_it_with_a_name_and_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = RSSM.losses

    def bad(self: RSSM, *args: Any) -> Any:
        found = losses(self, *args)
        found.terms["cont"] = found.terms["cont"] * float("nan")
        return found

    monkeypatch.setattr(RSSM, "losses", bad)
    with pytest.raises(NonFinite, match="loss/cont"):
        trained(None, max_skips=2)
    assert not collecting()


def test_time_ends_it_and_checkpoints_are_kept(tmp_path: Path) -> None:
    found = trained(tmp_path / "run", steps=10**6, minutes=0.5 / 60)
    assert 0 < found.steps < 10**6 and found.interrupted is None
    assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) == 2
    assert trained(tmp_path / "run", resume=True, steps=found.steps + 20, minutes=0).steps == found.steps + 20


def test_it_acts_with_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the newest weights whenever no update is running, and never with the very ones that are trained."""
    policies: list[tuple[AgentPolicy, Any, Any]] = []
    make_policy = AgentPolicy.__init__

    def making(self: AgentPolicy, model: Any, agent: Any, *args: Any, **fields: Any) -> None:
        make_policy(self, model, agent, *args, **fields)
        policies.append((self, model, agent))

    monkeypatch.setattr(AgentPolicy, "__init__", making)
    trained(None, lr=1e-2, warmup=0)
    [(policy, model, agent)] = policies
    for theirs, mine in ((model, policy.model), (agent, policy.agent)):
        assert mine is not theirs
        assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), mine.parameters(), strict=True))


def test_weights_do_not_change_while_an_action_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("Calm-v0")
    model = RSSM(env.spec, deter=16, units=8, latents=2, classes=3, layers=1)
    agent = Dreamer(model, units=8, layers=1, horizon=2)
    policy = AgentPolicy(model, agent, 1, own=True)
    with torch.no_grad():
        for param in agent.parameters():
            param.add_(1.0)
    observe, seen = policy.model.observe, []

    def weights() -> Tensor:
        return torch.cat([p.flatten() for p in policy.agent.parameters()])

    def slow(*args: Any) -> Any:
        refreshing = threading.Thread(target=policy.refresh)
        before = weights()
        refreshing.start()
        refreshing.join(0.05)  # it has the time, but must not
        seen.append((torch.equal(weights(), before), refreshing))
        return observe(*args)

    monkeypatch.setattr(policy.model, "observe", slow)
    policy(env.reset(0))
    [(unchanged, refreshing)] = seen
    assert unchanged, "weights changed under a policy that was choosing"
    refreshing.join()
    assert torch.equal(weights(), torch.cat([p.flatten() for p in agent.parameters()]))


@pytest.mark.slow
def test_workers_that_die_and_hang_cost_their_episode_and_no_row_is_spliced_or_lost() -> None:
    found = strike_training(kills=2, hangs=1, num_envs=2, collector="async")
    assert (found.kills, found.hangs) == (2, 1)
    assert found.noticed["died"] >= 2 and found.noticed["hung"] >= 1
    assert (found.spliced, found.spliced_windows, found.lost) == (0, 0, 0)
    assert found.updates > 5
