"""`foreworld horizon` on anybody's trajectories: its answer, its words, its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreworld.cli.main import main


def saved(path: Path, n: int = 100, **arrays: Any) -> str:
    """Random walks, and predictions that drift off by noise."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(n, 60, 3)).cumsum(1)
    predicted = true + 0.1 * rng.lognormal(size=(n, 1, 1)) * rng.normal(size=true.shape).cumsum(1)
    np.savez(path, **{"true": true, "predicted": predicted, "dt": 0.05, **arrays})
    return str(path)


def test_it_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["horizon", "--trajectories", saved(tmp_path / "a.npz"), "--max-error", "0.2", "--latency", "0.05"]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["safe_horizon"] < 60 and found["at_least"] is False
    assert (found["confidence"], found["violation_rate"], found["episodes"]) == (0.95, 0.1, 100)
    assert found["growth_law"] == "power" and "square root of time" in found["meaning"]
    assert found["growth_rate"] is None and found["growth_rate_reason"]
    assert found["replan_every"] >= 1 and found["replan_latency_checked"] is True
    assert set(found["naive"]) == {"closed_form", "mean_curve"}
    assert set(found["bands"]) == {"1", "10", "50"}


def test_it_answers_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["horizon", "--trajectories", saved(tmp_path / "a.npz")]) == 0
    shown = capsys.readouterr()
    assert "with 95 % confidence, at most 10 % of new trajectories exceed an error of 0.2" in shown.err
    assert "1 - (1 - e)^T says" in shown.err and "the mean error says" in shown.err
    assert "Replan every" in shown.err and "planning time was not given" in shown.err
    assert "90 % stay under" in shown.out


def test_limits_and_seed_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.npz", episode=np.arange(100) // 2)
    found = []
    for extra in ([], ["--max-error", "0.5"], ["--confidence", "0.8"], ["--violation-rate", "0.3"], ["--seed", "1"]):
        assert main(["horizon", "--trajectories", path, *extra, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert all(answer["episodes"] == 50 for answer in found)
    assert all(answer["safe_horizon"] > found[0]["safe_horizon"] for answer in found[1:4])
    assert found[4]["bands"] != found[0]["bands"]


@pytest.mark.parametrize(
    ("arrays", "extra", "words"),
    [
        ({"n": 20}, [], "20 episodes, 29 are needed for violations of at most 10 % with 95 % confidence"),
        ({"predicted": np.zeros((100, 60, 2))}, [], "differ in shape"),
        ({"true": np.full((100, 60, 3), np.nan)}, [], "no step that is not NaN"),
        ({"true": np.zeros((100, 60, 3))}, [], "never changes"),
        ({"true": np.array([None])}, [], "only a pickle could read"),
        ({}, ["--per-step-error", "0.01"], "give one of --run DIR"),
        ({}, ["--max-error", "0"], "largest error must be above 0"),
        ({}, ["--confidence", "1"], "confidence must lie strictly between 0 and 1"),
        ({}, ["--latency", "-1"], "planning latency"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    arrays: dict[str, Any], extra: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["horizon", "--trajectories", saved(tmp_path / "a.npz", **arrays), *extra]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("foreworld horizon: ") and words in said[0]


def test_something_to_judge_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["horizon"]) == 2
    assert "one of --run DIR" in capsys.readouterr().err
    assert main(["horizon", "--trajectories", str(tmp_path)]) == 2
    assert "not a plain file" in capsys.readouterr().err
    assert main(["horizon", "--trajectories", str(tmp_path / "none.npz")]) == 2
    assert "no such file" in capsys.readouterr().err
