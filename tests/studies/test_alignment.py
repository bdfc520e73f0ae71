"""The shift scan on worlds whose answer is known, and on copies of them that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foreworld.core import Space, Spec
from foreworld.data import Dataset, Episode, Writer, load
from foreworld.envs import make
from foreworld.rollout import collect
from foreworld.studies.alignment import scan
from foreworld.studies.audit import check

CHOICE = Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,))
PUSH = Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,))
STATE = Space(kind="vector", shape=(2,), dtype="float32")
IMAGE = Space(kind="image", shape=(3, 16, 16), dtype="uint8")

Actions = np.ndarray
World = Callable[[np.random.Generator, Actions], dict[str, np.ndarray]]


def cart(rng: np.random.Generator, push: Actions) -> dict[str, np.ndarray]:
    """A cart that the actions in [-1, 1] push at once, with friction and some noise."""
    state = np.zeros((len(push), 2), np.float32)
    state[0] = rng.normal(size=2)
    for t in range(1, len(push)):
        speed = 0.9 * state[t - 1, 1] + push[t] + 0.05 * rng.normal()
        state[t] = state[t - 1, 0] + 0.2 * speed, speed
    return {"obs": state}


def late_cart(rng: np.random.Generator, push: Actions) -> dict[str, np.ndarray]:
    """A cart that answers a part of an action at once, and more of it a row later."""
    smooth = 0.4 * push
    smooth[1:] += 0.6 * push[:-1]
    return cart(rng, smooth)


def game(rng: np.random.Generator, push: Actions) -> dict[str, np.ndarray]:
    """A picture with a player of two pixels, whom the actions move up and down, among cars that they do not."""
    picture = np.zeros((len(push), 3, 16, 16), np.uint8)
    y, cars = 8, rng.integers(0, 16, 5)
    for t in range(len(push)):
        y = int(np.clip(y + np.sign(push[t]), 1, 14))
        picture[t, :, range(2, 12, 2), (cars + t) % 16] = 160
        picture[t, :, y, 7:9] = 255
    return {"image": picture}


def both(rng: np.random.Generator, push: Actions) -> dict[str, np.ndarray]:
    return {**game(rng, push), "obs": rng.normal(size=(len(push), 2)).astype(np.float32)}


def write(
    path: Path,
    world: World,
    action: Space = CHOICE,
    *,
    shift: int = 0,
    hold: int = 1,
    episodes: int = 12,
    rows: int = 60,
    earn: Callable[[dict[str, np.ndarray], Actions], np.ndarray] | None = None,
    reward_shift: int = 0,
) -> Dataset:
    """Store episodes of a random policy, its actions (or rewards) some rows late (+1) or early (-1)."""
    rng = np.random.default_rng(0)
    spaces = {"obs": STATE, "image": IMAGE}
    keys = world(rng, np.zeros(2))
    with Writer(path, Spec(obs={key: spaces[key] for key in keys}, action=action)) as writer:
        for _ in range(episodes):
            change = rng.random(rows) < 1 / hold
            last = np.maximum.accumulate(np.where(change, np.arange(rows), 0))
            drawn = rng.integers(0, 3, rows) if action is CHOICE else rng.uniform(-1, 1, rows)
            taken = drawn[last]
            taken[0] = 0
            push = taken - 1.0 if action is CHOICE else taken
            push[0] = 0
            obs = world(rng, push)
            reward = None if earn is None else moved(earn(obs, push), reward_shift).astype(np.float32)
            stored = moved(taken, shift).astype(action.dtype).reshape(rows, *action.shape)
            writer.add(Episode(obs=obs, prev_action=stored, reward=reward))
    return load(path)


def moved(values: np.ndarray, rows: int) -> np.ndarray:
    found = np.roll(values, rows, 0)
    found[:1] = 0
    return found


@pytest.mark.parametrize(("shift", "verdict", "best"), [(0, "aligned", 0), (-1, "shifted", -1), (1, "shifted", 1)])
@pytest.mark.parametrize(
    ("world", "action", "hold"),
    [(cart, CHOICE, 1), (cart, PUSH, 1), (cart, CHOICE, 4), (game, CHOICE, 1), (both, PUSH, 1)],
)
def test_a_shift_by_one_row_is_found(
    tmp_path: Path, world: World, action: Space, hold: int, shift: int, verdict: str, best: int
) -> None:
    found = scan(write(tmp_path / "d", world, action, shift=shift, hold=hold))
    assert (found.verdict, found.best) == (verdict, best)
    by_shift = {s.shift: s for s in found.shifts}
    assert by_shift[best].low > 0.2
    assert all(s.lead_low <= 0 for s in found.shifts) == (verdict == "aligned")


def test_actions_that_do_nothing_are_no_error(tmp_path: Path) -> None:
    data = write(tmp_path / "d", lambda rng, push: cart(rng, rng.uniform(-1, 1, len(push))))
    found = scan(data)
    assert found.verdict == "unseen"
    assert max(s.share for s in found.shifts) < 0.02
    audit = check(tmp_path / "d")
    assert audit.ok
    assert any("no effect of the actions" in finding.message for finding in audit.findings)


def test_a_world_that_answers_late_is_a_warning(tmp_path: Path) -> None:
    found = scan(write(tmp_path / "d", late_cart))
    assert found.best == -1
    assert found.verdict == "unclear"
    audit = check(tmp_path / "d")
    assert audit.ok
    assert "answers late" in audit.findings[0].message


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_policy_that_reacts_is_not_taken_for_a_shift(tmp_path: Path, noise: float) -> None:
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "d", Spec(obs={"obs": STATE}, action=PUSH)) as writer:
        for _ in range(12):
            state, action = np.zeros((80, 2), np.float32), np.zeros((80, 1), np.float32)
            state[0] = rng.normal(size=2)
            for t in range(1, 80):
                wanted = -0.5 * state[t - 1].sum() + noise * rng.normal()
                action[t] = np.clip(wanted, -1, 1)
                speed = 0.9 * state[t - 1, 1] + action[t, 0] + 0.3 * rng.normal()
                state[t] = state[t - 1, 0] + 0.2 * speed, speed
            writer.add(Episode(obs={"obs": state}, prev_action=action))
    assert scan(load(tmp_path / "d")).verdict == "aligned"


@pytest.mark.parametrize(("shift", "verdict"), [(0, "aligned"), (-1, "shifted"), (1, "shifted")])
def test_rewards_that_depend_on_the_action_are_aligned_too(tmp_path: Path, shift: int, verdict: str) -> None:
    data = write(tmp_path / "d", cart, PUSH, earn=lambda obs, push: -np.square(push), reward_shift=shift)
    found = scan(data, "reward")
    assert found.verdict == verdict
    assert found.best == shift
    assert check(tmp_path / "d").ok == (shift == 0)


def test_rewards_that_two_rows_explain_alike_are_let_pass(tmp_path: Path) -> None:
    data = write(tmp_path / "d", cart, PUSH, earn=lambda obs, push: moved(obs["obs"][:, 0], 1))
    assert scan(data, "reward").verdict == "aligned"


def test_one_long_episode_is_judged_in_stretches(tmp_path: Path) -> None:
    for shift, verdict in ((0, "aligned"), (1, "shifted")):
        data = write(tmp_path / f"d{shift}", cart, episodes=1, rows=600, shift=shift)
        assert scan(data).verdict == verdict


def test_where_there_is_nothing_to_align_it_says_why(tmp_path: Path) -> None:
    with Writer(tmp_path / "video", Spec(obs={"image": IMAGE}, action=None)) as writer:
        writer.add(Episode(obs=game(np.random.default_rng(0), np.ones(30))))
    assert scan(load(tmp_path / "video")).reason == "no actions: nothing to align"
    still = write(tmp_path / "still", cart, hold=1000)
    assert "too few" in scan(still).reason
    assert check(tmp_path / "still").ok


def test_the_scan_is_the_same_every_time(tmp_path: Path) -> None:
    data = write(tmp_path / "d", game)
    told: list[tuple[int, int]] = []
    assert scan(data, progress=lambda done, total: told.append((done, total))) == scan(data)
    assert told == [(fold, 5) for fold in range(1, 6)]


WORLDS = [
    ("CartPole-v1", 150, None),
    ("Pendulum-v1", 12, None),
    ("MountainCar-v0", 12, None),
    ("Acrobot-v1", 8, None),
    ("MiniGrid-Empty-5x5-v0", 30, None),
    ("ALE/Freeway-v5", 8, 400),
    ("ALE/Pong-v5", 8, 400),
]


@pytest.mark.slow
@pytest.mark.parametrize("repeat", [1, 8])
@pytest.mark.parametrize(("env_id", "episodes", "steps"), WORLDS, ids=[world[0] for world in WORLDS])
def test_collected_data_passes_and_shifted_copies_do_not(
    env_id: str, episodes: int, steps: int | None, repeat: int, tmp_path: Path
) -> None:
    keys = ("image", "direction") if env_id.startswith("MiniGrid") else None
    env = make(env_id, num_envs=4, max_steps=steps, keys=keys)
    data = collect(env, episodes=episodes, repeat=repeat, out=tmp_path / "0")
    env.close()
    audit = check(tmp_path / "0")
    assert audit.ok, audit.findings
    if env_id == "ALE/Pong-v5":
        return  # its paddle shows an action one row late, and little of it
    assert audit.alignments[0].verdict == "aligned"
    for shift in (-1, 1):
        with Writer(tmp_path / str(shift), data.schema.spec) as writer:
            for number in range(data.episodes):
                raw = data.raw(number)
                writer.add(
                    Episode(
                        obs={key: raw[f"obs/{key}"] for key in data.spec.obs},
                        prev_action=moved(raw["prev_action"], shift),
                        reward=raw["reward"],
                        is_terminal=bool(raw["is_terminal"][-1]),
                    )
                )
        found = check(tmp_path / str(shift))
        assert (found.ok, found.alignments[0].best) == (False, shift)
        assert "shifted by one row" in found.findings[0].message
