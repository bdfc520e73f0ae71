"""The RSSM against the official numbers, and what each option means."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch

from foreworld.agents.dreamer import Choice
from foreworld.core import Segment, Spec, deterministic, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.models import rssm
from foreworld.models.rssm import RSSM, RSSMConfig, RSSMState
from foreworld.nn import CategoricalLatent, actions_of, sample
from foreworld.presets.rssm import CONFIGS

VECTOR = Spec.from_space(gym.spaces.Box(-np.inf, np.inf, (24,)), gym.spaces.Box(-1, 1, (6,)))
IMAGE = Spec.from_space(gym.spaces.Box(0, 255, (64, 64, 3), np.uint8), gym.spaces.Box(-1, 1, (6,)))


def mlp(inputs: int, units: int, layers: int) -> int:
    """Count parameters of linear + norm layers."""
    return (inputs * units + 2 * units) + (layers - 1) * (units * units + 2 * units)


def agent_parameters(config: RSSMConfig, actions: int) -> int:
    """Count the actor (3 layers, mean and deviation) and critic (3 layers, 255 bins) of the official agent."""
    feat = config.deter + config.latents * config.classes
    actor = mlp(feat, config.units, 3) + 2 * (config.units * actions + actions)
    critic = mlp(feat, config.units, 3) + config.units * 255 + 255
    return actor + critic


@pytest.mark.parametrize(
    ("size", "spec", "official"),
    [("1m", VECTOR, 640_867), ("12m", VECTOR, 9_738_019), ("12m", IMAGE, 10_494_158), ("25m", IMAGE, 23_489_326)],
)
def test_parameter_counts_equal_the_official_ones(size: str, spec: Spec, official: int) -> None:
    """World model plus the official actor and critic, with a 6-dimensional continuous action."""
    config = CONFIGS[size]
    with torch.device("meta"):
        model = RSSM(spec, config)
    assert sum(p.numel() for p in model.parameters()) + agent_parameters(config, 6) == official


def test_unimix_bounds_every_probability() -> None:
    latent = CategoricalLatent(3, 5, unimix=0.01)
    extreme = torch.full((2, 15), -50.0)
    extreme[:, ::5] = 50.0
    assert float(latent.probs(extreme).min()) == pytest.approx(0.01 / 5, rel=1e-4)


def test_samples_follow_their_probabilities() -> None:
    latent = CategoricalLatent(1, 4, unimix=0.0)
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).expand(20_000, 4)
    torch.manual_seed(0)
    share = sample(latent, logits).mean(0)
    assert torch.allclose(share, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015)


def test_straight_through_passes_the_gradient_of_the_probabilities() -> None:
    latent = CategoricalLatent(1, 3, unimix=0.0)
    logits = torch.tensor([[0.2, -0.1, 0.4]], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])
    (sample(latent, logits) * weight).sum().backward()
    probs = torch.softmax(logits.detach(), -1)
    expected = probs * (weight - (probs * weight).sum(-1, keepdim=True))
    assert logits.grad is not None
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_free_nats_are_taken_after_the_sum_over_latents() -> None:
    """Thirty-two latents of 0.1 nats each are 3.2 nats in all: above one free nat, not clipped to 32."""
    latent = CategoricalLatent(32, 2, unimix=0.0)
    post = torch.zeros(1, 1, 64)
    prior = torch.tensor([0.9, 0.0]).repeat(32).view(1, 1, 64)
    assert 1.0 < float(latent.kl(post, prior)) < 32.0


def test_pixel_statistics_decide_the_unit_of_the_pixel_loss() -> None:
    spec = Spec.from_space(gym.spaces.Box(0, 255, (32, 32, 1), np.uint8), gym.spaces.Discrete(2))
    model = RSSM(spec, deter=64, units=16, latents=4, classes=4, depth=2, convolutions="strided",
                 pixel_loss="normalised")  # fmt: skip
    frames = torch.zeros(4, 8, 1, 32, 32, dtype=torch.uint8)
    frames[:, ::2, :, 3, 5] = 200
    flags = torch.zeros(4, 8, dtype=torch.bool)
    segment = Segment(obs={"image": frames}, prev_action=torch.zeros(4, 8, 2), reward=torch.zeros(4, 8),
                      is_first=flags, is_terminal=flags, is_last=flags)  # fmt: skip
    model.calibrate(lambda: iter([segment]))
    scale = model.encoder.scale
    assert scale is not None
    assert float(scale.mean[0, 3, 5]) == pytest.approx(100 / 255, abs=1e-5)
    assert float(scale.std[0, 3, 5]) == pytest.approx(100 / 255, abs=1e-5)
    assert float(scale.std[0, 0, 0]) == pytest.approx(0.03)
    # predicting the mean costs half a unit for each pixel that varies, nothing for the rest
    mean = scale.distance(torch.zeros(4, 8, 1, 32, 32), frames)
    assert torch.allclose(mean, torch.full((4, 8), 0.5), atol=1e-4)
    assert torch.allclose(scale.invert(scale(frames)), frames.float() / 255, atol=1e-5)


def test_sizes_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(ConfigError, match="divisible"):
        RSSMConfig(deter=100, blocks=8)
    with pytest.raises(ConfigError, match="unimix"):
        RSSMConfig(unimix=1.0)
    odd = Spec.from_space(gym.spaces.Box(0, 255, (84, 84, 3), np.uint8), gym.spaces.Discrete(2))
    with pytest.raises(SpecError, match=r"'image'.*84x84"):
        RSSM(odd)


def test_a_condition_is_kept_and_matters() -> None:
    spec = Spec(obs=VECTOR.obs, action=VECTOR.action, condition=3)
    model = RSSM(spec, deter=64, units=16, latents=4, classes=4, depth=2)
    flags = torch.zeros(2, 4, dtype=torch.bool)

    def last(condition: torch.Tensor) -> torch.Tensor:
        segment = Segment(obs={"obs": torch.ones(2, 4, 24)}, prev_action=torch.zeros(2, 4, 6),
                          reward=torch.zeros(2, 4), is_first=flags, is_terminal=flags, is_last=flags,
                          condition=condition)  # fmt: skip
        states = model.observe(model.initial(2), segment)
        state = tree.index(states, (slice(None), -1))
        assert torch.equal(state.condition, condition)
        return model.step(state, torch.zeros(2, 6)).deter

    with deterministic():
        assert not torch.allclose(last(torch.zeros(2, 3)), last(torch.ones(2, 3)))


def test_many_dreams_at_once_are_those_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU states are imagined a chunk at a time; a condition goes with its own row."""
    assert VECTOR.action is not None
    model = RSSM(Spec(obs=VECTOR.obs, action=VECTOR.action, condition=3), deter=32, units=16, latents=4, classes=4)
    kind, weight = actions_of(VECTOR.action), torch.randn(48, 12)
    start = RSSMState(deter=torch.rand(5, 32), stoch=torch.randn(5, 16), condition=torch.randn(5, 3))

    def policy(feat: torch.Tensor) -> Choice:
        return Choice(kind, feat @ weight)

    with deterministic(), torch.no_grad():
        whole = model.follow(start, policy, 4)
        replayed = model.unroll(start, whole[1], 4)
        monkeypatch.setattr(rssm, "CHUNK", 2)
        in_pieces = model.follow(start, policy, 4)
        again = model.unroll(start, whole[1], 4)
    for one, other in ((whole, in_pieces), (whole[0], replayed), (replayed, again)):
        for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True):
            torch.testing.assert_close(a, b)


def test_dreams_under_a_policy_are_drawn_from_the_prior() -> None:
    """One step from one state, many times: the shares of every class are those of the prior."""
    model = RSSM(VECTOR, deter=16, units=8, latents=2, classes=3, unimix=0.1)
    start = RSSMState(deter=torch.rand(1, 16), stoch=torch.randn(1, 6), condition=torch.zeros(1, 0))
    action = torch.rand(1, 6)
    times = 20_000
    with torch.no_grad():
        many = tree.repeat(start, times)
        found, _ = model.follow(many, lambda feat: Fixed(action.expand(len(feat), -1)), 1)
        prior = model.latent.probs(model.prior_out(model.prior_hidden(model.step(start, action).deter)))
    torch.testing.assert_close(found.stoch[:, 0].mean(0).view(2, 3), prior[0], atol=0.015, rtol=0)


class Fixed(NamedTuple):
    action: torch.Tensor

    def sample(self) -> torch.Tensor:
        return self.action
