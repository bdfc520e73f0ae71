from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from foreworld.core.errors import EnvironmentFault
from foreworld.envs import Vector, Workers, make
from foreworld.envs.driver import derived_seed
from foreworld.testing.watching import Trouble, TroubledEnv, troubled


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def vector(count: int = 2, timeout: float = 30.0) -> tuple[Vector, Workers]:
    fleet = Workers([troubled] * count, "Troubled", timeout=timeout)
    return Vector(fleet, "Troubled"), fleet


def test_a_killed_worker_comes_back_with_another_episode_and_the_others_go_on() -> None:
    env, fleet = vector()
    rows = env.reset(seed=0)
    mine, first = rows.truth["episode"].tolist(), fleet.pids[0]
    os.kill(first, signal.SIGKILL)
    waited = 0
    while not (rows := env.step(np.zeros(2, int))).arrived[0]:
        assert rows.arrived[1] and not rows.is_first[0] and not rows.is_last[0]
        waited += 1
    assert waited > 0, "nobody waits for a process that is being started"
    assert rows.is_first[0] and rows.prev_action[0] == 0 and rows.truth["episode"][0] not in mine
    assert env.tally.faults == {"refused": 0, "failed": 0, "died": 1, "hung": 0} and env.tally.restarts == 1
    assert fleet.pids[0] != first and not alive(first)
    env.close()


def test_the_only_worker_is_waited_for() -> None:
    env, fleet = vector(count=1)
    env.reset(seed=0)
    os.kill(fleet.pids[0], signal.SIGKILL)
    rows = env.step(np.zeros(1, int))
    assert rows.arrived.all() and rows.is_first.all()
    env.close()


def test_a_worker_that_hangs_or_is_stopped_is_killed_in_time() -> None:
    env, fleet = vector(count=3, timeout=0.4)
    env.reset(seed=0)
    before = fleet.pids
    os.kill(before[0], signal.SIGSTOP)
    began = time.monotonic()
    rows = env.step(np.array([0, Trouble.HANG, 2]))
    assert 0.4 <= time.monotonic() - began < 30
    assert rows.arrived.tolist() == [False, False, True] and rows.prev_action[2] == 2
    assert (env.tally.hung, env.tally.died) == (2, 0)
    assert not alive(before[0]) and not alive(before[1])
    env.close()


def test_a_row_that_was_sent_before_the_death_still_arrives() -> None:
    env, fleet = vector(count=1)
    first = env.reset(seed=0)
    fleet._actions[:] = 3
    fleet._send(0, b"s")
    time.sleep(0.3)
    os.kill(fleet.pids[0], signal.SIGKILL)
    assert fleet._gather(everyone=False).all() and fleet.slots.obs["count"][0, :2].tolist() == [1, 3]
    assert fleet.slots.obs["truth/episode"].tolist() == first.truth["episode"].tolist()
    env.close()


def test_a_death_after_the_row_came_does_not_touch_the_row() -> None:
    env, fleet = vector(timeout=1.0)
    first = env.reset(seed=0)
    killer = threading.Timer(0.4, os.kill, (fleet.pids[0], signal.SIGKILL))
    killer.start()
    rows = env.step(np.array([3, Trouble.HANG]))
    killer.join()
    assert rows.arrived[0] and not rows.is_first[0] and rows.obs["count"][0, :2].tolist() == [1, 3]
    assert rows.truth["episode"][0] == first.truth["episode"][0]
    assert env.tally.died == 0, "noticed by the next command"
    while not (rows := env.step(np.zeros(2, int))).arrived[0]:
        pass
    assert rows.is_first[0] and env.tally.died == 1
    env.close()


def test_an_environment_that_never_gets_anywhere_is_given_up() -> None:
    env, _ = vector(count=1)
    env.reset(seed=0)
    said = "environment 0: its process ended, 5 times without a good step between; run it without workers"
    with pytest.raises(EnvironmentFault, match=said):
        for _ in range(10):
            env.step(np.array([Trouble.EXIT]))
    assert env.tally.died == 5
    env.close()


def test_a_good_step_starts_the_count_anew() -> None:
    env, _ = vector(count=1)
    rows = env.reset(seed=0)
    while env.tally.died < 7:
        rows = env.step(np.array([Trouble.EXIT if not rows.is_last[0] and rows.obs["count"][0, 0] else 0]))
    env.close()


def test_a_process_that_never_starts_is_explained() -> None:
    fleet = Workers([troubled], "Troubled")
    fleet._builders = [os.abort]  # type: ignore[list-item]
    os.kill(fleet.pids[0], signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match='if __name__ == "__main__"'):
        fleet.reset()
    fleet.close()


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot be started in a worker process .*must be defined in a module"):
        Workers([lambda: TroubledEnv()], "Troubled")


def test_closing_ends_every_process_also_one_that_hangs() -> None:
    env, fleet = vector(count=3)
    env.reset(seed=0)
    fleet._actions[:] = [0, Trouble.HANG, 0]
    for index in range(3):
        fleet._send(index, b"s")
    pids = fleet.pids
    env.close()
    env.close()
    assert not any(alive(pid) for pid in pids)


def test_a_later_reset_begins_everywhere_again() -> None:
    env, fleet = vector()
    first = env.reset(seed=4).truth["episode"].tolist()
    os.kill(fleet.pids[1], signal.SIGKILL)
    env.step(np.zeros(2, int))  # leaves one that is being started
    rows = env.reset(seed=4)
    assert rows.is_first.all() and rows.arrived.all() and rows.truth["episode"].tolist() == first
    env.close()


def test_an_environment_registered_by_hand_reaches_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gym.envs.registration.EnvSpec("ByHand-v0", "foreworld.testing.watching:TroubledEnv")
    monkeypatch.setitem(gym.registry, "ByHand-v0", spec)
    env = make("ByHand-v0", workers=True, max_steps=3)
    env.reset(seed=0)
    assert [bool(env.step(np.array([1])).is_last[0]) for _ in range(4)] == [False, False, True, False]
    env.close()


def test_seeds_differ_by_environment_and_restart() -> None:
    seeds = {derived_seed(seed, index, restart) for seed in range(5) for index in range(5) for restart in range(20)}
    assert len(seeds) == 500 and all(0 <= seed < 2**31 for seed in seeds)


ORPHANS = """
import numpy as np
from foreworld.envs import Workers
from foreworld.testing.watching import Trouble, troubled
fleet = Workers([troubled] * 2, "Troubled")
fleet.reset(seed=0)
print(*fleet.pids, flush=True)
fleet.step(np.array([0, Trouble.HANG]))
"""


def test_workers_die_with_their_parent_also_one_that_hangs() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        time.sleep(0.3)
        parent.kill()
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))
