"""A replay against a plain model in lists, under any order of calls."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from arrivals import CARRY, SPEC, TRUTH, Model, Source, check_rows
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import foreworld as fw
from foreworld.data import Batch, Replay

EVENTS = np.array(["step", "last", "terminal", "absent", "cut"])


class Machine(RuleBasedStateMachine):
    @initialize(envs=st.integers(1, 3), length=st.integers(1, 9), room=st.integers(1, 60), disk=st.booleans())
    def begin(self, envs: int, length: int, room: int, disk: bool) -> None:
        self.patch = mock.patch("os.fsync")  # what survives a power loss is not the question here
        self.patch.start()
        self.folder = Path(tempfile.mkdtemp())
        self.rng = np.random.default_rng(0)
        self.source, self.model = Source(envs), Model(envs, length, length + room)
        self.options = {"num_envs": envs, "length": length, "capacity": length + room, "truth": TRUTH, "carry": CARRY}
        self.path = self.folder / "replay" if disk else None
        self.replay = Replay(self.path, SPEC, **self.options)
        self.last: Batch | None = None
        self.calls = 0

    @rule(seed=st.integers(0, 999), count=st.integers(1, 60), odd=st.sampled_from([0.02, 0.1, 0.5]))
    def add(self, seed: int, count: int, odd: float) -> None:
        events = np.random.default_rng(seed).choice(EVENTS, (count, self.source.envs), p=[1 - odd] + [odd / 4] * 4)
        for one in events.tolist():
            rows = self.source.next(one)
            carry = self.rng.normal(size=(self.source.envs, CARRY)).astype(np.float32)
            self.replay.add(rows, carry)
            self.model.add(rows, carry)

    @precondition(lambda self: self.model.starts())
    @rule(batch=st.integers(1, 6))
    def sample(self, batch: int) -> None:
        self.calls += 1
        self.last = self.replay.sample(batch, self.calls)
        refs = [tuple(ref) for ref in self.last.refs.tolist()]
        online = self.model.take_online(batch)
        assert refs[: len(online)] == online
        assert set(refs[len(online) :]) <= set(self.model.starts())
        check_rows(self.last)
        self.model.check(self.last)

    @precondition(lambda self: self.last is not None)
    @rule()
    def write_back(self) -> None:
        assert self.last is not None
        carry = self.rng.normal(size=(len(self.last.refs), self.replay.length, CARRY)).astype(np.float32)
        self.replay.write_back(self.last, torch.from_numpy(carry))
        self.model.write_back(self.last.refs.tolist(), carry)
        self.model.check_all(self.replay)

    @rule()
    def seal(self) -> None:
        self.replay.seal()

    @rule(more=st.integers(0, 90), saves=st.integers(0, 1))
    def save_and_resume(self, more: int, saves: int) -> None:
        state = {name: tensor.clone() for name, tensor in self.replay.save().items()}
        for _ in range(saves):
            self.replay.save()
        lost = Source(self.source.envs)
        for t in range(more):  # what happens after a checkpoint is lost by the kill
            self.replay.add(lost.next(["last" if t % 9 == 0 else "step"] * lost.envs), None)
        self.replay.close()
        self.replay = Replay(self.path, SPEC, **self.options, state=state)
        again = self.replay.save()
        assert state.keys() == again.keys()
        assert all(torch.equal(state[name], again[name]) for name in state.keys() - {"saves"})
        self.model.check_all(self.replay)

    @invariant()
    def counts(self) -> None:
        assert self.replay.rows == self.model.kept
        assert self.replay.episodes == self.model.episodes
        assert self.replay.ready() == bool(self.model.starts())

    def teardown(self) -> None:
        if not hasattr(self, "replay"):
            return
        self.replay.close()
        self.patch.stop()
        if self.path is not None and any((self.path / "shards").iterdir()):
            data = fw.load(self.path)
            assert [row["is_last"].sum() for row in map(data.raw, range(data.episodes))] == [1] * data.episodes
        shutil.rmtree(self.folder)


LIMITS = {"stateful_step_count": 25, "deadline": None, "suppress_health_check": list(HealthCheck)}


class TestReplay(Machine.TestCase):
    settings = settings(max_examples=10, **LIMITS)


@pytest.mark.slow
class TestReplayForLong(Machine.TestCase):
    settings = settings(max_examples=400, **LIMITS)
