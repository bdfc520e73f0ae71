"""Search by sampling: draw candidates from a distribution, judge them, move the distribution towards the good ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from foreworld.core.spaces import Space
from foreworld.plan.noise import Noise
from foreworld.plan.protocols import Plan
from foreworld.plan.search import Search, sound


class Distribution(Protocol):
    """A distribution over plans for each of B environments."""

    def middle(self) -> Tensor:
        """Return the likeliest plan [B, H, A]."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal numbers [B, N, H, A] into plans [B, N, H, A]."""
        ...

    def fitted(self, candidates: Tensor, weights: Tensor, momentum: float) -> Self:
        """Return the distribution moved to candidates [B, N, H, A] by their weights [B, N]; those of 0 count not."""
        ...


@dataclass(frozen=True)
class Normals:
    """Independent normal distributions, cut to [-1, 1].

    Attributes:
        mean: [B, H, A].
        std: [B, H, A].
        least: what `std` never falls below.
    """

    mean: Tensor
    std: Tensor
    least: float

    def middle(self) -> Tensor:
        """Return the mean [B, H, A]."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal numbers [B, N, H, A] into plans [B, N, H, A]."""
        return (self.mean[:, None] + self.std[:, None] * noise).clamp(-1, 1)

    def fitted(self, candidates: Tensor, weights: Tensor, momentum: float) -> Normals:
        """Take over weighted mean and deviation, but for a share of the old ones."""
        mean = _mean(weights, candidates)
        std = _mean(weights, (candidates - mean[:, None]).square()).sqrt().clamp(min=self.least)
        return replace(
            self, mean=_moved(self.mean, mean, weights, momentum), std=_moved(self.std, std, weights, momentum)
        )


@dataclass(frozen=True)
class Choices:
    """Independent choices among the classes of discrete actions.

    Attributes:
        probs: [B, H, A], the probability of every class.
        space: of the actions.
        unimix: share of the uniform distribution that stays.
    """

    probs: Tensor
    space: Space
    unimix: float

    @classmethod
    def around(cls, plan: Tensor, space: Space, trust: float, unimix: float) -> Choices:
        """Trust in a plan [B, H, A] of one-hots so far, and in no class where it has only zeros."""
        known = plan.sum(-1, keepdim=True) > 0
        return cls(trust * plan + (1 - trust * known) * uniform_probs(plan, space), space, unimix)

    def middle(self) -> Tensor:
        """Return the likeliest classes as one-hots [B, H, A]."""
        return self.space.one_hot(self.space.from_one_hot(self.probs))

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal numbers [B, N, H, A] into one-hots [B, N, H, A]: the largest of log p + Gumbel."""
        chance = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-6)
        gumbel = -(-chance.log()).log()
        return self.space.one_hot(self.space.from_one_hot(self.probs.log()[:, None] + gumbel))

    def fitted(self, candidates: Tensor, weights: Tensor, momentum: float) -> Choices:
        """Take over the weighted shares of the classes, but for a share of the old ones and of the uniform."""
        shares = _mean(weights, candidates)
        mixed = (1 - self.unimix) * shares + self.unimix * uniform_probs(shares, self.space)
        return replace(self, probs=_moved(self.probs, mixed, weights, momentum))


def uniform_probs(like: Tensor, space: Space) -> Tensor:
    """Return the uniform distribution over the classes of every component.

    Args:
        like: [..., A], says where to.
        space: discrete actions.

    Returns:
        [..., A].
    """
    each = torch.cat([torch.full((n,), 1 / n) for n in space.classes])
    return each.to(like).expand_as(like)


def adapt(
    search: Search[Any],
    distribution: Distribution,
    *,
    sizes: Sequence[int],
    weigh: Callable[[Tensor], Tensor],
    noise: Noise,
    momentum: float,
    keep: int = 0,
) -> Plan:
    """Draw, judge and fit, once for every size or until the time is over.

    The first candidate of every round is the middle of the distribution, in the first round the warm start: a plan is
    never worse than that.

    Args:
        search: what judges and counts.
        distribution: where the search begins.
        sizes: candidates of every round, each above `keep` + 1.
        weigh: scores [B, N] (-inf never counts) to weights [B, N] that sum to 1, or are 0 where none counts.
        noise: what candidates are made of.
        momentum: share of the old distribution that stays, in [0, 1).
        keep: best candidates that are tried again in the next round, and by the next search.

    Returns:
        The best plan.
    """
    kept = search.elites if keep else None
    for size in sizes:
        if not search.going_on():
            break
        tried = [distribution.middle()[:, None]] + ([] if kept is None else [kept[:, :keep]])
        fresh = size - sum(part.shape[1] for part in tried)
        batch, horizon, width = search.start.shape
        drawn = distribution.sample(noise((batch, fresh, horizon, width), search.start.device))
        candidates = torch.cat([*tried, drawn], 1)
        score = sound(search.judge(candidates))
        distribution = distribution.fitted(candidates, weigh(score), momentum)
        if keep:
            best = score.topk(keep, 1).indices
            kept = candidates[torch.arange(batch, device=best.device)[:, None], best]
    return search.plan(kept)


def elite_weights(score: Tensor, elites: int) -> Tensor:
    """Weigh the best candidates of each environment equally, and all others not.

    Args:
        score: [B, N]; -inf never counts.
        elites: how many.

    Returns:
        [B, N].
    """
    best = torch.zeros_like(score).scatter(1, score.topk(elites, 1).indices, 1.0) * score.isfinite()
    return best / best.sum(1, keepdim=True).clamp(min=1)


def softmax_weights(score: Tensor, temperature: float) -> Tensor:
    """Weigh candidates by exp(score / temperature), scores in deviations of those of the same environment.

    Args:
        score: [B, N]; -inf never counts.
        temperature: in deviations; the same for rewards of any scale.

    Returns:
        [B, N].
    """
    good = score.isfinite()
    exact = torch.where(good, score, 0.0).double()  # squares of large scores overflow single precision
    count = good.sum(1, keepdim=True).clamp(min=1)
    mean = exact.sum(1, keepdim=True) / count
    deviation = (good * (exact - mean).square()).sum(1, keepdim=True).div(count).sqrt()
    standard = (exact - mean) / torch.where(deviation > 0, deviation, 1.0)
    weights = torch.softmax(torch.where(good, standard / temperature, -torch.inf), 1)
    return torch.where(good, weights, 0.0).to(score)


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    """Sum values [B, N, ...] by weights [B, N]: as a matrix product, in one pass over them."""
    return torch.einsum("bn,bnha->bha", weights.to(values), values)


def _moved(old: Tensor, new: Tensor, weights: Tensor, momentum: float) -> Tensor:
    counts = (weights.sum(1) > 0)[:, None, None]
    return torch.where(counts, momentum * old + (1 - momentum) * new, old)
