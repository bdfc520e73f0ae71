"""JEPA: what its losses are, that it learns where actions lead, and that it collapses without what prevents it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from foreworld.core import Segment, Space, Spec, deterministic, tree
from foreworld.core.errors import ConfigError, MissingCapability
from foreworld.encoders.looking import LookingDecoder
from foreworld.eval.collapse import Embedding
from foreworld.models.jepa import JEPA, JEPAConfig
from foreworld.ops import effective_rank
from foreworld.rollout.imagine import imagine
from foreworld.testing import random_segment, specs

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(6,), dtype="float32")},
    action=Space(kind="vector", shape=(2,), dtype="float32", low=(-1.0, -1.0), high=(1.0, 1.0)),
)


def small(spec: Spec = SPEC, **fields: Any) -> JEPA:
    torch.manual_seed(0)
    return JEPA(spec, JEPAConfig(**({"latent": 8, "units": 32, "layers": 1, "rollout": 3, "directions": 16} | fields)))


def walk(batch: int = 32, length: int = 10, seed: int = 0) -> Segment:
    """A point in a plane that actions move, seen as three coordinates of its own and three numbers of pure noise."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(batch, length, 2, generator=generator) * 2 - 1
    action[:, 0] = 0
    place = torch.randn(batch, 1, 2, generator=generator) + 0.5 * action.cumsum(1)
    noise = torch.randn(batch, length, 3, generator=generator)
    none = torch.zeros(batch, length, dtype=torch.bool)
    first = none.clone()
    first[:, 0] = True
    obs = torch.cat([place, (place[..., :1] * place[..., 1:]).tanh(), noise], -1)
    return Segment(obs={"obs": obs}, prev_action=action, reward=place[..., 0], is_first=first, is_terminal=none,
                   is_last=none)  # fmt: skip


def train(model: JEPA, updates: int = 200) -> None:
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for update in range(updates):
        adam.zero_grad()
        model.losses(walk(seed=update)).total(model.loss_weights).backward()
        adam.step()
        if "after_update" in model.provides:
            model.after_update(torch.tensor(True))


def test_the_loss_is_the_mean_error_of_dreams_from_every_row_before() -> None:
    """An independent loop: from row t - k, k steps by `step`, compared with the latent of row t."""
    model, segment = small(window=2), random_segment(SPEC, 3, 7, torch.Generator().manual_seed(1))
    with deterministic(), torch.no_grad():
        states = model.observe(model.initial(3), segment)
        latents = model.embed({"obs": segment.obs["obs"]})
        wanted = torch.zeros(3, 7)
        for b in range(3):
            for t in range(7):
                found = []
                for k in range(1, 4):
                    if t - k < 0 or bool(segment.is_first[b, t - k + 1 : t + 1].any()):
                        continue
                    state = tree.index(states, (slice(b, b + 1), t - k))
                    for row in range(t - k + 1, t + 1):
                        state = model.step(state, segment.prev_action[b : b + 1, row])
                    found.append((model.read(state).embed[0] - latents[b, t]).square().mean())
                if found:
                    wanted[b, t] = torch.stack(found).mean()
        assert torch.allclose(model.losses(segment).terms["predict"], wanted, atol=1e-5)


def test_score_is_the_error_of_one_step() -> None:
    model, segment = small(rollout=1), random_segment(SPEC, 3, 7, torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model.score(model.initial(3), segment), model.losses(segment).terms["predict"])


