from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import foreworld as fw
from foreworld.cli.main import main
from foreworld.core import Space
from foreworld.core.errors import ConfigError, EnvironmentFault, UnknownName
from foreworld.envs import Rows, make
from foreworld.rollout.collect import RECORDED
from foreworld.rollout.policies import NoisyPolicy, RandomPolicy, WalkPolicy
from foreworld.worlds import Guided, build

BOX = Space(kind="vector", shape=(2,), dtype="float32", low=(-2.0, 0.0), high=(2.0, 1.0))


def rows(first: list[bool], arrived: list[bool] | None = None) -> Rows:
    n = len(first)
    no = np.zeros(n, bool)
    return Rows(
        obs={},
        prev_action=np.zeros((n, 2), np.float32),
        reward=np.zeros(n),
        is_first=np.array(first),
        is_terminal=no,
        is_last=no,
        truth={},
        arrived=~no if arrived is None else np.array(arrived),
    )


def test_a_walk_keeps_its_direction_and_turns_a_little() -> None:
    policy = WalkPolicy(BOX, seed=3, turn=0.2)
    acts = np.stack([policy(rows([t == 0] * 500)) for t in range(40)], 1)
    assert acts.dtype == np.float32 and acts.shape == (500, 40, 2)
    way = (acts - (0, 0.5)) / (2, 0.5)  # in half ranges around the middle
    length = np.linalg.norm(way, axis=2)
    assert length.min() > 0.079 and length.max() < 0.751 and length.mean() == pytest.approx(0.41, abs=0.02)
    angle = np.arctan2(way[..., 1], way[..., 0])
    turn = (np.diff(angle, axis=1) + np.pi) % (2 * np.pi) - np.pi
    assert turn.std() == pytest.approx(0.2, rel=0.05) and abs(turn.mean()) < 0.01
    assert abs(np.cos(angle[:, 0]).mean()) < 0.1, "and begins anywhere"


def test_an_episode_begins_with_a_direction_of_its_own_and_a_row_that_did_not_arrive_changes_nothing() -> None:
    policy = WalkPolicy(BOX, seed=0, turn=0.0)
    headings = []
    for first, arrived in ((True, True), (False, True), (True, False), (False, True), (True, True)):
        act = policy(rows([first], [arrived]))
        way = (act[0] - (0, 0.5)) / (2, 0.5)
        headings.append(way / np.linalg.norm(way))
    assert np.allclose(headings[0], headings[1], atol=1e-5) and np.allclose(headings[3], headings[0], atol=1e-5)
    assert not np.allclose(headings[4], headings[0], atol=1e-2)


@pytest.mark.parametrize("name", ["TwoRooms", "PointMaze", "Reach", "Catch"])
def test_the_oracle_is_collected_and_earns_more_than_chance(name: str, tmp_path: Path) -> None:
    env = make(f"foreworld/{name}-v0", num_envs=3, image_size=16, max_steps=90)
    found = {who: fw.collect(env, who, episodes=6, out=tmp_path / who) for who in ("random", "oracle")}
    env.close()
    random, oracle = (found[who].summary().return_mean for who in ("random", "oracle"))
    assert oracle > random + 0.5
    assert found["oracle"].source.policy == "oracle" and found["random"].source.policy == "random"
    assert isinstance(build(f"foreworld/{name}-v0"), Guided)


def test_a_walk_gets_further_than_fresh_actions(tmp_path: Path) -> None:
    env = make("foreworld/TwoRooms-v0", num_envs=4, image_size=16, steps=60)
    gone = {}
    for who in ("random", "walk"):
        data = fw.collect(env, who, episodes=12, out=tmp_path / who)
        assert data.source.policy == who
        ways = [data.raw(i)["truth/state"][[0, -1], :2] for i in range(12)]
        gone[who] = np.mean([np.linalg.norm(way[1] - way[0]) for way in ways])
    assert gone["walk"] > gone["random"]
    env.close()


