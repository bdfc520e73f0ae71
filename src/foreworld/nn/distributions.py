"""Latent distributions: what a network's raw output means, as sample, divergence and entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core import is_deterministic
from foreworld.ops import categorical_kl, gaussian_kl


class Latent(Protocol):
    """A kind of stochastic state; `params` [.., P] come from a network, samples are flat [.., Z]."""

    @property
    def width(self) -> int:
        """Width Z of a flat sample."""
        ...

    @property
    def params(self) -> int:
        """Width P of the network output."""
        ...

    def sample(self, params: Tensor) -> Tensor:
        """Draw [.., Z] with a gradient; the mode or mean under `deterministic()`."""
        ...

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute KL(post || prior) [..] in nats, summed over the latents."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..] in nats, summed over the latents."""
        ...


@dataclass(frozen=True)
class CategoricalLatent:
    """Several one-hot variables with straight-through gradients and a share of uniform noise.

    The uniform share is part of the distribution: of samples, divergence and entropy.

    Attributes:
        latents: number of variables.
        classes: classes of each.
        unimix: share of the uniform distribution.

    Reference:
        Hafner et al. 2023, arXiv 2301.04104, section "World model learning".
    """

    latents: int
    classes: int
    unimix: float = 0.01

    @property
    def width(self) -> int:
        """Width of a flat sample."""
        return self.latents * self.classes

    @property
    def params(self) -> int:
        """Width of the logits."""
        return self.width

    def probs(self, params: Tensor) -> Tensor:
        """Return probabilities [.., latents, classes]."""
        soft = torch.softmax(params.unflatten(-1, (self.latents, self.classes)), -1)
        return (1 - self.unimix) * soft + self.unimix / self.classes

    def sample(self, params: Tensor) -> Tensor:
        """Draw flat one-hots [.., Z], with the gradient of the probabilities."""
        probs = self.probs(params)
        # argmax of p / Exp(1) draws from p; cheaper than a multinomial call on a CPU
        scores = probs if is_deterministic() else probs.detach() / torch.empty_like(probs).exponential_()
        hard = F.one_hot(scores.argmax(-1), self.classes).to(probs.dtype)
        return (hard + probs - probs.detach()).flatten(-2)

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute KL(post || prior) [..]."""
        return categorical_kl(self.probs(post).log(), self.probs(prior).log()).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..]."""
        probs = self.probs(params)
        return -(probs * probs.log()).sum((-2, -1))


@dataclass(frozen=True)
class GaussianLatent:
    """Independent Gaussians with a learned deviation of at least `least`, as in PlaNet.

    Attributes:
        latents: number of variables.
        least: smallest standard deviation.

    Reference:
        Hafner et al., Learning Latent Dynamics for Planning from Pixels, 2019, arXiv 1811.04551.
    """

    latents: int
    least: float = 0.1

    @property
    def width(self) -> int:
        """Width of a sample."""
        return self.latents

    @property
    def params(self) -> int:
        """Width of means and raw deviations."""
        return 2 * self.latents

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, [.., latents] each."""
        mean, raw = params.chunk(2, -1)
        return mean, F.softplus(raw) + self.least

    def sample(self, params: Tensor) -> Tensor:
        """Draw [.., latents] by reparameterisation."""
        mean, std = self.split(params)
        return mean if is_deterministic() else mean + std * torch.randn_like(std)

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute KL(post || prior) [..]."""
        return gaussian_kl(*self.split(post), *self.split(prior))

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..]."""
        _, std = self.split(params)
        return (0.5 * torch.log(2 * torch.pi * torch.e * std.square())).sum(-1)


@dataclass(frozen=True)
class DeterministicLatent:
    """Latents without noise: the sample is the network output, squashed to (-1, 1).

    The divergence is that of unit-variance Gaussians around the two outputs, half the
    squared distance. Such a model cannot represent two possible futures.

    Attributes:
        latents: number of variables.
    """

    latents: int

    @property
    def width(self) -> int:
        """Width of a sample."""
        return self.latents

    @property
    def params(self) -> int:
        """Width of the network output."""
        return self.latents

    def sample(self, params: Tensor) -> Tensor:
        """Return [.., latents]."""
        return torch.tanh(params)

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute half the squared distance [..]."""
        return 0.5 * (self.sample(post) - self.sample(prior)).square().sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return zeros [..]."""
        return torch.zeros_like(params[..., 0])
