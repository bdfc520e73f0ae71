"""The classic silent bugs of agents that learn in imagination: each is put in, and a check must fail.

Every port of DreamerV3 had some of them, and each still learned something.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from expected_losses import CASES, expect_gradients, expect_losses
from seeding import Check, Seed, around, both, expect_caught, pairs, rewritten
from tiny_worlds import Line, Table, Tiny, awake, random_table, wander
from torch import Tensor

from foreworld.agents import Dreamer, DreamerLearner, ReturnRange, dreamer
from foreworld.core import Rollout, Segment, Spec, tree
from foreworld.models import rssm
from foreworld.models.rssm import RSSM
from foreworld.nn import CategoricalLatent
from foreworld.nn.actions import BoundedNormal, OneHots
from foreworld.testing import check_imagine_under_policy, filtering, random_segment, specs
from foreworld.testing import check_is_first_resets as check_resets
from foreworld.train.optim import LaProp
from foreworld.train.update import update

imagination = import_module("foreworld.rollout.imagine")
SMALL: dict[str, Any] = {"deter": 16, "units": 8, "latents": 2, "classes": 4, "blocks": 2, "layers": 1}


# --- what is learned from a dream, and from real rows


def check_choices() -> None:
    """With choices as actions, losses are those of plain Python."""
    for name in ("mode", "contrary"):
        expect_losses(CASES[name], unimix=0.2, entropy=0.3)


def check_numbers() -> None:
    """With numbers as actions, likewise; the actions lie beyond the bounds."""
    expect_losses(CASES["far"], entropy=0.3)


def check_gradients() -> None:
    """Actor and critic follow the gradients of REINFORCE and of the cross-entropy, and no others."""
    for name in ("contrary", "far"):
        expect_gradients(CASES[name], unimix=0.2)


def dreams(change: Any) -> Seed:
    """Change what was dreamed."""

    def wrong(right: Any, *args: Any, **fields: Any) -> Rollout:
        rollout = right(*args, **fields)
        return replace(rollout, **change(rollout))

    return around(dreamer, "imagine", wrong)


def left(start: Tensor, reached: Tensor) -> Tensor:
    """Return what belongs to the states that were left, [B, H, ...]."""
    return torch.cat([start.unsqueeze(1), reached[:, :-1]], 1)


def returns(wrong: Any) -> Seed:
    """Change what goes into lambda-returns."""
    return around(dreamer, "lambda_return", wrong)


def rows(change: Any) -> Seed:
    """Change the real rows."""

    def wrong(right: Any, self: Dreamer, model: Any, states: Any, segment: Segment) -> Any:
        return right(self, model, states, replace(segment, **change(segment)))

    return around(Dreamer, "losses", wrong)


def none(like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def last_zeroed(right: Any, reward: Tensor, cont: Tensor, value: Tensor, *rest: Any) -> Tensor:
    """Forget the value at the horizon."""
    return right(reward, cont, torch.cat([value[:, :-1], none(value[:, -1:])], 1), *rest)


def uncut(right: Any, reward: Tensor, cont: Tensor, value: Tensor, discount: float, lam: Any) -> Tensor:
    """Let returns of real rows run on into the next episode; those of dreams have this lambda anyway."""
    return right(reward, cont, value, discount, 0.95)


def boot(change: Any) -> Seed:
    """Change what stands for the future of real rows."""
    return around(
        Dreamer,
        "_replay_loss",
        lambda right, self, step, segment, boot: right(self, step, segment, change(self, step, boot)),
    )


def towards_itself(right: Any, self: Dreamer, guess: Tensor, feat: Tensor, returns: Tensor) -> Tensor:
    drawn = self.critic.cross_entropy(guess, self.critic(feat)[:, :-1].detach())
    return self.critic.cross_entropy(guess, returns) + self.config.slow_weight * drawn


RETURNS: dict[str, Seed] = {
    "reward of the state that is left": dreams(lambda r: {"reward": left(r.start.reward, r.reward)}),
    "continuation of the state that is left": dreams(lambda r: {"cont": left(r.start.cont, r.cont)}),
    "features of the state that is left": dreams(lambda r: {"feat": left(r.start.feat, r.feat)}),
    "features one step ahead": dreams(lambda r: {"feat": r.feat.roll(-1, 1)}),
    "an end erases the reward of reaching it": dreams(lambda r: {"reward": r.reward * r.cont}),
    "ends rounded to yes or no": dreams(lambda r: {"cont": r.cont.round()}),
    "dreams without end": dreams(lambda r: {"cont": torch.ones_like(r.cont)}),
    "bootstrap one state early": returns(lambda right, r, c, v, *a: right(r, c, v.roll(1, 1), *a)),
    "bootstrap one state late": returns(lambda right, r, c, v, *a: right(r, c, v.roll(-1, 1), *a)),
    "no bootstrap at the horizon": returns(last_zeroed),
    "returns begin from the first value": rewritten(
        dreamer, "lambda_return", "carry = value[:, -1]", "carry = value[:, 0]"
    ),
    "values counted whole": rewritten(dreamer, "lambda_return", "(1 - lam) * value", "value"),
    "later rewards past an end": rewritten(
        dreamer, "lambda_return", "discount * cont * lam", "discount * lam * torch.ones_like(cont)"
    ),
    "lambda the wrong way round": returns(lambda right, r, c, v, d, lam: right(r, c, v, d, 1 - lam)),
    "undiscounted": returns(lambda right, r, c, v, d, lam: right(r, c, v, 1.0, lam)),
    "advantage over the next value": rewritten(Dreamer, "losses", "value[:, :-1]) / scale", "value[:, 1:]) / scale"),
    "weight of the state reached": rewritten(Dreamer, "losses", ".cumprod(1)[:, :-1]", ".cumprod(1)[:, 1:]"),
    "weight of one step, not of all before": rewritten(Dreamer, "losses", ".cumprod(1)[:, :-1]", "[:, :-1]"),
    "actor without weights": rewritten(Dreamer, "losses", "-(weight * gain)", "-(gain)"),
    "dreams on from where nothing follows": rewritten(Dreamer, "losses", "[cont[:, :1], ", "[0 * cont[:, :1] + 1, "),
    "return normalisation inert": around(ReturnRange, "update", lambda right, self, x: torch.ones_like(right(self, x))),
    "range of a single batch": around(ReturnRange, "update", lambda right, self, x: right(ReturnRange(1.0), x)),
    "slow critic ignored": around(
        Dreamer, "_critic_loss", lambda right, self, g, f, r: self.critic.cross_entropy(g, r)
    ),
    "critic drawn to itself": around(Dreamer, "_critic_loss", towards_itself),
    "entropy punished": rewritten(Dreamer, "losses", "+ config.entropy * entropy", "- config.entropy * entropy"),
}

REAL: dict[str, Seed] = {
    "real reward of the next row": rows(lambda s: {"reward": s.reward.roll(-1, 1)}),
    "real reward of the row before": rows(lambda s: {"reward": s.reward.roll(1, 1)}),
    "no boundary masking": rows(lambda s: {"is_last": none(s.is_last)}),
    "no end is terminal": rows(lambda s: {"is_terminal": none(s.is_terminal)}),
    "truncation is termination": rows(lambda s: {"is_terminal": s.is_last}),
    "only a terminal end is an end": rows(lambda s: {"is_last": s.is_terminal}),
    "ends one row late": rows(lambda s: {"is_last": s.is_last.roll(1, 1), "is_terminal": s.is_terminal.roll(1, 1)}),
    "returns run on into the next episode": returns(uncut),
    "real rows bootstrap one row early": boot(lambda self, step, boot: boot.roll(1, 1)),
    "real rows bootstrap one row late": boot(lambda self, step, boot: boot.roll(-1, 1)),
    "real rows bootstrap from the critic": boot(lambda self, step, boot: self.value(step.feat).detach()),
    "last rows of episodes are learned": rewritten(
        Dreamer, "_replay_loss", "F.pad(going_on[:, :-1] * loss", "F.pad(loss"
    ),
}

CHOICES: dict[str, Seed] = {
    "actions one step late": dreams(lambda r: {"actions": r.actions.roll(1, 1)}),
    "actions one step early": dreams(lambda r: {"actions": r.actions.roll(-1, 1)}),
    "unimix missing in the actor": around(
        OneHots, "log_probs", lambda right, self, x: right(replace(self, unimix=0.0), x)
    ),
    "unimix of the config unused": around(dreamer, "actions_of", lambda right, space, unimix: right(space, 0.0)),
}

NUMBERS: dict[str, Seed] = {
    "actions one step late": dreams(lambda r: {"actions": r.actions.roll(1, 1)}),
    "probability of the clipped action": dreams(lambda r: {"actions": r.actions.clamp(-1, 1)}),
    "deviation for variance": around(
        BoundedNormal, "split", lambda right, self, x: (right(self, x)[0], right(self, x)[1].sqrt())
    ),
}


def enabled(right: Any, *args: Any, **fields: Any) -> Any:
    with torch.enable_grad():
        return right(*args, **fields)


GRADIENTS: dict[str, Seed] = {
    "targets and advantages have a gradient": rewritten(
        Dreamer, "losses", "    with torch.no_grad():\n        value =", "    if True:\n        value ="
    ),
    "advantages have no sign": rewritten(Dreamer, "losses", "value[:, :-1]) / scale", "value[:, :-1]).abs() / scale"),
    "probability without logarithm": around(OneHots, "log_prob", lambda right, self, x, a: right(self, x, a).exp()),
}  # fmt: skip


# --- which weights a loss reaches


def check_nothing_leaks() -> None:
    """What is dreamed trains actor and critic, never the world model; the critic's loss on real rows trains both."""
    spec = specs()["vector_box"]
    worlds = [
        (random_table(5, 3, seed=0), None),
        (Line(0.8, 0.9), None),
        (RSSM(spec, **SMALL), random_segment(spec, 3, 6)),
    ]
    for model, segment in worlds:
        segment = wander(model, 3, 8, seed=1) if segment is None else segment
        agent = awake(model, horizon=3)
        encoder = [p for key, p in model.named_parameters() if key.startswith(("encoder", "embed", "shift"))]
        parts = {
            "actor": [*agent.actor.parameters(), *agent.actor_out.parameters()],
            "critic": list(agent.critic.parameters()),
            "slow": list(agent.slow.parameters()),
            "encoder": encoder,
            "model": list(model.parameters()),
        }
        for name, reached in (
            ("actor", {"actor"}),
            ("critic", {"critic"}),
            ("replay_critic", {"critic", "encoder", "model"}),
        ):
            for part in (model, agent):
                part.zero_grad(set_to_none=True)
            agent.losses(model, model.losses(segment).states, segment)[0][name].mean().backward()
            found = {
                key for key, weights in parts.items() if any(w.grad is not None and bool(w.grad.any()) for w in weights)
            }
            assert found == reached, f"{name} reaches {found}"
            if not isinstance(model, RSSM):
                others = [p for key, p in model.named_parameters() if key not in ("embed", "shift")]
                assert all(p.grad is None or not bool(p.grad.any()) for p in others)


