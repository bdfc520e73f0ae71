from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foreworld as fw
from foreworld.core import Segment, Space, tree
from foreworld.core.errors import ConfigError, DataError, SpecError
from foreworld.core.tree import leaves
from foreworld.data import Dataset, Episode, Writer
from foreworld.data.sampling import cumulative_starts, draw_starts, generator, pieces

ACTION = Space(kind="discrete", shape=(), dtype="int64", classes=(50,), start=(0,))
SPEC = fw.Spec(obs={"at": Space(kind="vector", shape=(2,), dtype="float32")}, action=ACTION)
LENGTHS = [5, 2, 9, 4, 30]


def store(path: Path, lengths: list[int] = LENGTHS, spec: fw.Spec = SPEC) -> Dataset:
    """Write episodes whose observation is (episode, row) and whose action is the row it led to."""
    with Writer(path, spec, shard_rows=12) as writer:
        for i, n in enumerate(lengths):
            at = np.stack([np.full(n, i), np.arange(n)], 1).astype(np.float32)
            row = np.arange(n) if spec.action is ACTION else np.arange(n, dtype=np.float32)[:, None]
            writer.add(Episode(obs={"at": at}, prev_action=row, reward=np.arange(n), is_terminal=i % 2 == 0))
    return fw.load(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return store(tmp_path_factory.mktemp("data") / "d")


def check_rows(segment: Segment, lengths: list[int]) -> None:
    """Every real row carries the values of its place; padding is all zero."""
    real = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
    episode, row = segment.obs["at"].long().unbind(-1)
    size = torch.tensor(lengths)[episode]
    assert torch.equal(segment.is_first, (row == 0) & real)
    assert torch.equal(segment.is_last, (row == size - 1) & real)
    assert torch.equal(segment.is_terminal, (row == size - 1) & (episode % 2 == 0) & real)
    assert torch.equal(segment.reward, row.float() * real)
    none = (row == 0) | ~real
    assert not segment.prev_action[none].any()
    assert torch.equal(segment.prev_action[~none].argmax(-1), row[~none])
    assert not segment.obs["at"][~real].any()


@settings(max_examples=40)
@given(batch=st.integers(1, 6), length=st.integers(1, 40), seed=st.integers(0, 9), step=st.integers(0, 99))
def test_windows_within_episodes(data: Dataset, batch: int, length: int, seed: int, step: int) -> None:
    segment = data.sample(batch, length, seed=seed, step=step)
    assert segment.is_first.shape == (batch, length)
    check_rows(segment, LENGTHS)
    real = torch.ones(batch, length, dtype=torch.bool) if segment.mask is None else segment.mask
    for b in range(batch):
        count = int(real[b].sum())
        assert real[b, :count].all(), "padding comes after the rows"
        episode, row = segment.obs["at"][b, :count].long().unbind(-1)
        assert (episode == episode[0]).all()
        assert (row.diff() == 1).all()
        if count < length:
            assert count == LENGTHS[int(episode[0])], "only episodes that are too short are padded, and given whole"


@settings(max_examples=40)
@given(batch=st.integers(1, 6), length=st.integers(1, 120), step=st.integers(0, 99))
def test_windows_across_episodes(data: Dataset, batch: int, length: int, step: int) -> None:
    segment = data.sample(batch, length, step=step, across=True)
    assert segment.mask is None
    check_rows(segment, LENGTHS)
    place = np.cumsum([0, *LENGTHS])[segment.obs["at"][..., 0].long().numpy()] + segment.obs["at"][..., 1].numpy()
    assert (np.diff(place, axis=1) % sum(LENGTHS) == 1).all(), "rows follow one another, the first after the last"


@pytest.mark.parametrize(("across", "starts"), [(False, 2 + 1 + 6 + 1 + 27), (True, 50)])
def test_all_starts_are_equally_likely(across: bool, starts: int) -> None:
    cumulative = cumulative_starts(np.array(LENGTHS), 4, across)
    assert cumulative[-1] == starts
    draws = 40_000
    episode, row = draw_starts(cumulative, draws, generator(0, 0))
    places, counts = np.unique(np.stack([episode, row]), axis=1, return_counts=True)
    assert places.shape[1] == starts
    expected = draws / starts
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < starts + 5 * np.sqrt(2 * starts)


@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=8),
    length=st.integers(1, 50),
    across=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pieces_cover_a_window_without_gap(lengths: list[int], length: int, across: bool, seed: int) -> None:
    sizes = np.array(lengths)
    chosen, starts = draw_starts(cumulative_starts(sizes, length, across), 5, generator(seed, 0))
    filled = np.zeros((5, length), int)
    for piece in pieces(chosen, starts, length, sizes, across):
        assert piece.start >= 0 and piece.count >= 1 and piece.start + piece.count <= lengths[piece.episode]
        filled[piece.window, piece.at : piece.at + piece.count] += 1
    short = sizes[chosen] < length
    assert (filled[~short] == 1).all() if not across else (filled == 1).all()


