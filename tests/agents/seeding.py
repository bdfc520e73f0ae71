"""How bugs are put into code that is right: around a function, or in its source."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

Seed = Callable[[pytest.MonkeyPatch], None]
"""Puts a bug in, for as long as the patch lasts."""


def around(owner: Any, name: str, wrong: Callable[..., Any]) -> Seed:
    """Call `wrong` instead of a function; its first argument is the function that is right."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **fields: wrong(right, *args, **fields))

    return seed


def rewritten(owner: Any, name: str, right: str, wrong: str) -> Seed:
    """Replace words in the source of a method, or of a function as a module knows it."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        function = inspect.unwrap(getattr(owner, name))
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(right) != 1:
            raise LookupError(f"{owner.__name__}.{name} does not say {right!r} once; seed this bug in another way")
        found: dict[str, Any] = {}
        exec(source.replace(right, wrong), function.__globals__, found)
        patch.setattr(owner, name, found[name])

    return seed


def both(*seeds: Seed) -> Seed:
    """Put several changes in, which are one bug together."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        for one in seeds:
            one(patch)

    return seed


Check = Callable[[], None]


def pairs(bugs: dict[Check, dict[str, Seed]]) -> Any:
    """Turn a test with the arguments `check` and `seed` into one per bug."""
    every = [
        pytest.param(check, seed, id=f"{name}-{check.__name__.removeprefix('check_')}")
        for check, seeds in bugs.items()
        for name, seed in seeds.items()
    ]
    return pytest.mark.parametrize(("check", "seed"), every)


def expect_caught(check: Check, seed: Seed) -> None:
    """Fail unless a check fails on its own account while the bug is in."""
    with pytest.MonkeyPatch.context() as patch:
        seed(patch)
        with pytest.raises(AssertionError):
            check()
