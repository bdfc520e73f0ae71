"""The verb `plan`, and planners in `list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import foreworld as fw
from foreworld.cli.main import main
from foreworld.cli.planner_flags import named_planner, planner_options, settings_of, with_horizon, with_options
from foreworld.core import registry
from foreworld.core.errors import ConfigError
from foreworld.plan import CEM, Hybrid, RandomShooting
from foreworld.report.png import encode

SHORT = ["--episodes", "2", "--num-envs", "2", "--max-steps", "8", "--candidates", "8", "--iterations", "2"]
SHORT += ["--elites", "2", "--horizon", "3"]
MAZE = ["--exact", "--env", "foreworld/PointMaze-v0", "--env-options", '{"layout": ["..."]}']


@dataclass(frozen=True, kw_only=True)
class Lazy(RandomShooting):
    """Somebody else's planner."""

    patience: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Clashing(RandomShooting):
    """Its setting is called like a flag of the verb."""

    seed: int = 0


class Plain:
    """A planner without fields."""

    horizon = budget = 1


@dataclass(frozen=True, kw_only=True)
class Needy(RandomShooting):
    """One of its settings has no default."""

    effort: float


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A world model of CartPole, an agent in it, and a model of pictures."""
    home = tmp_path_factory.mktemp("runs")
    data = fw.collect("CartPole-v1", episodes=6, out=home / "episodes")
    torch.manual_seed(0)
    small: dict[str, Any] = {"deter": 16, "units": 8, "latents": 2, "classes": 4}
    fw.fit(fw.RSSM(data.spec, **small), data, steps=2, batch=2, length=8, out=home / "model")
    model = fw.RSSM(data.spec, **small)
    fw.train_agent("CartPole-v1", model, fw.Dreamer(model, units=8), steps=5, out=home / "agent")
    catch = fw.collect("foreworld/Catch-v0", episodes=4, out=home / "catch-episodes")
    fw.fit(fw.RSSM(catch.spec, depth=2, **small), catch, steps=1, batch=2, length=4, out=home / "catch")
    yield home


@pytest.fixture
def outsiders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce planners as installed packages would."""
    known = registry.entry_points
    mine = {name: f"{__name__}:{kind.__name__}" for name, kind in (("lazy", Lazy), ("clashing", Clashing))}
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])

    def announced(group: str) -> list[EntryPoint]:
        here = [EntryPoint(name, value, group) for name, value in mine.items() if group == "foreworld.planners"]
        return [*known(group=group), *here]

    monkeypatch.setattr(registry, "entry_points", announced)


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def filmed(path: Path) -> tuple[int, int]:
    """Return how many frames a clip has, and how wide they are."""
    with av.open(path) as container:
        frames = [frame.width for frame in container.decode(video=0)]
    return len(frames), frames[0]


def test_a_world_model_acts_by_planning_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, "plan", "--run", str(runs / "model"), *SHORT, "--out", str(tmp_path / "planned"))
    assert (told["env"], told["measure"], told["episodes"]) == ("CartPole-v1", "mean_return", 2)
    assert told["ci_low"] <= told["mean_return"] <= told["ci_high"] and told["mean_return"] <= 8
    assert told["success"] is None and told["oracle"] is None and told["random_floor"] > 0 < told["shooting_floor"]
    protocol = told["protocol"]
    assert (protocol["planner"], protocol["horizon"], protocol["budget"]) == ("CategoricalCEM", 3, 16)
    assert protocol["settings"]["candidates"] == 8 and protocol["settings"]["noise"] == "white"
    assert not protocol["objective"]["critic"] and told["fell_back"] == 0 == told["deadline_misses"]
    assert json.loads((tmp_path / "planned" / "plan.json").read_text()) == told
    imagined, _ = filmed(tmp_path / "planned" / "plan-imagined.mp4")  # numbers: the model decodes no pictures
    assert imagined == told["every"]["planner"]["length"][0] + 1
    again = answer(capsys, "plan", "--run", str(runs / "model"), *SHORT)
    assert again["every"] == told["every"]  # the same seed
    assert main(["plan", "--run", str(runs / "model"), *SHORT, "--out", str(tmp_path / "planned")]) == 2
    assert "overwrite" in capsys.readouterr().err


