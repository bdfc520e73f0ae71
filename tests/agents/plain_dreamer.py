"""The losses of an agent once more, with loops and floats and nothing of the library but its networks' outputs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tiny_worlds import Line, Place, Tiny

from foreworld.agents import Dreamer
from foreworld.core import Segment

Numbers = list[float]


@dataclass
class Dreamed:
    """What was dreamed from one row: H + 1 places, H actions, and what follows from them."""

    places: list[Numbers]
    actions: list[Numbers] = field(default_factory=list)
    weights: Numbers = field(default_factory=list)
    values: Numbers = field(default_factory=list)
    returns: Numbers = field(default_factory=list)


@dataclass
class Plain:
    """What `plainly` found, [B][T] each, and the range of returns after it."""

    dreams: list[list[Dreamed]]
    actor: list[Numbers]
    critic: list[Numbers]
    replay_critic: list[Numbers]
    replay_returns: list[list[float | None]]
    range: tuple[float, float]
    scale: float


Choose = Callable[[Numbers], Numbers]
"""From the actor's raw output to an action: the mode, or whatever a test put in the place of sampling."""


class Nets:
    """The outputs of the networks at a place, as floats."""

    def __init__(self, model: Tiny, agent: Dreamer) -> None:
        self.model, self.agent, self.bins = model, agent, agent.critic.bins.tolist()

    def _feat(self, place: Numbers) -> torch.Tensor:
        return self.model.read(Place(at=self.model.embed.new_tensor(place))).feat

    @torch.no_grad()
    def actor(self, place: Numbers) -> Numbers:
        return self.agent.policy(self._feat(place)).params.tolist()

    @torch.no_grad()
    def critic(self, place: Numbers, slow: bool = False) -> Numbers:
        head = self.agent.slow if slow else self.agent.critic
        logits = head.out(head.body(self._feat(place))).tolist()
        top = max(logits)
        total = math.fsum(math.exp(x - top) for x in logits)
        return [x - top - math.log(total) for x in logits]

    def value(self, place: Numbers, slow: bool = False) -> float:
        return math.fsum(math.exp(p) * b for p, b in zip(self.critic(place, slow), self.bins, strict=True))

    def cross_entropy(self, place: Numbers, target: float) -> float:
        log_probs, bins = self.critic(place), self.bins
        above = min(max(bisect.bisect_right(bins, target), 1), len(bins) - 1)
        share = min(max((target - bins[above - 1]) / (bins[above] - bins[above - 1]), 0.0), 1.0)
        return -((1 - share) * log_probs[above - 1] + share * log_probs[above])

    def critic_loss(self, place: Numbers, target: float) -> float:
        to_slow = self.cross_entropy(place, self.value(place, slow=True))
        return self.cross_entropy(place, target) + self.agent.config.slow_weight * to_slow


def plainly(model: Tiny, agent: Dreamer, segment: Segment, choose: Choose) -> Plain:
    """Compute all losses of an agent in a world without chance, row by row and step by step."""
    nets, config = Nets(model, agent), agent.config
    places, terminal = segment.obs["obs"].tolist(), segment.is_terminal.tolist()
    rows = range(len(places)), range(len(places[0]))
    dreams = [[_dream(model, nets, places[b][t], terminal[b][t], choose) for t in rows[1]] for b in rows[0]]
    low, high = agent.range.lower.item(), agent.range.upper.item()
    every = sorted(ret for line in dreams for dream in line for ret in dream.returns)
    low += config.range_rate * (_percentile(every, config.range_low) - low)
    high += config.range_rate * (_percentile(every, config.range_high) - high)
    scale = max(config.range_least, high - low)
    returns = [_replay_returns(config, segment, b, [dream.returns[0] for dream in dreams[b]]) for b in rows[0]]
    replayed = [[None if r is None else nets.critic_loss(places[b][t], r) for t, r in enumerate(returns[b])]
                for b in rows[0]]  # fmt: skip
    return Plain(
        dreams=dreams,
        actor=[[_actor(nets, dream, scale) for dream in line] for line in dreams],
        critic=[[_critic(nets, dream) for dream in line] for line in dreams],
        replay_critic=[[loss or 0.0 for loss in line] for line in replayed],
        replay_returns=returns,
        range=(low, high),
        scale=scale,
    )


