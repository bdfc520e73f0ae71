"""What the verbs share: parsing, output, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from foreworld.core.errors import ConfigError, DataError
from foreworld.core.files import finite

T = TypeVar("T")

Row = Sequence[str | float | int | None]


def parse(options: type[T], argv: list[str], verb: str) -> T:
    """Parse a verb's arguments into its options; the class's docstring is its help.

    Exits with code 2 and a suggestion when an argument is wrong.
    """
    return tyro.cli(
        options,
        args=argv,
        prog=f"foreworld {verb}",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
    )


def environment_options(text: str, opener: Callable[..., Any]) -> dict[str, Any]:
    """Read the options of an environment, one JSON object; an empty text is none.

    Args:
        text: what was given to `--env-options`.
        opener: what they are passed to; its own parameters cannot be given here.

    Returns:
        Name to value.

    Raises:
        ConfigError: it is something else, or names a parameter of `opener`.

    Example:
        >>> environment_options('{"gravity": 1.62}', print)
        {'gravity': 1.62}
    """
    try:
        found = json.loads(text or "{}")
    except ValueError as fault:
        raise ConfigError(f"--env-options {text}: no JSON ({fault}); quote it: '{{\"gravity\": 1.62}}'") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--env-options {text}: expected names with values, for example '{{\"gravity\": 1.62}}'")
    for name in found:
        if name in signature(opener).parameters:
            raise ConfigError(f"--env-options names {name!r}, which is no option of the environment but a flag")
    return found


def print_json(value: Any) -> None:
    """Print one JSON object on standard output; what is not finite becomes null."""
    print(json.dumps(finite(value), indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table on standard output; numbers at the right, three digits."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="", pad_edge=False, box=SIMPLE)
    for i, column in enumerate(columns):
        numeric = all(not isinstance(row[i], str) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(
            *("–" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row)
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def say(message: str, quiet: bool = False) -> None:
    """Print a line for people on standard error."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


def existing(path: Path, what: str) -> Path:
    """Return a path that must exist.

    Raises:
        DataError: it does not.
    """
    if not path.exists():
        raise DataError(f"{path}: no such {what}")
    return path


def difference(before: Any, after: Any) -> str:
    """Say which settings differ between two configs, and how."""
    old, new = _fields(before), _fields(after)
    return ", ".join(f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name])


def _fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Name every setting by its dotted path."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        found |= _fields(value, f"{prefix}{name}.") if is_dataclass(value) else {f"{prefix}{name}": value}
    return found


def device(name: str) -> str:
    """Return the device to compute on; `auto` is cuda where there is one.

    Raises:
        ConfigError: cuda is asked for, and there is none.
    """
    if name != "auto":
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"--device {name}: no CUDA device was found; use --device cpu")
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
