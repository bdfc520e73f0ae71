"""Checkpoints: never a number that is not one, never half removed, exact in type, refused when they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foreworld.core.errors import CheckpointError, NonFinite
from foreworld.core.tensorfile import read_forms, write_tensors
from foreworld.testing.hostile import reseal
from foreworld.train.checkpoint import (
    Progress,
    list_checkpoints,
    load_model,
    load_training,
    save_checkpoint,
    tensors,
    verify_checkpoint,
)
from foreworld.train.optim import LaProp


def trained(steps: int = 2) -> tuple[Any, LaProp]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = LaProp(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_what_is_saved_is_restored_to_the_bit_and_type(tmp_path: Path) -> None:
    model, optimizer = trained()
    saved = save_checkpoint(tmp_path / "c", model, optimizer, Progress(2, 1.5))
    drawn = torch.rand(3)
    other, fresh = trained(1)
    load_model(saved, other)
    assert load_training(saved, fresh) == Progress(2, 1.5)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for mine, theirs in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert {k: v.dtype for k, v in mine.items()} == {k: v.dtype for k, v in theirs.items()}
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["weight", "rms"])
def test_a_value_that_is_not_finite_is_never_saved(tmp_path: Path, value: float, where: str) -> None:
    model, optimizer = trained()
    first = save_checkpoint(tmp_path / "c", model, optimizer, Progress(1, 0.0))
    with torch.no_grad():
        (model.weight if where == "weight" else optimizer.state[model.weight]["rms"])[1, 2] = value
    with pytest.raises(NonFinite, match=rf"{where}' holds NaN or infinite.*step 2 was not saved.*intact"):
        save_checkpoint(tmp_path / "c", model, optimizer, Progress(2, 0.0))
    assert list(first.parent.iterdir()) == [first]
    load_model(first, model)
    assert bool(torch.isfinite(model.weight).all())


def test_a_value_that_is_not_finite_is_never_loaded(tmp_path: Path) -> None:
    model, optimizer = trained()
    saved = save_checkpoint(tmp_path / "c", model, optimizer, Progress(1, 0.0))
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-4:] = b"\0\0\xc0\x7f"
    (saved / "model.safetensors").write_bytes(content)
    reseal(saved)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor 'weight' holds NaN"):
        load_model(saved, model)


def test_two_checkpoints_are_kept_and_a_killed_removal_leaves_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained()
    for step in (1, 2):
        save_checkpoint(tmp_path, model, optimizer, Progress(step, 0.0))
    monkeypatch.setattr("foreworld.core.disk.discard", lambda path: None)  # killed as the removal begins
    save_checkpoint(tmp_path, model, optimizer, Progress(3, 0.0))
    monkeypatch.undo()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["00000002", "00000003"]
    for path in list_checkpoints(tmp_path):
        verify_checkpoint(path)
    save_checkpoint(tmp_path, model, optimizer, Progress(4, 0.0))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00000003", "00000004"]


def test_damage_names_the_checkpoint_that_one_can_go_on_from(tmp_path: Path) -> None:
    model, optimizer = trained()
    for step in (1, 2):
        newest = save_checkpoint(tmp_path, model, optimizer, Progress(step, 0.0))
    (newest / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json.*remove 00000002 to go on from 00000001"):
        load_model(newest, model)
    shutil.rmtree(newest)
    load_model(list_checkpoints(tmp_path)[-1], model)


def test_steps_are_ordered_by_number_and_other_names_are_ignored(tmp_path: Path) -> None:
    for name in ("100000000", "00000002", "99999999", "12x", "3", ".partial-1-0-00000004"):
        (tmp_path / name).mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["00000002", "99999999", "100000000"]
    (tmp_path / "link").symlink_to(tmp_path)
    assert list_checkpoints(tmp_path / "link") == []


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("training", lambda t: t.pop("rng"), "random numbers"),
        ("training", lambda t: t.update(rng=torch.zeros(3, dtype=torch.uint8)), "random numbers"),
        ("training", lambda t: t.update({"0.rms": torch.zeros(2)}), "does not fit"),
        ("training", lambda t: t.update({"7.rms": torch.zeros(())}), "does not fit"),
        ("training", lambda t: t.update({"../x": torch.zeros(())}), "does not fit"),
        ("training", lambda t: t.pop("1.mean"), "not complete"),
        ("model", lambda t: t.update(weight=torch.zeros(2, 3, dtype=torch.float64)), "F64.*the model has F32"),
        ("model", lambda t: t.update(weight=torch.zeros(3, 2)), r"F32 \(3, 2\), the model has F32 \(2, 3\)"),
        ("model", lambda t: t.pop("bias"), "'bias' is not in both"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(
    tmp_path: Path, file: str, change: Any, reason: str
) -> None:
    model, optimizer = trained()
    saved = save_checkpoint(tmp_path, model, optimizer, Progress(1, 0.0))
    path = saved / f"{file}.safetensors"
    found = load_file(path)
    change(found)
    path.unlink()
    write_tensors(path, found)
    reseal(saved)
    before = {name: tensor.clone() for name, tensor in tensors(model).items()}
    state = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=reason):
        load_model(saved, model)
        load_training(saved, optimizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(model).items())


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "1"},
        {"seconds": None},
        {"optimizer": []},
        {"optimizer": [{"lr": 1.0}]},
        {"more": 1},
    ],
)
def test_a_state_that_is_not_the_runs_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    model, optimizer = trained()
    saved = save_checkpoint(tmp_path, model, optimizer, Progress(1, 0.0))
    path = saved / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    reseal(saved)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_training(saved, optimizer)


def test_every_type_is_written_as_safetensors_reads_it(tmp_path: Path) -> None:
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    given: dict[str, Tensor] = {
        str(dtype): torch.arange(6).to(dtype).reshape(2, 3).T for dtype in [*types, torch.int8, torch.uint8, torch.bool]
    }
    given |= {"none": torch.zeros(0, 3), "empty": torch.from_numpy(np.zeros(0)), "one": torch.tensor(3.5)}
    write_tensors(tmp_path / "x", given)
    found = load_file(tmp_path / "x")
    assert set(found) == set(given)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in given.items())
    assert read_forms(tmp_path / "x")["one"] == ("F32", ())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shared_tensors_are_stored_once_and_views_are_not_lost(device: str) -> None:
    model = nn.Module()
    model.a, model.b = nn.Linear(2, 2, device=device), nn.Linear(2, 2, device=device)
    model.b.weight = model.a.weight
    model.register_buffer("first_row", model.a.weight.detach()[0])
    assert sorted(tensors(model)) == ["a.bias", "a.weight", "b.bias", "first_row"]  # type: ignore[arg-type]
