"""A bundled world as a world model: what a planner reaches that is never wrong about the future."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Spec, Step, state
from foreworld.core.errors import MissingCapability
from foreworld.worlds.world import Acting, Ending


@state
class SimulatedState:
    """A state of the world, and what arriving there earned.

    Attributes:
        x: [.., S] float64, as in `truth/state`.
        reward: [..].
        cont: [..], 0 where the world knows of no future.
    """

    x: Tensor
    reward: Tensor
    cont: Tensor


class Simulated(nn.Module):
    """Predict with the world itself, from its true state: the ceiling for planning with a model.

    It learns nothing and filters nothing: `at` takes the state, which environments show as `truth/state`. Steps are
    those of the world, bit by bit, on the CPU and without gradients.

    Args:
        world: a world with actions.
        seed: of the start states of `initial`, and of the chance of a world that has some.

    Example:
        >>> import torch, foreworld as fw
        >>> from foreworld.envs import builder
        >>> from foreworld.models.simulated import Simulated
        >>> env = builder("foreworld/Reach-v0")()
        >>> obs, _ = env.reset(seed=0)
        >>> model = Simulated(env.unwrapped.world)
        >>> start = model.at(torch.from_numpy(obs["truth/state"])[None])
        >>> right = torch.eye(5)[[1, 1, 1]][None]
        >>> dream = fw.imagine(model, start, right, keep=("states",))
        >>> for _ in range(3):
        ...     obs, *_ = env.step(1)
        >>> bool((dream.final.x[0].numpy() == obs["truth/state"]).all())
        True
    """

    family = "simulated"

    def __init__(self, world: Acting, seed: int = 0) -> None:
        """Take a world."""
        super().__init__()
        self.world, self.seed = world, seed
        self._ending = world if isinstance(world, Ending) else None
        self._rng = np.random.default_rng(seed)
        self.spec = Spec(obs=dict(world.obs), action=world.action, fps=1 / world.dt)
        self.provides = frozenset({"reward", "cont", "decode"})

    def at(self, x: Tensor) -> SimulatedState:
        """Return the state `x` [.., S] of the world; being there has earned nothing yet."""
        x = x.detach().double().cpu()
        over = self._over(x.numpy().reshape(-1, x.shape[-1])).reshape(x.shape[:-1])
        return SimulatedState(x=x, reward=torch.zeros(x.shape[:-1]), cont=torch.from_numpy(~over).float())

    def initial(self, batch: int) -> SimulatedState:
        """Return start states of the world, leaves [batch, ...]; the same for the same seed."""
        return self.at(torch.from_numpy(self.world.start(np.random.default_rng(self.seed), batch)))

    def observe(self, state: SimulatedState, segment: Segment) -> SimulatedState:
        """Refuse: what is seen does not tell the state.

        Raises:
            MissingCapability: always.
        """
        raise MissingCapability("simulated: does not filter what is seen; give it `truth/state` by `at`")

    def step(self, state: SimulatedState, action: Tensor | None) -> SimulatedState:
        """Let the world go on under model-ready actions [B, A]; None is zero."""
        before, space = state.x.numpy(), self.spec.action
        assert space is not None
        taken = None if action is None else space.from_model(action.detach().cpu()).numpy()
        x = self.world.step(before, taken, self._rng)
        none = np.zeros((len(before), *space.shape))
        reward = self.world.reward(before, none if taken is None else taken, x)
        return SimulatedState(
            x=torch.from_numpy(x),
            reward=torch.from_numpy(np.asarray(reward, np.float32)),
            cont=torch.from_numpy(~self._over(x)).float(),
        )

    def read(self, state: SimulatedState) -> Step:
        """Return the state as features, what arriving earned, and whether there is a future."""
        return Step(feat=state.x.float(), reward=state.reward, cont=state.cont)

    def decode(self, state: SimulatedState) -> dict[str, Tensor]:
        """Return what is seen: pictures in [0, 1], vectors as they are."""
        lead = state.x.shape[:-1]
        seen = self.world.observe(state.x.reshape(-1, state.x.shape[-1]).numpy())
        values = {name: torch.from_numpy(value).float() for name, value in seen.items()}
        scaled = {name: value / 255 if self.spec.obs[name].kind == "image" else value for name, value in values.items()}
        return {name: value.reshape(*lead, *value.shape[1:]) for name, value in scaled.items()}

    def losses(self, segment: Segment, state: SimulatedState | None = None) -> Losses[SimulatedState]:
        """Refuse: there is nothing to learn.

        Raises:
            MissingCapability: always.
        """
        raise MissingCapability("simulated: is the world itself and learns nothing; train a family on its rows")

    def _over(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x), bool) if self._ending is None else self._ending.over(x)
