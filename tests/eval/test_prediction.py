"""Open-loop evaluation on worlds whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec
from foreworld.core.errors import DataError, MissingCapability, SpecError
from foreworld.data import Dataset, Episode, Writer, load
from foreworld.eval import evaluate_open_loop, to_json
from foreworld.eval.predictors import Observations, copy_last, mean
from foreworld.eval.summary import in_words, obedience_in_words
from foreworld.studies.evaluation import trivial_baselines

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(1,), dtype="float32")},
    action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
)


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

    def read(self, state: Tensor) -> object:
        from foreworld.core import Step

        return Step(feat=state)

    def decode(self, state: Tensor) -> Observations:
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
    found = evaluate_open_loop(Integrator(), data, {"copy_last": copy_last(SPEC)}, horizon=10, context=3, samples=1)
    assert np.allclose(found.every.errors["model"].value, 0, atol=1e-4)
    assert np.allclose(found.every.skill.value, 1, atol=1e-3)
    assert found.useful_horizon == 10
    assert "the last one tested" in in_words(found)
    assert found.changed is None


def test_errors_agree_with_a_hand_computation(data: Dataset) -> None:
    found = evaluate_open_loop(
        Integrator(0.0), data, {"copy_last": copy_last(SPEC)}, horizon=5, context=3, samples=1, per_episode=1, batch=5
    )
    every = np.concatenate([data.raw(i)["obs/obs"][:8] for i in range(data.episodes)])
    walk = np.stack([data.raw(i)["obs/obs"][:8, 0] for i in range(data.episodes)])
    expected = np.sqrt(((walk[:, 3:] - walk[:, 2:3]) ** 2).mean(0)) / every.std()
    assert np.allclose(found.every.errors["model"].value, expected, rtol=1e-4)
    assert np.allclose(found.every.skill.value, 0, atol=1e-6)
    assert found.useful_horizon == 0
    assert "beats none" in in_words(found)


def test_the_best_baseline_counts_not_the_first(data: Dataset) -> None:
    perfect = {"copy_last": copy_last(SPEC), "oracle": _oracle}
    found = evaluate_open_loop(Integrator(0.5), data, perfect, horizon=5, context=3, samples=1)
    alone = evaluate_open_loop(Integrator(0.5), data, {"copy_last": copy_last(SPEC)}, horizon=5, context=3, samples=1)
    assert (alone.every.skill.value > 0.3).all()
    assert (found.every.skill.value < 0).all()


def _oracle(context: Segment, actions: Tensor | None, horizon: int) -> Observations:
    assert actions is not None
    return {"obs": context.obs["obs"][:, -1:] + actions.cumsum(1) * 0.999}


def test_shuffled_actions_hurt_a_dream_that_obeys_and_not_one_that_ignores(data: Dataset) -> None:
    obeys = evaluate_open_loop(Integrator(), data, {"mean": mean(data)}, horizon=5, context=3, samples=1)
    assert obeys.actions is not None
    assert (obeys.actions.skill.low > 0.5).all()
    assert "obeys them" in obedience_in_words(obeys, (5,))
    ignores = evaluate_open_loop(Integrator(0.0), data, {"mean": mean(data)}, horizon=5, context=3, samples=1)
    assert ignores.actions is not None
    assert np.isnan(ignores.actions.skill.value).all()
    assert "does not depend" in obedience_in_words(ignores, (5,))


def test_steps_that_no_episode_reaches_are_null_with_a_reason(tmp_path: Path) -> None:
    short = walks(tmp_path / "short", episodes=8, length=9)
    found = to_json(evaluate_open_loop(Integrator(), short, {"copy_last": copy_last(SPEC)}, context=3, samples=1))
    assert found["horizons"]["1"]["skill"] == pytest.approx(1, abs=1e-3)
    assert found["horizons"]["10"]["model"] is None
    assert "0 held-out episodes reach step 10" in found["horizons"]["10"]["reason"]


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
    assert found.changed is not None and found.actions is None
    # of 256 pixels two have changed, and a still picture is wrong by the full range on both
    assert found.changed.errors["model"].value[0] * found.deviation == pytest.approx(1.0, rel=1e-4)
    assert found.every.errors["model"].value[0] * found.deviation == pytest.approx(np.sqrt(2 / 256), rel=1e-4)
    # the dot moves by one column a step: two frames decide where, so the linear model knows
    assert found.every.errors["linear"].value[0] < 0.2 * found.every.errors["copy_last"].value[0]


class _Still(Integrator):
    """Shows the last frame for ever."""

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        return segment.obs["image"]

    def step(self, state: Tensor, action: Tensor | None) -> Tensor:  # type: ignore[override]
        return state

    def decode(self, state: Tensor) -> Observations:
        return {"image": state.float() / 255}


def test_bad_input_is_refused(data: Dataset) -> None:
    with pytest.raises(DataError, match="lower --context"):
        evaluate_open_loop(Integrator(), data, {"copy_last": copy_last(SPEC)}, context=40)
    with pytest.raises(SpecError, match="did you mean 'obs'"):
        evaluate_open_loop(Integrator(), data, {"copy_last": copy_last(SPEC)}, key="obss")
    blind = Integrator()
    blind.provides = frozenset()
    with pytest.raises(MissingCapability, match="needs 'decode'"):
        evaluate_open_loop(blind, data, {})
