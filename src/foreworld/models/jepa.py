"""A joint-embedding predictive architecture: predict where actions lead in an embedding, and never decode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Losses, Segment, Spec, Step, is_deterministic, require, state, tree
from foreworld.core.errors import ConfigError
from foreworld.encoders.latent import GivenLatents, LatentEncoder, Vision
from foreworld.encoders.looking import LookingDecoder
from foreworld.nn import MLP, BernoulliHead, Linear, TwoHotHead
from foreworld.nn.latents import RecurrentPredictor, TransformerPredictor
from foreworld.nn.precision import as_given
from foreworld.nn.window import Windows, slide
from foreworld.ops.collapse import barlow_twins, covariance_penalty, random_directions, sigreg, variance_hinge

LOOKED_AT = 4
"""Of so many windows one teaches the decoder, which would else cost as much as the encoder."""


@dataclass(frozen=True, kw_only=True)
class JEPAConfig:
    """Sizes and choices of a JEPA.

    Attributes:
        latent: width E of the embedding; `given` takes that of the data.
        window: K, latents and actions that a prediction sees.
        encoder: `learned`; `frozen`, as it was adopted from another run; or `given` where the observations are
            features already.
        vision: how pictures are read.
        units: width of the hidden layers.
        layers: of the predictor.
        heads: of a transformer's attention.
        predictor: `recurrent` or `transformer`.
        rollout: steps that the predictor goes on from its own predictions in training.
        target: what predictions are compared with: the `same` encoder with its gradient, the same `stopped`, or an
            exponential moving average of its weights, `ema`.
        momentum: share of the old weights that stays in the average after an update.
        directions: along which SIGReg looks, drawn anew for every update.
        sigreg: weight of SIGReg; 0 for none.
        variance: weight of VICReg's variance.
        covariance: weight of VICReg's covariance.
        similarity: weight of the squared change from row to row.
        inverse: weight of the loss of a head that names the action between two latents.
        barlow: weight of Barlow Twins between prediction and target.
        reward: whether there is a reward head, on latents that it cannot change.
        cont: whether there is a continue head, likewise.
        decoder: whether there is a decoder to look through, likewise; a quarter of the windows, drawn by lot, teach it
            their last row.
    """

    latent: int = 128
    window: int = 1
    encoder: Literal["learned", "frozen", "given"] = "learned"
    vision: Vision = field(default_factory=Vision)
    units: int = 256
    layers: int = 2
    heads: int = 4
    predictor: Literal["recurrent", "transformer"] = "recurrent"
    rollout: int = 8
    target: Literal["same", "stopped", "ema"] = "same"
    momentum: float = 0.996
    directions: int = 64
    sigreg: float = 0.1
    variance: float = 0.0
    covariance: float = 0.0
    similarity: float = 0.0
    inverse: float = 0.0
    barlow: float = 0.0
    reward: bool = True
    cont: bool = True
    decoder: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built or learned."""
        for name in ("latent", "window", "units", "layers", "heads", "rollout", "directions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"jepa.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("sigreg", "variance", "covariance", "similarity", "inverse", "barlow"):
            if not 0 <= getattr(self, name) < torch.inf:
                raise ConfigError(f"jepa.{name} is a weight, 0 or more, found {getattr(self, name)}")
        if self.vision.out == "principal" and self.encoder == "learned":
            raise ConfigError("jepa.vision.out: principal components are for a frozen encoder; set jepa.encoder=frozen")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"jepa.momentum must lie in [0, 1], found {self.momentum}")

    @property
    def weights(self) -> dict[str, float]:
        """Loss term to weight, for those that shape a learned encoder."""
        if self.encoder != "learned":
            return {}
        names = ("sigreg", "variance", "covariance", "similarity", "inverse", "barlow")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@state
class JEPAState:
    """The last K latents and the actions that led to them, newest last.

    Attributes:
        latents: [.., K, E].
        actions: [.., K, A]; width 0 for plain video.
        seen: [..] bool, whether any row has arrived; the first one fills the window.
    """

    latents: Tensor
    actions: Tensor
    seen: Tensor


