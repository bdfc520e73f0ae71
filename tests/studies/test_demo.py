"""The demo from end to end, as small as it can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foreworld.core.errors import OutputExists, SpecError
from foreworld.report.html import Html
from foreworld.studies.demo import DemoConfig, cut_short, demo

TINY = DemoConfig(episodes=6, max_steps=240, num_envs=2, steps=2, horizon=12, samples=1, per_episode=1)


@pytest.mark.slow
def test_the_demo_leaves_episodes_model_numbers_and_a_page(tmp_path: Path) -> None:
    stages: list[str] = []
    result, study = demo(tmp_path / "demo", TINY, lambda stage, done, total, note: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["play", "learn", "judge"]
    assert json.loads((tmp_path / "demo" / "result.json").read_text()) == result
    assert result["env"] == "ALE/Freeway-v5"
    assert result["steps_trained"] == 2
    assert result["horizons"]["10"]["linear"] > 0
    assert result["horizons"]["50"]["reason"].startswith("only 12 steps")
    page = Html((tmp_path / "demo" / "report.html").read_text())
    assert "ended by its limit" not in page
    assert page.count("<canvas") == 3 * len(study.dreams)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert (tmp_path / "demo" / "filmstrip.png").read_bytes().startswith(b"\x89PNG")
    # nothing that is judged was trained on: the last quarter of every game
    assert study.evaluation.episodes[0] == 6
    with pytest.raises(OutputExists):
        demo(tmp_path / "demo", TINY, lambda *args: None)


def test_an_environment_without_pictures_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="CartPole-v1 shows no pictures"):
        demo(tmp_path / "demo", DemoConfig(env="CartPole-v1"), lambda *args: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_page_says_that_training_ran_out_of_time(tmp_path: Path) -> None:
    config = replace(TINY, steps=1000, minutes=1e-3)
    result, _ = demo(tmp_path / "demo", config, lambda *args: None)
    assert result["steps_trained"] < 1000
    assert cut_short(config, result["steps_trained"]) in (tmp_path / "demo" / "report.html").read_text()


def test_a_training_that_ran_out_of_time_says_so() -> None:
    config = DemoConfig(steps=4600, minutes=12.9)
    assert "limit of 12.9 minutes, after 1,700 of 4,600 updates" in cut_short(config, 1700)
    assert cut_short(config, 4600) == ""