def same(a: Segment, b: Segment) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_a_batch_is_a_function_of_seed_step_and_rank(data: Dataset, tmp_path: Path) -> None:
    again = store(tmp_path / "other")
    np.random.seed(7)  # noqa: NPY002 - the global generator must not matter
    torch.manual_seed(7)
    assert same(data.sample(8, 6, seed=3, step=5, rank=1), again.sample(8, 6, seed=3, step=5, rank=1))
    first = data.sample(8, 6, seed=3, step=5)
    for other in ({"seed": 4, "step": 5}, {"seed": 3, "step": 6}, {"seed": 3, "step": 5, "rank": 1}):
        assert not same(first, data.sample(8, 6, **other))


def test_batches_resume_exactly(data: Dataset) -> None:
    stream = data.batches(4, 6, seed=1)
    taken = [next(stream) for _ in range(5)]
    resumed = data.batches(4, 6, seed=1, first_step=3)
    assert same(taken[3], next(resumed)) and same(taken[4], next(resumed))


def test_batches_own_their_memory(data: Dataset) -> None:
    first = data.sample(2, 4)
    first.obs["at"].fill_(-1)
    assert (data.sample(2, 4).obs["at"] >= 0).all()


def test_a_buffer_is_filled_instead_of_a_new_one(data: Dataset) -> None:
    wanted, buffer = data.sample(3, 7, step=1), data.sample(3, 7, step=0)
    found = data.sample(3, 7, step=1, out=buffer)
    assert same(found, wanted)
    assert all(found.obs[key].data_ptr() == buffer.obs[key].data_ptr() for key in found.obs)
    padded = data.sample(3, 40, step=2)
    assert same(data.sample(3, 40, step=2, out=tree.map(torch.ones_like, padded)), padded)
    with pytest.raises(DataError, match="`out` holds"):
        data.sample(4, 7, out=buffer)


def test_split_is_by_episode_and_deterministic(data: Dataset) -> None:
    train, heldout = data.split(0.4, seed=1)
    assert (train.episodes, heldout.episodes) == (3, 2)
    names = [{int(part.raw(i)["obs/at"][0, 0]) for i in range(part.episodes)} for part in (train, heldout)]
    assert names[0] | names[1] == set(range(5)) and not names[0] & names[1]
    again = data.split(0.4, seed=1)[1]
    assert heldout.lengths.tolist() == again.lengths.tolist()
    assert {tuple(data.split(0.4, seed=s)[1].lengths.tolist()) for s in range(8)} != {tuple(heldout.lengths.tolist())}
    assert [d.episodes for d in data.split(0.001)] == [4, 1]
    assert [d.episodes for d in data.split(0.999)] == [1, 4]
    check_rows(heldout.sample(6, 5, across=True), LENGTHS)


def test_rows_trained_on_are_never_judged_even_when_the_store_has_grown(tmp_path: Path) -> None:
    train, heldout = store(tmp_path / "d").split(0.4, seed=1)
    grown = store(tmp_path / "d", [8, 8, 8, 8])
    assert grown.fingerprint == train.fingerprint
    assert grown.seen(train.stretches).stretches == train.stretches
    left = grown.unseen(train.stretches)
    assert set(left.stretches.rows) == {*heldout.stretches.rows, *((n, 0, 8) for n in range(5, 9))}
    with pytest.raises(DataError, match="trained on all of it"):
        grown.unseen(grown.stretches)
    other = store(tmp_path / "other", [7, 7])
    assert other.unseen(train.stretches) is other
    with pytest.raises(DataError, match="not the store"):
        other.seen(train.stretches)


def test_split_by_time_holds_out_the_end_of_every_episode(data: Dataset) -> None:
    train, heldout = data.split(0.25, by="time")
    assert (train.lengths + heldout.lengths).tolist() == data.lengths.tolist()
    for i in range(data.episodes):
        kept = len(train.raw(i)["reward"])
        whole = data.raw(i)["obs/at"]
        assert np.array_equal(train.raw(i)["obs/at"], whole[:kept])
        assert np.array_equal(heldout.raw(i)["obs/at"], whole[kept:])
    assert data.unseen(train.stretches).stretches == heldout.stretches
    # a window that runs on from one stretch into the next must not splice two episodes
    segment = heldout.sample(16, 6, across=True)
    jumps = segment.obs["at"][:, 1:, 0] != segment.obs["at"][:, :-1, 0]
    assert jumps.any()
    assert segment.is_first[:, 1:][jumps].all()
    assert segment.prev_action is None or (segment.prev_action[:, 1:][jumps] == 0).all()


