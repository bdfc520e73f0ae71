"""Every public name says what it takes, with shapes, gives and raises; those of everyday use show it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
from docstring_parser import DocstringStyle, parse

import foreworld
from foreworld.testing import CHECKS, PLANNER_CHECKS

API = Path(__file__).parents[1] / "docs" / "api"
MODULES = sorted(set(re.findall(r"automodule:: (foreworld[\w.]*)", "".join(p.read_text() for p in API.glob("*.md")))))
EXAMPLES = ["Spec", "Segment", "seeded", "deterministic", "RSSM", "JEPA", "Linear", "Ensemble", "load", "collect"]
EXAMPLES += ["check", "imagine", "fit", "load_run", "evaluate", "film_dreams", "DreamEnv"]
EXAMPLES += ["Dreamer", "train_agent", "load_agent", "watch_collapse"]
ARRAYS = re.compile(r"\b(Tensor|ndarray)\b")
SHAPED = re.compile(r"\[|shape|scalar", re.IGNORECASE)
SHARED = {"NonConforming", "Inapplicable"}
GIVES = re.compile(r"^(Return|Compute|Give|Tell|List|Say|Draw|Make|Hash|Count|Open|Read|Write)\b|\breturn\b|Yields?")


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Walk the functions and classes that a module offers and that are ours."""
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        home = getattr(value, "__module__", "")
        ours = home.startswith("foreworld") if hasattr(module, "__path__") else home == module.__name__
        if ours and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value


def offered() -> dict[str, Any]:
    """Return every public function and class by the name under which it is described."""
    return {f"{name}.{inner}": value for name in MODULES for inner, value in public(import_module(name))}


def taken(function: Callable[..., Any]) -> dict[str, str]:
    """Return the annotation of every parameter but self."""
    given = inspect.signature(function).parameters.values()
    return {p.name: str(p.annotation) for p in given if p.name != "self"}


def described(doc: str) -> dict[str, str]:
    """Return what a docstring says about every parameter or attribute; `a, b, c: ...` describes three."""
    entries = parse(doc, DocstringStyle.GOOGLE).params
    return {
        name.strip().lstrip("*"): entry.description or ""
        for entry in entries
        for name in entry.arg_name.removesuffix(":").split(",")
    }


def raised(function: Callable[..., Any]) -> set[str]:
    """Name what the body of a function raises by itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return {
        node.func.id
        for node in found
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id[0].isupper()
    }


def faults_of_call(function: Callable[..., Any], doc: str) -> Iterator[str]:
    """Find what a function takes, gives or raises and does not say."""
    told = described(doc)
    shared = function in (*CHECKS, *PLANNER_CHECKS) and not told  # the package says what every check takes and raises
    for name, annotation in ({} if shared else taken(function)).items():
        if name not in told:
            yield f"does not describe {name}"
        elif ARRAYS.search(annotation) and "Callable" not in annotation and not SHAPED.search(told[name]):
            yield f"does not say the shape of {name}"
    if unknown := set(told) - set(taken(function)):
        yield f"describes {sorted(unknown)}, which it does not take"
    yield from faults_of_result(function, doc)


def faults_of_result(function: Callable[..., Any], doc: str) -> Iterator[str]:
    """Find what a function gives or raises and does not say."""
    gives = str(inspect.signature(function).return_annotation)
    stated = parse(doc, DocstringStyle.GOOGLE)
    if gives != "None" and not (stated.returns or GIVES.search(doc)):
        yield "does not say what it returns"
    shared = SHARED if function in (*CHECKS, *PLANNER_CHECKS) else set()
    for error in sorted(raised(function) - shared):
        if error not in {entry.type_name for entry in stated.raises}:
            yield f"does not say that it raises {error}"


def faults_of_class(cls: type, doc: str) -> Iterator[str]:
    """Find what a class holds or takes and does not describe, and methods that hide what they raise."""
    told = described(f"{doc}\n\n{inspect.getdoc(cls.__init__) or ''}") | described(doc)
    told |= described(inspect.getdoc(cls.__init__) or "")
    source = inspect.getsource(cls)
    if is_dataclass(cls):
        held = {field.name: str(field.type) for field in fields(cls) if not field.name.startswith("_")}
    else:
        held = taken(cls.__init__) if "__init__" in vars(cls) else {}
    for name in held:
        beneath = re.search(rf'^    {name}: [^\n]*\n    """', source, re.MULTILINE)
        if name not in told and name not in re.findall(r"\w+", doc) and not beneath:
            yield f"does not describe {name}"
    for name, method in vars(cls).items():
        function = method.__func__ if isinstance(method, classmethod) else method
        if inspect.isfunction(function) and not name.startswith("_"):
            inner = inspect.getdoc(function) or ""
            yield from (f".{name} {fault}" for fault in faults_of_result(function, inner) if "raises" in fault)


def faults(value: Any) -> list[str]:
    doc = inspect.getdoc(value)
    if not doc:
        return ["has no docstring"]
    if not inspect.isclass(value):
        return list(faults_of_call(value, doc))
    if issubclass(value, BaseException) or Protocol in value.__mro__:
        return []
    return list(faults_of_class(value, doc))


OFFERED = offered()


@pytest.mark.parametrize("name", OFFERED)
def test_a_public_name_says_what_it_takes_gives_and_raises(name: str) -> None:
    assert faults(OFFERED[name]) == []


def test_the_reference_has_a_page_for_every_folder_for_users() -> None:
    folders = {
        "core",
        "ops",
        "nn",
        "data",
        "worlds",
        "envs",
        "rollout.policies",
        "rollout.record",
        "rollout.dreamenv",
        "plan",
        "agents",
        "eval",
        "train",
        "testing",
        "presets",
    }
    assert {f"foreworld.{folder}" for folder in folders} <= set(MODULES)


def test_every_name_of_everyday_use_has_an_example_that_runs() -> None:
    assert set(EXAMPLES) == set(foreworld.__all__) - {"__version__", "tree"}
    for name in EXAMPLES:
        shown = foreworld.Spec.from_space if name == "Spec" else getattr(foreworld, name)
        doc = inspect.getdoc(shown) or ""
        assert ">>> " in doc and "+SKIP" not in doc, name


def undescribed(x: int) -> None:
    """Do something."""


def unshaped(x: foreworld.Segment, y: torch.Tensor) -> torch.Tensor:  # noqa: F821 - never evaluated
    """Do something.

    Args:
        x: rows.
        y: numbers.
        z: more.
    """
    raise ValueError("no")


def test_the_rules_catch() -> None:
    assert faults(undescribed) == ["does not describe x"]
    assert faults(unshaped) == [
        "does not say the shape of y",
        "describes ['z'], which it does not take",
        "does not say what it returns",
        "does not say that it raises ValueError",
    ]