def reparameterised(right: Any, self: BoundedNormal, params: Tensor) -> Tensor:
    mean, std = self.split(params)
    return mean + std * torch.randn_like(mean)


LEAKS: dict[str, Seed] = {
    "dreams with a gradient": rewritten(
        Dreamer, "losses", "    with torch.no_grad():\n        start =", "    if True:\n        start ="
    ),
    "dreams with a gradient through actions": both(
        around(dreamer, "imagine", enabled), around(BoundedNormal, "sample", reparameterised)
    ),
    "the replay's loss does not reach the encoder": around(
        Dreamer,
        "_replay_loss",
        lambda right, self, step, segment, boot: right(self, replace(step, feat=step.feat.detach()), segment, boot),
    ),
    "posteriors cut from the gradient": around(
        Dreamer, "losses", lambda right, self, model, states, segment: right(self, model, tree.detach(states), segment)
    ),
    "slow critic in training": around(
        Dreamer,
        "_critic_loss",
        lambda right, self, guess, feat, returns: (
            right(self, guess, feat, returns)
            + self.critic.cross_entropy(self.slow.requires_grad_().log_probs(feat)[:, :-1], returns)
        ),
    ),
}


# --- what follows an update


def learner(model: Tiny) -> tuple[DreamerLearner, LaProp]:
    found = DreamerLearner(model, awake(model, horizon=2, slow_rate=0.1))
    return found, LaProp(found.parameters(), lr=0.05, warmup=0, agc=0)


