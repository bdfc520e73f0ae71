"""Faults on purpose, for whoever writes a store of their own: calls that fail, deaths at a chosen moment, damage.

Everything here works on any code that reaches the disk through the functions of `os`.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

CHANGING = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
"""Calls of `os` that change what is on the disk."""
FAILING = ("open", "write", "fsync", "rename", "replace", "mkdir")
"""Calls of `os` that a full or broken disk refuses."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many faults were put, and what was lost by them.

    Attributes:
        kills: processes killed.
        kills_inside_saves: those of them that were killed while they saved.
        flips: single bits turned.
        truncations: files cut short.
        hostile_files: files made to do harm.
        injected_errors: calls to the disk that were made to fail.
        losses: what was lost, one sentence each; none at best.
    """

    kills: int = 0
    kills_inside_saves: int = 0
    flips: int = 0
    truncations: int = 0
    hostile_files: int = 0
    injected_errors: int = 0
    losses: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Add two tallies, field by field."""
        ours, theirs = vars(self), vars(other)
        return replace(self, **{name: ours[name] + theirs[name] for name in ours})

    def counts(self) -> dict[str, int]:
        """Return the counts as JSON values, losses counted."""
        return {**asdict(self), "losses": len(self.losses)}


@contextmanager
def watch_calls(
    names: tuple[str, ...], act: Callable[[int, str, Callable[[], Any], tuple[Any, ...]], Any]
) -> Iterator[list[str]]:
    """Let `act(number, name, call, arguments)` stand in for every call of some functions of `os`.

    Args:
        names: functions of `os`.
        act: does the call or not, and returns what the caller gets.

    Yields:
        The names called so far.
    """
    seen: list[str] = []
    real = {name: getattr(os, name) for name in names}

    def standing_in(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            return act(len(seen), name, lambda: real[name](*arguments, **options), arguments)

        return call

    for name in names:
        setattr(os, name, standing_in(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


@contextmanager
def failing(at: int, code: int, *, for_good: bool = False) -> Iterator[list[str]]:
    """Make the n-th call that reaches the disk fail.

    Args:
        at: which one, from 1.
        code: the `errno` of the failure.
        for_good: all later ones fail too, as on a disk that stays full.

    Yields:
        The calls so far, by name.

    Raises:
        OSError: at the chosen call, inside the block.

    Example:
        >>> import errno, tempfile
        >>> from foreworld.core.files import write_json
        >>> with tempfile.TemporaryDirectory() as folder, failing(2, errno.ENOSPC):
        ...     write_json(Path(folder) / "x.json", 1)
        Traceback (most recent call last):
        foreworld.core.errors.WriteFailed: ... free space on its disk ...
    """

    def act(number: int, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        if number == at or (for_good and number > at):
            raise OSError(code, os.strerror(code), str(arguments[0]) if name == "open" else None)
        return call()

    with watch_calls(FAILING, act) as seen:
        yield seen


@contextmanager
def dying(at: int, *, after: bool = False) -> Iterator[list[str]]:
    """Kill this process at the n-th call that changes the disk; a write is cut in the middle.

    Args:
        at: which one, from 1.
        after: die when the call is done, not before it.

    Yields:
        The calls so far, by name.
    """

    def act(number: int, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        if number != at:
            return call()
        if after:
            call()
        elif name == "write" and len(arguments[1]) > 1:
            half = memoryview(arguments[1]).cast("B")
            os.pwrite(arguments[0], half[: len(half) // 2], os.lseek(arguments[0], 0, os.SEEK_CUR))
        os.kill(os.getpid(), signal.SIGKILL)

    with watch_calls(CHANGING, act) as seen:
        yield seen


def in_child(work: Callable[[], Any], kill_after: float | None = None) -> tuple[int, Any]:
    """Do work in a forked process.

    Args:
        work: what it does; what it returns must be a JSON value.
        kill_after: seconds after which it is killed, if it still runs.

    Returns:
        Exit code (negative: the signal it died of), and what the work returned, or None.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            answer = json.dumps(work()).encode()
            os.write(writing, answer)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(answer) if answer else None


def flip_bit(path: Path, bit: int) -> None:
    """Flip one bit of a file in place; again restores it.

    Args:
        path: the file.
        bit: which bit, from 0.
    """
    with path.open("r+b") as file:
        file.seek(bit // 8)
        value = file.read(1)[0] ^ (1 << bit % 8)
        file.seek(bit // 8)
        file.write(bytes([value]))


def leftovers(folder: Path) -> list[Path]:
    """Find temporary names below a folder."""
    return sorted(path for path in folder.rglob(".partial-*"))
