"""`Dreams`: N dreams of a world model side by side, in the units of the environment that it learned from."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from foreworld.core import Decodes, WorldModel, is_deterministic, require, seeded, showing, shows, tree
from foreworld.core.errors import ConfigError, EnvironmentFault
from foreworld.core.registry import unknown
from foreworld.core.spaces import Space
from foreworld.envs.spaces import alone, gym_observation, gym_space
from foreworld.rollout.starts import Starts

S = TypeVar("S")

Show = Literal["obs", "feat"]
End = Literal["drawn", "likely", "never"]

LARGEST = float(np.finfo(np.float32).max)
"""Bound of what has none: an infinite one is taken for a mistake by Gymnasium's checker."""


class Dreams(Generic[S]):
    """N dreams of one model that go on together, one batched call a step.

    Random numbers come from the generator that is handed in: it seeds torch for the call, and torch's global
    generator is left as it was.

    Args:
        model: predicts reward, and `cont` unless dreams never end by themselves.
        starts: draws the states where dreams begin.
        horizon: steps after which a dream is cut off.
        count: N.
        show: `obs` for decoded observations, as the environment would give them; `feat` for the model's features.
        end: when a dream is over before its horizon: `drawn` by the predicted probability, where that is above one
            half (`likely`), or `never`. Under `fw.deterministic()`, `drawn` is `likely`.

    Raises:
        ConfigError: no horizon, plain video, or an unknown word.
        MissingCapability: the model lacks what is shown, rewards, or ends.
    """

    def __init__(
        self, model: WorldModel[S], starts: Starts[S], horizon: int, *, count: int, show: Show, end: End
    ) -> None:
        """Read the spaces."""
        for word, known in ((show, get_args(Show)), (end, get_args(End))):
            if word not in known:
                raise ConfigError(f"a dream: {unknown('choice', word, list(known))}")
        if horizon < 1 or count < 1:
            raise ConfigError(f"a dream has at least 1 step, and there is at least 1, found {horizon} and {count}")
        if model.spec.action is None:
            raise ConfigError("a model of plain video takes no action, so that nobody can act in its dreams")
        require(model, "reward", "a dream to act in")
        if show == "obs":
            require(model, "decode", "a dream that shows observations (show='feat' shows features)")
        if end != "never":
            require(model, "cont", "a dream that ends by itself (end='never' does not)")
        self.model, self.horizon, self.count = model, horizon, count
        self._starts, self._show, self._end = starts, show, end
        self._act = model.spec.action
        self._state: S | None = None
        self._taken = np.zeros(count, np.int64)
        self.action_space = gym_space(self._act)
        self.observation_space: spaces.Space[Any]
        if show == "obs":
            self.observation_space = gym_observation(model.spec.obs, LARGEST)
        else:
            width = model.read(model.initial(1)).feat.shape[-1]
            self.observation_space = spaces.Box(-LARGEST, LARGEST, (width,), np.float32)

    @property
    def state(self) -> S:
        """Where the dreams are, leaves [N, ...].

        Raises:
            EnvironmentFault: before the first begins.
        """
        if self._state is None:
            raise EnvironmentFault("a dream: call reset before step")
        return self._state

    @torch.no_grad()
    def begin(self, rng: np.random.Generator, who: np.ndarray | None = None) -> None:
        """Begin new dreams, everywhere or where [N] bool told so."""
        where = np.arange(self.count) if who is None else who.nonzero()[0]
        with seeded(int(rng.integers(2**63))):
            fresh = self._starts(rng, len(where))
        self._taken[where] = 0
        if len(where) == self.count:
            self._state = fresh
        else:
            at = torch.as_tensor(where, device=tree.leaves(fresh)[0].device)
            self._state = tree.map(lambda old, new: old.index_copy(0, at, new), self.state, fresh)

    @torch.no_grad()
    def step(self, rng: np.random.Generator, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Act in every dream.

        Args:
            rng: where random numbers come from.
            actions: [N, ...] in the units of the environment.

        Returns:
            Rewards [N] float64, and [N] bool each: whether it is over, whether it was cut off.
        """
        state = self.state
        taken = torch.as_tensor(np.asarray(actions), device=tree.leaves(state)[0].device)
        with seeded(int(rng.integers(2**63))):
            self._state = self.model.step(state, self._act.to_model(taken))
            said = self.model.read(self._state)
        self._taken += 1
        assert said.reward is not None
        over = self._over(rng, said.cont)
        return said.reward.double().cpu().numpy(), over, ~over & (self._taken >= self.horizon)

    @torch.no_grad()
    def observe(self) -> Any:
        """Return what is seen, [N, ...], as declared: an array, or arrays by name."""
        if self._show == "feat":
            return self.model.read(self.state).feat.float().cpu().numpy()
        found = self._decoded()
        return next(iter(found.values())) if alone(self.model.spec.obs) else found

    def pictures(self) -> np.ndarray | None:
        """Return the first image observation of every dream, uint8 [N, H, W, 3]; None where there is none."""
        names = self.model.spec.images
        if not names or not shows(self.model):
            return None
        with torch.no_grad():
            shown = showing(self.model, "a picture")(self.state)[names[0]]
        picture = self.model.spec.obs[names[0]].from_decoded(shown).movedim(-3, -1).cpu().numpy()
        return picture[..., :3] if picture.shape[-1] >= 3 else np.repeat(picture[..., :1], 3, -1)

    def _decoded(self) -> dict[str, np.ndarray]:
        shown = cast(Decodes[S], self.model).decode(self.state)
        return {key: _as_declared(space, shown[key]) for key, space in self.model.spec.obs.items()}

    def _over(self, rng: np.random.Generator, cont: Tensor | None) -> np.ndarray:
        """Say which dreams are over, [N] bool."""
        if self._end == "never":
            return np.zeros(self.count, bool)
        assert cont is not None
        on = cont.double().cpu().numpy()
        drawn = rng.random(self.count)
        return on < 0.5 if self._end == "likely" or is_deterministic() else drawn >= on


def _as_declared(space: Space, shown: Tensor) -> np.ndarray:
    """Give decoded observations [N, ...] the type and layout of the source, inside its bounds."""
    array = space.from_rest(space.from_decoded(shown).cpu().numpy())
    if space.kind == "vector":
        low, high = (space.low, space.high) if space.bounded else (-LARGEST, LARGEST)
        inside = np.clip(array.reshape(len(array), -1), low, high).reshape(array.shape)
        array = inside if space.dtype == "float32" else np.rint(inside)
    return np.ascontiguousarray(array, space.dtype)
