"""Open-loop evaluation on worlds whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec, Step
from foreworld.core.errors import DataError, MissingCapability, SpecError
from foreworld.data import Dataset, Episode, Writer, load
from foreworld.eval import evaluate_open_loop, to_json
from foreworld.eval.predictors import Forecast, Past, copy_last, mean
from foreworld.eval.summary import in_words, obedience_in_words
from foreworld.ops import bootstrap_ratio
from foreworld.studies.evaluation import trivial_baselines

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(1,), dtype="float32")},
    action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
)


COPY = {"copy_last": copy_last(SPEC.obs)}


class Integrator:
    """Adds every action to the last observation: the truth of `walks`."""

    provides = frozenset({"decode"})

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        return segment.obs["obs"]

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state + self.gain * action

    def read(self, state: Tensor) -> Step:
        return Step(feat=state)

    def decode(self, state: Tensor) -> dict[str, Tensor]:
        return {"obs": state}


def walks(path: Path, episodes: int = 12, length: int = 40) -> Dataset:
    """Random walks driven by the actions."""
    rng = np.random.default_rng(1)
    with Writer(path, SPEC) as writer:
        for _ in range(episodes):
            action = rng.uniform(-1, 1, (length, 1)).astype(np.float32)
            action[0] = 0
            writer.add(
                Episode(obs={"obs": np.cumsum(action, 0)}, prev_action=action, reward=np.zeros(length, np.float32))
            )
    return load(path)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return walks(tmp_path / "walks")


def test_the_truth_has_no_error_and_full_skill(data: Dataset) -> None:
    found = evaluate_open_loop(Integrator(), data, COPY, horizon=10, context=3, samples=1)
    assert np.allclose(found.main.every.errors["model"].value, 0, atol=1e-4)
    assert np.allclose(found.main.every.skill.value, 1, atol=1e-3)
    assert found.main.useful_horizon == 10
    assert "the last one tested" in in_words(found)
    assert found.main.changed is None


def test_errors_agree_with_a_hand_computation(data: Dataset) -> None:
    found = evaluate_open_loop(
        Integrator(0.0),
        data,
        COPY,
        horizon=5,
        context=3,
        samples=1,
        per_episode=1,
        batch=5,
    )
    every = np.concatenate([data.raw(i)["obs/obs"][:8] for i in range(data.episodes)])
    walk = np.stack([data.raw(i)["obs/obs"][:8, 0] for i in range(data.episodes)])
    expected = np.sqrt(((walk[:, 3:] - walk[:, 2:3]) ** 2).mean(0)) / every.std()
    assert np.allclose(found.main.every.errors["model"].value, expected, rtol=1e-4)
    assert np.allclose(found.main.every.skill.value, 0, atol=1e-6)
    assert found.main.useful_horizon == 0
    assert "beats none" in in_words(found)


def test_intervals_are_those_of_sums_over_the_episodes(data: Dataset) -> None:
    found = evaluate_open_loop(Integrator(0.5), data, COPY, horizon=5, context=3, samples=1, per_episode=1)
    walk = np.stack([data.raw(i)["obs/obs"][:8, 0] for i in range(data.episodes)])
    moved = walk[:, 3:] - walk[:, 2:3]
    share = bootstrap_ratio((moved / 2) ** 2, moved**2, root=True)
    # half of every move is missed, in every episode alike: nothing varies
    assert np.allclose([share.value, share.low, share.high], 0.5)
    assert np.allclose([found.main.every.skill.low, found.main.every.skill.high], 0.5, atol=1e-5)
    every = np.concatenate([data.raw(i)["obs/obs"][:8] for i in range(data.episodes)])
    errors, missed = found.main.every.errors["model"], bootstrap_ratio((moved / 2) ** 2, np.ones((12, 1)), root=True)
    for end in ("low", "high"):
        assert np.allclose(getattr(errors, end), getattr(missed, end) / every.std(), rtol=1e-4)


def test_the_best_baseline_counts_not_the_first(data: Dataset) -> None:
    perfect = COPY | {"oracle": _oracle}
    found = evaluate_open_loop(Integrator(0.5), data, perfect, horizon=5, context=3, samples=1)
    alone = evaluate_open_loop(Integrator(0.5), data, COPY, horizon=5, context=3, samples=1)
    assert (alone.main.every.skill.value > 0.3).all()
    assert (found.main.every.skill.value < 0).all()


def _oracle(past: Past) -> Forecast:
    assert past.actions is not None
    return {"obs": (past.rows.obs["obs"][:, -1:] + past.actions.cumsum(1) * 0.999).unsqueeze(1)}


def test_shuffled_actions_hurt_a_dream_that_obeys_and_not_one_that_ignores(data: Dataset) -> None:
    obeys = evaluate_open_loop(Integrator(), data, {"mean": mean(data)}, horizon=5, context=3, samples=1)
    assert obeys.main.actions is not None
    assert (obeys.main.actions.skill.low > 0.5).all()
    assert "obeys them" in obedience_in_words(obeys, (5,))
    ignores = evaluate_open_loop(Integrator(0.0), data, {"mean": mean(data)}, horizon=5, context=3, samples=1)
    assert ignores.main.actions is not None
    assert np.isnan(ignores.main.actions.skill.value).all()
    assert "does not depend" in obedience_in_words(ignores, (5,))


def test_steps_that_no_episode_reaches_are_null_with_a_reason(tmp_path: Path) -> None:
    short = walks(tmp_path / "short", episodes=8, length=9)
    found = to_json(evaluate_open_loop(Integrator(), short, COPY, context=3, samples=1))
    assert found["horizons"]["1"]["skill"] == pytest.approx(1, abs=1e-3)
    assert found["horizons"]["10"]["model"] is None
    assert "only 6 steps were predicted" in found["horizons"]["10"]["reason"]
    assert "longer episodes" in found["horizons"]["10"]["reason"]


def test_images_are_judged_on_changed_pixels_too(tmp_path: Path) -> None:
    spec = Spec(obs={"image": Space(kind="image", shape=(1, 16, 16), dtype="uint8")}, action=None)
    with Writer(tmp_path / "dots", spec) as writer:
        for start in range(8):
            frames = np.zeros((20, 1, 16, 16), np.uint8)
            for t in range(20):
                frames[t, 0, 3, (start + t) % 16] = 255
            writer.add(Episode(obs={"image": frames}))
    dots = load(tmp_path / "dots")
    found = evaluate_open_loop(_Still(), dots, trivial_baselines(dots), horizon=4, context=4, samples=1, per_episode=1)
    assert found.main.changed is not None and found.main.actions is None
    # of 256 pixels two have changed, and a still picture is wrong by the full range on both
    assert found.main.changed.errors["model"].value[0] * found.main.quantity.deviation == pytest.approx(1.0, rel=1e-4)
    assert found.main.every.errors["model"].value[0] * found.main.quantity.deviation == pytest.approx(
        np.sqrt(2 / 256), rel=1e-4
    )
    # the dot moves by one column a step: two frames decide where, so the linear model knows
    assert found.main.every.errors["linear"].value[0] < 0.2 * found.main.every.errors["copy_last"].value[0]


class _Still(Integrator):
    """Shows the last frame for ever."""

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        return segment.obs["image"]

    def step(self, state: Tensor, action: Tensor | None) -> Tensor:  # type: ignore[override]
        return state

    def decode(self, state: Tensor) -> dict[str, Tensor]:
        return {"image": state.float() / 255}


def test_bad_input_is_refused(data: Dataset) -> None:
    with pytest.raises(DataError, match="lower --context"):
        evaluate_open_loop(Integrator(), data, COPY, context=40)
    with pytest.raises(SpecError, match="did you mean 'obs'"):
        evaluate_open_loop(Integrator(), data, COPY, key="obss")
    blind = Integrator()
    blind.provides = frozenset()
    with pytest.raises(MissingCapability, match="needs 'decode'"):
        evaluate_open_loop(blind, data, {}, key="obs")


def test_a_model_without_decoder_is_judged_by_its_latent_and_says_what_is_missing(data: Dataset) -> None:
    blind = Integrator()
    blind.provides = frozenset()
    found = evaluate_open_loop(blind, data, COPY, horizon=5, context=3, samples=1)
    assert found.key == "latent" and np.allclose(found.main.every.errors["model"].value, 0, atol=1e-4)
    assert "effective rank 1.0 of 1" in found.main.quantity.note
    assert found.missing["obs"] == "Integrator has no decoder"
    assert "earn the same" in found.missing["return"]
    assert to_json(found)["quantities"]["obs"] == {"reason": "Integrator has no decoder"}


def test_one_model_is_asked_in_four_ways(data: Dataset) -> None:
    found = evaluate_open_loop(Integrator(0.5), data, {}, horizon=5, context=3, samples=1, per_episode=1)
    errors = {name: interval.value for name, interval in found.main.every.errors.items()}
    action = np.stack([data.raw(i)["prev_action"][3:8, 0] for i in range(data.episodes)])
    unit = found.main.quantity.deviation
    # it adds half of every action: one step ahead it misses half of one, open loop half of all of them
    assert np.allclose(errors["teacher_forced"] * unit, np.sqrt((0.25 * action**2).mean(0)), rtol=1e-4)
    assert np.allclose(errors["model"] * unit, np.sqrt((0.25 * action.cumsum(1) ** 2).mean(0)), rtol=1e-4)
    assert np.allclose(errors["model_from_one_row"], errors["model"])  # it forgets all but the last row
    assert np.allclose(errors["floor"], 0)
    windows = np.sqrt(0.25 * action.cumsum(1) ** 2) / unit
    assert np.allclose(found.main.errors, windows[found.episode], rtol=1e-4)


class Earner(Integrator):
    """Also predicts a reward of 1 a step, and that half of all roll-outs end at every step."""

    provides = frozenset({"decode", "reward", "cont"})

    def read(self, state: Tensor) -> Step:
        ones = torch.ones(state.shape[:-1])
        return Step(feat=state, reward=ones, cont=ones / 2)


def test_the_return_is_judged_by_step_in_units_of_its_own_deviation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(12, 8)).astype(np.float32)
    with Writer(tmp_path / "paid", SPEC) as writer:
        for reward in rewards:
            reward[0] = 0
            zeros = np.zeros((8, 1), np.float32)
            writer.add(Episode(obs={"obs": zeros + rng.normal()}, prev_action=zeros, reward=reward))
    paid = load(tmp_path / "paid")
    found = evaluate_open_loop(Earner(), paid, COPY, horizon=3, context=2, samples=1, per_episode=1)
    true = rewards[:, 2:5].cumsum(1)
    expected = np.sqrt(((np.array([1.0, 1.5, 1.75]) - true) ** 2).mean(0)) / true.std(0)
    part = found.judgements["return"]
    assert np.allclose(part.every.errors["model"].value, expected, rtol=1e-4)
    held = np.sqrt(((rewards[:, 1:2] * [1, 2, 3] - true) ** 2).mean(0)) / true.std(0)
    assert np.allclose(part.every.errors["copy_last"].value, held, rtol=1e-4)


class Coin(Integrator):
    """Goes up or down by 1 at random, as its world does; or says the mean, which never happens."""

    def __init__(self, certain: bool) -> None:
        super().__init__()
        self.certain = certain

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state if self.certain else state + torch.randint(0, 2, state.shape) * 2.0 - 1


def test_the_energy_score_prefers_samples_spread_like_the_truth_to_their_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "coins", SPEC) as writer:
        for _ in range(400):
            obs = np.array([[0.0], [0.0], [rng.choice([-1.0, 1.0])]], np.float32)
            writer.add(
                Episode(obs={"obs": obs}, prev_action=np.zeros((3, 1), np.float32), reward=np.zeros(3, np.float32))
            )
    coins = load(tmp_path / "coins")
    spread, certain = (
        evaluate_open_loop(Coin(sure), coins, {}, horizon=1, context=2, samples=16, per_episode=1, batch=100).main
        for sure in (False, True)
    )
    # two points 2 apart: E|x - y| = 1 and E|x - x'| / 2 = 1/2; the mean is always 1 off
    unit = spread.quantity.deviation
    assert spread.energy["model"].value[0] * unit == pytest.approx(0.5, abs=0.06)
    assert certain.energy["model"].value[0] * unit == pytest.approx(1.0, rel=1e-4)
    assert spread.every.errors["model"].value[0] > certain.every.errors["model"].value[0]


def test_memory_of_a_window_is_not_kept(data: Dataset) -> None:
    small = evaluate_open_loop(Integrator(0.5), data, {}, horizon=5, context=3, samples=2, batch=1)
    large = evaluate_open_loop(Integrator(0.5), data, {}, horizon=5, context=3, samples=2, batch=64)
    assert np.allclose(small.main.errors, large.main.errors)
