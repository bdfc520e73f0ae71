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

    def noise(self, like: Tensor, *lead: int) -> Tensor | None:
        """Draw what `draw` needs for parameters [*lead, P], of the type of `like`; None for the mode or mean."""
        ...

    def draw(self, params: Tensor, noise: Tensor | None) -> Tensor:
        """Turn parameters [.., P] and noise into a sample [.., Z], with a gradient."""
        ...

    def draw_back(self, params: Tensor, noise: Tensor | None, sample: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the parameters from that of the sample: `draw` backwards, by hand."""
        ...

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute KL(post || prior) [..] in nats, summed over the latents."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..] in nats, summed over the latents."""
        ...


def sample(latent: Latent, params: Tensor) -> Tensor:
    """Draw a sample; the mode or mean under `deterministic()`.

    Args:
        latent: the kind of distribution.
        params: [.., P], the network's output.

    Returns:
        [.., Z], with a gradient.
    """
    return latent.draw(params, latent.noise(params, *params.shape[:-1]))


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
        return (1 - self.unimix) * self._soft(params) + self.unimix / self.classes

    def log_probs(self, params: Tensor) -> Tensor:
        """Return log-probabilities, finite even where a probability is too small for a float."""
        if self.unimix:
            return self.probs(params).log()
        return torch.log_softmax(params.unflatten(-1, (self.latents, self.classes)), -1)

    def noise(self, like: Tensor, *lead: int) -> Tensor | None:
        """Draw one uniform number per variable, [*lead, latents, 1]."""
        if is_deterministic():
            return None
        return torch.rand(*lead, self.latents, 1, dtype=like.dtype, device=like.device)

    def draw(self, params: Tensor, noise: Tensor | None) -> Tensor:
        """Draw flat one-hots [.., Z], with the gradient of the probabilities."""
        probs = self.probs(params)
        hard = self._hard(probs.detach(), noise)
        return (hard + (probs - probs.detach()) if probs.requires_grad else hard).flatten(-2)

    def draw_back(self, params: Tensor, noise: Tensor | None, sample: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the logits through the probabilities."""
        soft = self._soft(params)
        inner = soft * grad.unflatten(-1, (self.latents, self.classes))
        return ((inner - soft * inner.sum(-1, keepdim=True)) * (1 - self.unimix)).flatten(-2)

    def _soft(self, params: Tensor) -> Tensor:
        # by hand, since the library's softmax over few classes takes five times as long on a CPU
        logits = params.unflatten(-1, (self.latents, self.classes))
        powers = (logits - logits.detach().amax(-1, keepdim=True)).exp()
        return powers / powers.sum(-1, keepdim=True)

    def _hard(self, probs: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return F.one_hot(probs.argmax(-1), self.classes).to(probs.dtype)
        # the first class whose cumulative probability exceeds the noise; a quarter of the time of an argmax
        # over perturbed scores, and one random number instead of one per class
        sums = probs.cumsum(-1)
        above = (sums > noise * sums[..., -1:]).to(probs.dtype)
        return torch.cat([above[..., :1], above[..., 1:] - above[..., :-1]], -1)

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute KL(post || prior) [..]."""
        return categorical_kl(self.log_probs(post), self.log_probs(prior)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Compute the entropy [..]."""
        log_probs = self.log_probs(params)
        return -(log_probs.exp() * log_probs).sum((-2, -1))


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

    def noise(self, like: Tensor, *lead: int) -> Tensor | None:
        """Draw unit normals [*lead, latents]."""
        if is_deterministic():
            return None
        return torch.randn(*lead, self.latents, dtype=like.dtype, device=like.device)

    def draw(self, params: Tensor, noise: Tensor | None) -> Tensor:
        """Draw [.., latents] by reparameterisation."""
        mean, std = self.split(params)
        return mean if noise is None else torch.addcmul(mean, std, noise)

    def draw_back(self, params: Tensor, noise: Tensor | None, sample: Tensor, grad: Tensor) -> Tensor:
        """Return the gradients of means and raw deviations."""
        if noise is None:
            return torch.cat([grad, torch.zeros_like(grad)], -1)
        return torch.cat([grad, grad * noise * torch.sigmoid(params[..., self.latents :])], -1)

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

    def noise(self, like: Tensor, *lead: int) -> Tensor | None:
        """Return None: there is none."""
        return None

    def draw(self, params: Tensor, noise: Tensor | None) -> Tensor:
        """Return [.., latents]."""
        return torch.tanh(params)

    def draw_back(self, params: Tensor, noise: Tensor | None, sample: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient through the tanh."""
        return grad * (1 - sample.square())

    def kl(self, post: Tensor, prior: Tensor) -> Tensor:
        """Compute half the squared distance [..]."""
        return 0.5 * (torch.tanh(post) - torch.tanh(prior)).square().sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return zeros [..]."""
        return torch.zeros_like(params[..., 0])
