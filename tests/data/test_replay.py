from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrivals import CARRY, SPEC, TRUTH, Source, check_rows, equal
from scipy.stats import chisquare

import foreworld as fw
from foreworld.core import Space
from foreworld.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFinite,
    OutputExists,
    SpecError,
    WriteFailed,
)
from foreworld.core.tensorfile import read_tensors, write_tensors
from foreworld.data import Replay
from foreworld.testing.faults import failing

LENGTH = 4


def small(path: Path | None = None, envs: int = 1, **options: Any) -> Replay:
    given = {"length": LENGTH, "capacity": 10_000, "truth": TRUTH, "carry": CARRY, **options}
    return Replay(path, options.pop("spec", SPEC), num_envs=envs, **{k: v for k, v in given.items() if k != "spec"})


def feed(replay: Replay, source: Source, events: str | list[str], start: int = 0) -> None:
    """Add a row for each letter: step, last, terminal, absent, cut; the carry after row n of environment i is n, i."""
    words = {"s": "step", "l": "last", "t": "terminal", "a": "absent", "c": "cut"}
    for n, letters in enumerate(events, start):
        count = source.envs
        carry = np.stack([np.full(count, n), np.arange(count)], 1).astype(np.float32)
        replay.add(source.next([words[letter] for letter in letters.ljust(count, letters[-1])]), carry)


def test_a_window_crosses_episodes_and_says_so_in_every_field() -> None:
    replay = small()
    feed(replay, Source(1), "ssltssclss")
    # rows by hand, (episode, step): (0,0) (0,1) (0,2)last, [a terminal row alone is dropped],
    # (2,0) (2,1) cut off, (3,0) (3,1)last, (4,0) (4,1)
    assert (replay.rows, replay.episodes, replay.steps, replay.added) == (9, 4, 5, 5)
    segment = replay.sample(1, 0).segment  # the first online window: rows 1 to 4
    assert segment.obs["where"][0].tolist() == [[0, 0, 1], [0, 0, 2], [0, 2, 0], [0, 2, 1]]
    assert segment.is_first[0].tolist() == [False, False, True, False]
    assert segment.is_last[0].tolist() == [False, True, False, True]
    assert not segment.is_terminal.any()
    assert segment.reward[0].tolist() == [4, 8, 0, 8]
    assert torch.allclose(segment.prev_action[0] * 1000, torch.tensor([[0.0, 1], [0, 2], [0, 0], [2, 1]]), atol=1e-3)
    second = replay.sample(1, 0)
    assert second.segment.obs["where"][0].tolist() == [[0, 3, 0], [0, 3, 1], [0, 4, 0], [0, 4, 1]]
    assert second.segment.is_last[0].tolist() == [False, True, False, False]


def test_a_terminal_row_is_told_from_a_truncated_one() -> None:
    replay = small()
    feed(replay, Source(1), "sstsslss")
    segment = replay.sample(1, 0).segment
    assert segment.is_terminal[0].tolist() == [False, True, False, False]
    assert segment.cont[0].tolist() == [1, 0, 1, 1]


def test_every_row_of_a_long_open_episode_is_kept() -> None:
    replay, source = small(envs=2), Source(2)
    feed(replay, source, ["ss"] * 131)
    for stream in range(2):
        for first in range(1, 128):
            replay._online.append((stream, first))
    batch = replay.sample(len(replay._online), 0)
    check_rows(batch)
    assert batch.carry.tolist() == [[first - 1, stream] for stream, first in batch.refs.tolist()]


def test_the_first_row_of_a_window_only_lends_its_carry() -> None:
    replay = small()
    feed(replay, Source(1), "s" * 9)
    first, second = replay.sample(1, 0), replay.sample(1, 0)
    assert (first.refs.tolist(), second.refs.tolist()) == ([[0, 1]], [[0, 5]])
    assert (first.carry.tolist(), second.carry.tolist()) == ([[0, 0]], [[4, 0]])
    assert first.carry.dtype == torch.float32


