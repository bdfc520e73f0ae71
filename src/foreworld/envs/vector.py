"""`Vector`: N environments as one batch of arrival rows; the library owns the resets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from foreworld.core.errors import ConfigError, EnvironmentFault, ForeworldError, SpecError
from foreworld.core.spaces import TRUTH, Space, Spec, flat_spaces, flat_values
from foreworld.envs.episodes import OpenEpisode
from foreworld.envs.fleet import Fleet, Local, Tally
from foreworld.envs.reopen import Played, begin_next, repeat_actions
from foreworld.envs.slots import Slots


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows that arrived from N environments, in the form in which they are stored.

    Attributes:
        obs: name to [N, ...]; images uint8 [N, C, H, W].
        prev_action: [N, ...], what each environment took to get here; zero where `is_first`.
        reward: float32 [N], earned by arriving; zero where `is_first`.
        is_first: [N] bool, the first row of an episode.
        is_terminal: [N] bool, no future exists.
        is_last: [N] bool, the last row of an episode.
        truth: name to [N, ...], simulator state; never shown to a model.
        arrived: [N] bool; where false, nothing new came: skip the row, and keep the state.
            Of what `make` opens, only a worker that is being started again does not arrive.

    A row with `is_first` also ends the episode before it, when that had no `is_last`: what should have
    followed was lost or refused, so that the last row that arrived is the last of an episode cut off.
    """

    obs: Mapping[str, np.ndarray]
    prev_action: np.ndarray
    reward: np.ndarray
    is_first: np.ndarray
    is_terminal: np.ndarray
    is_last: np.ndarray
    truth: Mapping[str, np.ndarray]
    arrived: np.ndarray