def test_noise_takes_the_place_of_a_policy_in_stretches() -> None:
    told = np.array([1.5, 0.5], np.float32)
    noisy = NoisyPolicy(lambda rows: np.tile(told, (len(rows.is_first), 1)), BOX, noise=0.3, repeat=4, seed=1)
    chance = RandomPolicy(BOX, 1, 4)
    random, drawn = [], []
    for step in range(3000):
        now = rows([step == 0] * 8)
        action, instead = noisy(now), chance(now)
        random.append((action != told).any(1))
        drawn.append(np.where(random[-1][:, None], action == instead, True).all())
    astray = np.array(random)
    assert all(drawn)
    assert 0.27 < astray.mean() < 0.33
    # a new stretch begins at a quarter of the steps, and three tenths of them are random: left after 1 / (0.25 * 0.7)
    left = astray[:-1] & ~astray[1:]
    assert 0.15 < left.sum() / astray[:-1].sum() < 0.2
    with pytest.raises(ConfigError, match=r"found 1\.5"):
        NoisyPolicy(noisy, BOX, noise=1.5)


def test_no_stretch_goes_on_in_another_episode() -> None:
    noisy = NoisyPolicy(lambda rows: np.ones((len(rows.is_first), 2), np.float32), BOX, noise=0.5, repeat=1e9)
    astray = np.array([(noisy(rows([step % 2 == 0] * 400)) != 1).any(1) for step in range(4)])
    assert (astray[0] == astray[1]).all() and (astray[2] == astray[3]).all()
    assert 0.4 < (astray[0] != astray[2]).mean() < 0.6
    waiting = (noisy(rows([True] * 400, [False] * 400)) != 1).any(1)
    assert (waiting == astray[3]).all()


def test_noise_is_written_down_and_refused_before_anything_is_stored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share of random actions"):
        fw.collect("foreworld/TwoRooms-v0", "oracle", episodes=1, noise=2.0, out=tmp_path / "a")
    assert not list(tmp_path.iterdir())
    data = fw.collect("foreworld/TwoRooms-v0", "oracle", steps=20, noise=0.5, repeat=3, out=tmp_path / "a")
    assert data.source.policy == "oracle"
    assert (data.source.options["noise"], data.source.options["repeat"]) == (0.5, 3)
    # whoever opens the environment again leaves out what is said of collecting
    own = {name: value for name, value in data.source.options.items() if name not in RECORDED}
    make(data.source.env, **own).close()


def test_who_cannot_act_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="a walk needs a bounded box"):
        fw.collect("CartPole-v1", "walk", episodes=1, out=tmp_path / "a")
    with pytest.raises(EnvironmentFault, match=r"CartPole-v1: nobody knows.*foreworld/Catch-v0"):
        fw.collect("CartPole-v1", "oracle", episodes=1, out=tmp_path / "b")
    with pytest.raises(EnvironmentFault, match="Pendulum-v0: nobody knows"):
        fw.collect("foreworld/Pendulum-v0", "oracle", episodes=1, out=tmp_path / "c")
    with pytest.raises(UnknownName, match="did you mean 'oracle'"):
        fw.collect("CartPole-v1", "oracel", episodes=1, out=tmp_path / "d")
    assert not list(tmp_path.iterdir())
    args = [
        "collect",
        "--env",
        "foreworld/Fork-v0",
        "--policy",
        "walk",
        "--episodes",
        "1",
        "--out",
        str(tmp_path / "e"),
    ]
    assert main(args) == 2
    assert "has nothing to decide" in capsys.readouterr().err
    alone = ["collect", "--env", "foreworld/Fork-v0", "--noise", "0.5", "--episodes", "1", "--out", str(tmp_path / "e")]
    assert main(alone) == 2
    assert "leave out --policy and --noise" in capsys.readouterr().err


def test_the_command_line_collects_by_name_and_with_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["collect", "--env", "foreworld/PointMaze-v0", "--policy", "oracle", "--episodes", "2", "--json"]
    args += ["--env-options", '{"layout": "medium", "stop": true, "steps": 200}', "--out", str(tmp_path / "d")]
    assert main(args) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["episodes"] == 2 and told["return"] == 1 and told["steps"] < 200
    assert fw.load(tmp_path / "d").source.policy == "oracle"
