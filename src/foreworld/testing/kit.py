"""The list of checks, and three ways to run it: a call, one result list, pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from foreworld.core import Spec
from foreworld.testing.alignment import check_alignment
from foreworld.testing.compare import Factory, Inapplicable, NonConforming
from foreworld.testing.filtering import (
    check_acting_row_by_row,
    check_carry,
    check_compile,
    check_imagine_equals_step,
    check_imagine_under_policy,
    check_input_untouched,
    check_is_first_resets,
    check_observe_in_pieces,
    check_rows_independent,
)
from foreworld.testing.samples import specs as all_specs
from foreworld.testing.shapes import check_shapes
from foreworld.testing.training import check_dreaming, check_gradients, check_mask, check_save_load, check_seeds

Check = Callable[[], None]
"""One check of one model, ready to be called."""

CHECKS: tuple[Callable[[Factory, Spec], None], ...] = (
    check_shapes,
    check_rows_independent,
    check_is_first_resets,
    check_observe_in_pieces,
    check_acting_row_by_row,
    check_imagine_equals_step,
    check_imagine_under_policy,
    check_carry,
    check_input_untouched,
    check_gradients,
    check_save_load,
    check_seeds,
    check_mask,
    check_dreaming,
    check_compile,
)
"""What is checked on every spec; `check_alignment` trains a model on an environment of its own."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How one check ended.

    Attributes:
        check: name of the check, without `check_`.
        spec: name of the spec.
        outcome: `passed`, `failed`, or `inapplicable` to this model.
        message: what was found, when it did not pass.
    """

    check: str
    spec: str
    outcome: Literal["passed", "failed", "inapplicable"]
    message: str = ""


def check_world_model(make: Factory, specs: Mapping[str, Spec] | None = None, updates: int = 300) -> list[CheckResult]:
    """Check a world model against the protocol, on every spec.

    Args:
        make: builds a fresh model for a spec.
        specs: by name, those that the family claims to handle; all kinds by default.
        updates: gradient steps of the alignment checks; 0 leaves them out.

    Returns:
        One result a check.

    Raises:
        NonConforming: lists everything that failed.
    """
    results = [_result(name, check) for name, check in conformance_checks(make, specs, updates).items()]
    failed = [f"{one.check} [{one.spec}]: {one.message}" for one in results if one.outcome == "failed"]
    if failed:
        raise NonConforming("\n".join([f"{len(failed)} of {len(results)} checks failed", *failed]))
    return results


def conformance_checks(make: Factory, specs: Mapping[str, Spec] | None = None, updates: int = 300) -> dict[str, Check]:
    """Return every check, ready to be called, by `check-spec`."""
    found: dict[str, Check] = {}
    chosen = all_specs() if specs is None else specs
    for name, spec in chosen.items():
        for check in CHECKS:
            found[f"{check.__name__.removeprefix('check_')}-{name}"] = partial(check, make, spec)
    kinds = {spec.action.kind for spec in chosen.values() if spec.action is not None}
    image = all(space.kind == "image" for spec in chosen.values() for space in spec.obs.values())
    align = partial(check_alignment, make, image=image, updates=updates)
    if updates and "discrete" in kinds:
        found["alignment-counting_discrete"] = partial(align, "discrete")
    if updates and "vector" in kinds:
        found["alignment-counting_box"] = partial(align, "box")
    return found


def parametrize_conformance(make: Factory, specs: Mapping[str, Spec] | None = None, updates: int = 300) -> Any:
    """Turn a test function with the argument `check` into one test per check and spec.

    Args:
        make: builds a fresh model for a spec.
        specs: by name, those that the family claims to handle; all kinds by default.
        updates: gradient steps of the alignment checks; 0 leaves them out.

    Returns:
        A pytest decorator.
    """
    import pytest

    def run(check: Check) -> None:
        try:
            check()
        except Inapplicable as reason:
            pytest.skip(str(reason))

    checks = conformance_checks(make, specs, updates)
    return pytest.mark.parametrize("check", [pytest.param(partial(run, one), id=name) for name, one in checks.items()])


def _result(name: str, check: Check) -> CheckResult:
    title, _, spec = name.partition("-")
    result = partial(CheckResult, check=title, spec=spec)
    try:
        check()
    except Inapplicable as reason:
        return result(outcome="inapplicable", message=str(reason))
    except Exception as fault:  # a model that raises has failed; the others are still checked
        return result(outcome="failed", message=str(fault) or repr(fault))
    return result(outcome="passed")
