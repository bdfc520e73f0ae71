"""TorchRL's DreamerV3 of size 1m, one update or one imagination for each line on standard input.

torchrl_dreamer.py starts this with the interpreter of an environment that has TorchRL; see there. It answers every line
with one line of JSON:

    facts         what was built: parameters, versions, threads
    update        one full update on the fixed batch: CPU seconds, wall seconds, the loss before it
    imagine N     15 imagined steps from N states, with actor and reward: CPU seconds

The algorithm is set to what the paper has, not to TorchRL's defaults, which differ for older checkpoints: KL in two
terms with free nats over their sum, 1 % of uniform in the latents, two-hot reward and value, REINFORCE, replay value
loss, slow critic. On a CPU TorchRL runs its update eagerly unless told otherwise; `--compile` compiles all of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import DreamerEnv
from torchrl.modules import (
    DreamerV3MLP,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
    SymExpTwoHot,
    WorldModelWrapper,
)
from torchrl.modules.distributions.continuous import IndependentNormal
from torchrl.objectives import (
    DreamerV3ActorLoss,
    DreamerV3Loss,
    DreamerV3ModelLoss,
    DreamerV3ValueLoss,
    SoftUpdate,
    symexp,
    symlog,
)
from torchrl.objectives.utils import ValueEstimators
from torchrl.trainers.algorithms import DreamerV3OptimizationStepper, DreamerV3Optimizer

OBS, ACTION = 24, 6
DETER, UNITS, LATENTS, CLASSES, BINS = 512, 64, 32, 4, 255
STOCH = LATENTS * CLASSES
BATCH, LENGTH, HORIZON = 16, 64, 15
EPISODE = 100
DISCOUNT = 1 - 1 / 333


class Actor(nn.Module):
    """Three layers, then the mean and deviation of the paper's bounded normal."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = DreamerV3MLP(STOCH + DETER, 2 * ACTION, depth=3, num_cells=UNITS, outscale=0.01)

    def forward(self, state: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean [.., A] within [-1, 1] and the deviation [.., A] within [0.1, 1]."""
        mean, width = self.trunk(state, belief).chunk(2, -1)
        return mean.tanh(), 0.9 * torch.sigmoid(width + 2) + 0.1


class Learner:
    """Everything that an update needs, wired together."""

    def __init__(self, compiled: bool) -> None:
        prior = RSSMPriorV3(
            action_shape=(ACTION,),
            action_dim=ACTION,
            hidden_dim=UNITS,
            rnn_hidden_dim=DETER,
            num_categoricals=LATENTS,
            num_classes=CLASSES,
            recurrent_model="block_gru",
            num_blocks=8,
            prior_num_layers=2,
            unimix=0.01,
        )
        posterior = RSSMPosteriorV3(
            hidden_dim=UNITS,
            rnn_hidden_dim=DETER,
            num_categoricals=LATENTS,
            num_classes=CLASSES,
            obs_embed_dim=UNITS,
            use_rms_norm=True,
            unimix=0.01,
        )
        reward, cont = head(BINS, 1, outscale=0.0), head(1, 1)
        self.actor = ProbabilisticTensorDictSequential(
            TensorDictModule(Actor(), in_keys=["state", "belief"], out_keys=["loc", "scale"]),
            ProbabilisticTensorDictModule(
                in_keys=["loc", "scale"],
                out_keys=["action"],
                distribution_class=IndependentNormal,
                default_interaction_type=InteractionType.RANDOM,
            ),
        )
        value = TensorDictSequential(
            at_state(head(BINS, 3, outscale=0.0), "state_value_logits"),
            TensorDictModule(SymExpTwoHot(BINS), in_keys=["state_value_logits"], out_keys=["state_value"]),
        )
        self.dream = imagination(prior, reward)
        continues = TensorDictSequential(
            at_state(cont, "logit"), TensorDictModule(nn.Sigmoid(), in_keys=["logit"], out_keys=["continuation"])
        )
        of_model = DreamerV3ModelLoss(
            world_model(prior, posterior, reward, cont),
            kl_mode="separate",
            unimix=0.01,
            lambda_continue=1.0,
            continue_target_scale=DISCOUNT,
            detach_output=False,
        )
        of_model.set_keys(pixels="observation", reco_pixels="reconstruction", continue_pred="continue")
        of_actor = DreamerV3ActorLoss(
            self.actor,
            value,
            self.dream,
            continuation_model=continues,
            imagination_horizon=HORIZON,
            use_reinforce=True,
        )
        # the continuation holds the discount
        of_actor.make_value_estimator(ValueEstimators.TDLambda, gamma=1.0, lmbda=0.95)
        of_value = DreamerV3ValueLoss(value, value_loss="two_hot", actor_loss=of_actor, slow_critic_regularization=1.0)
        self.loss = DreamerV3Loss(of_model, of_actor, of_value, replay_value_loss_weight=0.3)
        # the paper's rate and warm-up would not move the loss within a few updates; the cost is the same
        optimizer = DreamerV3Optimizer(self.loss.parameters(), lr=1e-3, warmup_steps=0)
        self.stepper = DreamerV3OptimizationStepper(
            self.loss,
            optimizer,
            SoftUpdate(of_value, tau=0.02),
            compile_train_step=compiled,
            cudagraph=False,
            warmup_steps=1,
        )
        self.batch = synthetic_batch()
        self.stepper.warmup(self.batch)
        self.parameters = sum(p.numel() for p in dict(self.loss.named_parameters()).values() if p.requires_grad)

    def update(self) -> dict[str, float]:
        """Do a full update and return its losses."""
        found = self.stepper.step(None, self.batch.copy())
        return {name: value.item() for name, value in found.items() if name.startswith("loss_")}

    def imagine(self, states: int) -> None:
        """Imagine 15 steps from so many states with the actor."""
        start = TensorDict({"state": torch.zeros(states, STOCH), "belief": torch.zeros(states, DETER)}, [states])
        with torch.no_grad():
            self.dream.rollout(
                HORIZON, policy=self.actor, auto_reset=False, tensordict=start, break_when_any_done=False
            )


def head(outputs: int, depth: int, outscale: float = 1.0) -> DreamerV3MLP:
    """Make a head that reads the latent state."""
    return DreamerV3MLP(STOCH + DETER, outputs, depth=depth, num_cells=UNITS, outscale=outscale)


def at_state(module: nn.Module, out: str, after: bool = False) -> TensorDictModule:
    """Let a module read the state that a row has, or the one after it, and write there."""
    keys = ["state", "belief"]
    if after:
        return TensorDictModule(module, in_keys=[("next", key) for key in keys], out_keys=[("next", out)])
    return TensorDictModule(module, in_keys=keys, out_keys=[out])


def world_model(
    prior: RSSMPriorV3, posterior: RSSMPosteriorV3, reward: nn.Module, cont: nn.Module
) -> TensorDictSequential:
    """Wire encoder, recurrence, decoder and the two heads."""

    def within(module: Callable[..., Tensor], source: str, target: str) -> TensorDictModule:
        return TensorDictModule(module, in_keys=[("next", source)], out_keys=[("next", target)])

    keys = ["state", "belief"]
    rollout = RSSMRolloutV3(
        TensorDictModule(prior, in_keys=[*keys, "action"], out_keys=[("next", key) for key in ("prior_logits", *keys)]),
        TensorDictModule(
            posterior,
            in_keys=[("next", "belief"), ("next", "encoded_latents")],
            out_keys=[("next", "posterior_logits"), ("next", "state")],
        ),
    )
    return TensorDictSequential(
        within(symlog, "observation", "squashed"),
        within(DreamerV3MLP(OBS, None, depth=3, num_cells=UNITS), "squashed", "encoded_latents"),
        rollout,
        at_state(head(OBS, 3), "squashed_reconstruction", after=True),
        within(symexp, "squashed_reconstruction", "reconstruction"),  # the loss takes the symlog again
        at_state(reward, "reward_logits", after=True),
        within(SymExpTwoHot(BINS), "reward_logits", "reward"),
        at_state(cont, "continue", after=True),
    )


def imagination(prior: RSSMPriorV3, reward: nn.Module) -> DreamerEnv:
    """Make the environment that is the model, with the same prior and reward head."""
    rewards = TensorDictSequential(
        at_state(reward, "reward_logits"),
        TensorDictModule(SymExpTwoHot(BINS), in_keys=["reward_logits"], out_keys=["reward"]),
    )
    step = TensorDictModule(prior, in_keys=["state", "belief", "action"], out_keys=["_", "state", "belief"])
    env = DreamerEnv(WorldModelWrapper(step, rewards), prior_shape=(STOCH,), belief_shape=(DETER,))
    env.observation_spec = Composite(state=Unbounded(STOCH), belief=Unbounded(DETER))
    env.state_spec = env.observation_spec.clone()
    env.action_spec = Bounded(-1, 1, (ACTION,))
    env.reward_spec = Unbounded((1,))
    return env


def synthetic_batch() -> TensorDict:
    """Draw 16 windows of 64 steps from episodes of 100: noise of unit scale, in which nothing is to be learned."""
    shape = (BATCH, LENGTH)
    row = torch.arange(LENGTH) + torch.randint(EPISODE, (BATCH, 1))
    last = (row % EPISODE == EPISODE - 1).unsqueeze(-1)
    return TensorDict(
        {
            "state": torch.zeros(*shape, STOCH),
            "belief": torch.zeros(*shape, DETER),
            "action": torch.rand(*shape, ACTION) * 2 - 1,
            "is_init": (row % EPISODE == 0).unsqueeze(-1),
            "next": {
                "observation": torch.randn(*shape, OBS),
                "reward": torch.randn(*shape, 1),
                "done": last,
                "terminated": last.clone(),
            },
        },
        shape,
    )


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return CPU and wall seconds of a call and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}, found


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="matrix products in bfloat16, by autocast")
    parser.add_argument("--compile", action="store_true", help="compile the whole update with TorchInductor")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    built, learner = timed(lambda: Learner(args.compile))
    for line in sys.stdin:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.half):
            answer = answered(learner, line, built, args.compile)
        print(json.dumps(answer), flush=True)


def answered(learner: Learner, line: str, built: dict[str, float], compiled: bool) -> dict[str, Any]:
    """Do what a line asks for."""
    verb, *rest = line.split()
    if verb == "facts":
        packages = {name: version(name) for name in ("torchrl", "tensordict", "torch", "numpy")}
        threads = torch.get_num_threads()
        facts = {"parameters": learner.parameters, "packages": packages, "threads": threads}
        return {**facts, "compiled": compiled, "built": built}
    if verb == "update":
        spent, losses = timed(learner.update)
        return {**spent, "loss": sum(losses.values()), "losses": losses}
    return timed(lambda: learner.imagine(int(rest[0])))[0]


if __name__ == "__main__":
    main()
