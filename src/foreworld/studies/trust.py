"""Does trust keep its promises? Guarantees counted over many repeats, and laws of growth against known truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foreworld.eval.bands import error_bands
from foreworld.eval.compounding import measure_growth
from foreworld.eval.horizon import horizons, measure_horizon
from foreworld.eval.lyapunov import exponential_rate
from foreworld.ops import Interval, wilson
from foreworld.studies.coverage import Coverage
from foreworld.studies.systems import System, model_errors, twin_errors
from foreworld.worlds import DoublePendulum, Linear, Lorenz63

STEPS = 100
LIMIT = 0.2
RATE = 0.1
CONFIDENCE = 0.95
LORENZ = 0.9056
"""The largest exponent of Lorenz-63, per second (Sprott, Chaos and Time-Series Analysis, 2003)."""

PENDULA = {(2.0, 2.0): 1.340, (2.5, 1.0): 1.276}
"""Starts of the double pendulum at rest, rad, and the largest exponent per second of the motion from there.

By Benettin's method along tangents, 64 copies for 3,000 s each: 1.340 ± 0.002 and 1.276 ± 0.002.
"""


@dataclass(frozen=True, kw_only=True)
class Promises:
    """How a system's promises were kept over the repeats; shares are of the system's whole pool.

    Attributes:
        system: its name.
        calibration: trajectories that each answer comes from.
        wrong: what its model is wrong about.
        oracle: the longest horizon that at most a tenth of the pool violates.
        kept: share of repeats in which at most a tenth violates the safe horizon; promised: 0.95.
        violations: mean share that violates it.
        reach: mean safe horizon as a share of the oracle's.
        marginal: the same for the marginal horizon: mean share that violates it (promised: 0.1 on average), and reach.
        closed_form: rule of thumb: mean share that violates, and reach.
        mean_curve: rule of thumb: mean share that violates, and reach.
        pointwise: lowest and highest coverage of the pointwise band over the steps; promised: 0.9 on average.
        trajectory: coverage of whole trajectories by their band; promised: 0.9 on average.
    """

    system: str
    calibration: int
    wrong: str
    oracle: int
    kept: float
    violations: float
    reach: float
    marginal: tuple[float, float]
    closed_form: tuple[float, float]
    mean_curve: tuple[float, float]
    pointwise: tuple[float, float]
    trajectory: float


def count_promises(system: System, *, repeats: int, pool: int, calibration: int = 200, seed: int = 0) -> Promises:
    """Draw calibration sets from a large pool of trajectories, and count how often the promises hold in that pool.

    The pool is the population: calibration sets are drawn from it with replacement, so that its shares are the truth.

    Args:
        system: where the errors come from.
        repeats: how many calibration sets.
        pool: how many trajectories are simulated.
        calibration: how many are drawn for one set.
        seed: of everything.

    Returns:
        The counts.
    """
    rng = np.random.default_rng(seed)
    errors = system.draw(rng, pool, STEPS).astype(np.float32)
    lasting, ordered = np.sort(horizons(errors, LIMIT)), np.sort(errors, 0)
    steps: list[tuple[float, ...]] = []
    pointwise, whole = np.empty((repeats, STEPS)), np.empty(repeats)
    for repeat in range(repeats):
        drawn = errors[rng.integers(pool, size=calibration)]
        found = measure_horizon(drawn, max_error=LIMIT, confidence=CONFIDENCE, violation_rate=RATE)
        rules = (found.safe, found.marginal, found.closed_form, found.mean_curve)
        steps.append(tuple(math.nan if rule is None else rule.steps for rule in rules))
        bands = error_bands(drawn, 1 - RATE, seed=repeat)
        pointwise[repeat] = bands.pointwise
        whole[repeat] = (errors <= bands.trajectory.astype(np.float32)).all(1).mean()
    said = np.array(steps)
    violated = np.searchsorted(lasting, said) / pool
    oracle = int(min(lasting[math.floor(RATE * pool)], STEPS))
    inside = [np.searchsorted(ordered[:, k], pointwise[:, k], "right").mean() / pool for k in range(STEPS)]
    means, reach = violated.mean(0), said.mean(0) / oracle
    return Promises(
        system=system.name,
        calibration=calibration,
        wrong=system.wrong,
        oracle=oracle,
        kept=float((violated[:, 0] <= RATE).mean()),
        violations=float(means[0]),
        reach=float(reach[0]),
        marginal=(float(means[1]), float(reach[1])),
        closed_form=(float(means[2]), float(reach[2])),
        mean_curve=(float(means[3]), float(reach[3])),
        pointwise=(float(min(inside)), float(max(inside))),
        trajectory=float(whole.mean()),
    )


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A number that is known, and what was measured from error curves.

    Attributes:
        what: in words.
        truth: the number.
        found: what was measured.
        low: lower end of its 95 % interval.
        high: upper end.
        miss: relative difference; for powers the difference itself.
        allowed: how large it may be.
    """

    what: str
    truth: float
    found: float
    low: float
    high: float
    miss: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether it is close enough."""
        return self.miss <= self.allowed


def recoveries(trajectories: int = 2000, seed: int = 0) -> Iterator[Recovery]:
    """Measure what is known: powers of an integrator, contraction of linear systems, exponents of chaotic ones.

    Args:
        trajectories: error curves behind each number.
        seed: of everything.

    Yields:
        One number after the other.
    """
    rng = np.random.default_rng(seed)
    integrator = Linear(modes=((1.0, 0.0),) * 4)
    walk = model_errors(integrator, integrator, rng, trajectories, STEPS, noise=0.01)
    yield _power("power of independent noise in an integrator", 0.5, walk)
    drift = 0.01 * rng.standard_normal((trajectories, 1, 4)) * np.arange(1, STEPS + 1)[:, None]
    yield _power("power of a bias in an integrator", 1.0, np.sqrt((drift**2).mean(-1)))
    yield from _contractions(rng, trajectories)
    for size in (1e-8, 1e-5):
        world = Lorenz63()
        errors = twin_errors(world, world.start(rng, 2 * trajectories), size, 450, rng)
        yield _exponent(f"exponent of Lorenz-63 per second, twins {size:g} apart", LORENZ, errors, world.dt, 0.01)
    for start, exponent in PENDULA.items():
        yield _pendulum(start, exponent, rng, trajectories)


def _contractions(rng: np.random.Generator, trajectories: int) -> Iterator[Recovery]:
    slow = Linear(modes=((0.95, 0.3), (0.7, 1.0)))
    forgets = exponential_rate(twin_errors(slow, slow.start(rng, trajectories), 1e-3, STEPS, rng))
    if forgets.per_step is not None:
        found, low, high = (math.exp(end) for end in _ends(forgets.per_step))
        yield _compared("contraction per step, twins", slow.radius, found, low, high, 0.02)
    single = Linear(modes=((0.95, 0.0),) * 4)  # a system that turns swings a bias to and fro, which no law follows
    for kind in ("noise", "bias"):
        gap, found = np.zeros((trajectories, 4)), []
        bias = 0.01 * rng.standard_normal(gap.shape)
        for _ in range(STEPS):
            fresh = 0.01 * rng.standard_normal(gap.shape) if kind == "noise" else bias
            gap = single.step(gap) + fresh
            found.append(np.sqrt((gap**2).mean(1)))
        growth = measure_growth(np.stack(found, 1), seed=0)
        law = growth.laws["root_closed_form" if kind == "noise" else "closed_form"]
        what = f"contraction per step, {kind} at every step"
        yield _compared(what, single.radius, *_ends(law.parameters["factor"]), 0.02)


def _pendulum(start: tuple[float, float], exponent: float, rng: np.random.Generator, trajectories: int) -> Recovery:
    """Scatter copies of a start, let them forget one another, and follow their twins."""
    world = DoublePendulum()
    state = np.repeat([[*start, 0.0, 0.0]], trajectories, 0) + 1e-4 * rng.standard_normal((trajectories, 4))
    for _ in range(round(50 / world.dt)):
        state = world.step(state)
    errors = twin_errors(world, state, 1e-9, 400, rng)
    return _exponent(f"exponent of the double pendulum from {start} per second", exponent, errors, world.dt, 0.02)


def _power(what: str, truth: float, errors: np.ndarray) -> Recovery:
    found, low, high = _ends(measure_growth(errors).laws["power"].parameters["power"])
    return Recovery(what=what, truth=truth, found=found, low=low, high=high, miss=abs(found - truth), allowed=0.03)


def _exponent(what: str, truth: float, errors: np.ndarray, dt: float, allowed: float) -> Recovery:
    rate = exponential_rate(errors, dt=dt)
    if rate.per_second is None:
        return _compared(f"{what} ({rate.reason})", truth, math.nan, math.nan, math.nan, allowed)
    return _compared(what, truth, *_ends(rate.per_second), allowed)


def _compared(what: str, truth: float, found: float, low: float, high: float, allowed: float) -> Recovery:
    miss = abs(found / truth - 1)
    return Recovery(what=what, truth=truth, found=found, low=low, high=high, miss=miss, allowed=allowed)


def _ends(interval: Interval) -> tuple[float, float, float]:
    return float(interval.value), float(interval.low), float(interval.high)


def growth_coverage(studies: int = 1000, episodes: int = 100, seed: int = 0) -> list[Coverage]:
    """Count how often the 95 % intervals of a power of growth and of an exponential rate hold the truth.

    Args:
        studies: how many are simulated for the power; four times as many for the rate, which is measured faster.
        episodes: of each study.
        seed: of everything.

    Returns:
        One row for the power of random walks, one for a rate that varies from step to step.
    """
    powers, rates = [], []
    for study in range(studies):
        walk = np.random.default_rng([seed, study]).standard_normal((episodes, 30, 3)).cumsum(1)
        growth = measure_growth(np.sqrt((walk**2).mean(-1)), repeats=500, seed=study)
        powers.append(growth.laws["power"].parameters["power"])
    for study in range(4 * studies):
        rises = 0.2 + 0.3 * np.random.default_rng([seed, study, 1]).standard_normal((episodes, 60))
        rate = exponential_rate(np.exp(rises.cumsum(1)), seed=study)
        if rate.per_step is not None:
            rates.append(rate.per_step)
    return [
        _covered("power of a random walk", powers, 0.5, "percentile", episodes),
        _covered("rate of exponential growth", rates, 0.2, "t", episodes),
    ]


def _covered(case: str, intervals: Sequence[Interval], truth: float, method: str, episodes: int) -> Coverage:
    share = wilson(sum(bool(one.low <= truth <= one.high) for one in intervals), len(intervals))
    return Coverage(
        case=case,
        units=episodes,
        method=method,
        studies=len(intervals),
        covered=float(share.value),
        low=float(share.low),
        high=float(share.high),
        width=float(np.median([one.high - one.low for one in intervals])),
    )


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was aimed at, and where it was missed.

    Attributes:
        aim: in words.
        worst: the number furthest from the aim.
        at: where that was.
        missed: everything that missed the aim.
    """

    aim: str
    worst: float
    at: str
    missed: tuple[str, ...]