def test_new_windows_are_replayed_first_and_once() -> None:
    replay, source = small(envs=3, length=5), Source(3)
    feed(replay, source, ["sss"] * 21)
    seen = [tuple(ref) for step in range(6) for ref in replay.sample(2, step).refs.tolist()]
    # four windows of 5 rows in each of three streams, the oldest first
    assert seen == [(i, first) for first in (1, 6, 11, 16) for i in range(3)]
    starts = {tuple(ref) for ref in replay.sample(600, 6).refs.tolist()}
    assert starts == {(i, first) for i in range(3) for first in range(1, 17)}
    feed(replay, source, ["sss"] * 4)
    assert not {tuple(ref) for ref in replay.sample(3, 7).refs.tolist()} >= {(i, 21) for i in range(3)}
    feed(replay, source, ["sss"])
    assert replay.sample(3, 8).refs.tolist() == [[0, 21], [1, 21], [2, 21]]


def test_every_start_of_every_stream_is_equally_likely() -> None:
    replay = small(envs=3)
    source = Source(3)
    feed(replay, source, ["s" + "sl"[n % 7 == 0] + "sa"[n > 20] for n in range(60)])
    while replay._online:
        replay.sample(1, 0)
    counts = Counter(tuple(ref) for step in range(300) for ref in replay.sample(16, step).refs.tolist())
    lengths = (replay._tracks.stop - replay._tracks.head).tolist()
    expected = {(i, first) for i in range(3) for first in range(1, lengths[i] - LENGTH + 1)}
    assert set(counts) == expected
    assert len(set(lengths)) > 1, "the streams differ in length, or the test shows nothing"
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    replays = [small(seed=seed) for seed in (1, 1, 2)]
    for replay in replays:
        feed(replay, Source(1), "s" * 50)
        for step in range(12):
            replay.sample(1, step)
    one, two, other = (replay.sample(8, 40) for replay in replays)
    assert equal(one, two)
    assert equal(one, replays[0].sample(8, 40))
    assert one.refs.tolist() != other.refs.tolist() != replays[2].sample(8, 41).refs.tolist()


def carries_are_written_back(replay: Replay) -> None:
    """Expect that what was written back is what later windows begin with."""
    feed(replay, Source(1), "s" * 9 + "l" + "s" * 60)
    while replay._online:
        replay.sample(1, 0)
    batch = replay.sample(4, 3)
    new = torch.randn(4, LENGTH, CARRY)
    replay.write_back(batch, new)
    written = {}
    for w, (_, first) in enumerate(batch.refs.tolist()):
        written |= {first + t: new[w, t].half().float() for t in range(LENGTH)}
    hits = 0
    for step in range(20):
        later = replay.sample(16, step)
        for carry, (_, first) in zip(later.carry, later.refs.tolist(), strict=True):
            old = torch.tensor([first - 1.0, 0])
            assert torch.equal(carry, written.get(first - 1, old))
            hits += first - 1 in written
    assert hits > 20


def test_what_is_written_back_is_what_the_next_window_begins_with(tmp_path: Path) -> None:
    carries_are_written_back(small())
    carries_are_written_back(small(tmp_path / "replay"))


@pytest.mark.parametrize("fault", ["nothing", "a copy", "one row late"])
def test_a_write_back_that_does_nothing_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Replay.write_back

    def broken(self: Replay, batch: Any, carry: torch.Tensor) -> None:
        if fault == "one row late":
            real(self, replace(batch, refs=batch.refs + np.array([0, 1])), carry)
        elif fault == "a copy":  # as an assignment to an indexed copy does
            parts = [part for w, t in batch.refs.tolist() for part, _, _ in self._tracks.streams[w].pieces(t, t + 1)]
            for part in parts:
                part.carry[[0]][:] = 7

    monkeypatch.setattr(Replay, "write_back", broken)
    with pytest.raises(AssertionError):
        carries_are_written_back(small())


def test_a_carry_too_large_for_float16_is_cut_off_and_nan_is_refused() -> None:
    replay, source = small(), Source(1)
    feed(replay, source, "ss")
    replay.add(source.next(["step"]), np.array([[1e9, -np.inf]], np.float32))
    feed(replay, source, "ssss")
    batch = replay.sample(16, 0)
    large = [batch.carry[w].tolist() for w, (_, first) in enumerate(batch.refs.tolist()) if first == 3]
    assert large[0] == [65504.0, -65504.0]
    with pytest.raises(NonFinite, match="carry is NaN"):
        replay.add(source.next(["step"]), np.array([[0, np.nan]], np.float32))
    with pytest.raises(NonFinite, match="carry is NaN"):
        replay.write_back(batch, torch.full((16, LENGTH, CARRY), torch.nan))
    assert torch.isfinite(replay.sample(16, 1).carry).all()


