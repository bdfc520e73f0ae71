"""Every check fails on a model that is broken in its way, and passes on one that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from foreworld_gru import GRU, GRUConfig
from foreworld_gru.model import Memory
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld import testing
from foreworld.core import Losses, Segment, Spec, Step, deterministic, is_deterministic, seeded, tree
from foreworld.core.errors import MissingCapability
from foreworld.core.protocols import require
from foreworld.testing import CountingEnv, NonConforming, check_arrival_rows, counting_segment
from foreworld.testing.kit import CHECKS, conformance_checks

SPEC = testing.specs()["vector_discrete"]


class Sound(GRU):
    """The model that every broken one changes in one place; it samples, so that seeds matter."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, GRUConfig(units=8))
        self.provides = self.provides | {"dream_losses", "carry"}

    def step(self, state: Memory, action: Tensor | None) -> Memory:
        after = super().step(state, action)
        return after if is_deterministic() else Memory(hidden=after.hidden + self.noise(after.hidden))

    def noise(self, like: Tensor) -> Tensor:
        return 0.01 * torch.randn_like(like)

    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        seen, dark = self.losses(segment.rows(0, watch)), segment.rows(watch, segment.length)
        if not dark.length:
            return seen
        states = [tree.index(seen.states, (slice(None), -1))]
        for t in range(dark.length):
            states.append(self.step(states[-1], None if dark.prev_action is None else dark.prev_action[:, t]))
        dreamed = tree.stack(states[1:])
        counts = (dark.is_first.float().cumsum(1) == 0).float()
        terms = {name: term * counts for name, term in self._errors(dreamed, dark).items()}
        terms["dynamics"] = torch.zeros_like(counts)
        return replace(seen, terms=tree.cat([seen.terms, terms]), states=tree.cat([seen.states, dreamed]))


# --- shapes and declarations


class ScalarTerm(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, terms=found.terms | {"obs": found.terms["obs"].mean(0)})


class TermWithoutWeight(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, terms=found.terms | {"extra": found.terms["obs"]})


class DoubleReward(Sound):
    def read(self, state: Any) -> Step:
        step = super().read(state)
        return replace(step, reward=step.reward.double())


class RewardWithAxis(Sound):
    def read(self, state: Any) -> Step:
        step = super().read(state)
        return replace(step, reward=step.reward[..., None])