def judge(promises: Sequence[Promises], known: Sequence[Recovery], intervals: Sequence[Coverage]) -> list[Target]:
    """Compare what was counted with what was aimed at.

    Args:
        promises: of every system.
        known: numbers that are known, and what was found.
        intervals: how often 95 % intervals held the truth.

    Returns:
        One target after the other.
    """
    names = [f"{one.case}, {one.units} units, {one.method}" for one in intervals]
    edges = [(one.system, edge) for one in promises for edge in one.pointwise]
    return [
        _target("violations of at most 10 % in at least 95 % of repeats", _pairs(promises, "kept"), 0.95, np.inf),
        _target("safe horizon at least 85 % of the oracle's", _pairs(promises, "reach"), 0.85, np.inf),
        _target("pointwise 90 % bands cover 88 to 92 % at every step", edges, 0.88, 0.92),
        _target("90 % bands over trajectories cover 88 to 92 %", _pairs(promises, "trajectory"), 0.88, 0.92),
        _target(
            "powers within 0.03, contraction and double pendulum within 2 %, Lorenz-63 within 1 % (shares of that)",
            [(one.what, one.miss / one.allowed) for one in known],
            -np.inf,
            1.0,
        ),
        _target(
            "95 % intervals cover 94 to 96 %",
            list(zip(names, [one.covered for one in intervals], strict=True)),
            0.94,
            0.96,
        ),
    ]


def _pairs(promises: Sequence[Promises], what: str) -> list[tuple[str, float]]:
    return [(one.system, getattr(one, what)) for one in promises]


def _target(aim: str, found: Sequence[tuple[str, float]], low: float, high: float) -> Target:
    """Find what lies outside, and what lies nearest to an edge or furthest beyond it; NaN is outside."""
    at, worst = max(found, key=lambda pair: max(low - pair[1], pair[1] - high) if pair[1] == pair[1] else np.inf)
    missed = dict.fromkeys(name for name, number in found if not low <= number <= high)
    return Target(aim=aim, worst=worst, at=at, missed=tuple(missed))
