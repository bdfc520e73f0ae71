"""Counting promises: the counts are right, and the numbers that are known are found."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foreworld.studies.coverage import Coverage
from foreworld.studies.systems import SYSTEMS, System, in_deviations, model_errors, twin_errors
from foreworld.studies.trust import count_promises, growth_coverage, judge, recoveries
from foreworld.worlds import Linear, Pendulum

ROOT = Path(__file__).parents[2]


def ramp(rng: np.random.Generator, n: int, steps: int) -> np.ndarray:
    """Errors that first exceed 0.2 after 1 to 100 steps, each equally often."""
    lasting = np.arange(n) % 100
    return np.where(np.arange(1, steps + 1) <= lasting[:, None], 0.1, 0.3) * (1 + 1e-3 * rng.random((n, steps)))


def test_counts_agree_with_what_can_be_worked_out() -> None:
    """Horizons uniform on 0..99: the oracle is 10; the 13th smallest of 200 lies near 6.5 %; the mean passes at 50."""
    found = count_promises(System(name="ramp", wrong="nothing", draw=ramp), repeats=150, pool=5000)
    assert found.oracle == 10
    assert found.kept == pytest.approx(0.968, abs=0.04)
    assert found.violations == pytest.approx(13 / 201 - 0.005, abs=0.006)
    assert found.reach == pytest.approx(0.6, abs=0.06)
    assert found.marginal[0] == pytest.approx(20 / 201 - 0.005, abs=0.006)
    assert found.mean_curve[0] == pytest.approx(0.5, abs=0.03)
    assert found.trajectory == pytest.approx(91 / 101, abs=0.02)
    assert 0.88 <= found.pointwise[0] <= found.pointwise[1] <= 1.0


@pytest.mark.parametrize("system", SYSTEMS, ids=[system.name for system in SYSTEMS])
def test_every_system_has_a_horizon_that_the_data_can_show(system: System) -> None:
    errors = system.draw(np.random.default_rng(0), 400, 100)
    assert errors.shape == (400, 100) and np.isfinite(errors).all() and (errors >= 0).all()
    above = (errors > 0.2).cumsum(1) > 0
    assert 5 <= (above.mean(0) <= 0.1).sum() <= 90


def test_errors_are_in_deviations_of_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(500, 10, 2)) * (1.0, 100.0)
    assert in_deviations(0.1 * true.std((0, 1)) * np.ones((500, 10, 2)), true) == pytest.approx(0.1)
    same = Pendulum()
    assert model_errors(same, same, rng, 5, 8).max() == 0
    world = Linear(modes=((0.9, 0.0), (0.9, 0.0)))
    errors = twin_errors(world, world.start(rng, 50), 1e-6, 20, rng)
    assert errors[:, 1:] / errors[:, :-1] == pytest.approx(0.9, rel=1e-6)


@pytest.mark.slow
def test_known_numbers_are_found() -> None:
    known = list(recoveries(1000, seed=1))
    assert len(known) == 9
    assert [one.what for one in known if not one.passed] == []


def test_targets_name_the_worst() -> None:
    system = System(name="ramp", wrong="nothing", draw=ramp)
    good = replace(count_promises(system, repeats=5, pool=1000), kept=0.97, reach=0.9, pointwise=(0.89, 0.91))
    good = replace(good, trajectory=0.9)
    known = next(recoveries(50))
    near, far = replace(known, miss=0.01), replace(known, what="far", miss=0.04)
    sure = Coverage(case="sure", units=9, method="t", studies=100, covered=0.955, low=0.9, high=0.99, width=1.0)
    assert all(target.missed == () for target in judge([good], [near], [sure]))
    bad = replace(good, system="bad", kept=0.94, reach=0.8, pointwise=(0.89, 0.93), trajectory=0.87)
    found = judge([good, bad], [near, far], [sure, replace(sure, case="odd", covered=0.93)])
    assert [target.missed for target in found] == [("bad",)] * 4 + [("far",), ("odd, 9 units, t",)]
    assert [target.at for target in found] == ["bad"] * 4 + ["far", "odd, 9 units, t"]
    assert [target.worst for target in found] == [0.94, 0.8, 0.93, 0.87, pytest.approx(0.04 / 0.03), 0.93]
    lost = judge([good], [replace(near, what="lost", miss=float("nan"))], [sure])[4]
    assert lost.missed == ("lost",) and lost.at == "lost"


@pytest.mark.slow
def test_intervals_of_growth_are_counted() -> None:
    power, rate = growth_coverage(20, episodes=40)
    assert (power.studies, rate.studies, power.units) == (20, 80, 40)
    assert power.covered >= 0.75 and rate.covered >= 0.75 and power.low < power.covered


@pytest.mark.slow
def test_the_benchmark_prints_json_and_keeps_its_promises(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "trust.py"), "--quick", "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path / "r.json")], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "r.json").read_text())
    assert [one["system"] for one in found["promises"]] == [system.name for system in SYSTEMS]
    assert min(one["kept"] for one in found["promises"]) >= 0.9
    assert found["made"]["command"].startswith("python benchmarks/trust.py --quick")


def test_the_stored_result_is_of_full_size() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "trust.json").read_text())
    assert stored["quick"] is False
    assert [one["system"] for one in stored["promises"]] == [system.name for system in SYSTEMS]
    assert [one["calibration"] for one in stored["promises_from_1000"]] == [1000] * len(SYSTEMS)