class UndeclaredCont(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides = frozenset({"reward", "decode", "dream_losses"})


class DeclaredEmbed(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"embed"}


class ContLogit(Sound):
    def read(self, state: Any) -> Step:
        step = super().read(state)
        return replace(step, cont=step.cont.logit() * 10)


class TimeFirst(Sound):
    def observe(self, state: Any, segment: Segment) -> Memory:
        return Memory(hidden=super().observe(state, segment).hidden.transpose(0, 1))


class NotFinite(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        return Memory(hidden=super().step(state, action).hidden / 0.0)


class LostKey(Sound):
    def decode(self, state: Any) -> dict[str, Tensor]:
        return {"observation": super().decode(state)["obs"]}


class LiveMetric(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, metrics={"obs": found.terms["obs"].mean()})


class Embedding(Sound):
    """Provides a goal space and a score."""

    score_kind = "latent error"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"embed", "score"}

    def read(self, state: Any) -> Step:
        return replace(super().read(state), embed=state.hidden[..., :2])

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["obs"][:, :2]

    def score(self, state: Any, segment: Segment) -> Tensor:
        return segment.reward


class Disagreeing(Sound):
    """Provides a spread."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"spread"}

    def spread(self, state: Memory) -> Tensor:
        return state.hidden.var(-1)


class SpreadByEntry(Disagreeing):
    def spread(self, state: Memory) -> Tensor:
        return state.hidden.square()


class SpreadBelowZero(Disagreeing):
    def spread(self, state: Memory) -> Tensor:
        return super().spread(state) - 1


class SpreadOverBatch(Disagreeing):
    def spread(self, state: Memory) -> Tensor:
        return super().spread(state) + state.hidden.var(0).mean()


class OtherGoalSpace(Embedding):
    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["obs"]


class Columns(nn.Module):
    """Embed by a part of the observations, and a number that may be trained."""

    def __init__(self, trained: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()), requires_grad=trained)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.gain * obs["obs"][..., :2]


class FixedEmbedding(Embedding):
    """Has a goal space that training does not change, and takes rows that are embedded already."""

    trained = False

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"fixed_embed"}
        self.encoder = Columns(self.trained)

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return self.encoder(obs)

    def observe(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Memory:
        return super().observe(state, self._narrow(segment, embedded))

    def score(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Tensor:
        return self._narrow(segment, embedded).obs["obs"].mean(-1)

    def losses(self, segment: Segment, state: Any = None, embedded: Tensor | None = None) -> Losses:
        return super().losses(self._narrow(segment, embedded), state)

    def _narrow(self, segment: Segment, embedded: Tensor | None) -> Segment:
        """Let the embedding alone decide."""
        seen = self.encoder(segment.obs) if embedded is None else embedded
        width = self.spec.obs["obs"].shape[0]
        return replace(segment, obs={"obs": F.pad(seen, (0, width - seen.shape[-1]))})


class EncoderTrained(FixedEmbedding):
    trained = True


class EncoderMissing(Embedding):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"fixed_embed"}


class EmbedsTwice(FixedEmbedding):
    def observe(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Memory:
        return super().observe(state, segment)


class ScoresWhatItSees(FixedEmbedding):
    def score(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Tensor:
        return super().score(state, segment)


class LosesTheEmbedding(FixedEmbedding):
    def losses(self, segment: Segment, state: Any = None, embedded: Tensor | None = None) -> Losses:
        return super().losses(segment, state)


class GoalsElsewhere(FixedEmbedding):
    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        return 2 * super().embed(obs)


class ScoreOfUnknownKind(Embedding):
    score_kind = None  # type: ignore[assignment]


class EmbedUnread(Embedding):
    def read(self, state: Any) -> Step:
        return replace(super().read(state), embed=None)


class Nameless(Sound):
    family = None  # type: ignore[assignment]


class BareConfig(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.config = {"units": 8}  # type: ignore[assignment]

    def initial(self, batch: int) -> Memory:
        return Memory(hidden=torch.zeros(batch, 8))


class UnwritableConfig(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.config = GRUConfig(units=8.0)  # type: ignore[arg-type]

    def initial(self, batch: int) -> Memory:
        return Memory(hidden=torch.zeros(batch, 8))


# --- filtering


class BatchNormed(Sound):
    def observe(self, state: Any, segment: Segment) -> Memory:
        hidden = super().observe(state, segment).hidden
        return Memory(hidden=hidden - hidden.mean(0, keepdim=True))


class ResetsEveryone(Sound):
    def _filter(self, state: Any, segment: Segment) -> Any:
        return super()._filter(state, replace(segment, is_first=segment.is_first | segment.is_first.any(0)))


class LossMixesRows(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, terms=found.terms | {"obs": found.terms["obs"] + found.terms["obs"].mean()})


class NeverResets(Sound):
    def _filter(self, state: Any, segment: Segment) -> Any:
        return super()._filter(state, replace(segment, is_first=torch.zeros_like(segment.is_first)))


class ResetsOnlyAtStart(Sound):
    def _filter(self, state: Any, segment: Segment) -> Any:
        first = segment.is_first.clone()
        first[:, 1:] = False
        return super()._filter(state, replace(segment, is_first=first))


class ActsAtFirst(Sound):
    def _filter(self, state: Any, segment: Segment) -> Any:
        prior, posterior = super()._filter(state, segment)
        leak = segment.prev_action.sum(-1, keepdim=True) * segment.is_first[..., None]
        return prior, Memory(hidden=posterior.hidden + leak)


class IgnoresGivenState(Sound):
    def observe(self, state: Any, segment: Segment) -> Memory:
        return super().observe(self.initial(segment.batch), segment)


class LooksAhead(Sound):
    def observe(self, state: Any, segment: Segment) -> Memory:
        hidden = super().observe(state, segment).hidden
        return Memory(hidden=torch.cat([hidden[:, 1:], hidden[:, -1:]], 1))


class LossesFilterOtherwise(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, states=Memory(hidden=found.states.hidden * 0.9))


class SpecialSingleRow(Sound):
    def observe(self, state: Any, segment: Segment) -> Memory:
        after = super().observe(state, segment)
        return Memory(hidden=after.hidden * 0.9) if segment.length == 1 else after


class ReadsByTime(Sound):
    def read(self, state: Any) -> Step:
        step = super().read(state)
        scale = 1 + torch.arange(step.reward.shape[1]) if step.reward.dim() == 2 else 1.0
        return replace(step, reward=step.reward * scale)


class LateUnroll(Sound):
    """A fused imagination that applies every action one step late."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"unroll"}

    def unroll(self, state: Any, actions: Tensor | None, horizon: int) -> Memory:
        hidden = []
        for h in range(horizon):
            state = self.step(state, actions[:, max(h - 1, 0)])
            hidden.append(state.hidden)
        return Memory(hidden=torch.stack(hidden, 1))


class Following(Sound):
    """A fused imagination under a policy."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"follow"}

    def follow(self, state: Any, policy: Any, horizon: int) -> tuple[Memory, Tensor]:
        states, actions = [], []
        for _ in range(horizon):
            actions.append(policy(self.read(state).feat).sample())
            state = self.step(state, actions[-1].clamp(-1, 1))
            states.append(state)
        return tree.stack(states), torch.stack(actions, 1)


class FollowsLate(Following):
    def follow(self, state: Any, policy: Any, horizon: int) -> tuple[Memory, Tensor]:
        held = policy(self.read(state).feat)
        return super().follow(state, lambda feat: held, horizon)


class FollowsWithOtherActions(Following):
    def follow(self, state: Any, policy: Any, horizon: int) -> tuple[Memory, Tensor]:
        states, actions = super().follow(state, policy, horizon)
        return states, actions.roll(1, 1)


class FollowsWithTheStart(Following):
    """Gives the states that were left, not those reached."""

    def follow(self, state: Any, policy: Any, horizon: int) -> tuple[Memory, Tensor]:
        states, actions = super().follow(state, policy, horizon)
        return Memory(hidden=torch.cat([state.hidden.unsqueeze(1), states.hidden[:, :-1]], 1)), actions


class FollowsUnclipped(Following):
    def follow(self, state: Any, policy: Any, horizon: int) -> tuple[Memory, Tensor]:
        states, actions = [], []
        for _ in range(horizon):
            actions.append(policy(self.read(state).feat).sample())
            state = self.step(state, actions[-1])
            states.append(state)
        return tree.stack(states), torch.stack(actions, 1)


class TooLargeForHalf(Sound):
    def _filter(self, state: Any, segment: Segment) -> Any:
        prior, posterior = super()._filter(state, segment)
        return prior, Memory(hidden=posterior.hidden * 1e6)


class KeepsAside(Sound):
    """Goes on from what it saw last, not from what it is given."""

    def _filter(self, state: Any, segment: Segment) -> Any:
        self.last = torch.zeros_like(segment.reward) if not hasattr(self, "last") else self.last + 1
        prior, posterior = super()._filter(state, segment)
        return prior, Memory(hidden=posterior.hidden + self.last.mean())


class StepInPlace(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        after = super().step(state, action)
        with torch.no_grad():
            state.hidden.mul_(0.5)
        return after


class StepReturnsView(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        super().step(state, action)
        return Memory(hidden=state.hidden[:])


class LossesInPlace(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        segment.reward.clamp_(-0.1, 0.1)
        return found


# --- training


class DeadLayer(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.unused = nn.Linear(2, 2)


class DetachedHead(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, terms=found.terms | {name: found.terms[name].detach() for name in ("reward", "cont")})


class KeptOutsideStateDict(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.scale = torch.rand(8)

    def observe(self, state: Any, segment: Segment) -> Memory:
        return Memory(hidden=super().observe(state, segment).hidden * self.scale)

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        return replace(super().losses(segment, state), states=self.observe(self.initial(segment.batch), segment))


class UncalibratedAfterLoad(Sound):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.provides |= {"calibrate"}
        self.mean = 0.0

    def calibrate(self, segments: Callable[[], Any]) -> None:
        self.mean = float(torch.cat([s.reward for s in segments()]).mean()) + 1

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        return super().losses(replace(segment, reward=segment.reward - self.mean), state)


class NumpyNoise(Sound):
    def noise(self, like: Tensor) -> Tensor:
        return torch.from_numpy(np.random.default_rng().normal(size=like.shape)).float()


class OwnGenerator(Sound):
    def noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(0))


class AlwaysSamples(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        with deterministic(False):
            return super().step(state, action)


class UsesPadding(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        ahead = torch.cat([found.terms["reward"][:, 1:], found.terms["reward"][:, -1:]], 1)
        return replace(found, terms=found.terms | {"reward": ahead})


class StatisticOverPadding(Sound):
    def losses(self, segment: Segment, state: Any = None) -> Losses:
        found = super().losses(segment, state)
        return replace(found, terms=found.terms | {"dynamics": found.states.hidden.var()})


class GraphBreak(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        after = super().step(state, action)
        return after if float(after.hidden.sum()) > -1e9 else state


class OtherWhenCompiled(Sound):
    def step(self, state: Any, action: Any) -> Memory:
        after = super().step(state, action)
        return Memory(hidden=after.hidden + 1) if torch.compiler.is_compiling() else after


# --- multi-step training


class DreamsWithOpenEyes(Sound):
    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        return self.losses(segment)


class DreamsFromTheStart(Sound):
    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        return super().dream_losses(segment, 1)


class DreamsIdle(Sound):
    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        if segment.prev_action is None or watch == segment.length:
            return super().dream_losses(segment, watch)
        idle = segment.prev_action.clone()
        idle[:, watch:] = 0
        return super().dream_losses(replace(segment, prev_action=idle), watch)


class DreamsPastTheEnd(Sound):
    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        return super().dream_losses(replace(segment, is_first=torch.zeros_like(segment.is_first)), watch)


class DreamsWithFewerTerms(Sound):
    def dream_losses(self, segment: Segment, watch: int) -> Losses:
        found = super().dream_losses(segment, watch)
        if watch < segment.length:
            del found.terms["dynamics"]
        return found


BROKEN: list[tuple[str, type[Sound], str]] = [
    ("shapes", ScalarTerm, "'obs' has shape"),
    ("shapes", TermWithoutWeight, "do not match"),
    ("shapes", DoubleReward, "float64"),
    ("shapes", RewardWithAxis, "reward has shape"),
    ("shapes", UndeclaredCont, "cont is given"),
    ("shapes", DeclaredEmbed, "no such method"),
    ("shapes", ContLogit, "outside \\[0, 1\\]"),
    ("shapes", TimeFirst, "observe: .hidden has shape"),
    ("shapes", NotFinite, "not finite"),
    ("shapes", LostKey, "keys \\['observation'\\]"),
    ("shapes", OtherGoalSpace, "as in Step.embed"),
    ("shapes", EncoderMissing, "`encoder` is missing"),
    ("shapes", EncoderTrained, "training changes the encoder: gain"),
    ("shapes", EmbedsTwice, "`observe` of rows that are embedded"),
    ("shapes", ScoresWhatItSees, "`score` of rows that are embedded"),
    ("shapes", LosesTheEmbedding, "`losses` of rows that are embedded"),
    ("shapes", GoalsElsewhere, "`embed` differs from `encoder`"),
    ("shapes", SpreadByEntry, "spread: shape"),
    ("shapes", SpreadBelowZero, "spread: found values below 0"),
    ("shapes", ScoreOfUnknownKind, "score_kind"),
    ("shapes", EmbedUnread, "embed is missing"),
    ("shapes", Nameless, "family: missing"),
    ("shapes", BareConfig, "config: missing"),
    ("shapes", UnwritableConfig, "expected int"),
    ("shapes", LiveMetric, "not a detached scalar"),
    ("rows_independent", BatchNormed, "row 1 of the batch"),
    ("rows_independent", ResetsEveryone, "row 1 of the batch"),
    ("rows_independent", LossMixesRows, "terms"),
    ("rows_independent", SpreadOverBatch, "spread"),
    ("is_first_resets", NeverResets, "rows before `is_first`"),
    ("is_first_resets", ResetsOnlyAtStart, "rows before `is_first`"),
    ("is_first_resets", ActsAtFirst, "action at the row"),
    ("observe_in_pieces", IgnoresGivenState, "cut at row 1"),
    ("observe_in_pieces", LooksAhead, "disagree on the states"),
    ("observe_in_pieces", LossesFilterOtherwise, "disagree on the states"),
    ("acting_row_by_row", SpecialSingleRow, "row 0 differs"),
    ("acting_row_by_row", ReadsByTime, "`read` differs at row 1"),
    ("imagine_equals_step", LateUnroll, "`unroll` differs"),
    ("imagine_under_policy", FollowsLate, "`follow` differs"),
    ("imagine_under_policy", FollowsWithOtherActions, "`follow` differs .*actions"),
    ("imagine_under_policy", FollowsWithTheStart, "`follow` differs .*states"),
    ("carry", TooLargeForHalf, "does not survive the float16"),
    ("carry", KeepsAside, "goes on otherwise"),
    ("input_untouched", StepInPlace, "`step` changed its input: .*hidden"),
    ("input_untouched", StepReturnsView, "memory of its input in .hidden"),
    ("input_untouched", LossesInPlace, "`losses` changed its input: .*reward"),
    ("gradients", DeadLayer, "unused.bias, unused.weight"),
    ("gradients", DetachedHead, "heads.bias, heads.weight"),
    ("save_load", KeptOutsideStateDict, "states differ"),
    ("save_load", UncalibratedAfterLoad, "losses differ"),
    ("seeds", NumpyNoise, "same seed"),
    ("seeds", OwnGenerator, "do not depend on the seed"),
    ("seeds", AlwaysSamples, "under `deterministic"),
    ("mask", UsesPadding, "change the total"),
    ("mask", StatisticOverPadding, "change the total"),
    ("dreaming", DreamsWithOpenEyes, "should not see"),
    ("dreaming", DreamsFromTheStart, "differs from `losses`"),
    ("dreaming", DreamsIdle, "differs from `step`"),
    ("dreaming", DreamsPastTheEnd, "another episode"),
    ("dreaming", DreamsWithFewerTerms, "differ in their terms"),
    ("compile", GraphBreak, "as one graph"),
    ("compile", OtherWhenCompiled, "compiled `step` differs"),
]


@pytest.mark.parametrize(("check", "broken", "message"), BROKEN, ids=[f"{c}-{b.__name__}" for c, b, _ in BROKEN])
def test_a_broken_model_is_caught(check: str, broken: type[Sound], message: str) -> None:
    with pytest.raises(NonConforming, match=message):
        getattr(testing, f"check_{check}")(broken, SPEC)


def test_every_check_has_a_model_that_fails_it() -> None:
    assert {check.__name__.removeprefix("check_") for check in CHECKS} == {name for name, _, _ in BROKEN}


@pytest.mark.parametrize("spec", testing.specs().values(), ids=testing.specs())
def test_the_sound_model_passes(spec: Spec) -> None:
    some = {"one": spec}
    results = testing.check_world_model(Sound, some, updates=0)
    idle = {"imagine_under_policy"} if spec.action is None else set()
    assert {result.check for result in results if result.outcome == "inapplicable"} == idle
    assert not any(result.outcome == "failed" for result in results)
    assert len(results) == len(CHECKS)


def test_a_fused_imagination_under_a_policy_passes_and_must_clip() -> None:
    for spec in (SPEC, testing.specs()["vector_box"], testing.specs()["vector_multi_discrete"]):
        testing.check_imagine_under_policy(Following, spec)
    with pytest.raises(NonConforming, match="`follow` differs"):
        testing.check_imagine_under_policy(FollowsUnclipped, testing.specs()["vector_box"])


def test_embedding_score_and_spread_pass_where_they_are_provided() -> None:
    testing.check_shapes(Embedding, SPEC)
    testing.check_shapes(FixedEmbedding, SPEC)
    for check in (testing.check_shapes, testing.check_rows_independent, testing.check_imagine_equals_step):
        check(Disagreeing, SPEC)


def test_all_failures_are_named_together() -> None:
    class Both(StepInPlace, DeadLayer):
        pass

    with pytest.raises(NonConforming) as caught:
        testing.check_world_model(Both, {"one": SPEC}, updates=0)
    assert "input_untouched [one]" in str(caught.value)
    assert "gradients [one]" in str(caught.value)


def test_alignment_is_shown_on_what_the_family_claims_to_see() -> None:
    every = testing.specs()
    video = conformance_checks(Sound, {"video": every["plain_video"]})
    assert not any(name.startswith("alignment") for name in video)
    pictures = conformance_checks(Sound, {"pictures": every["image_discrete"]})
    assert [name for name in pictures if name.startswith("alignment")] == ["alignment-counting_discrete"]
    assert pictures["alignment-counting_discrete"].keywords["image"]  # type: ignore[attr-defined]


def test_a_missing_capability_is_refused_with_its_remedy() -> None:
    with pytest.raises(MissingCapability, match="jepa"):
        require(Sound(SPEC), "embed", "planning to a goal")


# --- alignment


class Counter(GRU):
    """A trainable model whose answers can be shifted after training."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, GRUConfig(units=48))


class LearnsNextReward(Counter):
    """Trained as if a row held the reward of leaving it: the commonest mistake."""

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        ahead = torch.cat([segment.reward[:, 1:], torch.zeros_like(segment.reward[:, :1])], 1)
        return super().losses(replace(segment, reward=ahead), state)


class LearnsLateCont(Counter):
    """Trained as if the row after the terminal one ended the episode."""

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        terminal = torch.cat([torch.zeros_like(segment.is_terminal[:, :1]), segment.is_terminal[:, :-1]], 1)
        return super().losses(replace(segment, is_terminal=terminal), state)


class LearnsLateAction(Counter):
    """Applies every action one row late."""

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        action = torch.cat([segment.prev_action[:, 1:], segment.prev_action[:, :1]], 1)
        return super().losses(replace(segment, prev_action=action), state)


class EarlyCont(Counter):
    """Trained as if the row before the terminal one ended the episode."""

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        early = torch.cat([segment.is_terminal[:, 1:], segment.is_terminal[:, -1:]], 1)
        return super().losses(replace(segment, is_terminal=segment.is_terminal | early), state)


class ErasesTerminalReward(Counter):
    """Trained as if a state's own continuation weighed the reward of reaching it."""

    def losses(self, segment: Segment, state: Any = None) -> Losses:
        return super().losses(replace(segment, reward=segment.reward * segment.cont), state)


def test_an_aligned_model_passes() -> None:
    testing.check_alignment(Counter, "box", updates=200)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (LearnsNextReward, "reward: squared error by shift"),
        (LearnsLateCont, "cont: .* at the terminal state"),
        (LearnsLateAction, "action: changing the first"),
        (ErasesTerminalReward, "return: off by"),
        (EarlyCont, "cont: .* goes on"),
    ],
)
def test_a_misaligned_model_is_caught(broken: type[Counter], message: str) -> None:
    with pytest.raises(NonConforming, match=message):
        testing.check_alignment(broken, "discrete", updates=200)