def numbers(part: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in part.parameters()]).clone()


def check_slow_critic() -> None:
    """After an update, and only after one that was done, the slow critic goes a tenth of the way to the new critic."""
    model = random_table(5, 3, seed=0)
    (both, optimizer), segment = learner(model), wander(model, 3, 8, seed=1)
    agent, bad = both.agent, replace(segment, reward=segment.reward * float("nan"))
    for now in (segment, bad, segment):
        slow, fast = numbers(agent.slow), numbers(agent.critic)
        outcome = update(both, optimizer, now)
        assert bool(outcome.sound) is (now is segment)
        if now is bad:
            assert torch.equal(numbers(agent.slow), slow) and torch.equal(numbers(agent.critic), fast)
            continue
        assert not torch.equal(numbers(agent.critic), fast)
        torch.testing.assert_close(
            numbers(agent.slow), slow + 0.1 * (numbers(agent.critic) - slow), rtol=1e-6, atol=1e-8
        )


def before_the_update(right: Any, self: DreamerLearner, *args: Any) -> Any:
    Dreamer.after_update(self.agent, torch.tensor(True))
    return right(self, *args)


def forgetful(right: Any, self: DreamerLearner, model: Any, agent: Dreamer) -> None:
    right(self, model, agent)
    self.provides = frozenset()


