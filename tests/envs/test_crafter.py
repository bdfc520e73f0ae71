from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from foreworld.core.errors import EnvironmentFault, UnknownName
from foreworld.envs import builder, make
from foreworld.envs.crafter import InOrder

PLAY = """
import hashlib, sys
import numpy as np
from foreworld.envs import builder
held = [object() for _ in range(int(sys.argv[1]))]
env, rng, seen = builder("crafter/reward")(), np.random.default_rng(0), hashlib.sha256()
env.reset(seed=3)
for _ in range(400):
    obs, reward, over, cut, _ = env.step(int(rng.integers(17)))
    seen.update(obs["image"].tobytes())
    if over or cut:
        env.reset()
print(seen.hexdigest())
"""


def test_a_set_in_order() -> None:
    members = InOrder()
    for member in "cab":
        members.add(member)
    members.remove("a")
    members.add("a")
    assert list(members) == ["c", "b", "a"] and len(members) == 3


def test_rows() -> None:
    pytest.importorskip("crafter")
    env = make("crafter/reward", image_size=32, length=5)
    assert {key: space.shape for key, space in env.spec.obs.items()} == {"image": (3, 32, 32)}
    assert {key: space.shape for key, space in env.truth.items()} == {
        "achievements": (22,),
        "inventory": (16,),
        "position": (2,),
    }
    rows = [env.reset(seed=0), *(env.step(np.array([1])) for _ in range(6))]
    assert [bool(row.is_last[0]) for row in rows] == [False] * 5 + [True, False]
    assert not rows[5].is_terminal[0] and rows[6].is_first[0]
    assert rows[0].truth["inventory"][0, :4].tolist() == [9, 9, 9, 9], "health, food, drink, energy"
    env.close()


def test_reward_is_one_for_what_was_never_done_before() -> None:
    pytest.importorskip("crafter")
    paid: Any = builder("crafter/reward")()
    unpaid: Any = builder("crafter/noreward")()
    for env in (paid, unpaid):
        env.reset(seed=0)
        env.unwrapped._env._player.sleeping = True
        env.unwrapped._env._player.inventory["energy"] = 9
    names = paid.unwrapped.achievements
    obs, reward, *_ = paid.step(0)
    assert obs["truth/achievements"][names.index("wake_up")] == 1 and reward == 1.0
    assert unpaid.step(0)[1] == 0.0


def test_death_is_terminal() -> None:
    pytest.importorskip("crafter")
    env: Any = builder("crafter/reward")()
    env.reset(seed=0)
    env.unwrapped._env._player.health = 0
    assert env.step(0)[2:4] == (True, False)


@pytest.mark.slow
def test_a_seed_decides_about_every_creature_in_every_process() -> None:
    pytest.importorskip("crafter")
    run = [subprocess.run([sys.executable, "-c", PLAY, held], capture_output=True, text=True) for held in ("0", "9999")]
    assert run[0].stdout == run[1].stdout and len(run[0].stdout) == 2 * hashlib.sha256().digest_size + 1


def test_what_does_not_exist_is_said() -> None:
    pytest.importorskip("crafter")
    with pytest.raises(UnknownName, match="did you mean 'crafter/reward'"):
        make("crafter/rewards")
    with pytest.raises(EnvironmentFault, match="option was refused"):
        make("crafter/reward", colour="red")