@pytest.mark.parametrize("predictor", ["recurrent", pytest.param("transformer", marks=pytest.mark.slow)])
def test_it_learns_where_actions_lead(predictor: str) -> None:
    """Five steps open loop: the true place is read off the predicted latent far better than off the old one."""
    model = small(predictor=predictor, sigreg=0.1, inverse=3.0, latent=4)
    train(model, 300)
    fit, test = walk(400, 6, 1_000), walk(400, 6, 2_000)
    with torch.no_grad():
        z = model.embed(fit.obs)[:, -1]
        inputs = torch.cat([z, torch.ones(len(z), 1)], 1)
        probe = torch.linalg.lstsq(inputs, fit.obs["obs"][:, -1, :2]).solution
        start = tree.index(model.observe(model.initial(400), test.rows(0, 1)), (slice(None), -1))
        dream = imagine(model, start, test.prev_action[:, 1:], keep=("embed",))
        place = test.obs["obs"][:, -1, :2]

        def error(latent: torch.Tensor) -> float:
            return float((torch.cat([latent, torch.ones(len(latent), 1)], 1) @ probe - place).square().mean())

        assert error(dream.embed[:, -1]) < 0.2 * error(start.latents[:, -1])


@pytest.mark.parametrize(
    ("fields", "collapses"),
    [
        ({"sigreg": 0.1}, False),
        ({"sigreg": 0.0, "variance": 5.0, "covariance": 1.0, "target": "stopped"}, False),
        ({"sigreg": 0.0, "barlow": 1.0}, False),
        ({"sigreg": 0.0}, True),
    ],
)
def test_only_what_prevents_collapse_prevents_it(fields: dict[str, Any], collapses: bool) -> None:
    model = small(**fields)
    train(model, 120)
    with torch.no_grad():
        z = model.embed(walk(256, 2, 5).obs)[:, 0]
        spread = float(z.std(0).mean())
    assert (spread < 0.1) is collapses, spread
    if not collapses:
        assert effective_rank(z) > 3


def test_the_average_follows_the_encoder_and_only_after_updates() -> None:
    model = small(target="ema", momentum=0.9)
    assert model.target is not None
    old = [p.clone() for p in model.target.parameters()]
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    model.after_update(torch.tensor(False))
    assert all(torch.equal(a, b) for a, b in zip(old, model.target.parameters(), strict=True))
    model.after_update(torch.tensor(True))
    for a, b in zip(old, model.target.parameters(), strict=True):
        assert torch.allclose(b - a, torch.full_like(a, 0.1), atol=1e-4)
    model.losses(walk(4)).total(model.loss_weights).backward()
    assert all(p.grad is None for p in model.target.parameters())


def test_targets_pass_a_gradient_only_where_they_are_the_encoder_itself() -> None:
    grads = {}
    for target in ("same", "stopped", "ema"):
        model = small(target=target, sigreg=0.0, reward=False, cont=False)
        model.calibrate(lambda: iter([walk()]))
        model.losses(walk(8)).terms["predict"].mean().backward()
        grads[target] = torch.cat([p.grad.flatten() for p in model.encoder.parameters()])
    assert torch.allclose(grads["stopped"], grads["ema"], atol=1e-6)
    assert not torch.allclose(grads["same"], grads["stopped"], atol=1e-4)


def test_heads_do_not_shape_the_embedding() -> None:
    model = small()
    losses = model.losses(walk(8))
    (losses.terms["reward"].mean() + losses.terms["cont"].mean()).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.predictor.parameters())
    assert all(p.grad is not None for p in model.reward.parameters())


def test_plain_video_has_no_actions_to_name() -> None:
    model = small(specs()["plain_video"], inverse=1.0)
    assert "inverse" not in model.loss_weights and model.provides.isdisjoint({"reward", "cont"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"latent": 0}, "jepa.latent must be at least 1"), ({"sigreg": -1.0}, "jepa.sigreg is a weight"),
     ({"momentum": 2.0}, "jepa.momentum must lie"), ({"heads": 3, "predictor": "transformer"}, "divisible")],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(**fields)


@pytest.mark.parametrize(
    ("found", "said"),
    [({}, ""), ({"rank": 2.0}, "collapsed to 2.0 of its 64"), ({"dead": 0.7}, "70% of the embedding's dimensions"),
     ({"alike": 0.01}, "hardly more alike than random")],
)  # fmt: skip
def test_advice_names_what_is_wrong(found: dict[str, float], said: str) -> None:
    sound: dict[str, Any] = {"width": 64, "rank": 20.0, "std_least": 0.5, "std_mean": 1.0, "dead": 0.0, "alike": 0.8}
    advice = Embedding(**(sound | found), by="truth").advice()
    assert said in advice if said else not advice