def faster(right: Any, self: Dreamer, sound: Tensor) -> None:
    self.config = replace(self.config, slow_rate=0.9)
    right(self, sound)


SLOW: dict[str, Seed] = {
    "slow critic never updated": around(Dreamer, "after_update", lambda right, self, sound: None),
    "slow critic not announced": around(DreamerLearner, "__init__", forgetful),
    "slow critic updated before": both(
        around(DreamerLearner, "losses", before_the_update),
        around(DreamerLearner, "after_update", lambda right, self, sound: None),
    ),
    "slow critic updated after a skipped update": around(
        Dreamer, "after_update", lambda right, self, sound: right(self, torch.ones_like(sound))
    ),
    "slow critic updated twice": around(
        Dreamer, "after_update", lambda right, self, sound: (right(self, sound), right(self, sound))
    ),
    "slow critic that is not slow": around(Dreamer, "after_update", faster),
}


# --- properties that hold whatever the formulas


def check_scale() -> None:
    """Rewards a thousand times as large leave the actor's gradient as it is, once returns are normalised."""
    found = []
    for scale in (1.0, 1000.0):
        model = random_table(5, 3, seed=0)
        with torch.no_grad():
            model.reward.mul_(scale)
        agent = awake(model, entropy=0.0, range_rate=1.0)
        agent.critic.out.requires_grad_(False).weight.zero_()  # a fresh critic: all is worth nothing
        agent.critic.out.bias.zero_()
        segment = wander(model, 4, 16, seed=1)
        torch.manual_seed(3)
        agent.losses(model, model.losses(segment).states, segment)[0]["actor"].mean().backward()
        found.append(agent.actor_out.weight.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)


