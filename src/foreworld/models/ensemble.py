"""Several models of one family side by side: their mean is nearer to the truth, their spread says how near."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.core import Losses, Segment, Spec, Step, from_json, is_deterministic, tree
from foreworld.core.errors import ConfigError
from foreworld.core.registry import load
from foreworld.ops.variance import Variance, error_unit

MOST = 100
"""More members than this are a slip of the hand."""

PASSED = frozenset(
    {
        "reward",
        "cont",
        "decode",
        "look",
        "embed",
        "fixed_embed",
        "score",
        "unroll",
        "calibrate",
        "dream_losses",
        "after_update",
        "carry",
    }
)
"""Capabilities that an ensemble has where its members have them."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Whose ensemble, and how large.

    Attributes:
        member: registered name of the family that the members are of.
        members: how many, M.
        each: the config of every member, or a mapping of its fields; None for its family's smallest size.
        bootstrap: whether each member counts the sequences of a batch as often as it drew them by lot, anew in
            every batch; and likewise takes its closed-form statistics from sequences drawn by lot.
    """

    member: str = "rssm"
    members: int = 5
    each: Any = None
    bootstrap: bool = False

    def __post_init__(self) -> None:
        """Find the members' config; refuse what cannot be built."""
        if not 1 <= self.members <= MOST:
            raise ConfigError(f"ensemble.members must be 1 to {MOST}, found {self.members}")
        if self.member == Ensemble.family:
            raise ConfigError("ensemble.member must be a single model's family, not an ensemble again")
        family, each = load("models", self.member), self.each
        if each is None:
            each = family.config(family.sizes[0])
        elif isinstance(each, Mapping):
            each = from_json(family.config_type, dict(each), "ensemble.each")
        if not isinstance(each, family.config_type):
            wanted, found = family.config_type.__name__, type(each).__name__
            raise ConfigError(f"ensemble.each must be the {wanted} of {self.member!r}, found {found}")
        object.__setattr__(self, "each", each)


