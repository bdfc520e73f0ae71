"""Ensembles: members are what they are alone, and their mean, spread and losses are what a pocket calculator says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Space, Spec, Step, deterministic, from_json, state, to_json, tree
from foreworld.core.errors import ConfigError, MissingCapability, UnknownName
from foreworld.core.registry import load as find
from foreworld.data import Dataset
from foreworld.eval.predictors import Past, open_loop
from foreworld.models.ensemble import Ensemble, EnsembleConfig
from foreworld.models.linear import Linear, LinearConfig
from foreworld.models.rssm import RSSM, RSSMConfig
from foreworld.presets.ensemble import FAMILY, ensemble_of
from foreworld.rollout import collect, imagine
from foreworld.testing import random_actions, random_segment, specs
from foreworld.testing.compare import expect_same
from foreworld.train import fit, load_run

BOX = specs()["vector_box"]
MIXED = specs()["mixed_discrete"]
SMALL: dict[str, Any] = {"deter": 32, "units": 16, "latents": 4, "classes": 4, "blocks": 2, "depth": 2, "layers": 1}
GAUSSIAN = SMALL | {"latent": "gaussian"}
PLAIN: dict[str, Any] = {"window": 1, "components": 4, "fit": "gradient"}
ALONE = {"rssm": (RSSM, SMALL), "linear": (Linear, PLAIN)}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return collect("CartPole-v1", episodes=4, out=tmp_path / "cartpole")


def built(member: str, members: int, spec: Spec = BOX, **fields: Any) -> Ensemble:
    """Build an ensemble whose weights are all noise, output layers too."""
    torch.manual_seed(3)
    model = Ensemble(spec, member=member, members=members, each=ALONE[member][1], **fields)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    return model


def shifted(*shifts: list[float]) -> Ensemble:
    """Put linear models side by side each of which adds its own shift to the last observation, at every step."""
    spec = Spec(obs={"obs": Space(kind="vector", shape=(len(shifts[0]),), dtype="float32")}, action=BOX.action)
    models = []
    for shift in shifts:
        models.append(Linear(spec, **PLAIN))
        with torch.no_grad():
            models[-1].dynamics.bias.copy_(torch.tensor(shift))
    return Ensemble.of(models, [seen(torch.randn(4, 5, len(shifts[0])))])


def seen(obs: Tensor) -> Segment:
    """Return rows [B, T] from the middle of an episode in which nothing is done."""
    no, zero = torch.zeros(obs.shape[:2], dtype=torch.bool), torch.zeros(obs.shape[:2])
    actions = torch.zeros(*zero.shape, 2)
    return Segment(obs={"obs": obs}, prev_action=actions, reward=zero, is_first=no, is_terminal=no, is_last=no)


def last(model: Any, segment: Segment) -> Any:
    return tree.index(model.observe(model.initial(segment.batch), segment), (slice(None), -1))


# --- members are what they are alone


@pytest.mark.parametrize("member", ["rssm", "linear"])
def test_an_ensemble_of_one_is_its_member_exactly(member: str) -> None:
    model = built(member, 1)
    (alone,) = model.models
    segment, actions = random_segment(BOX), random_actions(BOX, 3, 5)
    assert model.provides == alone.provides - {"follow"} and model.loss_weights == alone.loss_weights
    with deterministic():
        own, state = last(alone, segment), last(model, segment)
        expect_same(tree.index(state, (slice(None), 0)), own, "observe", 0.0)
        one, two = imagine(alone, own, actions, keep=("obs",)), imagine(model, state, actions, keep=("obs",))
        for name in ("feat", "reward", "cont", "obs"):
            expect_same(getattr(two, name), getattr(one, name), name, 0.0)
        for losses in ("losses", "dream_losses") if member == "rssm" else ("losses",):
            watch = (3,) if losses == "dream_losses" else ()
            one, two = getattr(alone, losses)(segment, *watch), getattr(model, losses)(segment, *watch)
            expect_same([two.terms, two.metrics], [one.terms, one.metrics], losses, 0.0)
            totals = one.total(alone.loss_weights), two.total(model.loss_weights)
            first, second = (torch.autograd.grad(x, list(alone.parameters()), allow_unused=True) for x in totals)
            expect_same(second, first, "gradients", 0.0)


@pytest.mark.parametrize("member", ["rssm", "linear"])
def test_each_member_goes_on_with_its_own_state(member: str) -> None:
    model = built(member, 3)
    segment, actions = random_segment(BOX), random_actions(BOX, 3, 5)
    with deterministic():
        dream = imagine(model, last(model, segment), actions, keep=("states", "obs"))
        read, shown = model.read(dream.states), model.decode_members(dream.states)
        for i, alone in enumerate(model.models):
            own = imagine(alone, last(alone, segment), actions, keep=("states", "obs"))
            at = (slice(None), slice(None), i)
            expect_same(tree.index(dream.states, at), own.states, f"states of member {i}", 0.0)
            expect_same(tree.index(shown, at), own.obs, f"observations of member {i}", 0.0)
            assert read.members is not None
            expect_same(tree.index(read.members, at), alone.read(own.states), f"heads of member {i}", 0.0)
    assert read.reward is not None and read.members.reward is not None and dream.obs is not None
    assert torch.equal(read.reward, read.members.reward.mean(-1))
    assert torch.equal(read.feat, torch.cat(list(read.members.feat.unbind(2)), -1))
    assert torch.equal(dream.obs["obs"], shown["obs"].mean(2))
    assert shown["obs"].shape == (3, 5, 3, 5)
    assert model.decode_members(last(model, segment))["obs"].shape == (3, 3, 5)


def test_permuted_members_permute_everything_and_change_no_answer() -> None:
    model, order = built("rssm", 3, MIXED), [2, 0, 1]
    segment = random_segment(MIXED)
    other = Ensemble.of([model.models[i] for i in order], [segment])
    model.fit_unit([segment])
    with deterministic():
        one, two = (m.losses(segment) for m in (model, other))
        expect_same(two.states, tree.map(lambda leaf: leaf[:, :, order], one.states), "states", 0.0)
        expect_same(two.terms, one.terms, "losses", 1e-5)
        read, again = model.read(one.states), other.read(two.states)
        assert read.members is not None and again.members is not None
        expect_same(again.members, tree.map(lambda leaf: leaf[:, :, order], read.members), "members", 0.0)
        expect_same([again.reward, again.cont], [read.reward, read.cont], "means", 1e-5)
        expect_same(other.decode(two.states), model.decode(one.states), "decode", 1e-5)
        expect_same(other.spread(two.states), model.spread(one.states), "spread", 1e-5)


def test_training_together_is_training_alone(data: Dataset) -> None:
    """The loss weights make a sum of the mean, so that each member gets its own gradient, clipped by its own norm."""
    settings: dict[str, Any] = {"steps": 6, "batch": 4, "length": 6, "lr": 1e-2, "warmup": 2}
    torch.manual_seed(5)
    model = Ensemble(data.spec, member="rssm", members=2, each=GAUSSIAN)
    alone = [RSSM(data.spec, **GAUSSIAN) for _ in range(2)]
    for one, member in zip(alone, model.models, strict=True):
        one.load_state_dict(member.state_dict())
    start = [weight.clone() for weight in model.parameters()]
    with deterministic():
        fit(model, data, **settings)
        for one in alone:
            fit(one, data, **settings)
    expect_same(list(model.parameters()), [w for one in alone for w in one.parameters()], "weights", 0.0)
    assert not any(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))
    with torch.no_grad():
        dream = last(model, data.sample(4, 6, seed=0))
        assert float(model.spread(dream).min()) > 1e-3, "members that began apart are still apart"


def test_samples_differ_between_members() -> None:
    """Copies of one model draw each their own noise."""
    alone = RSSM(BOX, **GAUSSIAN)
    model = Ensemble.of([alone, alone], [random_segment(BOX)])
    state = model.step(model.initial(4), torch.zeros(4, 2))
    assert torch.equal(state.deter[:, 0], state.deter[:, 1])
    assert not torch.equal(state.stoch[:, 0], state.stoch[:, 1])


# --- the spread


def test_spread_is_the_deviation_between_members_in_units_of_the_data() -> None:
    model = shifted([1.0, 0.0], [3.0, 0.0], [8.0, 0.6])
    obs = torch.tensor([[[0.0, 0.0], [4.0, 0.2], [0.0, 0.0], [4.0, 0.2]]])
    model.fit_unit([seen(obs), seen(obs)])
    assert model.unit.tolist() == pytest.approx([2.0, 0.1])
    after = model.step(last(model, seen(obs)), torch.zeros(1, 2))
    assert model.decode(after)["obs"][0].tolist() == pytest.approx([8.0, 0.4])
    # shifts 1, 3, 8: variance 13; shifts 0, 0, 0.6: variance 0.12; in units 2 and 0.1: 3.25 and 12; their mean 7.625
    assert model.spread(after).tolist() == pytest.approx([7.625**0.5])
    dream = imagine(model, last(model, seen(obs)), torch.zeros(1, 3, 2), keep=("spread",))
    assert dream.spread is not None
    assert dream.spread[0].tolist() == pytest.approx([k * 7.625**0.5 for k in (1, 2, 3)], rel=1e-5)


def test_padding_does_not_count_in_the_unit() -> None:
    model = shifted([0.0], [1.0])
    obs = torch.tensor([[[0.0], [2.0], [1000.0]]])
    model.fit_unit([replace(seen(obs), mask=torch.tensor([[True, True, False]]))])
    assert model.unit.tolist() == pytest.approx([1.0])
    with pytest.raises(ConfigError, match="no rows"):
        model.fit_unit([])


def test_units_are_those_of_the_evaluation() -> None:
    """One for each entry of a vector, one for all pixels, one for all classes; a constant entry is no division by 0."""
    model = Ensemble(MIXED, member="linear", members=2, each=PLAIN)
    segment = random_segment(MIXED, 16, 8)
    segment.obs["sensor"][..., 0] = 7.0
    segment.obs["sensor"][..., 1] *= 10
    model.fit_unit([segment])
    image, sensor, symbol = model.unit.split([3 * 32 * 32, 5, 4])
    pixels = segment.obs["image"].flatten(0, 1).double() / 255
    pooled = float(pixels.var(0, unbiased=False).mean().sqrt())
    assert image.tolist() == pytest.approx([pooled] * len(image), rel=1e-5)
    vector = segment.obs["sensor"].flatten(0, 1).double().var(0, unbiased=False)
    assert sensor[1:].tolist() == pytest.approx(vector[1:].sqrt().tolist(), rel=1e-5)
    assert float(sensor[0]) == pytest.approx(float((1e-4 * vector.mean()).sqrt()), rel=1e-5)
    classes = MIXED.obs["symbol"].one_hot(segment.obs["symbol"]).flatten(0, 1).double()
    assert symbol.tolist() == pytest.approx([float(classes.var(0, unbiased=False).mean().sqrt())] * 4, rel=1e-5)


def test_numbers_without_axes_have_a_spread_too() -> None:
    spec = Spec(obs={"height": Space(kind="vector", shape=(), dtype="float32")}, action=BOX.action)
    model = Ensemble(spec, member="rssm", members=2, each=GAUSSIAN)
    segment = random_segment(spec)
    model.fit_unit([segment])
    with torch.no_grad():
        states = model.observe(model.initial(3), segment)
        shown = model.decode_members(states)["height"]
        expected = (shown[..., 0] - shown[..., 1]).abs() / 2**0.5 / model.unit
        assert shown.shape == (3, 6, 2)
        assert torch.allclose(model.spread(states), expected, atol=1e-5)


def test_spread_foretells_the_error_of_a_sixth_draw() -> None:
    """Members and truth from one distribution: squared error over squared spread is (M + 1) / M."""
    generator, ratios = torch.Generator().manual_seed(0), []
    for _ in range(8):
        draws = torch.randn(6, 300, generator=generator)
        model = shifted(*draws[:5].tolist())
        model.unit.fill_(1.0)
        context = seen(torch.zeros(1, 2, 300))
        with torch.no_grad():
            after = model.step(last(model, context), torch.zeros(1, 2))
            error = (model.decode(after)["obs"] - draws[5]).square().mean()
            ratios.append(float(error / model.spread(after).square()))
    assert np.mean(ratios) == pytest.approx(6 / 5, rel=0.05)


def test_members_that_agree_have_no_spread_and_a_finite_gradient() -> None:
    model = shifted([1.0, 2.0], [1.0, 2.0])
    state = tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, model.initial(3))
    spread = model.spread(state)
    assert float(spread.detach().max()) < 1e-9
    spread.sum().backward()
    assert bool(state.codes.grad.isfinite().all())


def test_spread_is_not_there_for_one_member_nor_for_a_single_model() -> None:
    for model in (built("rssm", 1), RSSM(BOX, **SMALL)):
        with pytest.raises(MissingCapability, match="ensemble"):
            imagine(model, model.initial(2), torch.zeros(2, 3, 2), keep=("spread",))


# --- bootstrap


def test_bootstrap_counts_sequences_as_often_as_they_were_drawn() -> None:
    plain, drawn = built("linear", 1), built("linear", 1, bootstrap=True)
    segment = random_segment(BOX, 8, 6)
    wanted = plain.losses(segment).terms
    found = drawn.losses(segment)
    times = found.terms["reward"] / wanted["reward"]
    assert torch.allclose(times, times[:, :1].round().expand_as(times), atol=1e-4)
    counts = times[:, 0].round()
    assert int(counts.sum()) == 8 and len(counts.unique()) > 1
    assert torch.allclose(found.terms["code"], wanted["code"] * counts[:, None], atol=1e-5)
    expect_same(found.states, plain.losses(segment).states, "states stay those of the rows", 0.0)
    with deterministic():
        expect_same(drawn.losses(segment).terms, wanted, "deterministic() draws nothing", 0.0)


def test_closed_form_members_differ_only_by_bootstrap() -> None:
    def segments() -> Iterator[Segment]:
        return (random_segment(BOX, 8, 6, torch.Generator().manual_seed(i)) for i in range(6))

    for bootstrap, alike in ((False, True), (True, False)):
        model = Ensemble(BOX, member="linear", members=2, each={"window": 1}, bootstrap=bootstrap)
        model.calibrate(segments)
        first, second = (one.dynamics.weight for one in model.models)
        assert torch.equal(first, second) == alike
        assert bool(first.any())


# --- capabilities that no decoder is needed for


@state
class Count:
    """How many rows and steps have passed."""

    steps: Tensor


class Counter(nn.Module):
    """Provides a goal space, a score and a reward, and no decoder; everything is its factor times a count."""

    family = "counter"
    score_kind = "latent error"
    provides = frozenset({"reward", "embed", "score", "after_update", "carry", "telepathy"})

    def __init__(self, spec: Spec, factor: float = 1.0) -> None:
        super().__init__()
        self.spec, self.config, self.loss_weights = spec, LinearConfig(), {"batch": 1.0}
        self.factor, self.updates = nn.Parameter(torch.tensor(factor)), 0

    def initial(self, batch: int) -> Count:
        return Count(steps=torch.zeros(batch, 1))

    def observe(self, state: Count, segment: Segment) -> Count:
        return Count(steps=state.steps[:, None] + 1 + torch.arange(segment.length)[:, None])

    def step(self, state: Count, action: Tensor | None) -> Count:
        return Count(steps=state.steps + 1)

    def read(self, state: Count) -> Step:
        value = self.factor * state.steps
        return Step(feat=value, reward=value.squeeze(-1), embed=torch.cat([value, -value], -1))

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return self.factor * obs["obs"][:, :2]

    def score(self, state: Count, segment: Segment) -> Tensor:
        return self.factor * segment.reward

    def losses(self, segment: Segment, state: Count | None = None) -> Losses[Count]:
        states = self.observe(self.initial(segment.batch) if state is None else state, segment)
        return Losses(terms={"batch": self.factor * states.steps.sum()}, metrics={}, states=states)

    def after_update(self, step: int) -> None:
        self.updates = step


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Ensemble:
    """Two counters of factors 1 and 3."""
    family = replace(find("models", "linear"), name="counter", build=Counter)
    monkeypatch.setattr("foreworld.models.ensemble.load", lambda kind, name: family)
    segment = replace(random_segment(BOX, 1, 2), reward=torch.tensor([[0.0, 4.0]]))
    return Ensemble.of([Counter(BOX, 1.0), Counter(BOX, 3.0)], [segment])


def test_other_capabilities_are_passed_through_and_unknown_ones_are_not(counters: Ensemble) -> None:
    assert counters.provides == {"reward", "embed", "score", "after_update", "carry", "spread", "calibrate"}
    segment = random_segment(BOX, 2, 3)
    states = counters.observe(counters.initial(2), segment)
    read = counters.read(states)
    assert read.embed is not None and read.reward is not None
    assert read.embed[0, 1].tolist() == [2, -2, 6, -6]
    assert read.reward[0].tolist() == [2, 4, 6]
    assert torch.equal(counters.embed({"obs": torch.ones(1, 5)}), torch.tensor([[1.0, 1, 3, 3]]))
    assert torch.allclose(counters.score(counters.initial(2), segment), 2 * segment.reward)
    assert counters.score_kind == "latent error"
    counters.after_update(7)
    assert [one.updates for one in counters.models] == [7, 7]


def test_without_a_decoder_the_spread_is_that_of_the_reward(counters: Ensemble) -> None:
    states = counters.observe(counters.initial(1), random_segment(BOX, 1, 2))
    # rewards 1 and 3, then 2 and 6, in units of the deviation 2 of 0 and 4
    assert counters.spread(states)[0].tolist() == pytest.approx([2**0.5 / 2, 8**0.5 / 2])


def test_losses_over_a_batch_are_averaged_and_never_resampled(counters: Ensemble) -> None:
    counters.config = replace(counters.config, bootstrap=True)
    losses = counters.losses(random_segment(BOX, 2, 3))
    assert float(losses.terms["batch"].detach()) == 2 * 12
    assert counters.loss_weights == {"batch": 2.0}


# --- building, wrapping, storing


def test_config_survives_json_and_finds_the_members_config() -> None:
    config = EnsembleConfig(member="linear", members=3, each=LinearConfig(window=4), bootstrap=True)
    assert from_json(EnsembleConfig, to_json(config)) == config
    assert EnsembleConfig(member="linear").each == find("models", "linear").config("tiny")
    assert EnsembleConfig(member="rssm", each={"deter": 64}).each == RSSMConfig(deter=64)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"members": 0}, ConfigError, r"ensemble\.members must be 1 to 100, found 0"),
        ({"members": 10**9}, ConfigError, r"ensemble\.members must be 1 to 100"),
        ({"member": "ensemble"}, ConfigError, "not an ensemble again"),
        ({"member": "rsm"}, UnknownName, "did you mean 'rssm'"),
        ({"member": "linear", "each": RSSMConfig()}, ConfigError, "LinearConfig of 'linear', found RSSMConfig"),
        ({"member": "linear", "each": {"deter": 3}}, ConfigError, r"ensemble\.each: unknown field 'deter'"),
        ({"member": "linear", "each": {"window": 0}}, ConfigError, r"linear\.window must be at least 1"),
        ({"each": 5}, ConfigError, "found int"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EnsembleConfig(**fields)
    with pytest.raises(error, match=message):
        from_json(EnsembleConfig, fields)


def test_only_models_that_were_trained_alike_are_put_side_by_side() -> None:
    segment = random_segment(BOX)
    one = Linear(BOX, window=1)
    for others, what in (
        ([], "at least one model"),
        ([one, RSSM(BOX, **SMALL)], "same family"),
        ([one, Linear(specs()["vector_discrete"], window=1)], "same spec"),
        ([one, Linear(BOX, window=2)], "same config"),
    ):
        with pytest.raises(ConfigError, match=what):
            Ensemble.of(others, [segment])


def test_models_trained_one_by_one_become_an_ensemble(data: Dataset, tmp_path: Path) -> None:
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        fit(RSSM(data.spec, **GAUSSIAN), data, steps=2, batch=2, length=4, seed=seed, out=tmp_path / str(seed))
        runs.append(load_run(tmp_path / str(seed)))
    model = Ensemble.of([run.model for run in runs], [data.sample(4, 8, seed=0, step=i) for i in range(3)])
    assert model.config == EnsembleConfig(member="rssm", members=3, each=RSSMConfig(**GAUSSIAN))
    assert model.models == [run.model for run in runs] and not model.training
    segment = data.sample(4, 8, seed=1)
    with torch.no_grad(), deterministic():
        spread = model.spread(last(model, segment))
    assert spread.shape == (4,) and float(spread.min()) > 0


def test_a_run_folder_gives_back_the_ensemble(data: Dataset, tmp_path: Path) -> None:
    model = Ensemble(data.spec, member="linear", members=3, each=PLAIN, bootstrap=True)
    fit(model, data, steps=3, batch=4, length=6, lr=1e-2, warmup=1, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.family == "ensemble" and run.model.config == model.config
    expect_same(dict(run.model.state_dict()), dict(model.state_dict()), "weights and units", 0.0)
    assert float((run.model.unit - 1).abs().max()) > 0.1
    first, second = (one.dynamics.weight for one in run.model.models[:2])
    assert not torch.equal(first, second)


def test_sizes_and_training_follow_the_members_family() -> None:
    for name, family in (("rssm", FAMILY), ("linear", ensemble_of("linear"))):
        inner = find("models", name)
        assert (family.name, family.sizes, family.fits) == ("ensemble", inner.sizes, inner.fits)
        assert [family.config(size).each for size in family.sizes] == [inner.config(size) for size in inner.sizes]
        assert {family.config(size).member for size in family.sizes} == {name}
    with pytest.raises(UnknownName, match="unknown size of ensemble"):
        ensemble_of("linear").config("1m")


# --- learning


@pytest.mark.slow
def test_the_ensemble_is_nearer_to_the_truth_than_its_members(tmp_path: Path) -> None:
    train, heldout = collect("Pendulum-v1", episodes=30, out=tmp_path / "pendulum", seed=0).split(0.3)
    torch.manual_seed(0)
    each = {"deter": 64, "units": 32, "latents": 8, "latent": "gaussian", "rep_weight": 0.05, "layers": 2}
    model = Ensemble(train.spec, member="rssm", members=5, each=each)
    fit(model, train, steps=150, batch=8, length=16, lr=1.5e-3, warmup=20)
    starts = [0, 40, 90, 140]
    segment = heldout.windows(np.arange(heldout.episodes).repeat(4), np.tile(starts, heldout.episodes), 30)
    context, truth = segment.rows(0, 10), segment.obs["obs"][:, 10:]
    assert segment.prev_action is not None
    actions = segment.prev_action[:, 10:]
    with deterministic(), torch.no_grad():
        past = Past(rows=context, truth={}, actions=actions, horizon=20)
        found = [open_loop(one)(past)["obs"].mean(1) for one in (model, *model.models)]
        spread = imagine(model, last(model, context), actions, keep=("spread",)).spread
    assert spread is not None
    together, *alone = [float(((shown - truth) / model.unit).square().mean().sqrt()) for shown in found]
    assert together < 0.9 * np.mean(alone), (together, alone)
    assert together < 0.9, "the mean observation has error 1"
    assert 0.1 * together < float(spread.mean()) < 2 * together
