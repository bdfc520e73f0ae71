"""Ranking of action sequences, on returns whose order is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import Segment, Spec, Step
from foreworld.core.errors import MissingCapability, TooFewEpisodes
from foreworld.envs import builder
from foreworld.eval.chosen import PlanErrors, Yardstick
from foreworld.eval.counterfactual import compare_rankings, counterfactual
from foreworld.eval.quantities import Quantity
from foreworld.rollout import branch
from foreworld.worlds import build


def returns(states: int = 40, sequences: int = 32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(states, sequences))


def test_the_truth_ranks_perfectly_its_negative_worst_and_noise_like_a_coin() -> None:
    real = returns()
    perfect = compare_rankings(real, real)
    assert perfect.tau is not None and perfect.regret is not None and perfect.gap is not None
    assert float(perfect.tau.value) == 1 and float(perfect.regret.value) == 0 and float(perfect.gap.gap.value) == 0
    worst = compare_rankings(-real, real)
    assert worst.tau is not None and float(worst.tau.value) == -1
    assert worst.regret is not None and float(worst.regret.value) > 1.5
    noise = compare_rankings(np.random.default_rng(1).normal(size=real.shape), real)
    assert noise.tau is not None and noise.tau.low < 0 < noise.tau.high
    assert noise.regret is not None and noise.regret.low < 1 < noise.regret.high


def test_the_exploitation_gap_is_the_optimism_of_the_favourite_not_a_common_bias() -> None:
    real = returns()
    shifted = compare_rankings(real + 100, real)
    assert shifted.gap is not None and float(shifted.gap.gap.value) == pytest.approx(0, abs=1e-9)
    lucky = np.random.default_rng(1).normal(size=real.shape)
    noisy = compare_rankings(real + lucky, real)
    chosen = (real + lucky).argmax(1)
    expected = (lucky[np.arange(40), chosen] - lucky.mean(1)).mean()
    assert noisy.gap is not None and float(noisy.gap.gap.value) == pytest.approx(expected)
    assert noisy.gap.gap.low > 0.5 and noisy.gap.deviation == pytest.approx(real.std(1).mean())


def test_states_whose_sequences_all_earn_the_same_rank_nothing() -> None:
    real = returns(8)
    real[:5] = 1.0
    found = compare_rankings(real, real)
    assert found.tau is None and "in 3 of 8 states" in found.reason
    assert found.to_json()["tau"] is None and found.in_words().startswith("Plans are not ranked")


class TrueReward:
    """The pendulum itself as a model: its state is angle and velocity."""

    provides = frozenset({"reward"})

    def __init__(self, sign: float) -> None:
        self.world, self.sign = build("foreworld/Pendulum-v0"), sign

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 3, dtype=torch.float64)

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        sine, cosine, speed = segment.obs["obs"].double().unbind(-1)
        return torch.stack([torch.atan2(sine, cosine), speed, torch.zeros_like(speed)], -1)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        torque = 5.0 * action.double().numpy()
        before = state[:, :2].numpy()
        after = self.world.step(before, torque)
        paid = self.world.reward(before, torque, after)  # type: ignore[attr-defined]
        return torch.from_numpy(np.concatenate([after, paid[:, None]], 1))

    def read(self, state: Tensor) -> Step:
        return Step(feat=state, reward=self.sign * state[..., 2])


def test_a_perfect_model_of_a_world_ranks_as_the_world_does() -> None:
    env = builder("foreworld/Pendulum-v0")()
    spec = Spec.from_space(env.observation_space, env.action_space)
    settings = {"starts": 6, "sequences": 10, "context": 3, "horizon": 8, "repeat": 3.0, "seed": 0}
    found = counterfactual(TrueReward(1.0), branch(env, spec, **settings), samples=1)
    assert found.tau is not None and float(found.tau.value) > 0.99
    assert np.allclose(found.predicted, found.realised, rtol=1e-3)
    upside_down = counterfactual(TrueReward(-1.0), branch(env, spec, **settings), samples=1)
    assert upside_down.tau is not None and float(upside_down.tau.value) < -0.99


def test_a_model_without_reward_cannot_rank() -> None:
    model = TrueReward(1.0)
    model.provides = frozenset()
    with pytest.raises(MissingCapability, match="reward"):
        counterfactual(model, [])


class Dreamer(TrueReward):
    """The pendulum itself, but for plans that turn left: there it dreams of a reward, and errs by 0.5 a step."""

    provides = frozenset({"reward", "decode"})

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        left = action.double()[:, :1] < 0
        after = super().step(state, action)
        dreamt = torch.cat([state[:, :2] + 0.5, torch.full_like(state[:, 2:], 10.0)], 1)
        return torch.where(left, dreamt, after)

    def decode(self, states: Tensor) -> dict[str, Tensor]:
        angle, speed = states[..., 0], states[..., 1]
        return {"obs": torch.stack([angle.sin(), angle.cos(), speed], -1).float()}


def test_errors_along_the_plans_that_a_model_chose_show_what_it_exploits() -> None:
    env = builder("foreworld/Pendulum-v0")()
    spec = Spec.from_space(env.observation_space, env.action_space)
    settings = {"starts": 29, "sequences": 16, "context": 3, "horizon": 4, "repeat": 8.0, "seed": 0}
    quantity = Quantity(name="obs", kind="vector", unit=torch.ones(3), deviation=1.0)
    yardstick = Yardstick(quantity=quantity, spaces=spec.obs, probes={})
    found = counterfactual(Dreamer(1.0), branch(env, spec, **settings), samples=1, yardstick=yardstick)
    assert found.errors is not None and found.errors.chosen.shape == (29, 4)
    assert found.gap is not None and found.gap.gap.low > 5
    limits = {"confidence": 0.95, "violation_rate": 0.1}
    trust = found.errors.trust(max_error=0.1, **limits)
    assert trust.chosen.safe.steps == 0 and trust.to_json()["safe_horizon"] == 0
    fair = counterfactual(TrueDecoded(1.0), branch(env, spec, **settings), samples=1, yardstick=yardstick)
    assert fair.errors is not None and fair.errors.chosen.max() < 1e-3
    assert fair.errors.trust(max_error=0.1, **limits).chosen.safe.steps == 4
    with pytest.raises(TooFewEpisodes, match="29 are needed"):
        PlanErrors(
            key="obs",
            chosen=found.errors.chosen[:28],
            random=found.errors.random[:28],
            chosen_cut=found.errors.chosen_cut[:28],
            random_cut=found.errors.random_cut[:28],
        ).trust(max_error=0.1, **limits)


def test_errors_in_some_entries_add_up_to_those_in_all() -> None:
    env = builder("foreworld/Pendulum-v0")()
    spec = Spec.from_space(env.observation_space, env.action_space)
    branches = next(iter(branch(env, spec, starts=1, sequences=4, context=3, horizon=4, repeat=8.0, seed=0)))

    def squares(*entries: int) -> np.ndarray:
        name = f"obs{list(entries)}" if entries else "obs"
        quantity = Quantity(
            name=name, kind="vector", unit=torch.ones(len(entries) or 3), deviation=1.0, entries=tuple(entries)
        )
        yardstick = Yardstick(quantity=quantity, spaces=spec.obs, probes={})
        return yardstick.errors(Off(1.0), branches, [1, 3], samples=1, seed=0) ** 2

    parts = [squares(i) for i in range(3)]
    assert all((part > 0).all() for part in parts) and np.allclose(squares(), sum(parts) / 3, rtol=1e-4)
    assert np.allclose(squares(2, 0), (parts[0] + parts[2]) / 2, rtol=1e-4)


class Off(TrueReward):
    """The pendulum itself, each of whose numbers is told too large by another amount."""

    provides = frozenset({"decode"})

    def decode(self, states: Tensor) -> dict[str, Tensor]:
        angle, speed = states[..., 0], states[..., 1]
        return {"obs": torch.stack([angle.sin() + 1, angle.cos() + 2, speed + 3], -1).float()}


def test_errors_end_with_the_episode_and_returns_are_compared_step_by_step() -> None:
    env = builder("CartPole-v1")()
    spec = Spec.from_space(env.observation_space, env.action_space)
    settings = {"starts": 6, "sequences": 8, "context": 3, "horizon": 30, "repeat": 8.0, "seed": 0}
    quantity = Quantity(name="return", kind="return", unit=torch.ones(30), deviation=1.0)
    found = counterfactual(
        OneAStep(),
        branch(env, spec, **settings),
        samples=1,
        yardstick=Yardstick(quantity=quantity, spaces={}, probes={}),
    )
    assert found.errors is not None
    there = np.isfinite(found.errors.chosen)
    assert not there.all() and (np.diff(there.astype(int), axis=1) <= 0).all()
    assert (found.errors.chosen[there] == 0).all() and not found.errors.chosen_cut.any()


class TrueDecoded(TrueReward):
    """The pendulum itself, which can be looked at."""

    provides = frozenset({"reward", "decode"})
    decode = Dreamer.decode


class OneAStep:
    """Expects a reward of 1 for every step, which is right for a pole until it has fallen."""

    provides = frozenset({"reward"})

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        return torch.zeros(segment.batch, segment.length, 1)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state

    def read(self, state: Tensor) -> Step:
        return Step(feat=state, reward=torch.ones(state.shape[:-1]))