class Vector:
    """Drive a fleet, or a Gymnasium vector environment of any autoreset mode, by one convention.

    After a row with `is_last`, the next action for that environment is ignored and its next
    row is the `is_first` row of a new episode, with zero action and reward. NEXT_STEP, which
    `make` opens, has exactly this timing. The two other modes cannot step some environments
    while others are reset: there, the call after an end delivers the first rows alone, the
    others wait with `arrived` false, and their actions are ignored.

    A bad transition of a fleet (what `make` opens) costs its own episode the rest, and is counted in
    `tally`; one of a Gymnasium vector environment, which cannot reset one of its own out of turn, stops the run.

    Args:
        env: a fleet or a vector environment; `metadata["autoreset_mode"]` says how it resets.
        env_id: its name, for messages and records.
        options: what `make` needs to open it again, as plain JSON values.

    Attributes:
        reopened: [N] bool, whether the last reset brought every environment where it was asked to.

    Raises:
        EnvironmentFault: an unknown autoreset mode.
        SpecError: an unsupported space.
    """

    def __init__(self, env: Fleet | VectorEnv, env_id: str = "", options: Mapping[str, Any] | None = None) -> None:
        """Wrap a vector environment."""
        self.env_id = env_id or type(env).__name__
        self.options = dict(options or {})
        self.num_envs = env.num_envs
        self.tally = env.tally if isinstance(env, Fleet) else Tally()
        self.mode = _mode(env, self.env_id)
        fps = env.metadata.get("render_fps")
        self.spec = Spec.from_space(
            env.single_observation_space,
            env.single_action_space,
            fps=float(fps) if fps else None,
            frame_skip=int(env.metadata.get("frame_skip", 1)),
        )
        self._spaces = flat_spaces(env.single_observation_space)
        # both in the order of the declaration; a single observation has no name there
        self._slots = dict(zip(self._spaces, env.slots.obs.values(), strict=True)) if isinstance(env, Fleet) else {}
        self._action_dtype = env.single_action_space.dtype
        self._low, self._high, self._idle = _limits(self.action, self.num_envs)
        self.truth = {k.removeprefix(TRUTH): s for k, s in self._spaces.items() if k.startswith(TRUTH)}
        self._env = env
        self._ended: np.ndarray | None = None
        self._pending: dict[str, np.ndarray] = {}
        self._played: Played | None = None
        self._newest: Rows | None = None
        self.reopened = np.ones(self.num_envs, bool)

    @property
    def action(self) -> Space:
        """The action space of one environment."""
        assert self.spec.action is not None
        return self.spec.action

    def reset(self, seed: int | None = None, episodes: Sequence[OpenEpisode] | None = None) -> Rows:
        """Begin a new episode everywhere, or go on with those that were open.

        With `episodes`, each episode from now on is seeded from `seed`, its environment's number and its own number
        alone, so that it can be opened again: the environment is reset in the same way and the actions are repeated.
        The rows that come are those after the last of the actions, the same as they were, and not first ones unless
        there were no actions. Where something else was found (an environment that is not deterministic), the next
        episode begins instead, `reopened` is false and the row is its first one.

        Args:
            seed: environment i is seeded with `seed + i`; later episodes follow from it.
            episodes: one for every environment, as `episodes()` gave them; `OpenEpisode()` for a fresh start.

        Returns:
            N rows: first ones, unless episodes go on.

        Raises:
            ConfigError: episodes without seed, too few of them, or for environments that `make` did not open.
            SpecError: actions that these environments do not take.
        """
        if episodes is not None:
            return self._open(seed, episodes)
        self._played = None
        if isinstance(self._env, Fleet):
            return self._delivered(self._env.reset(seed), self._env.slots, np.zeros_like(self._idle))
        obs, _ = self._call(self._env.reset, seed=seed)
        return self._first_rows(self._at_rest(obs), np.ones(self.num_envs, bool))

    def step(self, actions: np.ndarray) -> Rows:
        """Take one action in every environment.

        Args:
            actions: [N, ...] as the environment takes them; a Box is clipped to its bounds.
                Ignored where the row before was the last of its episode.

        Raises:
            EnvironmentFault: an environment failed or broke its own contract; it is named.
            SpecError: an action does not fit the action space.
        """
        if self._ended is None:
            raise EnvironmentFault(f"{self.env_id}: call reset before step")
        ended = self._ended
        taken = self._checked(actions, ended)
        if isinstance(self._env, Fleet):
            rows = self._delivered(self._env.step(taken.astype(self._action_dtype)), self._env.slots, taken)
            if self._played is not None:
                self._played.add(rows.prev_action, rows.is_first)
                self._newest = rows
            return rows
        if ended.any() and self.mode is AutoresetMode.DISABLED:
            obs, _ = self._call(self._env.reset, options={"reset_mask": ended.copy()})
            return self._first_rows(self._at_rest(obs), ended)
        if ended.any() and self.mode is AutoresetMode.SAME_STEP:
            return self._first_rows(self._pending, ended)
        obs, reward, terminated, truncated, infos = self._call(self._env.step, taken.astype(self._action_dtype))
        terminal, cut = np.asarray(terminated, bool), np.asarray(truncated, bool)
        last = terminal | cut
        values = self._at_rest(obs)
        if self.mode is AutoresetMode.SAME_STEP and last.any():
            self._pending = {key: value.copy() for key, value in values.items()}
            self._replace_final(values, infos, last)
        first = ended if self.mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        earned = np.array(reward, np.float32)
        earned[first] = taken[first] = 0
        if not np.isfinite(earned).all():
            index = int(np.argmin(np.isfinite(earned)))
            raise EnvironmentFault(f"{self.env_id}, environment {index}: its reward is {earned[index]}")
        return self._rows(
            values,
            prev_action=taken,
            reward=earned,
            is_first=first,
            is_terminal=terminal & ~first,
            is_last=last & ~first,
            arrived=np.ones(self.num_envs, bool),
        )

    def episodes(self) -> list[OpenEpisode]:
        """Return where every environment stands: what `reset` needs to bring it back there.

        An environment that is being started again stands before its next episode.

        Raises:
            ConfigError: `reset` was not given episodes, so that these cannot be opened again.
        """
        if self._played is None or self._newest is None or not isinstance(self._env, Fleet):
            raise ConfigError(f"{self.env_id}: reset(seed, episodes) is what makes episodes that can be opened again")
        rows, numbers = self._newest, self._env.slots.episode.tolist()
        return [
            OpenEpisode(
                number=number,
                actions=self._played.actions(index),
                obs={key: np.asarray(value[index]) for key, value in _observed(rows).items()},
            )
            if rows.arrived[index]
            else OpenEpisode(number=number)
            for index, number in enumerate(numbers)
        ]

    def picture(self) -> np.ndarray | None:
        """Return how the first environment looks now, uint8 [H, W, 3]; None where it renders nothing, or elsewhere."""
        env = self._env.drivers[0].env if isinstance(self._env, Local) else None
        if env is None or env.render_mode != "rgb_array":
            return None
        if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # else pygame looks for a screen, and complains
        found = env.render()
        return found if isinstance(found, np.ndarray) and found.ndim == 3 else None

    def goal(self, index: int) -> dict[str, np.ndarray]:
        """Return what is seen at the goal of an environment's episode, name to [...] as it is stored.

        The environment shows it by a method `goal()`, an observation of its own, as the bundled worlds with a goal do.

        Args:
            index: number of the environment.

        Returns:
            The observation, `truth/*` included.

        Raises:
            EnvironmentFault: it shows none, or runs in another process.
        """
        env = self._env.drivers[index].env if isinstance(self._env, Local) else None
        show = getattr(None if env is None else env.unwrapped, "goal", None)
        if not callable(show):
            raise EnvironmentFault(f"{self.env_id}: shows no goal by a method goal(); name one, or plan for reward")
        found = self._named(self._call(show))
        values = {key: space.to_rest(found[key]) for key, space in self._spaces.items() if key in found}
        for key, space in self._spaces.items():
            if key not in values or values[key].shape != space.shape:
                raise EnvironmentFault(f"{self.env_id}: its goal() shows no {key!r} in the form of its observations")
        return values

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    def _open(self, seed: int | None, episodes: Sequence[OpenEpisode]) -> Rows:
        """Open episodes again; where that fails, begin the next."""
        fleet = self._env
        if seed is None or not isinstance(fleet, Fleet):
            raise ConfigError(f"{self.env_id}: episodes that can be opened again need a seed, and to come from `make`")
        for index, episode in enumerate(episodes):
            self._check_taken(index, episode.actions)
        everyone = np.ones(self.num_envs, bool)
        taken, same = repeat_actions(fleet, seed, episodes, self._idle)
        rows = self._delivered(everyone, fleet.slots, taken)
        for index, episode in enumerate(episodes):
            same[index] &= episode.shows({key: value[index] for key, value in _observed(rows).items()})
        self.reopened = same
        self._played = Played(
            [e if kept else OpenEpisode() for e, kept in zip(episodes, same, strict=True)], self._idle
        )
        if not same.all():
            begin_next(fleet, ~same, episodes)
            taken[~same] = 0
            rows = self._delivered(everyone, fleet.slots, taken)
        self._newest = rows
        return rows

    def _delivered(self, arrived: np.ndarray, slots: Slots, taken: np.ndarray) -> Rows:
        """Copy the rows that a fleet has checked out of its slots; `taken` [N, ...] are the actions that led there."""
        first, last = slots.first & arrived, slots.last & arrived
        taken[first] = 0
        self._ended = last
        return Rows(
            obs={key: space.to_rest(self._slots[key]) for key, space in self.spec.obs.items()},
            prev_action=taken,
            reward=slots.reward.astype(np.float32),
            is_first=first,
            is_terminal=slots.terminal & arrived,
            is_last=last,
            truth={key: space.to_rest(self._slots[TRUTH + key]) for key, space in self.truth.items()},
            arrived=arrived,
        )

    def _first_rows(self, values: dict[str, np.ndarray], arrived: np.ndarray) -> Rows:
        none = np.zeros(self.num_envs, bool)
        return self._rows(
            values,
            prev_action=np.zeros_like(self._idle),
            reward=np.zeros(self.num_envs, np.float32),
            is_first=arrived.copy(),
            is_terminal=none,
            is_last=none.copy(),
            arrived=arrived.copy(),
        )

    def _rows(self, values: dict[str, np.ndarray], **fields: np.ndarray) -> Rows:
        self._ended = fields["is_last"]
        obs = {key: values[key] for key in self.spec.obs}
        truth = {key: values[TRUTH + key] for key in self.truth}
        return Rows(obs=obs, truth=truth, **fields)  # type: ignore[arg-type]

    def _at_rest(self, obs: Any) -> dict[str, np.ndarray]:
        """Name, convert and check a batch of observations; the result owns its memory."""
        found = self._named(obs)
        if set(found) != set(self._spaces):
            raise EnvironmentFault(f"{self.env_id}: observed {sorted(found)}, declared {sorted(self._spaces)}")
        values = {}
        for key, space in self._spaces.items():
            array = space.to_rest(found[key])
            if array.shape != (self.num_envs, *space.shape):
                raise EnvironmentFault(f"{self.env_id}: {key!r} has shape {array.shape}, not {space.shape} each")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                index = int(np.argmin(np.isfinite(array.reshape(self.num_envs, -1)).all(1)))
                raise EnvironmentFault(f"{self.env_id}, environment {index}: {key!r} is NaN or infinite")
            values[key] = array
        return values

    def _named(self, obs: Any) -> dict[str, Any]:
        values = flat_values(obs)
        return {next(iter(self._spaces)): values[""]} if set(values) == {""} else values

    def _replace_final(self, values: dict[str, np.ndarray], infos: Mapping[str, Any], last: np.ndarray) -> None:
        """Put the last observations of ended episodes, which SAME_STEP hides in the infos, into the batch."""
        final = infos.get("final_obs", infos.get("final_observation"))
        if final is None:
            raise EnvironmentFault(
                f"{self.env_id}: resets in the same step but gives no 'final_obs'; switch its terminal observations on"
            )
        for index in np.flatnonzero(last):
            one = final[index] if isinstance(final, np.ndarray) and final.dtype == object else None
            named = self._named(one) if one is not None else {k: v[index] for k, v in self._named(final).items()}
            for key, space in self._spaces.items():
                row = space.to_rest(np.asarray(named[key])[None])[0]
                if row.shape != space.shape or (row.dtype.kind == "f" and not np.isfinite(row).all()):
                    raise EnvironmentFault(f"{self.env_id}, environment {index}: the last {key!r} is not valid")
                values[key][index] = row

    def _checked(self, actions: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Check actions and give them their stored type; where none is taken, put a legal one."""
        array, discrete = np.asarray(actions), self.action.kind == "discrete"
        if array.shape != self._idle.shape:
            raise SpecError(f"{self.env_id}: actions of shape {array.shape}, expected {self._idle.shape}")
        if discrete and array.dtype.kind not in "iub":
            raise SpecError(f"{self.env_id}: actions of type {array.dtype}, expected integers")
        if np.count_nonzero(ended):
            array = np.where(_like(ended, array), self._idle, array)
        legal = (array >= self._low) & (array <= self._high) if discrete else np.isfinite(array)
        if np.count_nonzero(legal) < legal.size:
            index = int(np.argmin(legal.reshape(self.num_envs, -1).all(1)))
            raise SpecError(f"{self.env_id}, environment {index}: {array[index]} is not a legal action")
        if self.action.bounded:
            array = np.clip(array, self._low, self._high)
        return array.astype(self._idle.dtype)

    def _check_taken(self, index: int, actions: np.ndarray | None) -> None:
        """Check the actions [T, ...] of an open episode."""
        if actions is None:
            return
        where, wanted = f"{self.env_id}, environment {index}: an open episode has", self._idle[0]
        if actions.shape[1:] != wanted.shape or not np.can_cast(actions.dtype, wanted.dtype, "same_kind"):
            found = f"{actions.dtype} actions of shape {list(actions.shape[1:])}"
            raise SpecError(f"{where} {found}, expected {wanted.dtype} of shape {list(wanted.shape)}")
        bounded = self.action.kind == "discrete" or self.action.bounded
        legal = (actions >= self._low[:1]) & (actions <= self._high[:1]) if bounded else np.isfinite(actions)
        if not legal.all():
            raise SpecError(f"{where} an action that is not legal")

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except ForeworldError:
            raise
        except Exception as fault:
            raise EnvironmentFault(f"{self.env_id}: {type(fault).__name__}: {fault}") from fault


def _observed(rows: Rows) -> dict[str, np.ndarray]:
    """Return what was observed, name to [N, ...], `truth/*` included."""
    return {**rows.obs, **{TRUTH + key: value for key, value in rows.truth.items()}}


def _mode(env: Fleet | VectorEnv, env_id: str) -> AutoresetMode:
    stated = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(stated)
    except ValueError:
        modes = ", ".join(mode.name for mode in AutoresetMode)
        raise EnvironmentFault(
            f"{env_id}: its metadata['autoreset_mode'] is {stated!r}; declare one of {modes}, or its ends are ambiguous"
        ) from None


def _limits(space: Space, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least, the largest and an idle action of `count` environments: each [N, ...]."""
    if space.kind == "discrete":
        low = idle = np.asarray(space.start)
        high = low + np.asarray(space.classes) - 1
    else:
        idle = np.zeros(space.width, space.dtype)
        low, high = (np.asarray(space.low), np.asarray(space.high)) if space.bounded else (idle, idle)  # not used
    shape = (count, *space.shape)
    low, high, idle = (np.repeat(one[None], count, 0).reshape(shape) for one in (low, high, idle))
    return low, high, idle.astype(space.dtype)


def _like(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim))