def check_boundaries() -> None:
    """What happens after an end, in the same window, changes no loss before it; an end itself is learned from once."""
    model = random_table(5, 3, seed=0)
    agent, length = awake(model), 8
    at = torch.nn.functional.one_hot(torch.arange(2 * length).view(2, length) % 5, 5).double()
    last, terminal = torch.zeros(2, 2, length, dtype=torch.bool)
    last[:, 3] = terminal[1, 3] = True  # a truncation and a terminal end
    segment = Segment(
        obs={"obs": at}, prev_action=None, reward=torch.ones(2, length).double(), is_first=last.roll(1, 1),
        is_terminal=terminal, is_last=last,
    )  # fmt: skip
    after = torch.arange(length) > 3
    other = replace(
        segment,
        obs={"obs": torch.where(after[:, None], at.flip(1), at)},
        reward=torch.where(after, 9.0, segment.reward),
    )
    found = []
    for one in (segment, other):
        agent.range.lower.zero_()
        agent.range.upper.zero_()
        torch.manual_seed(0)
        found.append(agent.losses(model, model.losses(one).states, one)[0])
    for name in found[0]:
        same = found[0][name][:, :4] - found[1][name][:, :4]
        if name == "replay_critic":
            assert not bool(same.any()), "rows after an end reach over it"
            assert not bool(found[0][name][:, 3].any()), "nothing follows a last row"
            assert bool((found[0][name][:, 4:7] > 0).all()), "the next episode is learned"
    assert float(found[0]["actor"][0, 3].detach()) != 0, "a truncated episode could go on, and so do dreams"
    assert float(found[0]["actor"][1, 3].detach()) == 0 == float(found[0]["critic"][1, 3].detach()), (
        "not so a terminal one"
    )


BOUNDARIES: dict[str, Seed] = {
    name: REAL[name]
    for name in (
        "no boundary masking",
        "no end is terminal",
        "truncation is termination",
        "returns run on into the next episode",
        "last rows of episodes are learned",
    )
} | {"dreams on from where nothing follows": RETURNS["dreams on from where nothing follows"]}


# --- the world model that dreams


def extreme(unimix: float = 0.2) -> tuple[RSSM, Segment]:
    """Return an RSSM that is quite sure of its latents, and some rows."""
    spec = specs()["vector_discrete"]
    torch.manual_seed(0)
    model = RSSM(spec, **(SMALL | {"unimix": unimix, "free_nats": 0.0}))
    with torch.no_grad():
        for layer in (model.post_out, model.prior_out):
            layer.weight.mul_(500)
    return model, random_segment(spec, 4, 6)


def check_unimix_in_divergence() -> None:
    """No divergence exceeds that of a certain choice from the least likely one, and none is near the raw one."""
    model, segment = extreme()
    terms = model.losses(segment).terms
    most = 2 * torch.tensor(4 / 0.2).log()
    for name in ("dyn", "rep"):
        assert float(terms[name].detach().max()) <= most
    assert float(terms["dyn"].detach().max()) > 0.5 * most, "or the bound would say nothing"


def check_unimix_in_samples() -> None:
    """The least likely class is dreamed, and filtered, as often as the uniform share says."""
    model, _ = extreme()
    with torch.no_grad():
        start = tree.repeat(model.initial(1), 8000)
        stoch = model.step(start, torch.eye(4)[:1].expand(8000, -1)).stoch
    share = stoch.mean(0)
    assert float(share.min()) == pytest.approx(0.05, abs=0.012)


def check_filter_resets() -> None:
    """Neither states nor actions of the episode before reach a first row."""
    check_resets(lambda spec: RSSM(spec, **SMALL), specs()["vector_discrete"])


def raw(right: Any, self: CategoricalLatent, params: Tensor) -> Tensor:
    return right(replace(self, unimix=0.0), params)


def resets_at_start(right: Any, is_first: Tensor, keep: Tensor) -> list[Tensor | None]:
    return [keep[:, 0], *[None] * (keep.shape[1] - 1)]


