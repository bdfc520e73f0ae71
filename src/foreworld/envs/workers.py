"""`Workers`: every environment in a process of its own, watched; one that dies or hangs is started again."""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any

import gymnasium as gym
import numpy as np

from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.envs.driver import Builder, Driver, Faults, derived_seed, step_together
from foreworld.envs.episodes import EpisodeKey
from foreworld.envs.fleet import Fleet
from foreworld.envs.slots import Field, Slots, slot_fields

STEP, RESET, OPEN = b"s", b"r", b"o"
START_SECONDS = 120.0
"""What a process may take until its first answer, however short the timeout of a step is."""

MOST_RESTARTS = 5
"""Restarts of one environment without a single good step, after which it is given up."""

CLOSE_SECONDS = 1.0
ALIGNMENT = 64


class Workers(Fleet):
    """Run every environment in a process of its own, and watch over them.

    Rows and actions travel through shared memory; the pipes carry a few plain bytes. A worker
    that ends, or leaves a command unanswered for `timeout` seconds, is killed and started again with a
    fresh seed, while the others go on: it has not `arrived` until the first row of its new episode comes.

    Processes come from a fork server: a small process without threads, so that neither torch's
    threads nor CUDA are ever forked, and a restart takes milliseconds. As with every way to start
    processes but fork, a script must put what it runs under `if __name__ == "__main__":`.

    Args:
        builders: one for each environment, picklable.
        env_id: name for messages.
        timeout: seconds that a step or a reset may take.
        fault_rate: share of refused and failed steps above which the run stops.

    Raises:
        EnvironmentFault: a builder cannot be sent to another process.
    """

    def __init__(
        self, builders: Sequence[Builder], env_id: str, *, timeout: float = 60.0, fault_rate: float = 0.01
    ) -> None:
        """Start the processes."""
        if not timeout > 0:
            raise ConfigError(f"timeout is a number of seconds above 0, found {timeout}")
        with closing(builders[0]()) as probe:
            super().__init__(env_id, probe, len(builders), fault_rate)
            fields = slot_fields(probe.observation_space, self.num_envs)
            act = probe.action_space
        action: Field = ((self.num_envs, *(act.shape or ())), np.dtype(act.dtype).str)
        self._memory = _Memory(fields), _Memory({"action": action})
        self.slots = Slots(self.single_observation_space, self._memory[0].arrays())
        self._actions = self._memory[1].arrays()["action"]
        self._timeout = timeout
        self._seed: int | None = None
        self._keys: Sequence[EpisodeKey] | None = None
        self._builders = builders
        self._answered = np.zeros(self.num_envs, bool)
        self._restarts, self._lost_in_a_row = np.zeros((2, self.num_envs), int)
        self._selector = selectors.DefaultSelector()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "foreworld.envs.make"])
        self._workers: list[_Worker] = []
        try:
            for index in range(self.num_envs):
                self._workers.append(self._started(index))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid or 0 for worker in self._workers]

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin a new episode everywhere, and wait for all of them."""
        self._settle()
        self._seed, self._keys = seed, None
        return self._begun([_reset_message(None if seed is None else seed + index) for index in range(self.num_envs)])

    def open(self, keys: Sequence[EpisodeKey]) -> np.ndarray:
        """Begin the episodes of N keys, and wait for all of them."""
        self._settle()
        self._keys = keys
        # a worker that ends before it writes down that it began must not have its episode repeated
        self.slots.episode[:] = [key.number for key in keys]
        return self._begun([OPEN + key.pack() for key in keys])

    def step(self, actions: np.ndarray, who: np.ndarray | None = None) -> np.ndarray:
        """Take one action everywhere, or where [N] told so; one that is being started again is not waited for."""
        self._actions[:] = actions
        for index, worker in enumerate(self._workers):
            if not worker.busy and (who is None or who[index]):
                self._send(index, STEP)
        return self._gather(everyone=who is not None)

    def close(self) -> None:
        """End the processes, also those that hang."""
        for worker in self._workers:
            worker.pipe.close()  # a worker that waits for a command ends by itself
        until = time.monotonic() + CLOSE_SECONDS
        for worker in self._workers:
            worker.end(until - time.monotonic())
        self._workers = []
        self._selector.close()

    def _settle(self) -> None:
        """Wait for those that are being started again."""
        if any(worker.busy for worker in self._workers):
            self._gather(everyone=True)

    def _begun(self, messages: Sequence[bytes]) -> np.ndarray:
        """Send what begins an episode to every worker, and wait for all of them."""
        for index, message in enumerate(messages):
            self._send(index, message)
        return self._gather(everyone=True)

    def _gather(self, everyone: bool) -> np.ndarray:
        """Wait for those that were asked for a step, and for all if told so; at least one row must come."""
        arrived, found = np.zeros(self.num_envs, bool), dict[int, Faults]()
        while not arrived.any() or any(w.busy and (everyone or not w.starting) for w in self._workers):
            patience = min(worker.deadline for worker in self._workers if worker.busy) - time.monotonic()
            ready = self._selector.select(max(patience, 0))
            for key, _ in ready:
                message = self._received(key.data)
                if message is not None:
                    arrived[key.data] = True
                if message:
                    found[key.data] = Faults.unpack(message)
            if not ready:
                now = time.monotonic()
                for index, worker in enumerate(self._workers):
                    if worker.busy and worker.deadline <= now:
                        self._lose(index, hung=True)
        return self._count(arrived, found)

    def _received(self, index: int) -> bytes | None:
        """Return what a worker said of the row that it put: its faults, almost always none. None if no row came."""
        worker = self._workers[index]
        if not worker.busy:
            # It died after its row came. Another in its place now would write over that row, which lies in shared
            # memory until the caller has copied it: so the death is noticed by the next command.
            self._selector.unregister(worker.pipe)
            worker.pipe.close()
            return None
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            self._lose(index, hung=False)
            return None
        worker.busy = worker.starting = False
        self._answered[index] = True
        if not self.slots.first[index]:
            self._lost_in_a_row[index] = 0
        return message

    def _send(self, index: int, message: bytes) -> None:
        worker = self._workers[index]
        patience = max(self._timeout, START_SECONDS) if worker.starting else self._timeout
        worker.busy, worker.deadline = True, time.monotonic() + patience
        try:
            worker.pipe.send_bytes(message)
        except OSError:
            self._lose(index, hung=False)

    def _lose(self, index: int, hung: bool) -> None:
        """Kill a worker for good, count it, and start another in its place."""
        worker = self._workers[index]
        if not worker.pipe.closed:
            self._selector.unregister(worker.pipe)
            worker.pipe.close()
        worker.end(0)
        self.tally.hung += hung
        self.tally.died += not hung
        self._restarts[index] += 1
        self._lost_in_a_row[index] += 1
        if self._lost_in_a_row[index] >= MOST_RESTARTS:
            what = "did not answer in time" if hung else "ended"
            unguarded = 'a script must put what it runs under `if __name__ == "__main__":`'
            raise EnvironmentFault(
                f"{self.env_id}, environment {index}: its process {what}, {MOST_RESTARTS} times without a good step "
                f"between; {'run it without workers to see why' if self._answered[index] else unguarded}"
            )
        self._workers[index] = self._started(index)
        self._send(index, self._fresh(index))

    def _fresh(self, index: int) -> bytes:
        """Return what makes a new worker begin an episode that was not played before."""
        if self._keys is not None:
            self.slots.episode[index] += 1
            return OPEN + self._keys[index]._replace(number=int(self.slots.episode[index])).pack()
        return _reset_message(
            None if self._seed is None else derived_seed(self._seed, index, int(self._restarts[index]))
        )

    def _started(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (self._builders[index], self.single_observation_space, index, *self._memory, theirs)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        try:
            process.start()
        except Exception as fault:
            ours.close()
            said = f"{self.env_id}: cannot be started in a worker process ({type(fault).__name__}: {fault})"
            raise EnvironmentFault(f"{said}; it must be defined in a module that can be imported") from fault
        finally:
            theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, index)
        return _Worker(process, ours)


@dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, and what it owes."""

    process: ForkServerProcess
    pipe: Connection
    starting: bool = True
    busy: bool = False
    deadline: float = 0.0
    ended: bool = False

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, then kill it; once it has ended, do nothing."""
        if self.ended:
            return
        self.ended = True
        self.process.join(max(patience, 0))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class _Memory:
    """Arrays in memory that this process shares with its workers; nothing of it has a name to be left behind."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = dict(fields)
        self._buffer = RawArray("b", max(1, sum(_padded(field) for field in fields.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return views of the memory by name."""
        found, at = {}, 0
        for name, field in self._fields.items():
            shape, dtype = field
            count = math.prod(shape)
            found[name] = np.frombuffer(self._buffer, dtype, count, at).reshape(shape)
            at += _padded(field)
        return found


def _padded(field: Field) -> int:
    shape, dtype = field
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT


def _reset_message(seed: int | None) -> bytes:
    return RESET if seed is None else RESET + str(seed).encode()


def _serve(
    build: Builder, space: gym.Space[Any], index: int, rows: _Memory, actions: _Memory, pipe: Connection
) -> None:
    """Answer commands until the pipe is closed; what a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    _end_with_parent()
    mine = slice(index, index + 1)
    slots = Slots(space, {name: array[mine] for name, array in rows.arrays().items()})
    taken = actions.arrays()["action"][mine]
    with closing(Driver(build, slots, 0)) as driver, suppress(EOFError, OSError):
        while True:
            command = pipe.recv_bytes()
            if command == STEP:
                faults = step_together([driver], slots, taken.copy()).get(0)
            elif command.startswith(OPEN):
                faults = driver.open(EpisodeKey.unpack(command[len(OPEN) :]))
            else:
                faults = driver.reset(int(command[len(RESET) :]) if len(command) > len(RESET) else None)
            pipe.send_bytes(faults.pack() if faults else b"")


def _end_with_parent() -> None:
    """Ask the system for a SIGIO, which ends this process whatever it is busy with, when the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
