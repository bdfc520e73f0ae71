from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import foreworld as fw
from foreworld.cli import collect as collect_verb
from foreworld.core.errors import ConfigError, EnvironmentFault, ForeworldError, UnknownName
from foreworld.envs import OpenEpisode, builder, make, restorable
from foreworld.studies.answers import Limits, rank_plans

SOURCE = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Pusher(gym.Env):
    """An arm that is seen and felt."""

    metadata = {"render_modes": [], "render_fps": 5}

    def __init__(self, length=1.0, steps=6):
        self.length, self.steps = length, steps
        self.observation_space = spaces.Dict(
            {"camera": spaces.Box(0, 255, (48, 40, 3), np.uint8), "arm": spaces.Box(-9, 9, (3,), np.float64)}
        )
        self.action_space = spaces.Box(np.array([-1, 0]), np.array([1, 5]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.arm, self.at = self.np_random.uniform(-1, 1, 3) * self.length, 0
        return self.seen(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.at += 1
        self.arm = 0.9 * self.arm + 0.1 * np.array([*action, self.np_random.normal()]).clip(-9, 9)
        return self.seen(), float(self.arm[0]), False, self.at >= self.steps, {}

    def seen(self):
        picture = np.zeros((48, 40, 3), np.uint8)
        picture[: int(24 * (1 + np.tanh(self.arm[0])))] = 200
        return {"camera": picture, "arm": self.arm.copy()}


class Cross:
    pass
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module, to which somebody has gone."""
    (tmp_path / "arms.py").write_text(SOURCE)
    (tmp_path / "broken_arms.py").write_text("import arms\nimport no_such_engine\n")
    (tmp_path / "burning_arms.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("arms", "broken_arms", "burning_arms"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("workers", [False, True], ids=["here", "workers"])
def test_a_picture_and_numbers_with_box_actions_work_everywhere(workers: bool) -> None:
    env = make("arms:Pusher", num_envs=2, workers=workers, image_size=32, length=0.5)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"arm": (3,), "camera": (3, 32, 32)}
    assert env.spec.action is not None and (env.spec.action.low, env.spec.action.high) == ((-1, 0), (1, 5))
    assert (env.spec.fps, env.options["length"]) == (5, 0.5)
    rows = [env.reset(2, [OpenEpisode()] * 2)]
    actions = np.random.default_rng(0).uniform(-2, 7, (9, 2, 2))  # beyond the bounds: clipped
    for action in actions[:4]:
        rows.append(env.step(action))
    stood = env.episodes()
    rows += [env.step(action) for action in actions[4:]]
    assert [bool(r.is_last[0]) for r in rows].index(True) == 6 and rows[7].is_first.all()
    assert env.tally.faults == dict.fromkeys(("refused", "failed", "died", "hung"), 0)
    again = env.reset(2, stood)
    assert env.reopened.all()
    for row, action in zip(rows[4:], [*actions[4:], None], strict=True):
        assert all(np.array_equal(again.obs[key], row.obs[key]) for key in row.obs)
        if action is not None:
            again = env.step(action)
    assert env.episodes()[0].number == 1
    env.close()
    kept = make("arms:Pusher", workers=workers, keys=["camera"])
    assert list(kept.reset().obs) == ["camera"]
    kept.close()
    assert restorable(builder("arms:Pusher")()) is None


def test_a_model_learns_from_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--env", "arms:Pusher", "--episodes", "4", "--out", "pushed", "--image-size", "16", "--json"]
    collect_verb.run([*argv, "--env-options", '{"steps": 9}'])
    assert json.loads(capsys.readouterr().out)["steps"] == 36
    data = fw.load(here / "pushed")
    assert (data.source.env, data.source.options["steps"]) == ("arms:Pusher", 9)
    segment = data.sample(2, 6)
    model = fw.RSSM(data.spec, deter=32, units=16, classes=4, depth=2)
    assert model.losses(segment).total(model.loss_weights).isfinite()
    with pytest.raises(ForeworldError, match="somebody's own code, which is not run because a dataset names it"):
        rank_plans(model, data, None, Limits(), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("env_id", "error", "said"),
    [
        ("armz:Pusher", UnknownName, "there is no module 'armz', neither installed nor in .*; go to its folder"),
        ("arms.more:Pusher", UnknownName, r"there is no module 'arms.more'"),
        ("arms:Pushr", UnknownName, "unknown class of arms 'Pushr'; did you mean 'Pusher'"),
        ("arms:Cross", EnvironmentFault, "is no class of environments; derive it from gymnasium.Env"),
        ("os:system", EnvironmentFault, "is no class of environments"),
        ("broken_arms:Pusher", EnvironmentFault, r"cannot be imported \(ModuleNotFoundError: .*no_such_engine"),
        ("burning_arms:Pusher", EnvironmentFault, r"cannot be imported \(ZeroDivisionError"),
    ],
)
def test_what_cannot_be_found_or_imported_is_said(env_id: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make(env_id)


def test_what_the_class_refuses_is_said() -> None:
    with pytest.raises(EnvironmentFault, match=r"arms:Pusher: cannot be opened \(TypeError: .*colour"):
        make("arms:Pusher", colour="red")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "expected names with values"),
        ('{"num_envs": 3}', "names 'num_envs', which is no option of the environment but a flag"),
    ],
)
def test_options_that_are_no_options_are_said(options: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        collect_verb.run(["--env", "arms:Pusher", "--episodes", "1", "--out", "x", "--env-options", options])


def test_an_id_that_the_module_registers_goes_to_gymnasium(here: Path) -> None:
    (here / "arms.py").write_text(SOURCE + "\ngym.register('Pusher-v7', Pusher)\ngym.register('Plain', Pusher)\n")
    for env_id in ("arms:Pusher-v7", "arms:Plain"):
        env = make(env_id, steps=3)
        assert sorted(env.reset().obs) == ["arm", "camera"]
        env.close()
