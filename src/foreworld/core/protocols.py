"""The contract of a world model, and its optional capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.nn import Module, Parameter

from foreworld.core.errors import MissingCapability
from foreworld.core.spaces import Spec
from foreworld.core.types import Losses, Segment, Step

S = TypeVar("S")


class WorldModel(Protocol[S]):
    """Every family is a plain `nn.Module` with these seven members.

    `state[t] = observe(state[t-1], row t)` filters what arrived;
    `state[t+1] = step(state[t], prev_action[t+1])` predicts without looking.
    """

    spec: Spec
    provides: frozenset[str]

    def initial(self, batch: int) -> S:
        """Return the state before the first row, leaves [batch, ...]."""
        ...

    def observe(self, state: S, segment: Segment) -> S:
        """Filter a segment [B, T]; return the states after every row, leaves [B, T, ...]."""
        ...

    def step(self, state: S, action: Tensor | None) -> S:
        """Predict one step open loop under `action` [B, A]; never changes its input."""
        ...

    def read(self, state: S) -> Step:
        """Say what the heads make of any state, [B, ...] or [B, T, ...]."""
        ...

    def losses(self, segment: Segment, state: S | None = None) -> Losses[S]:
        """Compute unreduced losses by name on a segment, from a carried state or afresh."""
        ...


class Decodes(Protocol[S]):
    """Capability `decode`: states to observations."""

    def decode(self, state: S) -> dict[str, Tensor]:
        """Return the expected observations: images in [0, 1], vectors in source units, discrete as probabilities."""
        ...


class Looks(Protocol[S]):
    """Capability `look`: states to observations for eyes only, of a family that does not predict observations.

    Clips and films show it. Nothing is judged by it, and learning it changes no state.
    """

    def look(self, state: S) -> dict[str, Tensor]:
        """Return observations as `decode` would."""
        ...


class Unrolls(Protocol[S]):
    """Capability `unroll`: imagination of a whole action sequence in one fused call."""

    def unroll(self, state: S, actions: Tensor | None, horizon: int) -> S:
        """Return the H states reached, leaves [B, H, ...]; equal to H calls of `step`."""
        ...


class ActionDistribution(Protocol):
    """What a policy returns: something to sample actions [B, A] from."""

    def sample(self) -> Tensor:
        """Draw model-ready actions [B, A]; numbers beyond [-1, 1] are clipped by who takes them."""
        ...


Policy = Callable[[Tensor], ActionDistribution]
"""Features [B, D] to a distribution over model-ready actions [B, A]."""


class Follows(Protocol[S]):
    """Capability `follow`: imagination under a policy in one fused call, without a gradient."""

    def follow(self, state: S, policy: Policy, horizon: int) -> tuple[S, Tensor]:
        """Return the H states reached, leaves [B, H, ...], and the actions that the policy drew, [B, H, A]."""
        ...


class AfterUpdate(Protocol):
    """Capability `after_update`: what follows the weights at a distance, such as a target network."""

    def after_update(self, sound: Tensor) -> None:
        """Move on where `sound`, a scalar bool on the device, is true: an update was done and not skipped."""
        ...


class Disagrees(Protocol[S]):
    """Capability `spread`: how far the members of an ensemble are apart.

    It is no part of `read`, as it may need every member's decoder: on pictures several times the cost of a dream.
    """

    def spread(self, state: S) -> Tensor:
        """Return the disagreement [B] or [B, T] at any state; 0 where all members say the same."""
        ...

    def decode_members(self, state: S) -> dict[str, Tensor]:
        """Return what each member decodes, [B, M, ...] or [B, T, M, ...]; for ensembles that provide `decode`."""
        ...


class FixesEmbedding(Protocol[S]):
    """Capability `fixed_embed`: training does not change the embedding; models with one encoder can be compared in it.

    Who has embedded the rows of a segment already gives the result along, so that several models share the work.

    Attributes:
        encoder: observations [.., *shape] by name to the embedding [.., E].
    """

    encoder: Module

    def observe(self, state: S, segment: Segment, embedded: Tensor | None = None) -> S:
        """Filter a segment whose rows are `embedded` [B, T, E] in the embedding."""
        ...

    def score(self, state: S, segment: Segment, embedded: Tensor | None = None) -> Tensor:
        """Return the score [B, T] likewise; for models that provide `score`."""
        ...

    def losses(self, segment: Segment, state: S | None = None, embedded: Tensor | None = None) -> Losses[S]:
        """Compute the losses likewise."""
        ...


class Calibrates(Protocol):
    """Capability `calibrate`: closed-form statistics of the training data, before the first update."""

    def calibrate(self, segments: Callable[[], Iterator[Segment]]) -> None:
        """Read the training data, as often as needed, and set buffers or closed-form weights."""
        ...


class LearnsDreaming(Protocol[S]):
    """Capability `dream_losses`: multi-step training, on what the model predicts without looking."""

    def dream_losses(self, segment: Segment, watch: int) -> Losses[S]:
        """Return `losses` where rows after the first `watch` are predicted open loop, and judged as such."""
        ...


class TrainableModel(WorldModel[S], Protocol[S]):
    """What `fit` needs beside the seven members; the methods are those of any `nn.Module`.

    Attributes:
        family: the registered name that rebuilds the model from a run folder.
        config: the dataclass that it is rebuilt with.
        loss_weights: a weight for every loss term.
    """

    family: str
    config: Any
    loss_weights: dict[str, float]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Return what is trained."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Return what is trained, with names."""
        ...

    def state_dict(self, *, keep_vars: bool = False) -> dict[str, Any]:
        """Return parameters and buffers by name; the very ones of the model with `keep_vars`."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode."""
        ...

    def eval(self) -> Any:
        """Switch to evaluation mode."""
        ...

    def to(self, device: Any) -> Any:
        """Move to a device."""
        ...