class JEPA(nn.Module):
    """Predict the next latent from a window of latents and actions; learn both from prediction alone.

    Nothing is reconstructed, so what is unpredictable or idle need not be represented. Choose it to reach goals:
    distance in the embedding says how far a goal is.

    Args:
        spec: observations and actions.
        config: sizes; fields can also be given by keyword.

    Reference:
        LeCun, A path towards autonomous machine intelligence, 2022, section 4.4; Sobal et al., Learning from
        Reward-Free Offline Data, 2025 (PLDM); Maes et al., LeWorldModel, 2026, arXiv 2603.19312.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.testing import random_segment, specs
        >>> spec = specs()["image_discrete"]
        >>> model = fw.JEPA(spec, latent=16, units=32)
        >>> segment = random_segment(spec, batch=2, length=6)
        >>> start = fw.tree.index(model.observe(model.initial(2), segment.rows(0, 3)), (slice(None), -1))
        >>> fw.imagine(model, start, segment.prev_action[:, 3:], keep=("embed",)).embed.shape
        torch.Size([2, 3, 16])
    """

    family = "jepa"
    score_kind = "latent error"

    def __init__(self, spec: Spec, config: JEPAConfig | None = None, **fields: Any) -> None:
        super().__init__()
        config = replace(config or JEPAConfig(), **fields)
        self.spec, self.config = spec, config
        acts = spec.action is not None
        self.encoder = _encoder(spec, config)
        width = self.encoder.width if isinstance(self.encoder, GivenLatents) else config.latent
        self.latent, self.act = width, spec.action_width
        self.predictor = _predictor(width, self.act, config)
        fixed = set() if config.encoder == "learned" else {"fixed_embed"}
        # the average of weights that never change is these weights
        self.target = _frozen_copy(self.encoder) if config.target == "ema" and not fixed else None
        self.inverse = _inverse(width, self.act, config.units) if "inverse" in config.weights and acts else None
        feat = config.window * (width + self.act)
        self.reward = TwoHotHead(feat, config.units, 1) if config.reward and acts else None
        self.cont = BernoulliHead(feat, config.units, 1) if config.cont and acts else None
        self.decoder = LookingDecoder(spec, width, config.units) if config.decoder else None
        heads = {name for name, head in (("reward", self.reward), ("cont", self.cont)) if head is not None}
        averaged = {"after_update"} if self.target is not None else set()
        seen = {"look"} if self.decoder is not None else set()
        self.provides = frozenset({"embed", "score", "unroll", "calibrate", *fixed, *heads, *averaged, *seen})
        self.loss_weights = {"predict": 1.0, **config.weights, **dict.fromkeys(sorted(heads | seen), 1.0)}
        if self.inverse is None:
            self.loss_weights.pop("inverse", None)

    def initial(self, batch: int) -> JEPAState:
        """Return an empty window, leaves [batch, ...]."""
        ref, window = next(self.predictor.parameters()), self.config.window
        return JEPAState(
            latents=ref.new_zeros(batch, window, self.latent),
            actions=ref.new_zeros(batch, window, self.act),
            seen=torch.zeros(batch, dtype=torch.bool, device=ref.device),
        )

    def observe(self, state: JEPAState, segment: Segment, embedded: Tensor | None = None) -> JEPAState:
        """Shift every row into the window; return the windows after every row, leaves [B, T, ...]."""
        return self._observe(state, self._latents(segment, embedded), segment)

    def step(self, state: JEPAState, action: Tensor | None) -> JEPAState:
        """Predict one step under `action` [B, A]."""
        taken = state.latents.new_zeros(len(state.latents), self.act) if action is None else action
        return self._ahead(state, taken)

    def unroll(self, state: JEPAState, actions: Tensor | None, horizon: int) -> JEPAState:
        """Predict `horizon` steps under `actions` [B, H, A]; return the windows reached, leaves [B, H, ...]."""
        states = []
        for h in range(horizon):
            state = self.step(state, None if actions is None else actions[:, h])
            states.append(state)
        return tree.stack(states)

    def read(self, state: JEPAState) -> Step:
        """Return the flat window as features [.., K * (E + A)], the newest latent, reward and continuation."""
        feat = torch.cat([state.latents.flatten(-2), state.actions.flatten(-2)], -1)
        return Step(
            feat=feat,
            reward=self.reward(feat) if self.reward is not None else None,
            cont=self.cont(feat) if self.cont is not None else None,
            embed=state.latents[..., -1, :],
        )

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        """Return where observations [B, ...] lie in the embedding, [B, E]: goals, among others."""
        return self.encoder(obs)

    def look(self, state: JEPAState) -> dict[str, Tensor]:
        """Return what the newest latent shows; see `LookingDecoder`.

        Args:
            state: leaves [B, ...] or [B, T, ...].

        Raises:
            MissingCapability: there is no decoder.
        """
        require(self, "look", "to see what a latent shows")
        assert self.decoder is not None
        return self.decoder(state.latents[..., -1, :])

    def score(self, state: JEPAState, segment: Segment, embedded: Tensor | None = None) -> Tensor:
        """Return how wrong the prediction of each row was from the row before, [B, T]; 0 where there was none.

        The unit is a mean squared difference of latents.
        """
        latents = self._latents(segment, embedded)
        after = self._observe(state, latents, segment)
        return self._prediction_errors(_starts(state, after), latents, segment, 1)[0]

    def losses(
        self, segment: Segment, state: JEPAState | None = None, embedded: Tensor | None = None
    ) -> Losses[JEPAState]:
        """Compute prediction errors [B, T], what prevents collapse, and the heads' losses [B, T]."""
        before = self.initial(segment.batch) if state is None else state
        latents = self._latents(segment, embedded)
        states = self._observe(before, latents, segment)
        starts = _starts(before, states)
        target = self._targets(latents, segment)
        error, first = self._prediction_errors(starts, target, segment, self.config.rollout)
        with as_given(latents):  # statistics of a batch are sums
            terms = {"predict": error} | self._against_collapse(starts, first, latents, target, segment)
        feat = self.read(tree.detach(states)).feat
        if self.reward is not None:
            terms["reward"] = self.reward.loss(feat, segment.reward)
        if self.cont is not None:
            terms["cont"] = self.cont.loss(feat, segment.cont)
        if self.decoder is not None:
            terms["look"] = self._looking_error(self.decoder, latents.detach(), segment)
        return Losses(terms=terms, metrics=_metrics(starts, first, latents, segment), states=states)

    def calibrate(self, segments: Callable[[], Iterator[Segment]]) -> None:
        """Set the scale of pictures, or of latents that the data holds, from training data."""
        if self.config.encoder != "frozen":
            self.encoder.fit(segments())
        elif isinstance(self.encoder, LatentEncoder):
            self.encoder.fit_out(segments())
        if self.target is not None:
            self.target.load_state_dict(self.encoder.state_dict())

    @torch.no_grad()
    def after_update(self, sound: Tensor) -> None:
        """Move the averaged encoder on where an update was done."""
        if self.target is None:
            return
        share = (1 - self.config.momentum) * torch.as_tensor(sound, dtype=torch.float32)
        for old, new in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            old.lerp_(new, share.to(old))

    def _latents(self, segment: Segment, embedded: Tensor | None) -> Tensor:
        """Embed the rows of a segment, [B, T, E], unless that has been done."""
        return self.encoder(segment.obs) if embedded is None else embedded

    def _observe(self, state: JEPAState, latents: Tensor, segment: Segment) -> JEPAState:
        first = segment.is_first
        action = latents.new_zeros(*first.shape, self.act) if segment.prev_action is None else segment.prev_action
        windows = Windows.over(first, state.seen, self.config.window)
        actions = windows.of(state.actions, action * ~first.unsqueeze(-1))
        return JEPAState(
            latents=windows.of(state.latents, latents),
            actions=actions * ~windows.repeated.unsqueeze(-1),
            seen=torch.ones_like(first),
        )

    def _ahead(self, state: JEPAState, action: Tensor) -> JEPAState:
        """Predict one step of states with leaves [N, ...] under actions [N, A]."""
        actions = slide(state.actions, action)
        latent = self.predictor(state.latents, actions)
        return JEPAState(latents=slide(state.latents, latent), actions=actions, seen=torch.ones_like(state.seen))

    def _targets(self, latents: Tensor, segment: Segment) -> Tensor:
        if self.target is not None:
            with torch.no_grad():
                return self.target(segment.obs)
        return latents if self.config.target == "same" else latents.detach()

    def _prediction_errors(
        self, starts: JEPAState, target: Tensor, segment: Segment, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Predict every row from up to `steps` rows before it, without looking in between.

        Args:
            starts: the windows before every row, leaves [B, T, ...].
            target: latents of the rows, [B, T, E].
            segment: says which actions lead there, and where episodes begin.
            steps: largest distance.

        Returns:
            [B, T] mean over the distances of mean squared errors, 0 where no prediction is possible; and what was
            predicted from one row before, [B, T, E].
        """
        batch, length = segment.is_first.shape
        actions = target.new_zeros(batch, length, self.act) if segment.prev_action is None else segment.prev_action
        total, count = target.new_zeros(batch, length), target.new_zeros(batch, length)
        ahead, follows, first = starts, starts.seen, torch.empty(0)
        for k in range(min(steps, length)):  # from row t - k - 1 to row t
            ahead, follows = tree.index((ahead, follows), (slice(None), slice(length - k)))
            follows = follows & ~segment.is_first[:, k:]
            flat, taken = tree.flatten_time(ahead), actions[:, k:].flatten(0, 1)
            ahead = tree.map(lambda leaf: leaf.unflatten(0, (batch, -1)), self._ahead(flat, taken))
            latent = ahead.latents[..., -1, :]
            first = latent if k == 0 else first
            error = (latent - target[:, k:]).square().mean(-1) * follows
            total, count = total + F.pad(error, (k, 0)), count + F.pad(follows.float(), (k, 0))
        return total / count.clamp(min=1), first

    def _against_collapse(
        self, starts: JEPAState, first: Tensor, latents: Tensor, target: Tensor, segment: Segment
    ) -> dict[str, Tensor]:
        weights, terms = self.config.weights, dict[str, Tensor]()
        counts = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
        known = starts.seen & ~segment.is_first
        rows, weight = latents.flatten(0, 1), counts.flatten()
        if "sigreg" in weights:
            source = torch.Generator().manual_seed(0) if is_deterministic() else None
            directions = random_directions(self.latent, self.config.directions, latents, source)
            terms["sigreg"] = sigreg(latents.transpose(0, 1), directions, counts.T)
        if "variance" in weights:
            terms["variance"] = variance_hinge(rows, weight)
        if "covariance" in weights:
            terms["covariance"] = covariance_penalty(rows, weight)
        if "similarity" in weights:
            terms["similarity"] = (latents - starts.latents[..., -1, :]).square().mean(-1) * known
        if self.inverse is not None and segment.prev_action is not None:
            pair = torch.cat([starts.latents[..., -1, :], latents], -1)
            terms["inverse"] = self._named(self.inverse(pair), segment.prev_action) * known
        if "barlow" in weights:
            terms["barlow"] = barlow_twins(first.flatten(0, 1), target.flatten(0, 1), (known & counts).flatten())
        return terms

    def _looking_error(self, decoder: LookingDecoder, latents: Tensor, segment: Segment) -> Tensor:
        """Return how wrong the last rows of some windows are shown, [B, T]; 0 elsewhere.

        A quarter of them is drawn by lot; under `deterministic` it is all.
        """
        device, count = latents.device, -(-segment.batch // LOOKED_AT)
        some = torch.arange(segment.batch) if is_deterministic() else torch.randperm(segment.batch)[:count]
        some = some.to(device)
        wrong = decoder.loss(latents[some, -1:], {key: seen[some, -1:] for key, seen in segment.obs.items()})
        return wrong.new_zeros(latents.shape[:2]).index_put((some, torch.full_like(some, -1)), wrong[:, 0])

    def _named(self, said: Tensor, action: Tensor) -> Tensor:
        """Return how wrong a guess [.., A] at actions is, [..]: squared error, or cross-entropy of classes."""
        space = self.spec.action
        assert space is not None
        if space.kind == "vector":
            return (said - action).square().mean(-1)
        parts = zip(said.split(list(space.classes), -1), action.split(list(space.classes), -1), strict=True)
        return -torch.stack([(true * F.log_softmax(guess, -1)).sum(-1) for guess, true in parts]).sum(0)


def _encoder(spec: Spec, config: JEPAConfig) -> LatentEncoder | GivenLatents:
    if config.encoder == "given":
        return GivenLatents(spec)
    encoder = LatentEncoder(spec, config.latent, config.units, config.vision)
    return encoder.requires_grad_(config.encoder == "learned")


def _predictor(latent: int, actions: int, config: JEPAConfig) -> nn.Module:
    if config.predictor == "recurrent":
        return RecurrentPredictor(latent, actions, config.window, config.units, config.layers)
    return TransformerPredictor(latent, actions, config.window, config.units, config.layers, config.heads)


def _inverse(latent: int, actions: int, units: int) -> nn.Module:
    return nn.Sequential(MLP(2 * latent, units, 1), Linear(units, actions))


def _frozen_copy(encoder: nn.Module) -> nn.Module:
    return copy.deepcopy(encoder).requires_grad_(False)


def _starts(before: JEPAState, after: JEPAState) -> JEPAState:
    """Return the windows before every row, leaves [B, T, ...]."""
    return tree.map(lambda old, new: torch.cat([old.unsqueeze(1), new[:, :-1]], 1), before, after)


def _metrics(starts: JEPAState, first: Tensor, latents: Tensor, segment: Segment) -> dict[str, Tensor]:
    """Say how much the latents vary, and how much better predictions are than the latent before."""
    with torch.no_grad():
        deviation = latents.flatten(0, 1).std(0)
        known = (starts.seen & ~segment.is_first).float()
        wrong = ((first - latents).square().mean(-1) * known).sum()
        still = ((starts.latents[..., -1, :] - latents).square().mean(-1) * known).sum()
        explained = 1 - wrong / still.clamp(min=1e-12)
    return {"std_least": deviation.min(), "std_median": deviation.median(), "explained": explained}
