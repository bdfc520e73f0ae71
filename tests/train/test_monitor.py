"""Monitors: what they find is logged, they leave no trace, and one that fails ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import foreworld as fw
from foreworld.train import state_hash
from foreworld.train.log import read_metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fw.collect("CartPole-v1", episodes=4, out=tmp_path_factory.mktemp("monitor") / "data")


def trained(data: Any, out: Path, monitor: Any) -> tuple[str, list[dict[str, float]]]:
    torch.manual_seed(0)
    model = fw.RSSM(data.spec, deter=16, units=8, latents=2, classes=4, blocks=2)
    fw.fit(model, data, steps=4, batch=2, length=8, save_every=2, log_every=2, out=out, monitor=monitor)
    return state_hash(out), read_metrics(out / "metrics.jsonl")


def test_what_is_found_is_logged_and_leaves_no_trace(data: Any, tmp_path: Path) -> None:
    modes: list[bool] = []

    def monitor(model: Any) -> dict[str, float]:
        modes.append(model.training)
        return {"drawn": float(torch.rand(()))}

    plain, _ = trained(data, tmp_path / "plain", None)
    watched, lines = trained(data, tmp_path / "watched", monitor)
    assert watched == plain
    assert [line["step"] for line in lines if "drawn" in line] == [2, 4]
    assert modes == [False, False]


def test_one_that_fails_is_named_once(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def monitor(model: Any) -> dict[str, float]:
        raise ValueError("no light")

    plain, _ = trained(data, tmp_path / "plain", None)
    assert trained(data, tmp_path / "failing", monitor)[0] == plain
    assert capsys.readouterr().err.count("the monitor failed at update 2 (ValueError: no light)") == 1