REMEDIES = {
    "reward": "train with a reward head, or fit a reward probe on frozen features",
    "cont": "train with a continue head, or plan with a fixed horizon",
    "decode": "use a family with a decoder (rssm, linear), or compare in embedding space",
    "look": "use a family that decodes (rssm, linear), or train with a decoder to look through (--model.decoder)",
    "embed": "use a family with an embedding space (jepa), or plan with predicted reward",
    "score": "use a family with a likelihood or denoising score",
    "dream_losses": "train without fit.dream_share, or use a family with multi-step training (rssm)",
    "spread": "use an ensemble; members that neither decode nor predict reward need one frozen or given encoder",
}


def require(model: Any, capability: str, purpose: str) -> None:
    """Refuse to go on when a model lacks a capability.

    Args:
        model: a world model.
        capability: what is needed, as in `model.provides`.
        purpose: what it is needed for, for the message.

    Raises:
        MissingCapability: names the family, the purpose and the remedy.
    """
    if capability not in model.provides:
        remedy = REMEDIES.get(capability, "choose another family")
        raise MissingCapability(f"{purpose} needs {capability!r}, which {type(model).__name__} lacks: {remedy}")


def shows(model: Any) -> bool:
    """Tell whether a model's states can be looked at: it decodes, or has a decoder for eyes only.

    Args:
        model: a world model.

    Returns:
        Whether `showing` would find something.
    """
    return not model.provides.isdisjoint({"decode", "look"})


def showing(model: Any, purpose: str) -> Callable[[Any], dict[str, Tensor]]:
    """Return what turns a model's states into observations to look at: `decode`, or else `look`.

    Args:
        model: a world model.
        purpose: what it is needed for, for the message.

    Returns:
        The method: states [B, ...] to observations by name.

    Raises:
        MissingCapability: it has neither.
    """
    if "decode" in model.provides:
        return model.decode
    require(model, "look", purpose)
    return model.look