def test_the_oldest_episodes_go_when_there_are_too_many_rows() -> None:
    replay, source = small(capacity=20, envs=2), Source(2)
    feed(replay, source, ["ss", "ss", "sl", "ls", "ss", "ss", "ss"])
    # environment 0: 4 rows and 3 open; 1: 3 and 4 open
    assert (replay.rows, replay.episodes) == (14, 4)
    feed(replay, source, ["ss"] * 3)
    assert replay.rows == 20
    feed(replay, source, ["sa"])  # the first that ended was of environment 1
    assert (replay.rows, replay.episodes) == (18, 3)
    feed(replay, source, ["ss", "sa"])
    assert (replay.rows, replay.episodes) == (17, 2)
    feed(replay, source, ["ss"] * 10)
    assert (replay.rows, replay.episodes) == (37, 2), "an open episode is never evicted"
    feed(replay, source, ["ls"])
    assert (replay.rows, replay.episodes) == (19, 1)
    check_rows(replay.sample(30, 0))


def test_capacity_in_bytes_counts_carries() -> None:
    row = 3 * 4 + 2 * 4 + 4 + 3 + 2 * CARRY
    replay, source = small(max_bytes=10 * row + row - 1), Source(1)
    feed(replay, source, "ssls" + "sssss")
    assert (replay.rows, replay.bytes) == (9, 9 * row)
    feed(replay, source, "ss")
    assert (replay.rows, replay.bytes) == (8, 8 * row)


def test_online_windows_of_evicted_rows_are_not_replayed() -> None:
    replay, source = small(capacity=10), Source(1)
    feed(replay, source, "s" * 8 + "l" + "s" * 5)
    assert replay.rows == 5
    assert replay.sample(8, 0).refs.tolist() == [[0, 10]] * 8


def test_carries_of_evicted_rows_are_not_written_back() -> None:
    replay, source = small(capacity=10), Source(1)
    feed(replay, source, "s" * 5 + "l" + "s" * 3)
    batch = replay.sample(2, 0)  # rows 1..4, and 5..8, of which 5 will be evicted
    assert batch.refs.tolist() == [[0, 1], [0, 5]]
    feed(replay, source, "ss")
    replay.write_back(batch, torch.full((2, LENGTH, CARRY), 9.0))
    later = replay.sample(20, 1)
    assert {int(first): carry.tolist() for (_, first), carry in zip(later.refs, later.carry, strict=True)} == {
        7: [9, 9]
    }


def test_a_row_that_belongs_to_no_episode_is_refused() -> None:
    replay = small(envs=2)
    source = Source(2)
    rows = source.next(["step", "last"])
    replay.add(rows)
    orphan = replace(source.next(["step", "step"]), is_first=np.zeros(2, bool))
    with pytest.raises(DataError, match="environment 1"):
        replay.add(orphan)
    assert replay.rows == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"obs": {}}, "'obs/where': missing"),
        ({"obs": {"where": np.zeros((1, 4), np.float32)}}, r"'obs/where': float32 of shape \(1, 4\) arrived"),
        ({"prev_action": np.zeros((1, 2), complex)}, "'prev_action': complex128"),
        ({"reward": np.zeros((2,), np.float32)}, r"'reward': float32 of shape \(2,\)"),
    ],
)
def test_rows_of_another_form_are_refused(fields: dict[str, Any], reason: str) -> None:
    replay = small()
    with pytest.raises(DataError, match=reason):
        replay.add(replace(Source(1).next(["step"]), **fields))
    feed(replay, Source(1), "s" * 7)
    with pytest.raises(DataError, match=r"carries of shape \(2,\) arrived, \(1, 2\) are stored"):
        replay.add(Source(1).next(["step"]), np.zeros(2, np.float32))
    check_rows(replay.sample(5, 0))