class Ensemble(nn.Module):
    """Run M models of one family side by side, each on with its own state.

    The mean of independent errors is smaller than one of them, by at most sqrt(M); and where the
    members disagree, at least all but one are wrong. They differ by their initial weights (and, on
    request, by which sequences they count), and each is trained as if it were alone.

    The state is that of the family with one more axis, [B, M, ...] or [B, T, M, ...].

    Members whose embedding training does not change (`fixed_embed`) have one encoder, and with it one embedding: rows
    are embedded once for all, and predictions are compared there. Members that learn an encoder each have each an
    embedding of their own, which cannot be compared.

    Args:
        spec: observations and actions.
        config: family, number and config of the members; fields can also be given by keyword.

    Reference:
        Chua et al., Deep Reinforcement Learning in a Handful of Trials, 2018, arXiv 1805.12114: each
        member goes on with its own state (TS-infinity). Lakshminarayanan et al., Simple and Scalable
        Predictive Uncertainty Estimation using Deep Ensembles, 2017, arXiv 1612.01474: different
        initial weights are enough.

    Example:
        >>> import torch, gymnasium as gym, foreworld as fw
        >>> env = gym.make("CartPole-v1")
        >>> spec = fw.Spec.from_space(env.observation_space, env.action_space)
        >>> model = fw.Ensemble(spec, members=3, each={"deter": 64, "units": 32, "classes": 4})
        >>> after = model.step(model.initial(2), torch.eye(2))
        >>> after.deter.shape, model.read(after).reward.shape, model.spread(after).shape
        (torch.Size([2, 3, 64]), torch.Size([2]), torch.Size([2]))
    """

    family = "ensemble"
    unit: Tensor

    def __init__(self, spec: Spec, config: EnsembleConfig | None = None, **fields: Any) -> None:
        super().__init__()
        config = EnsembleConfig(**fields) if config is None else replace(config, **fields)
        family = load("models", config.member)
        self._hold(spec, config, [family.build(spec, config.each) for _ in range(config.members)])

    @classmethod
    def of(cls, models: Sequence[Any], segments: Iterable[Segment]) -> Ensemble:
        """Put models that were trained one by one side by side.

        Args:
            models: at least one, all of one family, with the same spec and config; not copied. Where training does
                not change their embedding, they have the same encoder, and only that of the first is kept.
            segments: training data, [B, T] rows each, from which the unit of `spread` is taken.

        Returns:
            The ensemble, on the models' device, in evaluation mode.

        Raises:
            ConfigError: no models, or models that differ in family, spec, config, or an encoder that none learned.
        """
        if not models:
            raise ConfigError("Ensemble.of needs at least one model, found none")
        first = models[0]
        for name in ("family", "spec", "config"):
            if any(getattr(model, name) != getattr(first, name) for model in models):
                raise ConfigError(f"models of an ensemble must have the same {name}; train them alike but for the seed")
        if "fixed_embed" in first.provides and any(not _alike(model.encoder, first.encoder) for model in models):
            raise ConfigError(
                "models whose encoder is frozen or given must have the same one, weights and scales, since an ensemble "
                "compares their embeddings; train them together, by foreworld train --preset ensemble"
            )
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._hold(first.spec, EnsembleConfig(member=first.family, members=len(models), each=first.config), models)
        made.to(tree.leaves(first.initial(1))[0].device)
        made.fit_unit(segments)
        return made.eval()

    def _hold(self, spec: Spec, config: EnsembleConfig, models: Sequence[Any]) -> None:
        self.spec, self.config = spec, config
        self.members = nn.ModuleList(models)
        inner = models[0].provides
        self.shared = {"embed", "fixed_embed"} <= inner
        if self.shared:
            for model in models[1:]:
                model.encoder = models[0].encoder
        self.provides = frozenset(inner & PASSED)
        self._spaces = sorted(spec.obs.items()) if "decode" in inner else []
        self._compared = self._entries_of(models[0])
        if len(models) > 1 and self._compared:
            self.provides |= {"spread", "calibrate"}
        if "score" in inner:
            self.score_kind = models[0].score_kind
        # terms are means over the members; times M, every member gets the gradient that it would get alone
        self.loss_weights = {name: len(models) * weight for name, weight in models[0].loss_weights.items()}
        self._axes = tree.leaves(models[0].initial(1))[0].dim()
        self.register_buffer("unit", torch.ones(sum(width for width, _ in self._compared) or 1))

    def initial(self, batch: int) -> Any:
        """Return every member's own, leaves [batch, M, ...]."""
        return tree.stack([model.initial(batch) for model in self.models])

    def observe(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Any:
        """Let every member filter a segment [B, T]; return the states after every row, leaves [B, T, M, ...]."""
        seen = self._seen(segment, embedded)
        return tree.stack([model.observe(own, segment, **seen) for model, own in self._pairs(state)], 2)

    def step(self, state: Any, action: Tensor | None) -> Any:
        """Let every member predict one step under `action` [B, A] from its own state."""
        return tree.stack([model.step(own, action) for model, own in self._pairs(state)])

    def unroll(self, state: Any, actions: Tensor | None, horizon: int) -> Any:
        """Let every member predict `horizon` steps under `actions` [B, H, A]; leaves [B, H, M, ...]."""
        return tree.stack([model.unroll(own, actions, horizon) for model, own in self._pairs(state)], 2)

    def read(self, state: Any) -> Step:
        """Return the members' features side by side, the means of reward and cont, and `members`.

        Embeddings are side by side too; of members that have one encoder it is their mean.
        """
        members = tree.stack([model.read(own) for model, own in self._pairs(state)], self._lead(state))
        return Step(
            feat=members.feat.flatten(-2),
            reward=None if members.reward is None else members.reward.mean(-1),
            cont=None if members.cont is None else members.cont.mean(-1),
            embed=None if members.embed is None else self._together(members.embed),
            members=members,
        )

    def decode(self, state: Any) -> dict[str, Tensor]:
        """Return the members' mean: images in [0, 1], vectors in source units, class probabilities."""
        lead = self._lead(state)
        return {key: value.mean(lead) for key, value in self.decode_members(state).items()}

    def decode_members(self, state: Any) -> dict[str, Tensor]:
        """Return what each member decodes, [B, M, ...] or [B, T, M, ...]."""
        return tree.stack([model.decode(own) for model, own in self._pairs(state)], self._lead(state))

    def look(self, state: Any) -> dict[str, Tensor]:
        """Return the mean of what the members' decoders show, as `decode` does."""
        lead = self._lead(state)
        shown = tree.stack([model.look(own) for model, own in self._pairs(state)], lead)
        return {key: value.mean(lead) for key, value in shown.items()}

    def spread(self, state: Any) -> Tensor:
        """Return how far the members are apart, [B] or [B, T], in the unit in which errors are measured.

        It is the root mean square, over all entries of all observations, of the members' standard
        deviation around their mean (M - 1 in its denominator) over the entry's unit. The unit is the
        deviation in the training data: of each entry of a vector; of all pixels of an image and of all
        classes of an integer together. So it compares with an error that `evaluate` finds: of M + 1
        draws from the same distribution, one the truth, the squared error of the mean is (M + 1) / M
        times the squared spread. A family that does not decode is judged by its embedding, each entry with its own
        unit, where the members have one encoder; else by its rewards.
        """
        lead = self._lead(state)
        if "decode" in self.provides:
            shown = self.decode_members(state)
            parts = [shown[key] for key, _ in self._spaces]
        else:
            said = [model.read(own) for model, own in self._pairs(state)]
            parts = [torch.stack([one.embed if self.shared else one.reward for one in said], lead)]
        variances = [part.var(lead).reshape(*part.shape[:lead], -1) for part in parts]
        units = self.unit.split([variance.shape[-1] for variance in variances])
        squares = [(variance / unit.square()).sum(-1) for variance, unit in zip(variances, units, strict=True)]
        # the root has no gradient at 0, where all members agree
        return (torch.stack(squares).sum(0) / len(self.unit)).clamp(min=1e-24).sqrt()

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        """Return the embedding [B, E] of members that have one encoder; else the members' side by side, [B, M * E]."""
        if self.shared:
            return self.models[0].embed(obs)
        return torch.cat([model.embed(obs) for model in self.models], -1)

    def score(self, state: Any, segment: Segment, embedded: Tensor | None = None) -> Tensor:
        """Return the members' mean score [B, T]."""
        seen = self._seen(segment, embedded)
        return torch.stack([model.score(own, segment, **seen) for model, own in self._pairs(state)]).mean(0)

    def losses(self, segment: Segment, state: Any = None, embedded: Tensor | None = None) -> Losses[Any]:
        """Compute the members' mean losses on the same segment [B, T]; `loss_weights` make a sum of it."""
        owns = [None] * len(self.members) if state is None else [own for _, own in self._pairs(state)]
        seen, pairs = self._seen(segment, embedded), zip(self.models, owns, strict=True)
        return self._mean([model.losses(segment, own, **seen) for model, own in pairs], segment)

    def dream_losses(self, segment: Segment, watch: int) -> Losses[Any]:
        """Compute the same where each member dreams all rows after the first `watch`."""
        return self._mean([model.dream_losses(segment, watch) for model in self.models], segment)

    def after_update(self, step: int) -> None:
        """Let every member do what it does after an update."""
        for model in self.models:
            model.after_update(step)

    def calibrate(self, segments: Callable[[], Iterator[Segment]]) -> None:
        """Calibrate the members that ask for it, and find the unit of `spread`.

        Members that have one encoder are all calibrated on all rows: its scales belong to all of them.
        """
        draws = self.config.bootstrap and not self.shared
        for model in self.models:
            if "calibrate" in model.provides:
                model.calibrate(_drawn(segments) if draws else segments)
        if "spread" in self.provides:
            self.fit_unit(segments())

    @torch.no_grad()
    def fit_unit(self, segments: Iterable[Segment]) -> None:
        """Set the unit of `spread` to the deviation of observations, embeddings or rewards in training data.

        Args:
            segments: [B, T] rows each; masked rows do not count.

        Raises:
            ConfigError: no rows.
        """
        found = Variance()
        for segment in segments:
            rows = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
            found.add(self._entries(segment)[rows].cpu())
        if not found.count.any():
            raise ConfigError("the unit of an ensemble's spread needs training data, found no rows")
        widths, vectors = zip(*self._compared, strict=True)
        parts = found.value().split(widths)
        units = [error_unit(part, vector).expand_as(part) for part, vector in zip(parts, vectors, strict=True)]
        self.unit.copy_(torch.cat(units).sqrt())

    @property
    def models(self) -> list[Any]:
        """The members, each a whole model of its family."""
        return list(self.members)

    @property
    def encoder(self) -> nn.Module:
        """What all members embed with, where they provide `fixed_embed`."""
        return self.models[0].encoder

    @torch.no_grad()
    def _entries_of(self, model: Any) -> list[tuple[int, bool]]:
        """Return what `spread` compares: the width of each part, and whether its entries have units of their own."""
        if self._spaces:
            return [(space.width, space.kind == "vector") for _, space in self._spaces]
        if self.shared:
            return [(model.read(model.initial(1)).embed.shape[-1], True)]
        return [(1, False)] if "reward" in model.provides else []

    def _lead(self, state: Any) -> int:
        """Return on which axis of a state the members are: 1, or 2 behind time."""
        return tree.leaves(state)[0].dim() - self._axes

    def _pairs(self, state: Any) -> Iterator[tuple[Any, Any]]:
        """Walk the members with their own states."""
        lead = self._lead(state)
        for i, model in enumerate(self.models):
            # whole again, since a family may reshape its state as it likes
            yield model, tree.map(lambda leaf, i=i: leaf.select(lead, i).contiguous(), state)

    def _seen(self, segment: Segment, embedded: Tensor | None) -> dict[str, Tensor]:
        """Embed the rows of a segment for all members, where they have one encoder."""
        if not self.shared:
            return {}
        return {"embedded": self.encoder(segment.obs) if embedded is None else embedded}

    def _together(self, embeds: Tensor) -> Tensor:
        """Make one embedding of the members', [.., M, E]."""
        return embeds.mean(-2) if self.shared else embeds.flatten(-2)

    def _mean(self, found: list[Losses[Any]], segment: Segment) -> Losses[Any]:
        terms = [self._drawn_terms(losses.terms, segment) for losses in found]
        return Losses(
            terms={name: torch.stack([term[name] for term in terms]).mean(0) for name in terms[0]},
            metrics={name: torch.stack([one.metrics[name] for one in found]).mean() for name in found[0].metrics},
            states=tree.stack([losses.states for losses in found], 2),
        )

    def _drawn_terms(self, terms: dict[str, Tensor], segment: Segment) -> dict[str, Tensor]:
        """With `bootstrap`, count every sequence as often as it is drawn; a statistic of the batch stays as it is."""
        if not self.config.bootstrap or is_deterministic():
            return terms
        drawn = torch.randint(segment.batch, (segment.batch,), device=segment.is_first.device)
        times = F.one_hot(drawn, segment.batch).sum(0).unsqueeze(-1)
        return {name: term * times if term.dim() else term for name, term in terms.items()}

    def _entries(self, segment: Segment) -> Tensor:
        """Return what `spread` compares predictions of, as numbers [B, T, entries]."""
        if "decode" not in self.provides:
            return self.encoder(segment.obs) if self.shared else segment.reward.unsqueeze(-1)
        found = []
        for key, space in self._spaces:
            value = segment.obs[key]
            if space.kind == "discrete":
                found.append(space.one_hot(value))
            else:
                flat = value.reshape(*value.shape[:2], space.width).float()
                found.append(flat / 255 if space.kind == "image" else flat)
        return torch.cat(found, -1)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules hold the same tensors."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == again and torch.equal(first.cpu(), second.cpu()) for (name, first), (again, second) in pairs)


def _drawn(segments: Callable[[], Iterator[Segment]]) -> Callable[[], Iterator[Segment]]:
    """Draw the sequences of every segment with replacement, the same ones at every reading."""
    seed = int(torch.randint(2**31, ()))

    def read() -> Iterator[Segment]:
        generator = torch.Generator().manual_seed(seed)
        for segment in segments():
            rows = torch.randint(segment.batch, (segment.batch,), generator=generator)
            yield tree.index(segment, rows.to(segment.is_first.device))

    return read