def test_an_agents_model_plans_with_its_critic_or_without(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["plan", "--run", str(runs / "agent"), *SHORT, "--no-floors"]
    told = answer(capsys, *run)
    assert told["protocol"]["objective"]["critic"] and told["random_floor"] is None and told["updates"] >= 0
    assert not answer(capsys, *run, "--objective.no-critic")["protocol"]["objective"]["critic"]
    assert main([*run, "--objective.discount", "0.5"]) == 2
    assert "the critic was trained with a discount" in capsys.readouterr().err


def test_the_world_itself_reaches_goals_and_is_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "planned"
    told = answer(capsys, "plan", *MAZE, *SHORT, "--goal", "0.5,0.5", "--deadline-ms", "60000", "--out", str(out))
    assert told["measure"] == "success" and 0 <= told["ci_low"] <= told["success"] <= told["ci_high"] <= 1
    assert told["protocol"]["env_options"]["goal"] == [0.5, 0.5] and told["protocol"]["deadline_ms"] == 60000
    assert told["oracle"] is not None and told["run"] is None
    frames, wide = filmed(out / "plan.mp4")
    assert frames == told["every"]["planner"]["length"][0] + 1  # every row of the first episode
    assert wide > 4 * 264  # start, goal, what happens, where the plan ends
    stills = np.asarray(Image.open(out / "plan.png"))
    assert stills.shape[1] == wide and stills.shape[0] > 3 * 200 and not np.array_equal(*np.split(stills, 3)[::2])
    fewer = answer(capsys, "plan", *MAZE, *SHORT, "--no-shooting")
    assert fewer["shooting_floor"] is None and fewer["random_floor"] is not None is not fewer["oracle"]
    assert main(["plan", *MAZE, *SHORT, "--no-floors"]) == 0
    assert "goals reached" in capsys.readouterr().err


def test_the_planners_own_episodes_are_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "planned"
    command = ["plan", *MAZE, *SHORT, "--episodes", "5", "--record", str(out), "--max-steps", "30"]
    played = answer(capsys, *command)["every"]["planner"]
    data = fw.load(out)
    assert data.episodes == 5 and (data.source.env, data.source.policy) == (
        "foreworld/PointMaze-v0",
        "CEM with the world itself",
    )
    kept = [(float(data.raw(i)["reward"].sum()), len(data.raw(i)["reward"]) - 1) for i in range(5)]
    assert sorted(kept) == sorted(zip(played["return"], played["length"], strict=True))
    assert len({length for _, length in kept}) > 1  # some reach the goal, where an episode ends
    assert data.truth([0], [0], 2)["state"].shape == (1, 2, 6)
    assert main(command) == 2
    assert "overwrite" in capsys.readouterr().err
    assert fw.load(out).episodes == 5


def test_pictures_are_filmed_with_what_the_model_imagines(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(capsys, "plan", "--run", str(runs / "catch"), *SHORT, "--out", str(tmp_path / "planned"))
    assert told["measure"] == "mean_return" and told["oracle"] == pytest.approx(told["oracle"])
    frames, wide = filmed(tmp_path / "planned" / "plan.mp4")
    assert frames == 9 and 3 * 264 < wide < 4 * 264  # there is no goal to show


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give either --run DIR, or --exact"),
        (["--run", "{}/none"], "not a run folder"),
        (["--run", "{}/model", "--exact"], "give either"),
        (["--exact", "--env", "CartPole-v1"], "takes a bundled world"),
        (["--exact", "--env", "foreworld/Balls-v0"], "takes no action"),
        (["--run", "{}/model", "--planner", "cem"], "the actions are discrete"),
        (["--run", "{}/model", "--planner", "mpppi"], "did you mean 'mppi'"),
        (["--run", "{}/model", "--goal", "own"], "'embed', which RSSM lacks"),
        (["--run", "{}/model", "--goal", "1,2"], "can place no goal"),
        (["--run", "{}/model", "--goal", "nothing.png"], "neither own, reward, coordinates"),
        (["--run", "{}/model", "--goal", "{}/goal.png"], "a picture alone is no goal"),
        (["--run", "{}/catch", "--goal", "{}/goal.png"], "'embed', which RSSM lacks"),
        (["--run", "{}/model", "--env", "Pendulum-v1"], "the model knows actions as discrete"),
        (["--run", "{}/model", "--execute", "20"], "execute fewer"),
        (["--run", "{}/model", "--episodes", "1"], "at least 2"),
        (["--run", "{}/model", "--deadline-ms", "0"], "positive time"),
        (["--run", "{}/model", "--objective.spread", "1"], "'spread', which RSSM lacks"),
        (["--run", "{}/model", "--env-options", "3"], "names with values"),
        (["--run", "{}/model", "--candidates", "1"], "twice the elites"),
        ([*MAZE, "--goal", "9,9"], "inside a wall"),
        ([*MAZE, "--goal", "1,2,3"], "expected 2 finite numbers"),
        ([*MAZE, "--planner", "gradient", "--quick"], "needs a model and an objective that have one"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    argv: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "goal.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8)))
    assert main(["plan", *(one.replace("{}", str(runs)) for one in argv)]) == 2
    told = capsys.readouterr()
    last = told.err.strip().splitlines()[-1]
    assert last.startswith("foreworld plan: ") and said in last and "Traceback" not in told.err


def test_planners_are_listed_with_their_actions(outsiders: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "planners", "--json"]) == 0
    rows = {row["planner"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["actions"] for name, row in rows.items() if name not in ("clashing",)}.items() >= {
        "categorical_cem": "choices",
        "cem": "numbers",
        "gradient": "numbers",
        "hybrid": "numbers",
        "icem": "numbers",
        "lazy": "any",
        "mppi": "numbers",
        "quasi_newton": "numbers",
        "random_shooting": "any",
        "tree_search": "choices",
    }.items()
    assert rows["cem"]["rollouts by default"] == CEM().budget and rows["lazy"]["how it searches"].startswith("Somebody")


def test_settings_of_any_planner_are_flags(runs: Path, outsiders: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["plan", "--run", str(runs / "model"), "--quick", "--max-steps", "4", "--no-floors"]
    told = answer(capsys, *run, "--planner", "lazy", "--candidates", "4", "--patience", "0.25")
    assert told["protocol"]["settings"] | {"candidates": 4, "patience": 0.25} == told["protocol"]["settings"]
    assert main([*run, "--planner", "clashing"]) == 2 and "called like a flag" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--planner", "hybrid", "--help"])
    shown = capsys.readouterr().out
    assert "--first.candidates" in shown and "--second.std" in shown and "--objective.over" in shown
    hybrid = named_planner("hybrid")
    groups = {name: made for name, made, _ in planner_options(hybrid, {"horizon"})}
    given = type("Given", (), {"first": groups["first"](candidates=99), "second": groups["second"]()})()
    changed = with_horizon(with_options(hybrid, given), 5)
    assert isinstance(changed, Hybrid) and changed.horizon == 5
    assert settings_of(changed)["first"] | {"planner": "CEM", "candidates": 99} == settings_of(changed)["first"]


def test_a_planner_that_is_no_dataclass_or_needs_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for made, said in ((Plain, "is no dataclass"), (Needy, "settings without a default")):
        monkeypatch.setattr("foreworld.cli.planner_flags.find", lambda kind, name, made=made: made)
        with pytest.raises(ConfigError, match=said):
            named_planner("other")
