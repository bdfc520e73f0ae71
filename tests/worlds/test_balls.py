"""Collisions by hand, by conservation, by going back in time and against small steps; pictures by centroids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.worlds import Balls, simulate
from foreworld.worlds.balls import COLOURS, GROUND
from foreworld.worlds.discs import box_cover, disc_cover


def state_of(*discs: tuple[float, float, float, float]) -> np.ndarray:
    """Build one state [1, S] from (x, y, velocity x, velocity y) of each disc."""
    table = np.array(discs)
    return np.concatenate([table[:, :2].ravel(), table[:, 2:].ravel()])[None]


def test_a_wall_turns_one_component_at_the_exact_time() -> None:
    world = Balls(radii=(0.1,), dt=1.0)
    # 0.3 to the right wall and 0.1 back; 0.2 up
    assert np.allclose(world.step(state_of((0.6, 0.5, 0.4, 0.2))), state_of((0.8, 0.7, -0.4, 0.2)))
    # 0.4 to the right wall, 0.8 to the left one, and 0.6 back
    assert np.allclose(world.step(state_of((0.5, 0.5, 1.8, 0.0))), state_of((0.7, 0.5, 1.8, 0.0)))
    corner = world.step(state_of((0.8, 0.8, 0.3, 0.3)))
    assert np.allclose(corner, state_of((0.7, 0.7, -0.3, -0.3)))


def test_equal_discs_swap_their_velocities_head_on() -> None:
    world = Balls(radii=(0.1, 0.1), dt=1.0)
    # the gap of 0.2 closes in half a second, each then goes on for the other
    after = world.step(state_of((0.3, 0.5, 0.3, 0.0), (0.7, 0.5, -0.1, 0.0)))
    assert np.allclose(after, state_of((0.4, 0.5, -0.1, 0.0), (0.8, 0.5, 0.3, 0.0)))


def test_a_heavy_disc_pushes_a_light_one_by_the_textbook() -> None:
    world = Balls(radii=(0.2, 0.1), dt=0.5)  # four times the weight
    after = world.step(state_of((0.3, 0.5, 0.25, 0.0), (0.65, 0.5, 0.0, 0.0)))
    _, velocity = world.parts(after)
    assert np.allclose(velocity[0], [[0.25 * 3 / 5, 0], [0.25 * 8 / 5, 0]])


def test_an_oblique_hit_turns_only_what_points_along_the_line_of_centres() -> None:
    world, slope = Balls(radii=(0.1, 0.1), dt=0.4), np.sqrt(0.5)
    first = (0.5 - 0.2 * slope - 0.1, 0.5 - 0.2 * slope, 0.5, 0.0)  # touches at 45 degrees after 0.2 s
    _, velocity = world.parts(world.step(state_of(first, (0.5, 0.5, 0.0, 0.0))))
    assert np.allclose(velocity[0], [[0.25, -0.25], [0.25, 0.25]])


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 5))
def test_energy_is_conserved_and_momentum_away_from_walls(seed: int, count: int) -> None:
    world = Balls(radii=tuple(np.linspace(0.06, 0.12, count)), speed=1.0)
    states = simulate(world, world.start(np.random.default_rng(seed), 8), 60)
    energy = np.stack([world.energy(states[:, t]) for t in range(61)])
    assert np.allclose(energy, energy[0], rtol=1e-12)
    momentum = np.stack([world.momentum(states[:, t]) for t in range(61)])
    place = np.stack([world.parts(states[:, t])[0] for t in range(61)])
    speed = np.sqrt(2 * energy[0] / world.masses.min())
    reach = np.array(world.radii)[:, None] + speed[:, None, None] * world.dt
    # nobody can have met a wall of an axis whose wall nobody could reach
    free = ((place > reach) & (place < 1 - reach)).all(2)[:-1]
    assert np.allclose(np.diff(momentum, axis=0)[free], 0, atol=1e-14)


def test_momentum_is_conserved_in_collisions_between_walls() -> None:
    world = Balls(radii=(0.04, 0.06, 0.05), dt=0.2)
    start = np.array([[0.43, 0.5], [0.56, 0.5], [0.5, 0.6]])
    velocity = np.random.default_rng(0).uniform(-0.3, 0.3, (400, 3, 2))
    states = np.concatenate([np.broadcast_to(start, (400, 3, 2)), velocity], 1).reshape(400, 12)
    fastest = np.sqrt(2 * world.energy(states).max() / world.masses.min())
    assert fastest * world.dt < 0.43 - 0.06, "so that no wall can be met"
    after = world.step(states)
    assert (~np.isclose(after[:, 6:], states[:, 6:])).any(1).sum() > 80, "many have collided"
    assert np.allclose(world.momentum(after), world.momentum(states), atol=1e-16)


def test_nothing_overlaps_or_leaves_the_box() -> None:
    world = Balls(radii=(0.15, 0.15, 0.12, 0.1), speed=2.0)
    states = simulate(world, world.start(np.random.default_rng(0), 50), 200).reshape(-1, world.width)
    place, _ = world.parts(states)
    radii = np.array(world.radii)
    assert (place >= radii[:, None] - 1e-12).all() and (place <= 1 - radii[:, None] + 1e-12).all()
    one, other = np.triu_indices(4, 1)
    gap = np.linalg.norm(place[:, one] - place[:, other], axis=2) - radii[one] - radii[other]
    assert gap.min() > -1e-12


def test_going_back_in_time_leads_to_the_start() -> None:
    world = Balls(speed=1.0)
    start = world.start(np.random.default_rng(1), 50)
    turned = simulate(world, start, 20)[:, -1] * ([1] * 6 + [-1] * 6)
    back = simulate(world, turned, 20)[:, -1] * ([1] * 6 + [-1] * 6)
    off = np.abs(back - start).max(1)
    assert np.median(off) < 1e-9 and off.max() < 1e-4, "collisions amplify rounding"


def test_exact_times_agree_with_small_steps() -> None:
    world = Balls(radii=(0.12, 0.1, 0.14), dt=0.2)
    start = world.start(np.random.default_rng(3), 40)
    place, velocity = world.parts(start)
    radii, masses, h = np.array(world.radii), world.masses, 2e-5
    for _ in range(round(0.2 / h)):
        place += velocity * h
        out = ((place < radii[:, None]) & (velocity < 0)) | ((place > 1 - radii[:, None]) & (velocity > 0))
        velocity[out] *= -1
        for i in range(3):
            for j in range(i):
                line = place[:, i] - place[:, j]
                distance = np.linalg.norm(line, axis=1)
                line /= distance[:, None]
                closing = ((velocity[:, i] - velocity[:, j]) * line).sum(1)
                hit = (distance < radii[i] + radii[j]) & (closing < 0)
                impulse = np.where(hit, -2 * closing * masses[i] * masses[j] / (masses[i] + masses[j]), 0)[:, None]
                velocity[:, i] += impulse * line / masses[i]
                velocity[:, j] -= impulse * line / masses[j]
    after, _ = world.parts(world.step(start))
    assert np.median(np.abs(after - place)) < 1e-4 and np.abs(after - place).max() < 5e-3


def test_drag_slows_all_alike_along_straight_lines() -> None:
    world = Balls(radii=(0.1,), drag=2.0, dt=0.3)
    slow = np.exp(-0.6)
    after = world.step(state_of((0.5, 0.5, 0.4, -0.3)))
    way = (1 - slow) / 2
    assert np.allclose(after, state_of((0.5 + 0.4 * way, 0.5 - 0.3 * way, 0.4 * slow, -0.3 * slow)))
    split = replace(world, dt=0.1)
    assert np.allclose(simulate(split, state_of((0.5, 0.5, 0.4, -0.3)), 3)[:, -1], after)


def test_the_push_moves_the_first_disc_and_pays_near_the_corner() -> None:
    world = Balls(radii=(0.1, 0.1), push=2.0, dt=0.1)
    start = state_of((0.3, 0.3, 0.0, 0.0), (0.7, 0.3, 0.0, 0.0))
    after = world.step(start, np.array([[1.0, -2.0]]))
    assert np.allclose(after, state_of((0.31, 0.28, 0.1, -0.2), (0.7, 0.3, 0, 0)))
    places = np.concatenate([state_of((x, x, 0, 0), (0.5, 0.2, 0, 0)) for x in (0.9, 0.5, 0.1)])
    assert np.allclose(world.reward(places, np.zeros((3, 2)), places), [1, 0.5, 0])


def test_starts_are_spread_out_and_do_not_overlap() -> None:
    world = Balls(radii=(0.16, 0.16, 0.16, 0.16), speed=0.5)
    place, velocity = world.parts(world.start(np.random.default_rng(0), 400))
    one, other = np.triu_indices(4, 1)
    assert np.linalg.norm(place[:, one] - place[:, other], axis=2).min() > 0.32
    speed = np.linalg.norm(velocity, axis=2)
    assert speed.min() >= 0.25 and speed.max() <= 0.75 and speed.mean() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("size", [32, 64])
def test_every_disc_is_drawn_where_it_is(size: int) -> None:
    world = Balls(size=size)
    states = simulate(world, world.start(np.random.default_rng(0), 10), 30).reshape(-1, world.width)
    pictures = world.observe(states)["image"]
    assert pictures.shape == (310, 3, size, size) and pictures.dtype == np.uint8
    ground = np.array(GROUND, float)
    mix = np.array(COLOURS[:3], float).T - ground[:, None]
    cover = np.einsum("kc,nchw->nkhw", np.linalg.inv(mix), pictures - ground[:, None, None])
    middle = np.arange(size) + 0.5
    weight = cover.sum((2, 3))
    across, down = cover.sum(2) @ middle / weight, cover.sum(3) @ middle / weight
    place, _ = world.parts(states)
    assert np.abs(across - size * place[..., 0]).max() < 0.1
    assert np.abs(down - size * (1 - place[..., 1])).max() < 0.1
    assert np.allclose(weight, np.pi * (size * np.array(world.radii)) ** 2, rtol=0.02), "and as large as it is"


def test_covers_by_hand() -> None:
    assert np.allclose(box_cover(0.25, 0.0, 0.75, 0.375, 4), [[0] * 4] * 2 + [[0, 0.5, 0.5, 0], [0, 1, 1, 0]])
    disc = disc_cover(np.array([0.5, 0.75]), np.array(0.2), 8)
    assert disc[:4].sum() > 6 and disc[4:].sum() == 0, "y points up, rows go down"
    assert np.array_equal(Balls(size=32).render(np.zeros((1, 12)), 64).shape, (1, 3, 64, 64))