def test_no_window_is_cut_before_there_is_one() -> None:
    replay, source = small(), Source(1)
    for _ in range(LENGTH):
        feed(replay, source, "s")
        assert not replay.ready()
        with pytest.raises(DataError, match="5 rows of one environment"):
            replay.sample(1, 0)
    feed(replay, source, "s")
    assert replay.ready()
    assert replay.sample(3, 0).refs.tolist() == [[0, 1]] * 3
    with pytest.raises(DataError, match="at least one window, found 0"):
        replay.sample(0, 1)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"capacity": LENGTH}, ConfigError, "no window of 4"),
        ({"max_bytes": 100}, ConfigError, "room for 3 rows"),
        ({"length": 0}, ConfigError, "no window"),
        ({"spec": replace(SPEC, action=Space(kind="vector", shape=(1,), dtype="float32"))}, SpecError, "unbounded"),
    ],
)
def test_what_cannot_be_replayed_is_refused(options: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        small(**options)


def test_a_batch_of_another_shape_is_refused() -> None:
    replay = small()
    feed(replay, Source(1), "s" * 12)
    batch = replay.sample(2, 0)
    with pytest.raises(DataError, match=r"\(2, 4, 3\) do not fit a batch of \(2, 4, 2\)"):
        replay.write_back(batch, torch.zeros(2, LENGTH, 3))
    with pytest.raises(DataError, match="`out` holds"):
        replay.sample(3, 0, out=batch)


def test_observations_of_a_used_batch_are_overwritten() -> None:
    replay, other = small(), small()
    for one in (replay, other):
        feed(one, Source(1), "s" * 5 + "l" + "s" * 20)
    used = replay.sample(4, 0)
    assert equal(used, other.sample(4, 0))
    again = replay.sample(4, 1, out=used)
    assert again.segment.obs["where"] is used.segment.obs["where"]
    assert equal(again, other.sample(4, 1))


def test_images_discrete_actions_and_numbers_that_safetensors_does_not_know(tmp_path: Path) -> None:
    spec = fw.Spec(
        obs={
            "image": Space(kind="image", shape=(3, 8, 8), dtype="uint8"),
            "ram": Space(kind="vector", shape=(2,), dtype="uint16"),
            "big": Space(kind="vector", shape=(), dtype="uint64"),
        },
        action=Space(kind="discrete", shape=(2,), dtype="int64", classes=(2, 3), start=(0, 1)),
    )
    replay, rng = Replay(tmp_path / "replay", spec, num_envs=2, length=3, capacity=500), np.random.default_rng(0)
    source, given = Source(2), []
    for n in range(150):
        rows = source.next(["terminal" if n % 20 == 13 else "step"] * 2)
        action = rng.integers([0, 1], [2, 4], (2, 2))
        action[rows.is_first] = 0
        obs = {
            "image": rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8),
            "ram": rng.integers(0, 2**16, (2, 2), dtype=np.uint16),
            "big": rng.integers(0, 2**64 - 1, 2, dtype=np.uint64),
        }
        given.append(replace(rows, obs=obs, prev_action=action, truth={}))
        replay.add(given[-1])
    write_tensors(tmp_path / "state", replay.save())
    replay.close()
    state = read_tensors(tmp_path / "state", lambda forms: None)
    again = Replay(tmp_path / "replay", spec, num_envs=2, length=3, capacity=500, state=state)
    batch = again.sample(120, 0)
    for w, (stream, first) in enumerate(batch.refs.tolist()):
        for t in range(3):
            row = given[first + t]
            assert all(np.array_equal(batch.segment.obs[k][w, t].numpy(), v[stream]) for k, v in row.obs.items())
            one_hot = np.zeros(5)
            if not row.is_first[stream]:
                one_hot[[row.prev_action[stream, 0], 1 + row.prev_action[stream, 1]]] = 1
            assert batch.segment.prev_action[w, t].tolist() == one_hot.tolist()
    assert batch.carry.shape == (120, 0)