def test_a_frozen_encoder_learns_nothing_and_the_predictor_does() -> None:
    model = small(encoder="frozen", inverse=1.0)
    assert set(model.loss_weights) == {"predict", "reward", "cont"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.calibrate(lambda: iter([walk()]))
    train(model, 3)
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("encoder")} == {name for name in same if "encoder" in name}
    assert not {name for name in same if name.startswith("predictor")}


@pytest.mark.parametrize("name", ["image_discrete", "vector_multi_discrete", "mixed_discrete"])
def test_a_decoder_shows_latents_and_changes_nothing(name: str) -> None:
    spec = specs()[name]
    segment = random_segment(spec, 4, 6, torch.Generator().manual_seed(0))
    model, plain = small(spec, decoder=True), small(spec)
    assert "look" in model.provides and "look" not in plain.provides
    with deterministic():
        terms = model.losses(segment).terms
    assert terms["look"].shape == (4, 6) and (terms["look"] > 0).nonzero()[:, 1].unique().tolist() == [5]
    terms["look"].sum().backward()
    moved = {key.split(".")[0] for key, leaf in model.named_parameters() if leaf.grad is not None and leaf.grad.any()}
    assert moved == {"decoder"}, "no latent is shaped by what it looks like"
    shown = model.look(model.observe(model.initial(4), segment))
    assert {key: tuple(value.shape[:2]) for key, value in shown.items()} == dict.fromkeys(spec.obs, (4, 6))
    with pytest.raises(MissingCapability, match="train with a decoder"):
        plain.look(plain.initial(1))


@pytest.mark.parametrize("shown", [0.2, 0.4])
def test_a_decoder_loses_by_how_far_it_is_from_the_truth(shown: float) -> None:
    spec = Spec(obs={"image": Space(kind="image", shape=(3, 8, 8), dtype="uint8")}, action=None)
    decoder, grey = LookingDecoder(spec, 2, 8), torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    logit = math.log(shown / (1 - shown))
    decoder.pictures["image"].register_forward_hook(lambda _module, _given, out: torch.full_like(out, logit))
    divergence = 0.2 * math.log(0.2 / shown) + 0.8 * math.log(0.8 / (1 - shown))
    wrong = decoder.loss(torch.zeros(1, 2), {"image": grey})
    assert wrong.item() == pytest.approx(100 * divergence, rel=1e-4, abs=1e-4), "0 where it is right"


@pytest.mark.slow
def test_a_decoder_learns_what_a_latent_shows() -> None:
    """Pictures of odd sides with one bright pixel; the latent is its place, given to the decoder alone."""
    torch.manual_seed(0)
    spec = Spec(obs={"image": Space(kind="image", shape=(3, 21, 13), dtype="uint8")}, action=None)
    decoder = LookingDecoder(spec, 2, 32)
    adam = torch.optim.Adam(decoder.parameters(), lr=3e-3)

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        row, column = torch.randint(21, (n,)), torch.randint(13, (n,))
        image = torch.zeros(n, 3, 21, 13, dtype=torch.uint8)
        image[torch.arange(n), 1, row, column] = 255
        return torch.stack([row / 10 - 1, column / 6 - 1], 1), image, row * 13 + column

    for _ in range(600):
        latents, image, _ = batch(64)
        adam.zero_grad()
        decoder.loss(latents, {"image": image}).mean().backward()
        adam.step()
    latents, image, at = batch(300)
    shown = decoder(latents)["image"]
    assert shown.shape == (300, 3, 21, 13) and shown.min() >= 0 and shown.max() <= 1
    found = shown[:, 1].flatten(1).argmax(1)
    near = ((found // 13 - at // 13).abs() <= 1) & ((found % 13 - at % 13).abs() <= 1)
    assert near.float().mean() > 0.9, "of 273 places, within one pixel"
    assert shown[:, 0].max() < 0.5, "and nothing where nothing ever was"
