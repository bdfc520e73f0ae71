"""The recurrent state-space model of DreamerV3 (Nature 2025 version), with Gaussian and deterministic options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Losses, Policy, Segment, Spec, Step, state, tree
from foreworld.core.errors import ConfigError
from foreworld.encoders import ObsDecoder, ObsEncoder, fit_control_weight, fit_pixel_scale, pixel_scale
from foreworld.encoders.pixel import Form, PixelLoss
from foreworld.nn import (
    MLP,
    BernoulliHead,
    BlockGRU,
    CategoricalLatent,
    DeterministicLatent,
    GaussianLatent,
    Head,
    Latent,
    Layer,
    Linear,
    RMSNorm,
    TwoHotHead,
    follow,
    layout,
    sample,
    scan,
)
from foreworld.nn.precision import product_dtype
from foreworld.ops import free_nats

CHUNK = 1024
"""States imagined at a time on a CPU: of 8192 at once, nothing stays in the cache, and it takes twice as long."""


@dataclass(frozen=True, kw_only=True)
class RSSMConfig:
    """Sizes and choices of an RSSM; the defaults are the official size `12m`.

    Attributes:
        deter: width of the deterministic state.
        units: width of all hidden layers.
        latents: number of stochastic variables.
        classes: classes of each, for categorical latents.
        blocks: blocks of the recurrent weights.
        depth: base channels of the convolutions.
        layers: layers of the symbolic encoder and decoder.
        latent: `categorical`, `gaussian` or `deterministic`.
        unimix: share of the uniform distribution in categorical latents.
        free_nats: divergence below which it is not pushed further; none for deterministic latents.
        convolutions: `official` (5x5, max-pool) or `strided` (4x4, a seventh of the cost).
        pixel_loss: `plain` squared error, or `normalised` by each pixel's mean and deviation.
        control_weight: extra weight, in the pixel loss, of pixels whose change the actions explain.
        reward: whether there is a reward head; never for plain video.
        cont: whether there is a continue head; never for plain video.
        rec_weight: weight of each reconstruction loss.
        reward_weight: weight of the reward loss.
        cont_weight: weight of the continue loss.
        dyn_weight: weight of the divergence that trains the prior.
        rep_weight: weight of the divergence that trains the posterior.
    """

    deter: int = 2048
    units: int = 256
    latents: int = 32
    classes: int = 16
    blocks: int = 8
    depth: int = 16
    layers: int = 3
    latent: Literal["categorical", "gaussian", "deterministic"] = "categorical"
    unimix: float = 0.01
    free_nats: float = 1.0
    convolutions: Form = "official"
    pixel_loss: PixelLoss = "plain"
    control_weight: float = 0.0
    reward: bool = True
    cont: bool = True
    rec_weight: float = 1.0
    reward_weight: float = 1.0
    cont_weight: float = 1.0
    dyn_weight: float = 1.0
    rep_weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("deter", "units", "latents", "classes", "blocks", "depth", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rssm.{name} must be at least 1, found {getattr(self, name)}")
        if self.deter % self.blocks:
            raise ConfigError(f"rssm.deter ({self.deter}) must be divisible by rssm.blocks ({self.blocks})")
        if not 0 <= self.unimix < 1:
            raise ConfigError(f"rssm.unimix must lie in [0, 1), found {self.unimix}")


@state
class RSSMState:
    """What an RSSM remembers.

    Attributes:
        deter: [.., D] recurrent state.
        stoch: [.., Z] sample of the stochastic state, flat.
        condition: [.., K] conditioning vector, width 0 when there is none.
    """

    deter: Tensor
    stoch: Tensor
    condition: Tensor


class RSSM(nn.Module):
    """Predict in a latent state with a deterministic and a stochastic part.

    Choose it for control from logs or a simulator: cheap imagination, reward and
    continue heads, decoded observations.

    Args:
        spec: observations and actions.
        config: sizes; fields can also be given by keyword.

    Reference:
        Hafner et al., Mastering diverse control tasks through world models, Nature 2025,
        arXiv 2301.04104.

    Example:
        >>> import torch, gymnasium as gym, foreworld as fw
        >>> env = gym.make("CartPole-v1")
        >>> spec = fw.Spec.from_space(env.observation_space, env.action_space)
        >>> model = fw.RSSM(spec, deter=64, units=32, classes=4)
        >>> after = model.step(model.initial(2), torch.eye(2))
        >>> model.read(after).reward.shape
        torch.Size([2])
    """

    family = "rssm"

    def __init__(self, spec: Spec, config: RSSMConfig | None = None, **fields: Any) -> None:
        super().__init__()
        config = replace(config or RSSMConfig(), **fields)
        self.spec, self.config = spec, config
        acts = spec.action is not None
        self.latent = _latent(config)
        # a deterministic latent has no nats to give away: its divergence is a plain squared distance
        self.free = 0.0 if config.latent == "deterministic" else config.free_nats
        stoch = self.latent.width
        scale = pixel_scale(spec, config.pixel_loss)
        self.encoder = ObsEncoder(spec, config.depth, config.units, config.layers, config.convolutions, scale)
        self.cell = BlockGRU(config.deter, stoch, spec.action_width + spec.condition, config.units, config.blocks)
        # the first posterior layer is split, so that its part on tokens runs for all time steps at once
        fan_in = config.deter + self.encoder.width
        self.post_deter = Linear(config.deter, config.units, fan_in=fan_in)
        self.post_tokens = Linear(self.encoder.width, config.units, bias=False, fan_in=fan_in)
        self.post_norm, self.post_out = RMSNorm(config.units), Linear(config.units, self.latent.params)
        self.prior_hidden = MLP(config.deter, config.units, 2)
        self.prior_out = Linear(config.units, self.latent.params)
        self.decoder = ObsDecoder(
            spec,
            config.deter,
            stoch,
            config.depth,
            config.units,
            config.layers,
            config.blocks,
            config.convolutions,
            scale,
        )
        feat = config.deter + stoch
        self.reward = TwoHotHead(feat, config.units, 1) if config.reward and acts else None
        self.cont = BernoulliHead(feat, config.units, 1) if config.cont and acts else None
        heads = {"reward": self.reward, "cont": self.cont}
        self.provides = frozenset(
            {
                "decode",
                "unroll",
                "follow",
                "carry",
                "calibrate",
                "dream_losses",
                *(k for k, head in heads.items() if head),
            }
        )
        self.loss_weights = self._weights()

    def initial(self, batch: int) -> RSSMState:
        """Return zeros, leaves [batch, ...]."""
        ref = self.post_deter.weight
        return RSSMState(
            deter=ref.new_zeros(batch, self.config.deter),
            stoch=ref.new_zeros(batch, self.latent.width),
            condition=ref.new_zeros(batch, self.spec.condition),
        )

    def observe(self, state: RSSMState, segment: Segment) -> RSSMState:
        """Filter a segment [B, T]; return the posterior states after every row, leaves [B, T, ...]."""
        return self._filter(state, segment)[0]

    def step(self, state: RSSMState, action: Tensor | None) -> RSSMState:
        """Predict one step by the prior, under `action` [B, A]."""
        deter = self.cell(state.deter, state.stoch, self._embed(action, state.condition))
        return RSSMState(deter=deter, stoch=sample(self.latent, self._prior(deter)), condition=state.condition)

    def unroll(self, state: RSSMState, actions: Tensor | None, horizon: int) -> RSSMState:
        """Predict `horizon` steps under `actions` [B, H, A]; return the states reached, leaves [B, H, ...]."""
        batch = state.deter.shape[0]
        if batch > CHUNK and not torch.is_grad_enabled() and state.deter.device.type == "cpu":
            rows = [slice(i, i + CHUNK) for i in range(0, batch, CHUNK)]
            parts = (self.unroll(tree.index(state, r), None if actions is None else actions[r], horizon) for r in rows)
            return tree.cat(list(parts), 0)
        condition = _over_time(state.condition, horizon)
        head = layout(self.prior_hidden, self.prior_out)
        return self._scan(state, self._embed(actions, condition), head, [None] * horizon)[0]

    def follow(self, state: RSSMState, policy: Policy, horizon: int) -> tuple[RSSMState, Tensor]:
        """Predict `horizon` steps under a policy; return the states, leaves [B, H, ...], and the actions [B, H, A]."""
        batch = state.deter.shape[0]
        if batch > CHUNK and state.deter.device.type == "cpu":
            rows = [slice(i, i + CHUNK) for i in range(0, batch, CHUNK)]
            parts = [self.follow(tree.index(state, r), policy, horizon) for r in rows]
            return tree.cat([states for states, _ in parts], 0), torch.cat([actions for _, actions in parts])
        drive, taken = self.cell.driver(), list[Tensor]()

        def choose(deter: Tensor, stoch: Tensor) -> Tensor:
            taken.append(policy(self._features(deter, stoch)).sample())
            return drive(self._embed(taken[-1], state.condition))

        head = layout(self.prior_hidden, self.prior_out)
        noise = self.latent.noise(state.deter, horizon, batch)
        drawn = [None] * horizon if noise is None else list(noise)
        found = follow(self.cell.core(), head, self.latent, state.deter, state.stoch, choose, drawn)
        deter, stoch = (x.transpose(0, 1) for x in found)
        states = RSSMState(deter=deter, stoch=stoch, condition=_over_time(state.condition, horizon))
        return states, torch.stack(taken, 1)

    def read(self, state: RSSMState) -> Step:
        """Return features [.., D + Z], expected reward and probability to continue."""
        feat = self._features(state.deter, state.stoch)
        return Step(
            feat=feat,
            reward=self.reward(feat) if self.reward is not None else None,
            cont=self.cont(feat) if self.cont is not None else None,
        )

    def decode(self, state: RSSMState) -> dict[str, Tensor]:
        """Return expected observations: images in [0, 1], vectors in source units, class probabilities."""
        return self.decoder(state.deter, state.stoch)

    def losses(self, segment: Segment, state: RSSMState | None = None) -> Losses[RSSMState]:
        """Compute reconstruction, reward, continue and the two divergences, [B, T] each."""
        return self._losses(segment, self.initial(segment.batch) if state is None else state, segment.length)

    def dream_losses(self, segment: Segment, watch: int) -> Losses[RSSMState]:
        """Compute the same where the prior alone predicts all rows after the first `watch`.

        Those rows have no divergence, and no loss from the start of a next episode on, which
        nothing announces. Their states stand in `states` behind the posteriors.
        """
        return self._losses(segment, self.initial(segment.batch), min(watch, segment.length))

    def _losses(self, segment: Segment, before: RSSMState, watch: int) -> Losses[RSSMState]:
        posts, post = self._filter(before, segment.rows(0, watch))
        prior = self._prior(posts.deter)
        states, counts = self._dream_on(posts, segment)
        terms = self.decoder.losses(states.deter, states.stoch, segment.obs)
        feat = self._features(states.deter, states.stoch)
        if self.reward is not None:
            terms["reward"] = self.reward.loss(feat, segment.reward)
        if self.cont is not None:
            terms["cont"] = self.cont.loss(feat, segment.cont)
        if counts is not None:
            terms = {name: term * counts for name, term in terms.items()}
        unseen = (0, segment.length - watch)
        terms["dyn"] = F.pad(free_nats(self.latent.kl(post.detach(), prior), self.free), unseen)
        terms["rep"] = F.pad(free_nats(self.latent.kl(post, prior.detach()), self.free), unseen)
        with torch.no_grad():
            metrics = {
                "kl": self.latent.kl(post, prior).mean(),
                "post_entropy": self.latent.entropy(post).mean(),
                "prior_entropy": self.latent.entropy(prior).mean(),
            }
        return Losses(terms=terms, metrics=metrics, states=states)

    def calibrate(self, segments: Callable[[], Iterator[Segment]]) -> None:
        """Set per-pixel statistics and weights from training data, when the config asks for them."""
        scale = self.encoder.scale
        if scale is not None and self.config.pixel_loss == "normalised":
            fit_pixel_scale(scale, self.spec, segments())
        if scale is not None and self.config.control_weight:
            fit_control_weight(scale, self.spec, segments(), self.config.control_weight)

    def _features(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Put both side by side, in the precision in which everything that reads them computes."""
        low = product_dtype(deter)
        return torch.cat([deter.to(low), stoch.to(low)], -1)

    def _prior(self, deter: Tensor) -> Tensor:
        return self.prior_out(self.prior_hidden(deter))

    def _dream_on(self, posts: RSSMState, segment: Segment) -> tuple[RSSMState, Tensor | None]:
        """Predict the rows after the posteriors; return all states and which rows count, [B, T] (None: all)."""
        seen = posts.deter.shape[1]
        if seen == segment.length:
            return posts, None
        actions = None if segment.prev_action is None else segment.prev_action[:, seen:]
        dreamed = self.unroll(tree.index(posts, (slice(None), -1)), actions, segment.length - seen)
        counts = segment.is_first.float()
        counts[:, :seen] = 0
        return tree.cat([posts, dreamed]), (counts.cumsum(1) == 0).float()

    def _filter(self, state: RSSMState, segment: Segment) -> tuple[RSSMState, Tensor]:
        """Return posterior states and the raw posterior parameters, leaves [B, T, ...]."""
        keep = 1 - segment.is_first.float().unsqueeze(-1)
        condition = state.condition if segment.condition is None else segment.condition
        action = None if segment.prev_action is None else segment.prev_action * keep
        embedded = self._embed(action, _over_time(condition, segment.length))
        tokens = self.post_tokens(self.encoder(segment.obs)) + self.post_deter.bias
        first = Layer(self.post_deter.weight.t(), tokens.transpose(0, 1), self.post_norm.scale)
        head = Head((first,), self.post_out.weight.t(), self.post_out.bias)
        return self._scan(replace(state, condition=condition), embedded, head, _resets(segment.is_first, keep))

    def _scan(
        self, state: RSSMState, action: Tensor | None, head: Head, keep: list[Tensor | None]
    ) -> tuple[RSSMState, Tensor]:
        """Run the recurrence under embedded actions [B, T, units]; return the states and what the head said."""
        length, batch = len(keep), state.deter.shape[0]
        drive = self.cell.drive(action)
        if drive.dim() > 1:
            drive = drive.transpose(0, 1)
        noise = self.latent.noise(state.deter, length, batch)
        found = scan(self.cell.core(), head, self.latent, state.deter, state.stoch, drive, keep, noise)
        deter, stoch, params = (x.transpose(0, 1) for x in found)
        return RSSMState(deter=deter, stoch=stoch, condition=_over_time(state.condition, length)), params

    def _embed(self, action: Tensor | None, condition: Tensor) -> Tensor | None:
        parts = [part for part in (action, condition) if part is not None and part.shape[-1]]
        return self.cell.embed_action(torch.cat(parts, -1)) if parts else None

    def _weights(self) -> dict[str, float]:
        config = self.config
        symbols = [key for key, space in self.spec.obs.items() if space.kind != "image"]
        weights = dict.fromkeys([*(["pixels"] if self.spec.images else []), *symbols], config.rec_weight)
        if self.reward is not None:
            weights["reward"] = config.reward_weight
        if self.cont is not None:
            weights["cont"] = config.cont_weight
        return weights | {"dyn": config.dyn_weight, "rep": config.rep_weight}


def _latent(config: RSSMConfig) -> Latent:
    if config.latent == "categorical":
        return CategoricalLatent(config.latents, config.classes, config.unimix)
    return GaussianLatent(config.latents) if config.latent == "gaussian" else DeterministicLatent(config.latents)


def _over_time(x: Tensor, length: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, length, -1)


def _resets(is_first: Tensor, keep: Tensor) -> list[Tensor | None]:
    """Return the factors [B, 1] of every step at which some sequence starts anew, and None elsewhere."""
    if is_first.device.type != "cpu":  # looking would wait for the device
        return list(keep.unbind(1))
    return [keep[:, t] if some else None for t, some in enumerate(is_first.any(0).tolist())]