def test_a_replay_is_a_dataset_that_still_grows(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    replay, source = small(path, envs=2), Source(2)
    counts = []
    for _ in range(4):
        feed(replay, source, ["ss"] * 30 + ["sl"] + ["ss"] * 30 + ["ct"])
        data = fw.load(path)
        counts.append(data.episodes)
        for episode in range(data.episodes):
            rows = data.raw(episode)
            assert (rows["obs/where"][:, 2] == np.arange(len(rows["reward"]))).all()
            assert np.array_equal(rows["truth/id"], (rows["obs/where"] @ np.array([1, 100, 10_000])).astype(np.uint32))
    assert counts == sorted(set(counts))
    replay.close()
    assert fw.load(path).episodes == 12
    check_rows(replay.sample(50, 0))


def test_the_store_drops_what_was_evicted_and_keeps_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    replay, source = small(path, capacity=300), Source(1)
    feed(replay, source, ("s" * 24 + "l") * 6)
    before = fw.load(path)
    trained, fingerprint = before.stretches, before.fingerprint
    feed(replay, source, ("s" * 24 + "l") * 60)
    replay.seal()
    data = fw.load(path)
    assert (before.episodes, data.episodes) == (6, 12)
    assert data.raw(0)["obs/where"][0].tolist() == [0, 54, 0]
    assert data.numbers.tolist() == list(range(54, 66))
    assert data.fingerprint == fingerprint
    assert data.unseen(trained).episodes == 12
    with pytest.raises(DataError, match="all dropped"):
        data.seen(trained)
    assert np.array_equal(before.raw(0)["obs/where"][:, 2], np.arange(25)), "who has it open reads on"
    some = data.subset([0, 3]).stretches
    feed(replay, source, ("s" * 24 + "l") * 2)
    replay.close()
    later = fw.load(path)
    assert later.seen(some).episodes <= 2
    assert later.unseen(some).episodes == later.episodes - later.seen(some).episodes


def test_with_keep_all_the_store_keeps_what_was_evicted(tmp_path: Path) -> None:
    replay = small(tmp_path / "replay", capacity=60, keep_all=True)
    feed(replay, Source(1), ("s" * 24 + "l") * 20)
    replay.close()
    assert replay.rows == 50
    assert fw.load(tmp_path / "replay").episodes == 20


def shards_of(path: Path) -> list[str]:
    return sorted(shard.name for shard in (path / "shards").iterdir())


def test_shards_that_a_checkpoint_counts_on_are_not_dropped(tmp_path: Path) -> None:
    replay, source = small(tmp_path / "replay", capacity=100), Source(1)
    feed(replay, source, ("s" * 24 + "l") * 8)
    old = replay.save()
    replay.confirm()
    feed(replay, source, ("s" * 24 + "l") * 30)
    replay.save()
    replay.confirm()
    feed(replay, source, ("s" * 24 + "l") * 30)
    replay.close()
    again, source = small(tmp_path / "replay", capacity=100, state=old), Source(1)
    assert again.rows == 100
    check_rows(again.sample(40, 0))
    for _ in range(3):
        again.save()
        again.confirm()
        feed(again, source, ("s" * 24 + "l") * 30)
    again.close()
    shards = shards_of(tmp_path / "replay")
    with pytest.raises(CheckpointError, match="lacks shards"):
        small(tmp_path / "replay", capacity=100, state=old)
    assert shards_of(tmp_path / "replay") == shards, "nothing was removed"


def test_states_that_could_not_be_stored_do_not_push_out_those_that_were(tmp_path: Path) -> None:
    replay, source = small(tmp_path / "replay", capacity=100), Source(1)
    feed(replay, source, ("s" * 24 + "l") * 8)
    old = replay.save()
    replay.confirm()
    for _ in range(5):  # the disk is full: nobody confirms
        feed(replay, source, ("s" * 24 + "l") * 10)
        replay.save()
    replay.close()
    again = small(tmp_path / "replay", capacity=100, state=old)
    assert again.rows == 100
    check_rows(again.sample(40, 0))
    again.close()


@pytest.mark.parametrize("for_good", [False, True])
def test_whichever_call_the_disk_refuses_no_row_is_lost_and_no_number_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # what survives a power loss is not the question here
    rounds, refused = ("s" * 24 + "l") * 4, 0
    for at in range(1, 200, 7):
        path = tmp_path / str(at)
        replay, source = small(path, capacity=60), Source(1)
        feed(replay, source, rounds)
        with failing(at, errno.EIO, for_good=for_good) as seen:
            for letter in rounds:
                with suppress(WriteFailed):
                    feed(replay, source, letter)
        if len(seen) < at:
            break
        refused += 1
        state = replay.save()
        replay.close()
        replay = small(path, capacity=60, state=state)
        feed(replay, source, rounds)
        state = replay.save()
        replay.close()
        data = fw.load(path)
        assert data.numbers.tolist() == list(range(data.numbers[0], 12))
        assert [data.raw(i)["obs/where"][0].tolist() for i in range(data.episodes)] == [[0, n, 0] for n in data.numbers]
        assert len(shards_of(path)) <= data.episodes
        again = small(path, capacity=60, state=state)
        assert again.rows == replay.rows == 50
        check_rows(again.sample(40, 0))
        again.close()
    assert refused > 7


def test_a_shard_that_stands_there_though_its_writing_failed_is_written_again(tmp_path: Path) -> None:
    """The folder has its name already when the disk refuses the last sync, and cannot be renamed back."""
    rounds, dry = "s" * 24 + "l", small(tmp_path / "dry")
    with failing(10**6, errno.EIO) as seen:
        feed(dry, Source(1), rounds * 3)
    replay, source = small(tmp_path / "replay"), Source(1)
    with failing(seen.index("rename") + 2, errno.EIO, for_good=True), suppress(WriteFailed):
        feed(replay, source, rounds * 3)
    assert shards_of(tmp_path / "replay") == ["000000"]
    state = replay.save()
    feed(replay, source, rounds * 3)
    replay.close()
    assert fw.load(tmp_path / "replay").episodes == 6
    assert small(tmp_path / "replay", state=state).rows == 75


def test_a_resumed_replay_goes_on_as_the_one_that_was_not_stopped(tmp_path: Path) -> None:
    def work(replay: Replay, source: Source, first: int, stop: int) -> list[Any]:
        batches = []
        for n in range(first, stop):
            feed(replay, source, ["lctasssssssssss"[n * n % 13] + "sssltssssssssc"[n % 14]], n)
            if replay.ready():
                batches.append(replay.sample(3, n))
                replay.write_back(batches[-1], batches[-1].carry[:, None] + torch.rand(1, LENGTH, 1, generator=dice(n)))
        return batches

    def dice(n: int) -> torch.Generator:
        return torch.Generator().manual_seed(n)

    whole, source = small(tmp_path / "whole", envs=2, capacity=150), Source(2)
    expected = work(whole, source, 0, 240)
    first, source = small(tmp_path / "parts", envs=2, capacity=150), Source(2)
    found = work(first, source, 0, 170)
    assert first.episodes > 5, "finished episodes are saved too"
    state, copy = first.save(), Source(2)
    copy.episode, copy.step, copy.ended = [*source.episode], [*source.step], [*source.ended]
    work(first, source, 170, 230)  # lost
    first.close()
    second = small(tmp_path / "parts", envs=2, capacity=150, state=state)
    found += work(second, copy, 170, 240)
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    one, two = whole.save(), second.save()
    assert all(torch.equal(one[name], two[name]) for name in one.keys() - {"saves"})
    whole.close()
    second.close()
    rows, more = (fw.load(tmp_path / name).column("obs/where") for name in ("whole", "parts"))
    assert np.array_equal(rows, more[-len(rows) :]), "what a checkpoint needs may still be there before them"


def test_carries_that_are_too_many_for_a_checkpoint_are_zero_after_a_return(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = small()
    feed(replay, Source(1), "sssl" + "s" * 20)
    monkeypatch.setattr("foreworld.data.replay.LARGEST_CARRIES", 24 * 2 * CARRY - 1)
    state = replay.save()
    assert "carry" not in state
    again = small(state=state)
    one, two = replay.sample(9, 0), again.sample(9, 0)
    assert fw.tree.leaves(one.segment)[0].equal(fw.tree.leaves(two.segment)[0])
    assert one.carry.any() and not two.carry.any() and again.lost_carries
    monkeypatch.setattr("foreworld.data.replay.LARGEST_CARRIES", 24 * 2 * CARRY)
    assert not small(state=replay.save()).lost_carries


def test_a_state_of_another_replay_is_refused(tmp_path: Path) -> None:
    replay = small(tmp_path / "replay")
    feed(replay, Source(1), ("s" * 24 + "l") * 8)
    state = replay.save()
    with pytest.raises(CheckpointError, match=r"\[1, 4, 2\], this one has \[1, 5, 2\]"):
        small(tmp_path / "other", length=5, state=state)
    with pytest.raises(CheckpointError, match="truth/id"):
        small(state=state)
    replay.close()
    with pytest.raises(OutputExists, match="holds episodes already"):
        small(tmp_path / "replay")
    with pytest.raises(CheckpointError, match="lacks shards"):
        small(tmp_path / "elsewhere", state=state)
    again = small(tmp_path / "replay", state=state)
    assert again.rows == 200
    again.close()


IMPOSSIBLE = {
    "counts": [(0, -1), (1, 99), (1, 2**62), (2, 2), (2, 99), (3, 0), (3, 99), (3, -1)],
    "saves": [(0, -1), (0, 99), (0, 2**62)],
    "streams": [(0, -1), (0, 3), (1, 0), (1, 10**6), (1, 2**62), (2, 0), (2, 2), (3, 1), (4, 0), (4, 2**62), (5, 1)],
    "next_online": [(0, -1), (0, 0), (0, -(2**62)), (0, 2**62), (0, 10**6)],
    "queue": [(0, 2), (0, -1), (1, 0), (1, 10**6), (1, -1)],
    "episodes": [(0, 2), (0, 9), (0, -1), (1, 10**6), (2, 1), (2, 10**6), (2, 2**62), (3, 2)],
}


def test_a_state_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    replay = small(path, envs=2, capacity=150)
    feed(replay, Source(2), ("s" * 24 + "l") * 5 + "sss")
    state = replay.save()
    replay.close()
    assert state["counts"][1] and len(state["queue"]) and len(state["gathered/reward"]) and len(state["open/reward"])
    wrong = [(name, at, value) for name, changes in IMPOSSIBLE.items() for at, value in changes]
    for name, at, value in wrong:
        changed = state[name].clone()
        assert int(changed.view(-1)[at]) != value, (name, at)
        changed.view(-1)[at] = value
        with pytest.raises(CheckpointError):
            small(path, envs=2, capacity=150, state=state | {name: changed})
    shorter = {name: state[name][:-1] for name in ("carry", "gathered/reward", "open/obs/where", "streams", "episodes")}
    halves = {name: state[name].to(torch.int32) for name in ("counts", "episodes", "carry")}
    for name, changed in (*shorter.items(), *halves.items()):
        with pytest.raises(CheckpointError):
            small(path, envs=2, capacity=150, state=state | {name: changed})
    again = small(path, envs=2, capacity=150, state=state)
    check_rows(again.sample(40, 0))
    again.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_loses_no_row(tmp_path: Path, code: int) -> None:
    replay, source = small(tmp_path / "replay"), Source(1)
    rounds = "s" * 24 + "l"
    feed(replay, source, rounds)
    with failing(1, code, for_good=True), pytest.raises(WriteFailed, match="replay"):
        feed(replay, source, rounds * 2)
    with failing(1, code, for_good=True), pytest.raises(WriteFailed, match="replay"):
        feed(replay, source, rounds)
    assert replay.rows == 100
    check_rows(replay.sample(60, 0))
    feed(replay, source, rounds)
    assert fw.load(tmp_path / "replay").episodes == 5
    feed(replay, source, rounds * 2)
    with failing(1, code, for_good=True), pytest.raises(WriteFailed, match="replay"):
        feed(replay, source, rounds * 8)
    replay.close()
    assert fw.load(tmp_path / "replay").episodes >= 8


def test_rows_are_added_while_others_are_sampled(tmp_path: Path) -> None:
    replay, source = small(tmp_path / "replay", envs=4, capacity=600), Source(4)
    feed(replay, source, ["ssss"] * 10)
    stop, faults = threading.Event(), []

    def collect() -> None:
        try:
            for n in range(1200):
                feed(replay, source, ["sslstcs"[n % 5 :][:4].ljust(4, "s")])
        except BaseException as fault:
            faults.append(fault)
        finally:
            stop.set()

    thread = threading.Thread(target=collect)
    thread.start()
    step = 0
    while not stop.is_set():
        batch = replay.sample(8, step)
        check_rows(batch)
        replay.write_back(batch, batch.carry[:, None].expand(-1, LENGTH, -1))
        step += 1
    thread.join()
    replay.close()
    assert faults == []
    assert step > 0
