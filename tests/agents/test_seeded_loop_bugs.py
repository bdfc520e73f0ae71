"""Silent bugs between environment and update: each is put in, and a check must fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from seeding import Check, Seed, around, expect_caught, pairs, rewritten
from tiny_worlds import awake
from torch import Tensor
from torch.nn import functional as F
from walking import EDGE, LONGEST, SIZES, walk, worth

from foreworld.agents import AgentPolicy, acting
from foreworld.core import Segment, deterministic, tree
from foreworld.data import Replay
from foreworld.data.schema import ACTION
from foreworld.data.windows import Windows
from foreworld.envs import Rows
from foreworld.models.rssm import RSSM
from foreworld.testing import random_segment, specs
from foreworld.train import feed
from foreworld.train.collecting import Collector
from foreworld.train.learning import Learning


def check_rows() -> None:
    """Every row that is learned from follows from the row before it and its own action, and is worth its reward."""
    with pytest.MonkeyPatch.context() as patch:
        segments = walk(patch).segments
    every: Segment = tree.cat(segments, 0)
    at, time, episode = every.obs["obs"].unbind(-1)
    moved = every.prev_action @ torch.tensor([-1.0, 0.0, 1.0])
    assert torch.equal(every.is_first, time == 0)
    assert torch.equal(every.is_terminal, at.abs() == EDGE)
    assert torch.equal(every.is_last, every.is_terminal | (time == LONGEST))
    torch.testing.assert_close(every.reward, torch.where(every.is_first, 0.0, worth(at, time)))
    assert not bool(every.prev_action[every.is_first].any())
    follows, begins = ~every.is_first[:, 1:], every.is_first[:, 1:]
    assert torch.equal(every.is_last[:, :-1], begins), "an end comes before every beginning, and nowhere else"
    for column, step in ((at, moved[:, 1:]), (time, 1.0), (episode, 0.0)):
        assert torch.equal((column[:, 1:] - column[:, :-1])[follows], (follows * step)[follows])
    assert bool((every.is_terminal & every.is_last).any()) and bool((every.is_last & ~every.is_terminal).any())


def check_carries() -> None:
    """An update begins where the last one that saw the row before left off, or else where the acting filter was."""
    with pytest.MonkeyPatch.context() as patch:
        record = walk(patch, bad=lambda call: call in (4, 9, 14))
    assert len(record.given) > 20
    for given, wanted in zip(record.given, record.wanted, strict=True):
        assert given is not None, "an update began afresh"
        torch.testing.assert_close(given, wanted, rtol=0, atol=0)


def check_acting() -> None:
    """What acts filters all rows of its environment, and what it chose is what was done."""
    with pytest.MonkeyPatch.context() as patch, deterministic():
        record = walk(patch, train_ratio=0)
        done = np.stack([rows.prev_action for rows in record.rows])
        first, last = (np.stack([getattr(rows, name) for rows in record.rows]) for name in ("is_first", "is_last"))
        chosen, follows = np.stack(record.chosen), ~last[:-1]
        assert np.array_equal(done[1:][follows], chosen[:-1][follows]), "another action was taken than chosen"
        assert len(np.unique(chosen)) > 1
        segment = Segment(
            obs={"obs": torch.from_numpy(np.stack([rows.obs["obs"] for rows in record.rows], 1))},
            prev_action=F.one_hot(torch.from_numpy(np.where(first, 1, done)).T - 1, 3)
            * ~torch.from_numpy(first.T)[..., None],
            reward=torch.zeros(2, len(first)),
            is_first=torch.from_numpy(first.T),
            is_terminal=torch.zeros(2, len(first), dtype=torch.bool),
            is_last=torch.from_numpy(last.T),
        )
        with torch.no_grad():
            wanted = tree.to_vector(record.model.observe(record.model.initial(2), segment), 2)
        found = torch.from_numpy(np.stack(record.carries, 1))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def check_absent_rows() -> None:
    """Where no row arrived, the state is as it was; elsewhere it is not."""
    spec = specs()["vector_discrete"]
    model = RSSM(spec, **SIZES)
    policy = AgentPolicy(model, awake(model), 3)
    segment = random_segment(spec, 3, 2)

    def arrive(t: int, arrived: list[bool]) -> Tensor:
        flags = {
            name: getattr(segment, name)[:, t].numpy() for name in ("is_first", "is_terminal", "is_last", "reward")
        }
        obs, action = {"obs": segment.obs["obs"][:, t].numpy()}, np.ones(3, np.int64)
        policy(Rows(obs=obs, prev_action=action, truth={}, arrived=np.array(arrived), **flags))
        return policy.carry().clone()

    before, after = arrive(0, [True] * 3), arrive(1, [True, False, True])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0]) and not torch.equal(before[2], after[2])


def check_mode() -> None:
    """A policy that is judged by its modes does the same again; one that explores does not."""
    spec = specs()["vector_box"]
    model = RSSM(spec, **(SIZES | {"latent": "deterministic"}))
    segment = random_segment(spec, 8, 1)
    flags = {name: getattr(segment, name)[:, 0].numpy() for name in ("is_first", "is_terminal", "is_last", "reward")}
    rows = Rows(
        obs={"obs": segment.obs["obs"][:, 0].numpy()}, prev_action=np.zeros((8, 2), np.float32), truth={},
        arrived=np.ones(8, bool), **flags,
    )  # fmt: skip
    for mode in (True, False):
        found = []
        for seed in (1, 2):
            policy = AgentPolicy(model, awake(model), 8, mode=mode)
            torch.manual_seed(seed)
            found.append(policy(rows))
        assert np.array_equal(*found) is mode


def late(column: str) -> Seed:
    """Store what belongs to the row before."""

    def wrong(right: Any, self: Replay, rows: Rows, carry: Any) -> None:
        now = getattr(rows, column)
        before = getattr(self, "before", np.zeros_like(now))
        self.before = now.copy()
        right(self, replace(rows, **{column: before}), carry)

    return around(Replay, "add", wrong)


def stored(change: Any) -> Seed:
    """Change rows before they are stored."""
    return around(Replay, "add", lambda right, self, rows, carry: right(self, replace(rows, **change(rows)), carry))


def flags(change: Any) -> Seed:
    """Change is_first, is_last, is_terminal of windows."""
    return around(Windows, "_flags", lambda right, self, batch, runs: change(*right(self, batch, runs)))


def column(name: str, by: int) -> Seed:
    """Shift a column of windows."""

    def wrong(right: Any, self: Windows, key: str, *args: Any) -> Tensor:
        found = right(self, key, *args)
        return found.roll(by, 1) if key == name else found

    return around(Windows, "_fill", wrong)


ROWS: dict[str, Seed] = {
    "reward of the row before": late("reward"),
    "action of the row before": late("prev_action"),
    "truncation is termination": stored(lambda rows: {"is_terminal": rows.is_last}),
    "no end is terminal": stored(lambda rows: {"is_terminal": np.zeros_like(rows.is_last)}),
    "windows with the reward of the next row": column("reward", -1),
    "windows with the action of the next row": column(ACTION, -1),
    "windows with the action of the row before": column(ACTION, 1),
    "windows that hide beginnings": flags(lambda first, last, terminal: (torch.zeros_like(first), last, terminal)),
    "windows that hide ends": flags(lambda first, last, terminal: (first, torch.zeros_like(last), terminal)),
    "windows in which every end is terminal": flags(lambda first, last, terminal: (first, last, last)),
    "windows that end one row early": flags(lambda first, last, terminal: (first, last.roll(-1, 1), terminal)),
    "an action before the first row": rewritten(
        Windows, "cut", "taken.masked_fill_(is_first[..., None], 0.0)", "taken"
    ),
}

WRITE = "part.carry[within : within + count] = new[at : at + count]"
CARRIES: dict[str, Seed] = {
    "write-back does nothing": around(Replay, "write_back", lambda right, self, batch, carry: None),
    "write-back into a copy": rewritten(Replay, "write_back", WRITE, WRITE.replace(" = ", ".copy()[:] = ")),
    "write-back one row late": around(
        Replay, "write_back", lambda right, self, batch, carry: right(self, batch, carry.roll(1, 1))
    ),
    "write-back to other windows": around(
        Replay, "write_back", lambda right, self, batch, carry: right(self, batch, carry.flip(0))
    ),
    "write-back after a skipped update": rewritten(feed, "_write", "bool(found.sound)", "True"),
    "the loop writes nothing back": rewritten(feed, "_write", "bool(found.sound)", "False"),
    "windows begin afresh": rewritten(Learning, "update", "if fed.carry is None", "if True"),
    "windows begin from the first row itself": rewritten(
        Windows, "cut", "part.carry[within]", "part.carry[min(within + 1, len(part.carry) - 1)]"
    ),
    "states of the acting filter not kept": around(Replay, "add", lambda right, self, rows, carry: right(self, rows)),
}

ACTING: dict[str, Seed] = {
    "a filter without memory": rewritten(acting, "filtered", "observe(state, ", "observe(model.initial(2), "),
    "a filter blind to actions": around(
        acting, "one_row", lambda right, *args: replace(right(*args), prev_action=0 * right(*args).prev_action)
    ),
    "a filter that never resets": around(
        acting, "one_row", lambda right, *args: replace(right(*args), is_first=torch.zeros(2, 1, dtype=torch.bool))
    ),
    "the action of the row before": rewritten(
        Collector, "_seen", "self._action = self.policy(rows)",
        "self._action, self.held = self.__dict__.get('held', np.array([2, 2])), self.policy(rows)",
    ),
    "the state of the row before": rewritten(
        Collector, "_keep", "self.replay.add(rows, arrival.carry)",
        "now = arrival.carry; self.replay.add(rows, self.__dict__.get('held', now)); self.held = now",
    ),
}  # fmt: skip

BUGS: dict[Check, dict[str, Seed]] = {
    check_rows: ROWS,
    check_carries: CARRIES,
    check_acting: ACTING,
    check_absent_rows: {
        "absent rows are filtered": rewritten(acting, "filtered", "if not rows.arrived.all():", "if False:")
    },
    check_mode: {
        "judged by samples": rewritten(
            AgentPolicy, "_choose", "choice.mode() if self.mode else choice.sample()", "choice.sample()"
        ),
        "explores by modes": rewritten(
            AgentPolicy, "_choose", "choice.mode() if self.mode else choice.sample()", "choice.mode()"
        ),
    },
}


@pytest.mark.parametrize("check", BUGS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_code_passes(check: Check) -> None:
    check()


@pairs(BUGS)
def test_a_bug_is_caught(check: Check, seed: Seed) -> None:
    expect_caught(check, seed)
