"""Pendulums, Lorenz and linear systems against closed forms and independent equations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreworld.worlds import DoublePendulum, Linear, Lorenz63, Pendulum, simulate
from foreworld.worlds.rk4 import rk4


def agm(a: float, b: float) -> float:
    while abs(a - b) > 1e-15:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return a


def test_runge_kutta_is_of_order_four() -> None:
    def error(substeps: int) -> float:
        turned = rk4(lambda x: np.stack([-x[1], x[0]]), np.array([[1.0, 0.0]]), 2.0, substeps)
        return float(np.linalg.norm(turned[0] - [math.cos(2), math.sin(2)]))

    assert error(20) / error(40) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("angle", [0.01, 1.0, 2.5])
def test_a_pendulum_has_the_period_of_the_elliptic_integral(angle: float) -> None:
    world = Pendulum(gravity=9.81, length=0.7, mass=3.0, dt=0.001, substeps=1)
    period = 2 * math.pi * math.sqrt(0.7 / 9.81) / agm(1, math.cos(angle / 2))
    states = simulate(world, np.array([[angle, 0.0]]), math.ceil(period / world.dt) + 1)[0]
    # it stands still for the second time after one period: there the velocity changes its sign upwards
    speed = states[len(states) // 2 :, 1]
    late = int(np.flatnonzero((speed[:-1] > 0) & (speed[1:] <= 0))[0]) + len(states) // 2
    before, after = states[late, 1], states[late + 1, 1]
    assert (late + before / (before - after)) * world.dt == pytest.approx(period, rel=1e-5)


def test_energy_is_conserved_to_the_stated_tolerance() -> None:
    """Over 400 steps (20 s), in J; hanging and upright differ by 19.62 J, those of the double one by 58.86 J."""
    rng = np.random.default_rng(0)
    for world, tolerance in ((Pendulum(), 2e-5), (DoublePendulum(), 0.05), (DoublePendulum(substeps=20), 1e-4)):
        states = simulate(world, world.start(rng, 20), 400)
        energy = np.stack([world.energy(states[:, t]) for t in range(0, 401, 20)])
        assert np.abs(energy - energy[0]).max() < tolerance


def test_damping_takes_energy_away() -> None:
    rng = np.random.default_rng(0)
    for world in (Pendulum(damping=0.5), DoublePendulum(damping=2.0)):
        states = simulate(world, world.start(rng, 10), 1000)
        energy = np.stack([world.energy(states[:, t]) for t in range(1001)])
        assert (np.diff(energy, axis=0) < 1e-9).all()
        assert np.abs(states[:, -1, world.width // 2 :]).max() < 0.1, "nearly at rest after 50 s"


@pytest.mark.parametrize("world", [Pendulum(torque=5, dt=0.001), DoublePendulum(torque=5, dt=0.001)])
def test_energy_changes_by_the_work_of_the_torques(world: Pendulum | DoublePendulum) -> None:
    rng, width = np.random.default_rng(0), world.width // 2
    held = np.repeat(rng.uniform(-5, 5, (8, 1, width)), 800, 1)
    states = simulate(world, world.start(rng, 8), 800, actions=held)
    speeds = states[:, :, width:]
    turning = np.diff(speeds, axis=2, prepend=0)  # each joint turns by what its rod does more than the one above
    power = (held * (turning[:, 1:] + turning[:, :-1]) / 2).sum((1, 2)) * world.dt
    gained = world.energy(states[:, -1]) - world.energy(states[:, 0])
    assert np.allclose(gained, power, atol=1e-4) and np.abs(gained).max() > 1


def test_the_double_pendulum_agrees_with_hamiltons_equations() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    g = 9.81

    def hamilton(_: float, y: np.ndarray) -> list[float]:
        a, b, p, q = y
        d = a - b
        c, s = math.cos(d), math.sin(d)
        scale = 1 + s * s
        one = p * q * s / scale
        two = (p * p + 2 * q * q - 2 * p * q * c) / (2 * scale**2) * math.sin(2 * d)
        speeds = [(p - q * c) / scale, (2 * q - p * c) / scale]
        return [*speeds, -2 * g * math.sin(a) - one + two, -g * math.sin(b) + one - two]

    ours = simulate(DoublePendulum(substeps=50), np.array([[2.0, 2.0, 0.0, 0.0]]), 60)[0]
    exact = integrate.solve_ivp(hamilton, (0, 3), [2, 2, 0, 0], "DOP853", [3.0], rtol=1e-12, atol=1e-12).y[:, 0]
    a, b, speed_a, speed_b = ours[-1]
    momenta = [2 * speed_a + speed_b * math.cos(a - b), speed_b + speed_a * math.cos(a - b)]
    assert np.allclose([a, b, *momenta], exact, atol=1e-7)


def test_lorenz_rests_at_its_fixed_points_and_is_symmetric() -> None:
    world = Lorenz63()
    side = math.sqrt(8 / 3 * 27)
    still = np.array([[side, side, 27.0], [-side, -side, 27.0], [0.0, 0.0, 0.0]])
    assert np.allclose(world.step(still), still, atol=1e-12)
    state = world.start(np.random.default_rng(0), 5)
    assert np.array_equal(world.step(state * [-1, -1, 1]), world.step(state) * [-1, -1, 1])
    integrate = pytest.importorskip("scipy.integrate")
    for one in state:
        exact = integrate.solve_ivp(
            lambda _, y: [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]],
            (0, 1),
            one,
            "DOP853",
            rtol=1e-11,
            atol=1e-11,
        ).y[:, -1]
        assert np.allclose(simulate(Lorenz63(substeps=25), one[None], 20)[0, -1], exact, atol=1e-4)


def test_lorenz_starts_lie_on_the_attractor() -> None:
    state = Lorenz63().start(np.random.default_rng(0), 500)
    assert np.abs(state.mean(0) - [0, 0, 23.55]).max() < 1.5, "the known mean of z is 23.55"
    assert np.allclose(state.std(0), [7.92, 9.01, 8.63], rtol=0.1), "so are the deviations"


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.02])
def test_a_linear_world_shrinks_by_its_spectral_radius(radius: float) -> None:
    world = Linear(modes=((radius, 0.3), (radius, 0.0), (radius, math.pi)))
    expected = [radius * np.exp(0.3j), radius * np.exp(-0.3j), radius, -radius]
    key = [np.round(found, 6) for found in (np.linalg.eigvals(world.matrix), world.eigenvalues, np.array(expected))]
    assert np.array_equal(np.sort_complex(key[0]), np.sort_complex(key[2]))
    assert np.array_equal(np.sort_complex(key[1]), np.sort_complex(key[2]))
    assert np.abs(np.linalg.eigvals(world.matrix)).max() == pytest.approx(world.radius)
    states = simulate(world, world.start(np.random.default_rng(0), 6), 40)
    size = np.linalg.norm(states, axis=2)
    assert np.allclose(size[:, 1:] / size[:, :-1], radius)
    assert np.abs(world.matrix).min() > 1e-3, "no number shows a mode alone"


def test_the_slowest_mode_decides_in_the_end() -> None:
    world = Linear(modes=((0.97, 0.25), (0.5, 1.0)))
    states = simulate(world, world.start(np.random.default_rng(0), 6), 60)
    size = np.linalg.norm(states, axis=2)
    assert np.allclose(size[:, 60] / size[:, 59], 0.97, atol=1e-9)


def test_linear_inputs_and_noise() -> None:
    world = Linear(actions=2, gain=0.3)
    still = np.zeros((3, 4))
    pushed = world.step(still, np.array([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]]))
    assert np.allclose(pushed, [world.inputs[:, 0], -world.inputs[:, 1], world.inputs.sum(1)])
    assert np.allclose(np.linalg.norm(world.inputs, axis=0), 0.3)
    noise = Linear(noise=0.2).step(np.zeros((4000, 4)), rng=np.random.default_rng(0))
    assert noise.std() == pytest.approx(0.2, rel=0.03) and abs(noise.mean()) < 0.01


def test_rewards_by_hand() -> None:
    swing, up = Pendulum(torque=2), np.array([[math.pi, 0.0], [0.0, 2.0], [3 * math.pi, 0.0]])
    effort = np.array([[0.0], [1.0], [-2.0]])
    assert np.allclose(swing.reward(up, effort, up), [0, -(math.pi**2 + 0.4 + 0.001), -0.004])
    double, pose = DoublePendulum(torque=2), np.array([[math.pi, math.pi, 0, 0], [0, 0, 0, 0], [0, math.pi, 0, 0]])
    assert np.allclose(double.reward(pose, np.zeros((3, 2)), pose), [1, -1, 0])
    line, state = Linear(actions=2), np.array([[1.0, 2.0, 0.0, 0.0]])
    assert line.reward(state, np.array([[1.0, -1.0]]), 2 * state) == pytest.approx(-(20 + 0.2))