def log_prob(actions: Any, params: Numbers, action: Numbers) -> float:
    """Compute the log-probability of an action, by textbook formulas."""
    if hasattr(actions, "classes"):
        return sum(math.log(p[one.index(1.0)]) for p, one in zip(*_choices(actions, params, action), strict=True))
    mean, std = _normal(params)
    return sum(
        -0.5 * ((a - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
        for a, m, s in zip(action, mean, std, strict=True)
    )


def entropy(actions: Any, params: Numbers) -> float:
    """Compute the entropy of an action."""
    if hasattr(actions, "classes"):
        return sum(-p * math.log(p) for probs in _choices(actions, params, params)[0] for p in probs)
    return sum(0.5 * math.log(2 * math.pi * math.e * s * s) for s in _normal(params)[1])


def _dream(model: Tiny, nets: Nets, start: Numbers, terminal: bool, choose: Choose) -> Dreamed:
    config, done = nets.agent.config, Dreamed(places=[start])
    rewards, conts = [], [0.0 if terminal else 1.0]
    for _ in range(config.horizon):
        action = choose(nets.actor(done.places[-1]))
        place = _after(model, done.places[-1], [min(max(a, -1.0), 1.0) for a in action])
        step = model.read(Place(at=model.embed.new_tensor(place)))
        assert step.reward is not None and step.cont is not None
        done.actions.append(action)
        done.places.append(place)
        rewards.append(step.reward.item())
        conts.append(step.cont.item())
    done.values = [nets.value(place) for place in done.places]
    ahead, found = done.values[-1], []
    for h in reversed(range(config.horizon)):
        mixed = (1 - config.lam) * done.values[h + 1] + config.lam * ahead
        ahead = rewards[h] + config.discount * conts[h + 1] * mixed
        found.append(ahead)
    done.returns = found[::-1]
    weight = conts[0]
    for h in range(config.horizon):
        done.weights.append(weight)
        weight *= config.discount * conts[h + 1]
    return done


def _after(model: Tiny, place: Numbers, action: Numbers) -> Numbers:
    if isinstance(model, Line):
        return [model.drag.item() * place[0] + model.push.item() * action[0]]
    moves: list[list[Numbers]] = model.moves.tolist()  # type: ignore[operator]
    probs = moves[place.index(1.0)][action.index(1.0)]
    return [float(i == probs.index(max(probs))) for i in range(len(probs))]


def _replay_returns(config: Any, segment: Segment, b: int, boot: Numbers) -> list[float | None]:
    reward, last, terminal = (x[b].tolist() for x in (segment.reward, segment.is_last, segment.is_terminal))
    ahead, found = boot[-1], list[float | None]([None])
    for t in reversed(range(len(boot) - 1)):
        if last[t]:  # the row that follows begins another episode
            found.append(None)
            continue
        if terminal[t + 1]:
            ahead = reward[t + 1]
        elif last[t + 1] or t + 2 == len(boot):
            ahead = reward[t + 1] + config.discount * boot[t + 1]
        else:
            ahead = reward[t + 1] + config.discount * ((1 - config.lam) * boot[t + 1] + config.lam * ahead)
        found.append(ahead)
    return found[::-1]


def _actor(nets: Nets, dream: Dreamed, scale: float) -> float:
    total, actions = 0.0, nets.agent.actions
    if hasattr(actions, "unimix"):
        actions = replace(actions, unimix=nets.agent.config.unimix)
    for h, action in enumerate(dream.actions):
        params = nets.actor(dream.places[h])
        advantage = (dream.returns[h] - dream.values[h]) / scale
        gain = log_prob(actions, params, action) * advantage
        total -= dream.weights[h] * (gain + nets.agent.config.entropy * entropy(actions, params))
    return total / len(dream.actions)


def _critic(nets: Nets, dream: Dreamed) -> float:
    losses = [w * nets.critic_loss(p, r) for w, p, r in zip(dream.weights, dream.places, dream.returns, strict=False)]
    return math.fsum(losses) / len(losses)


def _choices(actions: Any, params: Numbers, action: Numbers) -> tuple[list[Numbers], list[Numbers]]:
    """Return probabilities and one-hots of every choice."""
    probs, ones, start = [], [], 0
    for count in actions.classes:
        logits = params[start : start + count]
        top = max(logits)
        powers = [math.exp(x - top) for x in logits]
        probs.append([(1 - actions.unimix) * p / sum(powers) + actions.unimix / count for p in powers])
        ones.append(action[start : start + count])
        start += count
    return probs, ones


def _normal(params: Numbers) -> tuple[Numbers, Numbers]:
    half = len(params) // 2
    return [math.tanh(x) for x in params[:half]], [0.9 / (1 + math.exp(-x - 2)) + 0.1 for x in params[half:]]


def _percentile(ordered: Numbers, share: float) -> float:
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
