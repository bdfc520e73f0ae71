"""Dreamer: an actor and a critic that learn in imagination alone, on any model that predicts reward and cont."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreworld.agents.returns import ReturnRange
from foreworld.core import Losses, Segment, Step, WorldModel, require, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.nn import MLP, Actions, Linear, TwoHotHead, actions_of, at_least_single
from foreworld.ops import lambda_return
from foreworld.rollout import imagine

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class DreamerConfig:
    """How an agent learns in imagination; the defaults are DreamerV3's for the size `12m`.

    Attributes:
        units: width of the layers of actor and critic.
        layers: how many each.
        horizon: steps imagined from every state that was really seen.
        discount: of a reward per step; 1 - 1/333 is the official one.
        lam: of the lambda-return.
        entropy: weight of the actor's entropy.
        unimix: share of the uniform distribution in discrete actions.
        actor_weight: of the actor's loss.
        critic_weight: of the critic's loss in imagination.
        replay_weight: of the critic's loss on real rows.
        slow_weight: of the cross-entropy to the slow critic's prediction, in both.
        slow_rate: share by which the slow critic follows the critic after every update.
        range_rate: share by which the range of returns follows the percentiles of a batch.
        range_low: lower percentile, as a share.
        range_high: upper percentile, as a share.
        range_least: returns are divided by their range, but never by less than this.
    """

    units: int = 256
    layers: int = 3
    horizon: int = 15
    discount: float = 1 - 1 / 333
    lam: float = 0.95
    entropy: float = 3e-4
    unimix: float = 0.01
    actor_weight: float = 1.0
    critic_weight: float = 1.0
    replay_weight: float = 0.3
    slow_weight: float = 1.0
    slow_rate: float = 0.02
    range_rate: float = 0.01
    range_low: float = 0.05
    range_high: float = 0.95
    range_least: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be learned with."""
        for name in ("units", "layers", "horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"agent.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("discount", "lam", "slow_rate", "range_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"agent.{name} must lie in [0, 1], found {getattr(self, name)}")
        if not 0 <= self.unimix < 1 or not 0 <= self.range_low < self.range_high <= 1 or self.range_least <= 0:
            raise ConfigError(
                "agent: unimix must lie in [0, 1), range_low below range_high in [0, 1], range_least above 0"
            )


@dataclass(frozen=True, eq=False)
class Choice:
    """What the actor says in some states: a distribution over actions.

    Attributes:
        actions: its kind.
        params: [.., P].
    """

    actions: Actions
    params: Tensor

    def sample(self) -> Tensor:
        """Draw model-ready actions [.., A]; numbers may lie beyond [-1, 1] and are clipped by who takes them."""
        return self.actions.sample(self.params)

    def mode(self) -> Tensor:
        """Return the likeliest actions [.., A]."""
        return self.actions.mode(self.params)


class Dreamer(nn.Module):
    """Learn to act in the dreams of a world model; the environment is needed for the model alone.

    From every state that was really seen, the actor acts for `horizon` steps inside the model. The critic learns the
    lambda-returns of these dreams, the actor makes what turned out better than the critic thought more likely
    (REINFORCE), and no gradient passes through the model. DreamerV3 plans nothing when it acts: it does what
    the actor says.

    Args:
        model: any family that predicts `reward` and `cont`; it is not kept.
        config: sizes; fields can also be given by keyword.

    Raises:
        MissingCapability: the model predicts no reward or continuation.
        SpecError: there are no actions, or they have no bounds.

    Reference:
        Hafner et al., Mastering diverse control tasks through world models, Nature 2025, arXiv 2301.04104, section
        "Actor critic learning"; Williams, 1992 (REINFORCE).

    Example:
        >>> import torch, gymnasium as gym, foreworld as fw
        >>> env = gym.make("CartPole-v1")
        >>> spec = fw.Spec.from_space(env.observation_space, env.action_space)
        >>> model = fw.RSSM(spec, deter=64, units=32, classes=4)
        >>> agent = fw.Dreamer(model, units=32)
        >>> dream = fw.imagine(model, model.initial(2), agent.policy, 5)
        >>> dream.actions.shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, model: WorldModel[Any], config: DreamerConfig | None = None, **fields: Any) -> None:
        super().__init__()
        self.config = config = replace(config or DreamerConfig(), **fields)
        for capability in ("reward", "cont"):
            require(model, capability, "Dreamer")
        if model.spec.action is None:
            raise SpecError("Dreamer: there are no actions to learn in a spec without them")
        if model.spec.action.kind == "vector" and not model.spec.action.bounded:
            raise SpecError("Dreamer: its actor needs bounded actions; give the environment's Box a low and a high")
        width = feature_width(model)
        self.actions = actions_of(model.spec.action, config.unimix)
        self.actor = MLP(width, config.units, config.layers)
        self.actor_out = Linear(config.units, self.actions.params, outscale=0.01)
        self.critic = TwoHotHead(width, config.units, config.layers)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.range = ReturnRange(config.range_rate, config.range_low, config.range_high, config.range_least)
        self.loss_weights = {
            "actor": config.actor_weight,
            "critic": config.critic_weight,
            "replay_critic": config.replay_weight,
        }

    def policy(self, feat: Tensor) -> Choice:
        """Say what to do in states with features [.., D]."""
        return Choice(self.actions, at_least_single(self.actor_out(self.actor(feat))))

    def value(self, feat: Tensor) -> Tensor:
        """Predict the discounted sum of rewards to come [..] from states with features [.., D]."""
        return self.critic(feat)

    def losses(self, model: WorldModel[S], states: S, segment: Segment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Dream on from real states, and compute the losses of actor and critic.

        Args:
            model: dreams; its gradient is not touched by the dreams.
            states: posteriors of the segment, leaves [B, T, ...].
            segment: [B, T] real rows.

        Returns:
            Losses by name, [B, T] each: `actor`, `critic` and `replay_critic`; and metrics.
        """
        shape, config = segment.is_first.shape, self.config
        with torch.no_grad():
            start = tree.map(lambda leaf: leaf.detach().flatten(0, 1), states)
            dream = imagine(model, start, self.policy, config.horizon)
            assert dream.reward is not None and dream.cont is not None and isinstance(dream.actions, Tensor)
            feat = torch.cat([dream.start.feat.unsqueeze(1), dream.feat], 1)
            cont = torch.cat([segment.cont.flatten().unsqueeze(1), dream.cont], 1)
            # how much a state of the dream counts: the chance to get there, discounted; nothing follows an end
            weight = torch.cat([cont[:, :1], config.discount * cont[:, 1:]], 1).cumprod(1)[:, :-1]
        guess = self.critic.log_probs(feat)
        with torch.no_grad():
            value = self.critic.mean(guess)
            returns = lambda_return(dream.reward, dream.cont, value[:, 1:], config.discount, config.lam)
            scale = self.range.update(returns)
            advantage = (returns - value[:, :-1]) / scale
        # of the last state too, although nothing is done there: a slice of the features would have to be copied
        params = self.policy(feat).params[:, :-1]
        entropy = self.actions.entropy(params)
        gain = self.actions.log_prob(params, dream.actions) * advantage + config.entropy * entropy
        terms = {
            "actor": -(weight * gain).mean(1).view(shape),
            "critic": (weight * self._critic_loss(guess[:, :-1], feat, returns)).mean(1).view(shape),
            "replay_critic": self._replay_loss(model.read(states), segment, returns[:, 0].view(shape)),
        }
        metrics = {
            "return": returns.mean(),
            "return_scale": scale,
            "value": value.mean(),
            "advantage_size": advantage.abs().mean(),
            "policy_entropy": entropy.detach().mean(),
            "dream_reward": dream.reward.mean(),
            "dream_cont": dream.cont.mean(),
        }
        return terms, metrics

    def after_update(self, sound: Tensor) -> None:
        """Let the slow critic follow the critic, and keep what the range of returns has learned, where `sound`."""
        self.range.keep_where(sound)
        with torch.no_grad():
            share = self.config.slow_rate * sound.float()
            slow, fast = ([p.detach() for p in part.parameters()] for part in (self.slow, self.critic))
            gap = torch._foreach_sub(fast, slow)
            torch._foreach_mul_(gap, share)
            torch._foreach_add_(slow, gap)

    def _critic_loss(self, guess: Tensor, feat: Tensor, returns: Tensor) -> Tensor:
        """Compute the cross-entropy to the returns, and to what the slow critic predicts, [N, H].

        Args:
            guess: [N, H, K] log-probabilities.
            feat: [N, H + 1, D], of which the last has no return.
            returns: [N, H].
        """
        with torch.no_grad():
            slow = self.slow(feat)[:, :-1]
        return self.critic.cross_entropy(guess, returns, slow, self.config.slow_weight)

    def _replay_loss(self, step: Step, segment: Segment, boot: Tensor) -> Tensor:
        """Compute the critic's loss on real rows [B, T], by real rewards and, after them, what is dreamed from there.

        The last row of an episode, and of the segment, has no row after it that belongs to it: it has no loss.
        """
        config, going_on = self.config, 1 - segment.is_last.float()
        returns = lambda_return(
            segment.reward[:, 1:], segment.cont[:, 1:], boot[:, 1:], config.discount, config.lam * going_on[:, 1:]
        )
        loss = self._critic_loss(self.critic.log_probs(step.feat)[:, :-1], step.feat.detach(), returns)
        return F.pad(going_on[:, :-1] * loss, (0, 1))


class DreamerLearner(nn.Module):
    """A world model and an agent that dreams in it, as one thing to train: one loss, one optimiser, one backward.

    Args:
        model: the world model.
        agent: the agent.
    """

    def __init__(self, model: Any, agent: Dreamer) -> None:
        super().__init__()
        self.model, self.agent = model, agent
        self.loss_weights = {**model.loss_weights, **agent.loss_weights}
        self.provides = frozenset({"after_update"})

    def losses(self, segment: Segment, state: Any = None) -> Losses[Any]:
        """Compute the losses of model, actor and critic on a segment [B, T], from a carried state or afresh."""
        found = self.model.losses(segment, state)
        terms, metrics = self.agent.losses(self.model, found.states, segment)
        return Losses(terms=found.terms | terms, metrics=found.metrics | metrics, states=found.states)

    def after_update(self, sound: Tensor) -> None:
        """Let what follows the weights follow them."""
        if "after_update" in self.model.provides:
            self.model.after_update(sound)
        self.agent.after_update(sound)


def feature_width(model: WorldModel[Any]) -> int:
    """Return D, the width of a model's features."""
    with torch.no_grad():
        return model.read(model.initial(1)).feat.shape[-1]
