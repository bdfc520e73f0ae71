"""Numbers that go bad while an agent learns: as in offline training, from the first update on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreworld.agents import Dreamer
from foreworld.core import Losses, Segment
from foreworld.core.errors import ConfigError, NonFinite
from foreworld.core.registry import load
from foreworld.envs import make
from foreworld.train import train_agent
from foreworld.train.checkpoint import list_checkpoints, updates_of

SETTINGS: dict[str, Any] = {"steps": 40, "prefill": 10, "batch": 2, "length": 5, "train_ratio": 10, "lr": 1e-3}


def agent_and_model(bad: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Dreamer]:
    """Return an RSSM whose reward loss is NaN in the calls that `bad` says, and an agent."""
    family = load("models", "rssm")
    spec = make("CartPole-v1").spec
    sizes = {"deter": 16, "units": 8, "latents": 2, "classes": 2}
    model, calls = family.build(spec, family.config_type(**sizes)), 0
    right = model.losses

    def losses(segment: Segment, state: Any = None) -> Losses[Any]:
        nonlocal calls
        found, calls = right(segment, state), calls + 1
        factor = float("nan") if bad(calls) else 1.0
        return replace(found, terms=found.terms | {"reward": found.terms["reward"] * factor})

    monkeypatch.setattr(model, "losses", losses)
    return model, Dreamer(model, units=8, layers=1, horizon=2)


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_very_first_updates_can_be_undone(tmp_path: Path, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, agent = agent_and_model(lambda call: call <= 3, monkeypatch)
    out = tmp_path / "run" if on_disk else None
    found = train_agent("CartPole-v1", model, agent, out=out, max_skips=3, log_every=1, **SETTINGS)
    assert found.steps == 40 and found.updates > 10
    assert (found.history[-1]["skipped"], found.history[-1]["rollbacks"]) == (3, 1)
    assert all(bool(p.isfinite().all()) for p in (*model.parameters(), *agent.parameters()))
    if out is not None:
        assert [updates_of(path) for path in list_checkpoints(out / "checkpoints")] == [0, found.updates]


def test_statistics_are_taken_again_when_the_training_goes_back_to_before_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, agent = agent_and_model(lambda call: call <= 3, monkeypatch)
    model.register_buffer("statistic", torch.zeros(()))
    monkeypatch.setattr(model, "provides", model.provides | {"calibrate"})
    monkeypatch.setattr(model, "calibrate", lambda read: model.statistic.fill_(len(list(read()))), raising=False)
    found = train_agent("CartPole-v1", model, agent, out=tmp_path / "run", max_skips=3, log_every=1, **SETTINGS)
    assert found.history[-1]["rollbacks"] == 1
    assert float(model.statistic) == 1


def test_numbers_that_stay_bad_end_the_run_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model, agent = agent_and_model(lambda call: True, monkeypatch)
    before = [p.clone() for p in (*model.parameters(), *agent.parameters())]
    with pytest.raises(NonFinite, match="loss/reward"):
        train_agent("CartPole-v1", model, agent, max_skips=2, **SETTINGS)
    after = (*model.parameters(), *agent.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_run_that_died_before_its_first_update_is_resumed_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for at in (None, 7):

        def report(taken: int, steps: int, line: dict[str, float], at: int | None = at) -> None:
            if taken == at:
                raise InterruptedError

        torch.manual_seed(1)
        model, agent = agent_and_model(lambda call: False, monkeypatch)
        out = tmp_path / f"died at {at}"
        if at is not None:
            with pytest.raises(InterruptedError):
                train_agent("CartPole-v1", model, agent, out=out, report=report, **SETTINGS)
        train_agent("CartPole-v1", model, agent, out=out, resume=at is not None, **SETTINGS)
        found.append([p.clone() for p in (*model.parameters(), *agent.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 1}, "length"),
        ({"capacity": 100, "prefill": 101}, "prefill"),
        ({"capacity_gib": 4e-5, "prefill": 1000}, "capacity_gib"),
    ],
)
def test_what_would_never_train_is_refused(
    fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, agent = agent_and_model(lambda call: False, monkeypatch)
    with pytest.raises(ConfigError, match=message):
        train_agent("CartPole-v1", model, agent, **(SETTINGS | fields))


@pytest.mark.slow
def test_a_full_replay_goes_on_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes are forgotten, so that it holds fewer rows than the first update waited for."""
    model, agent = agent_and_model(lambda call: False, monkeypatch)
    found = train_agent("CartPole-v1", model, agent, **(SETTINGS | {"steps": 200, "prefill": 50, "capacity": 60}))
    # an update replays as many rows as are owed for one step; 50 rows are about 48 steps
    assert 145 <= found.updates <= 155
