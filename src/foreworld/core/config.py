"""Config dataclasses to JSON and back; unknown keys are refused."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from foreworld.core.errors import ConfigError
from foreworld.core.registry import unknown

C = TypeVar("C")


def to_json(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain JSON values.

    Args:
        config: a dataclass, its fields again dataclasses, lists, dictionaries or plain values.

    Returns:
        Field name to value.
    """
    return asdict(config)


def from_json(cls: type[C], values: dict[str, Any], where: str = "config") -> C:
    """Build a config dataclass from JSON values.

    Args:
        cls: the dataclass to build; nested dataclasses and tuples are followed.
        values: field name to value.
        where: how to name this place in an error.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigError: an unknown field, or a value that the class refuses.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object with fields, found {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: {unknown('field', name, known)}")
    try:
        return cls(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(a for a in typing.get_args(hint) if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected an object, found {value!r}")
        return {k: _value(typing.get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where}: {unknown('value', str(value), [str(a) for a in typing.get_args(hint)])}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
