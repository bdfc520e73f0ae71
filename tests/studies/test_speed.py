"""Benchmarks: what they count is right; how fast they are is no test."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch

from foreworld.cli import bench
from foreworld.cli.main import main
from foreworld.studies.plan_peer import PeerError, versus
from foreworld.studies.plan_speed import Planning
from foreworld.studies.speed import count_flops, imagination, sampling, seconds, world_model_update
from foreworld.studies.swm_child import Costs


def test_operations_are_counted_in_place_too() -> None:
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.randn(3, 5)
    batch = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(2, 3, 5)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert count_flops(lambda: c.addmm_(a, b)) == 2 * 3 * 4 * 5
    assert count_flops(lambda: batch[2].baddbmm_(batch[0], batch[1])) == 2 * 2 * 3 * 4 * 5


def test_the_least_time_is_that_of_the_work_alone() -> None:
    calls: list[int] = []
    assert seconds(lambda: calls.append(1), repeats=3, warm=2, inner=4) >= 0
    assert len(calls) == 2 + 3 * 4


def test_figures_name_their_bound() -> None:
    for figure in (world_model_update(100.0, "1m", 2, 4), imagination(100.0, 3), sampling(2000, 2, 8)):
        assert figure.value > 0 and figure.bound > 0 and figure.bound_by
        ratio = figure.bound / figure.value if figure.unit == "ms" else figure.value / figure.bound
        assert figure.fraction == pytest.approx(ratio)


def test_bench_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    args = ["bench", "--quick", "--only", "sample", "collect", "--env", "CartPole-v1", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matmul_gflops"] > 1
    assert [figure["unit"] for figure in found["figures"]] == ["frames/s", "frames/s", "steps/s"]
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_a_sweep_says_of_every_cell_what_was_done_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["bench", "sweep", "--sizes", "1m", "--parallel", "1500", "1024", "--precision", "bfloat16", "--json"]
    assert main(args) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["parallel_states"] for cell in cells] == [1500, 1024]
    for cell in cells:
        assert cell["precision"] == "bfloat16" and cell["fraction_of_matmul"] > 0
        assert cell["steps"] >= 30_000 and cell["steps"] % (15 * cell["parallel_states"]) == 0
        assert cell["steps_per_core_s"] == pytest.approx(cell["steps"] / cell["cpu_s"])


def test_a_sweep_over_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sweep", "--parallel", "0"]) == 2
    assert "--parallel" in capsys.readouterr().err


def test_plans_are_timed_and_the_peer_is_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_peer", lambda python: None)
    args = ["bench", "plan", "--environments", "1", "3", "--samples", "20", "--iterations", "2", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert [plan["environments"] for plan in found["plans"]] == [1, 3]
    for plan in found["plans"]:
        # two products of each of 20 candidates, 2 rounds and 5 steps
        assert plan["gflop_per_plan"] * 1e9 == pytest.approx(2 * 20 * 2 * 5 * (202 * 512 + 512 * 192))
        assert plan["plans_per_core_s"] == pytest.approx(1 / plan["cpu_s_per_plan"])
        assert plan["fraction_of_matmul"] > 0
    assert "--peer-python" in found["versus"]


def test_a_bench_of_no_plans_and_a_peer_that_is_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "plan", "--environments", "0"]) == 2
    assert "--environments" in capsys.readouterr().err
    planning = Planning(1, samples=20, iterations=1)
    with pytest.raises(PeerError, match="no-such-python cannot be run"):
        versus(planning, "no-such-python", [1])
    if importlib.util.find_spec("stable_worldmodel") is None:
        with pytest.raises(PeerError, match="--no-deps stable-worldmodel"):
            versus(planning, sys.executable, [1])


def test_the_peer_is_given_the_same_predictor() -> None:
    """What the peer's side computes, without the peer's solver: the costs of the candidates to check."""
    planning = Planning(3, samples=20, iterations=2)
    weights = {name: value.numpy() for name, value in planning.model.state_dict().items()}
    actions = 2 * torch.rand(3, 7, 5, 10) - 1
    info = {"place": planning.start, "goal": planning.goal}
    wide = {name: value[:, None].expand(-1, 7, -1) for name, value in info.items()}
    with torch.no_grad():
        torch.testing.assert_close(Costs(weights).get_cost(wide, actions), planning.costs(actions))
    assert planning.plan(3).shape == (3,)