def test_windows_are_given_where_asked_for(data: Dataset) -> None:
    segment = data.windows([4, 0], [3, 2], 6)
    check_rows(segment, LENGTHS)
    assert segment.obs["at"][0].tolist() == [[4, r] for r in range(3, 9)]
    assert segment.mask.sum(1).tolist() == [6, 3]
    assert data.windows(np.array([4]), np.array([3]), 6).mask is None
    for episodes, starts in (([5], [0]), ([-1], [0]), ([0], [5]), ([0], [-1])):
        with pytest.raises(DataError, match="outside"):
            data.windows(episodes, starts, 2)


def test_a_split_needs_two_episodes(tmp_path: Path) -> None:
    one = store(tmp_path / "d", [6])
    with pytest.raises(DataError, match="at least 2 episodes"):
        one.split()
    with pytest.raises(DataError, match="share"):
        one.split(1.0)


def test_subsets_and_columns(data: Dataset) -> None:
    part = data.subset([4, 1])
    assert part.lengths.tolist() == [30, 2]
    assert part.column("reward").tolist() == [*range(30), 0, 1]
    for bad in ([], [5], [-1]):
        with pytest.raises(DataError):
            data.subset(bad)
    with pytest.raises(DataError, match="no column 'rewards'"):
        data.column("rewards")
    with pytest.raises(DataError, match="episode 9 of 5"):
        data.episode(9)


def test_bad_requests_are_refused(data: Dataset) -> None:
    with pytest.raises(DataError):
        data.sample(0, 4)
    with pytest.raises(DataError):
        data.sample(4, 0)
    with pytest.raises(ConfigError, match=">= 0"):
        data.sample(4, 4, seed=-1)


def test_summary(data: Dataset) -> None:
    summary = data.summary()
    returns = [sum(range(n)) for n in LENGTHS]
    assert (summary.episodes, summary.rows, summary.steps) == (5, 50, 45)
    assert (summary.length_min, summary.length_mean, summary.length_max) == (2, 10.0, 30)
    assert summary.return_mean == np.mean(returns) and summary.return_std == pytest.approx(np.std(returns))
    assert summary.terminal == 0.6
    assert summary.bytes == 50 * (8 + 8 + 4 + 3)


UNBOUNDED = Space(kind="vector", shape=(1,), dtype="float32")


def test_an_unbounded_action_gets_its_range_from_the_training_rows(tmp_path: Path) -> None:
    data = store(tmp_path / "d", [101, 11], fw.Spec(obs=SPEC.obs, action=UNBOUNDED))
    taken = np.concatenate([np.arange(1, 101), np.arange(1, 11)])
    assert data.spec.action.low == pytest.approx([np.quantile(taken, 0.01)])
    assert data.spec.action.high == pytest.approx([np.quantile(taken, 0.99)])
    assert not data.schema.spec.action.bounded
    train, heldout = data.split(0.5)
    only = np.arange(1, int(train.lengths[0]))
    assert train.spec == heldout.spec
    assert train.spec.action.high == pytest.approx([np.quantile(only, 0.99)])
    ready = train.episode(0).prev_action[0, :, 0]
    assert ready[0] == 0 and ready[1] < -0.9 and ready[-1] > 0.9


def test_rows_can_be_read_under_the_spec_of_a_model(tmp_path: Path) -> None:
    data = store(tmp_path / "d", [101, 11], fw.Spec(obs=SPEC.obs, action=UNBOUNDED))
    spec = data.spec.with_action_range(np.array([0.0]), np.array([200.0]))
    assert data.with_spec(spec).episode(0).prev_action[0, 50].item() == pytest.approx(-0.5)
    with pytest.raises(SpecError, match="differ from the model's"):
        data.with_spec(SPEC)


@pytest.mark.slow
def test_loading_keeps_up_with_any_learner(tmp_path: Path) -> None:
    import time

    spec = fw.Spec(obs={"image": Space(kind="image", shape=(3, 64, 64), dtype="uint8")}, action=ACTION)
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "d", spec) as writer:
        for _ in range(20):
            frames = rng.integers(0, 256, (501, 3, 64, 64), dtype=np.uint8)
            writer.add(Episode.from_transitions({"image": frames}, rng.integers(0, 50, 500)))
    data = fw.load(tmp_path / "d")
    data.sample(16, 64)
    begin = time.process_time()
    for step in range(50):
        data.sample(16, 64, step=step)
    assert 50 * 16 * 64 / (time.process_time() - begin) > 100_000