RESETS: dict[str, Seed] = {
    "states never reset": around(rssm, "_resets", lambda right, is_first, keep: [None] * keep.shape[1]),
    "states reset at the start of a window alone": around(rssm, "_resets", resets_at_start),
    "states reset one row late": around(
        rssm, "_resets", lambda right, is_first, keep: right(is_first.roll(1, 1), keep.roll(1, 1))
    ),
    "action of the episode before": rewritten(RSSM, "_filter", "segment.prev_action * keep", "segment.prev_action"),
}


def check_imagination() -> None:
    """A dream under a policy is what step after step would be, fused or not."""
    for provides in (frozenset(), frozenset({"follow"})):

        def make(spec: Spec, provides: frozenset[str] = provides) -> RSSM:
            model = RSSM(spec, **SMALL)
            assert model.reward is not None
            torch.nn.init.normal_(model.reward.out.weight)  # a fresh head says 0 to everything
            model.provides = model.provides - {"follow"} | provides
            return model

        check_imagine_under_policy(make, specs()["vector_box"])


def rewarded_late(rollout: Rollout) -> Rollout:
    assert rollout.start.reward is not None and rollout.reward is not None
    return replace(rollout, reward=left(rollout.start.reward, rollout.reward))


IMAGINATION: dict[str, Seed] = {
    "actions one step late": around(
        imagination, "_follow", lambda right, *args: (right(*args)[0], right(*args)[1].roll(1, 1))
    ),
    "fused actions one step late": around(
        RSSM, "follow", lambda right, *args: (right(*args)[0], right(*args)[1].roll(1, 1))
    ),
    "policy asked about the state before": rewritten(
        imagination,
        "_follow",
        "policy(model.read(state).feat)",
        "policy(model.read(states[-2] if len(states) > 1 else state).feat)",
    ),
    "reward of the state that is left": around(
        filtering, "imagine", lambda right, *args, **fields: rewarded_late(right(*args, **fields))
    ),
    "fused dreams blind to what the policy chose": rewritten(
        RSSM, "follow", "self._embed(taken[-1], state.condition)", "self._embed(0 * taken[-1], state.condition)"
    ),
}


def check_unimix_in_actor() -> None:
    """An actor that is quite sure still tries every action at its uniform share."""
    model = Table(torch.ones(1, 4, 1), torch.zeros(1), torch.ones(1))
    agent = Dreamer(model, units=4, layers=1, unimix=0.2)
    with torch.no_grad():
        agent.actor_out.bias.copy_(torch.tensor([60.0, 0.0, -60.0, 0.0]))
    share = agent.policy(torch.ones(8000, 1)).sample().mean(0)
    torch.testing.assert_close(share, torch.tensor([0.85, 0.05, 0.05, 0.05]), atol=0.012, rtol=0)


BUGS: dict[Check, dict[str, Seed]] = {
    check_choices: RETURNS | REAL | CHOICES,
    check_numbers: RETURNS | NUMBERS,
    check_gradients: GRADIENTS,
    check_nothing_leaks: LEAKS,
    check_slow_critic: SLOW,
    check_scale: {"return normalisation inert": RETURNS["return normalisation inert"]},
    check_boundaries: BOUNDARIES,
    check_unimix_in_divergence: {"unimix missing in the divergence": around(CategoricalLatent, "log_probs", raw)},
    check_unimix_in_samples: {"unimix missing in samples": around(CategoricalLatent, "probs", raw)},
    check_filter_resets: RESETS,
    check_imagination: IMAGINATION,
    check_unimix_in_actor: {
        "unimix missing in samples of the actor": around(
            OneHots, "probs", lambda right, self, x: right(replace(self, unimix=0.0), x)
        ),
        "unimix of the config unused": CHOICES["unimix of the config unused"],
    },
}


@pytest.mark.parametrize("check", BUGS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_code_passes(check: Check) -> None:
    check()


@pairs(BUGS)
def test_a_bug_is_caught(check: Check, seed: Seed) -> None:
    expect_caught(check, seed)