# --- rows of the counting environment


def shifted(segment: Segment, **columns: int) -> Segment:
    return replace(segment, **{name: getattr(segment, name).roll(by, 1) for name, by in columns.items()})


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("image", [False, True])
def test_counting_rows_are_arrival_rows(action: Any, image: bool) -> None:
    segment = counting_segment(4, 20, action=action, image=image, start=None)
    check_arrival_rows(segment)
    assert segment.is_first.any() and segment.is_terminal.any()


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("image", [False, True])
def test_playing_the_environment_gives_arrival_rows(action: Any, image: bool) -> None:
    env, spec = CountingEnv(action, image), testing.counting_spec(action, image)
    env.action_space.seed(0)
    (space,) = spec.obs.values()
    assert spec.action is not None
    obs, actions, rewards, terminal = [env.reset()[0]], [torch.zeros(spec.action.width)], [0.0], [False]
    while not terminal[-1]:
        chosen = env.action_space.sample()
        seen, reward, over, truncated, _ = env.step(chosen)
        assert not truncated
        obs.append(seen)
        actions.append(spec.action.to_model(torch.as_tensor(chosen)))
        rewards.append(reward)
        terminal.append(over)
    ends = torch.tensor([terminal])
    rows = Segment(
        obs={name: torch.from_numpy(space.to_rest(np.stack(obs)))[None] for name in spec.obs},
        prev_action=torch.stack(actions)[None],
        reward=torch.tensor([rewards]),
        is_first=torch.arange(len(obs))[None] == 0,
        is_terminal=ends,
        is_last=ends,
    )
    check_arrival_rows(rows)
    assert rows.length == 8 and rows.reward[0, 1:].std() > 0.5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prev_action": -1}, "prev_action"),
        ({"reward": -1}, "reward is not that of arriving"),
        ({"is_terminal": 1}, "is_terminal is not exactly"),
        ({"is_terminal": -1, "is_last": -1}, "is_terminal is not exactly"),
        ({"is_first": -1}, "is_first|does not follow"),
    ],
)
def test_shifted_rows_are_caught(columns: dict[str, int], message: str) -> None:
    with pytest.raises(NonConforming, match=message):
        check_arrival_rows(shifted(counting_segment(4, 20), **columns))


@pytest.mark.filterwarnings("ignore:.*we recommend:UserWarning")
def test_the_counting_environment_passes_gymnasium_s_own_checker() -> None:
    from gymnasium.utils.env_checker import check_env

    for action in ("discrete", "box"):
        for image in (False, True):
            check_env(CountingEnv(action, image), skip_render_check=True)  # type: ignore[arg-type]


def test_random_segments_obey_the_conventions() -> None:
    for spec in testing.specs().values():
        with seeded(0):
            segment = testing.random_segment(spec, 8, 10)
        first, last = segment.is_first, segment.is_last
        assert first[:, 1:].any() and not first[:, 0].all()
        assert torch.equal(last[:, :-1], first[:, 1:])
        assert not (first & last).any()
        assert not (segment.is_terminal & ~last).any() and segment.is_terminal.any()
        assert not segment.reward[first].any()
        if segment.prev_action is None:
            assert spec.action is None
        else:
            assert not segment.prev_action[first].any() and segment.prev_action[~first].any()
