"""The hash of all state: equal where runs go on alike, and for no other reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foreworld.core.errors import CheckpointError, DataError
from foreworld.testing.agents import Trainee
from foreworld.testing.faults import flip_bit
from foreworld.train import state_hash
from foreworld.train.checkpoint import list_checkpoints

SHORT = {"prefill": 10, "length": 4, "train_ratio": 1, "capacity": 130}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    Trainee(env="CartPole-v1", settings=SHORT | {"steps": 150}).train(path)
    return path


def test_a_copy_stands_where_the_run_stands_and_a_step_further_it_does_not(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    assert state_hash(tmp_path / "copy") == state_hash(run)
    Trainee(env="CartPole-v1", settings=SHORT | {"steps": 151}).train(tmp_path / "copy")
    assert state_hash(tmp_path / "copy") != state_hash(run)


def test_another_seed_stands_elsewhere(run: Path, tmp_path: Path) -> None:
    Trainee(env="CartPole-v1", settings=SHORT | {"steps": 150, "seed": 1}).train(tmp_path / "other")
    assert state_hash(tmp_path / "other") != state_hash(run)


def test_what_is_damaged_has_no_hash(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    newest = list_checkpoints(copy / "checkpoints")[-1]
    for file in newest.glob("*.safetensors"):
        flip_bit(file, 8 * file.stat().st_size - 9)
        with pytest.raises(CheckpointError, match=file.name):
            state_hash(copy)
        flip_bit(file, 8 * file.stat().st_size - 9)
    shard = sorted((copy / "replay" / "shards").iterdir())[-2]
    flip_bit(shard / "reward.npy", 8 * 130)
    with pytest.raises(DataError, match="reward"):
        state_hash(copy)
