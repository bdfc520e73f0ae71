"""Is damage found? Flipped bits, cut files, files made to deceive: each must be refused and named."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreworld.core.errors import ForeworldError
from foreworld.core.files import list_files
from foreworld.data import load
from foreworld.testing.faults import Tally, flip_bit, in_child
from foreworld.testing.hostile import Attack, attacks
from foreworld.testing.survival import Model, train, write_store
from foreworld.train import load_run
from foreworld.train.checkpoint import list_checkpoints, load_training
from foreworld.train.offline import FitConfig, make_optimizer

MOST_MEMORY = 256 * 2**20
MOST_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """Something stored, and what opens it as if for the first time.

    Attributes:
        folder: where it lies.
        files: what may be damaged in it.
        open: opens all of it; raises where it is damaged.
    """

    folder: Path
    files: tuple[Path, ...]
    open: Callable[[], object]


def targets(home: Path, make: Model) -> tuple[Target, Target]:
    """Make a store and a run, both small.

    Args:
        home: an empty folder.
        make: builds a small model for `survival.SPEC`.
    """
    store, run = home / "store", home / "run"
    write_store(store, 4)
    data = load(store)
    train(run, data, make, 1)

    def open_store() -> object:
        (store / "verified.json").unlink(missing_ok=True)  # as in a copy: nothing is remembered
        return load(store).sample(1, 2)

    def open_run() -> object:
        found = load_run(run)
        found.training_data()
        return load_training(list_checkpoints(run / "checkpoints")[-1], make_optimizer(found.model, FitConfig()))

    open_run()
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    kept = [store / name for name in list_files(store) if name not in ("verified.json", ".lock")]
    of_run = [run / "config.json", *(checkpoint / name for name in list_files(checkpoint))]
    return Target(store, tuple(kept), open_store), Target(run, tuple(of_run), open_run)


def damage(target: Target, flips: int, truncations: int, seed: int) -> Tally:
    """Flip single bits and cut files, one at a time, and open what is left.

    Half of the flips are spread over the files alike, so that small ones get their share; half over the bytes.
    """
    draw = np.random.default_rng(seed)
    sizes = np.array([file.stat().st_size for file in target.files])
    lost: list[str] = []
    for number in range(flips):
        chosen = draw.integers(len(sizes)) if number % 2 else draw.choice(len(sizes), p=sizes / sizes.sum())
        file, bit = target.files[chosen], int(draw.integers(8 * sizes[chosen]))
        flip_bit(file, bit)
        lost += _refused(target.open, file.name, f"bit {bit} of {file.name} flipped")
        flip_bit(file, bit)
    for _ in range(truncations):
        chosen = draw.integers(len(sizes))
        file, size = target.files[chosen], int(draw.integers(sizes[chosen]))
        content = file.read_bytes()
        os.truncate(file, size)
        lost += _refused(target.open, file.name, f"{file.name} cut to {size} bytes")
        file.write_bytes(content)
    target.open()  # the loop restored everything, or the counts mean nothing
    return Tally(flips=flips, truncations=truncations, losses=tuple(lost))


def deceive(home: Path, make: Model, count: int) -> Tally:
    """Open hostile files, one after another, in a child whose memory and opened files are watched.

    Args:
        home: an empty folder.
        make: builds a small model.
        count: how many to open; spread over all that there are.
    """
    store, run = targets(home, make)
    outside = home / "outside"
    outside.mkdir()
    every = attacks(store.folder, run.folder, outside)
    chosen = [every[int(i)] for i in np.linspace(0, len(every) - 1, min(count, len(every)))]
    return open_hostile(chosen, (store, run), outside)


def open_hostile(chosen: Sequence[Attack], honest: Sequence[Target], outside: Path) -> Tally:
    """Make one attack after another on targets that are honest before and after, and open what is attacked.

    Args:
        chosen: the attacks.
        honest: what they are on.
        outside: a folder that nothing may be opened in.
    """
    code, lost = in_child(lambda: _open_all(chosen, honest, outside))
    if code:
        lost = [f"opening hostile files ended with exit code {code}"]
    return Tally(hostile_files=len(chosen), losses=tuple(lost))


def _open_all(chosen: Sequence[Attack], honest: Sequence[Target], outside: Path) -> list[str]:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_virtual() + 8 * 2**30, hard))  # so that a failure stays a failure
    opened: list[str] = []
    looks = ("open", "os.listdir", "os.scandir")
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event in looks else None)
    lost: list[str] = []
    before = _peak()
    for attack in chosen:
        target = next(one for one in honest if one.folder == attack.folder)
        undo = attack.place()
        opened.clear()
        started = time.thread_time()
        lost += _refused(target.open, "", attack.name)
        if (grown := _peak() - before) > MOST_MEMORY:
            lost.append(f"{attack.name}: took {grown >> 20} MiB")
        if (took := time.thread_time() - started) > MOST_SECONDS:
            lost.append(f"{attack.name}: took {took:.1f} s")
        lost += [f"{attack.name}: opened {path}" for path in opened if _inside(path, outside)]
        undo()
    for target in honest:
        target.open()
    return lost


def _refused(work: Callable[[], object], name: str, what: str) -> list[str]:
    """Return what is wrong when work is not refused by an error of ours that names a file."""
    try:
        work()
    except ForeworldError as fault:
        return [] if name in str(fault) else [f"{what}: the file is not named: {fault}"]
    except Exception as fault:
        return [f"{what}: {type(fault).__name__}: {str(fault)[:200]}"]
    return [f"{what}: accepted"]


def _inside(path: str, folder: Path) -> bool:
    """Return whether a path lies in a folder once links on the way are followed; the last name is not followed."""
    parent, _, name = path.rpartition("/")
    return (Path(os.path.realpath(parent)) / name).is_relative_to(folder)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
