"""`Space` and `Spec`: what a model sees and does, built from Gymnasium spaces by class name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foreworld.core.errors import SpecError

TRUTH = "truth/"
"""Prefix of observation keys that hold simulator state: stored, probed, never shown to a model."""

SMALLEST_IMAGE = 16
"""uint8 arrays with a side below this are symbols (a grid of cells), not pictures."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """One observation or action: its kind, shape and type at rest, and its range.

    Attributes:
        kind: `image` (uint8 [C, H, W] at rest), `vector` (numbers of any shape) or
            `discrete` (integers; also MultiDiscrete and MultiBinary).
        shape: shape at rest, without batch and time; `()` for one integer.
        dtype: NumPy name of the type at rest.
        classes: discrete only: number of classes of each component, flattened.
        start: discrete only: smallest value of each component.
        low: vector only: lower bound of each component, flattened; empty when unbounded.
        high: vector only: upper bound of each component; empty when unbounded.
        layout: how the source orders an image: `chw`, `hwc` or `hw`.
    """

    kind: Literal["image", "vector", "discrete"]
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    layout: Literal["chw", "hwc", "hw"] = "chw"

    @property
    def width(self) -> int:
        """Number of floats of the model-ready form: one-hots for discrete, components else."""
        return sum(self.classes) if self.kind == "discrete" else int(np.prod(self.shape))

    @property
    def bounded(self) -> bool:
        """Whether every component has a finite lower and upper bound."""
        return bool(self.low)

    @classmethod
    def from_gym(cls, space: Any, key: str) -> Space:
        """Build a Space from a Gymnasium space, matched by its class name.

        Args:
            space: Box, Discrete, MultiDiscrete or MultiBinary.
            key: its name, for the error message.

        Raises:
            SpecError: another kind of space; the message names the key.
        """
        build = _BUILDERS.get(type(space).__name__)
        if build is None:
            raise SpecError(
                f"{key!r}: {type(space).__name__} spaces are not supported; "
                f"supported: {', '.join(_BUILDERS)} and Dict of these. Leave the key out or wrap the environment"
            )
        return build(space, key)

    def to_rest(self, value: Any) -> np.ndarray:
        """Copy a batch of source values [B, ...] into the form at rest: images become [B, C, H, W]."""
        array = np.asarray(value)
        if self.layout == "hwc":
            array = np.moveaxis(array, -1, -3)
        elif self.layout == "hw":
            array = array[..., None, :, :]
        return np.array(array, self.dtype, order="C")

    def from_rest(self, value: np.ndarray) -> np.ndarray:
        """Invert `to_rest`: give images [B, C, H, W] the layout of the source; the rest stays as it is."""
        if self.layout == "hwc":
            return np.moveaxis(value, -3, -1)
        return value[..., 0, :, :] if self.layout == "hw" else value

    def from_decoded(self, value: Tensor) -> Tensor:
        """Turn what a model decoded [..] into what would have been stored of it.

        Images in [0, 1] become uint8, probabilities the most likely value; numbers stay as they are.
        """
        if self.kind == "image":
            return (value * 255).round().clamp(0, 255).to(torch.uint8)
        return value if self.kind == "vector" else self.from_one_hot(value)

    def one_hot(self, values: Tensor) -> Tensor:
        """Encode integers [..., *shape] as one float one-hot per component, joined: [..., width]."""
        lead = values.shape[: values.dim() - len(self.shape)]
        flat = values.reshape(*lead, len(self.classes)).long()
        parts = [
            F.one_hot((flat[..., i] - self.start[i]).clamp(0, n - 1), n).float() for i, n in enumerate(self.classes)
        ]
        return torch.cat(parts, -1)

    def from_one_hot(self, values: Tensor) -> Tensor:
        """Invert `one_hot` by the largest entry of each component: [..., width] to [..., *shape]."""
        parts = [p.argmax(-1) + s for p, s in zip(values.split(list(self.classes), -1), self.start, strict=True)]
        return torch.stack(parts, -1).reshape(*values.shape[:-1], *self.shape)

    def to_model(self, raw: Tensor) -> Tensor:
        """Turn stored actions [..., *shape] into model-ready floats [..., width].

        Discrete components become one-hots, bounded numbers are mapped to [-1, 1].

        Raises:
            SpecError: the space is unbounded; fit its range to the data first.
        """
        if self.kind == "discrete":
            return self.one_hot(raw)
        low, high = self._bounds(raw.device)
        flat = raw.reshape(*raw.shape[: raw.dim() - len(self.shape)], self.width).float()
        return 2 * (flat - low) / (high - low) - 1

    def from_model(self, action: Tensor) -> Tensor:
        """Turn model-ready actions [..., width] into what the environment takes [..., *shape]."""
        if self.kind == "discrete":
            return self.from_one_hot(action)
        low, high = self._bounds(action.device)
        flat = low + (action.clamp(-1, 1) + 1) / 2 * (high - low)
        return flat.reshape(*action.shape[:-1], *self.shape)

    def _bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if not self.bounded:
            raise SpecError("an unbounded Box action has no model-ready form until its range is fitted to data")
        low = torch.tensor(self.low, device=device)
        high = torch.tensor(self.high, device=device)
        return low, torch.where(high > low, high, low + 1)


def _box(space: Any, key: str) -> Space:
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)
    if dtype.kind not in "fiub":
        raise SpecError(f"{key!r}: a Box of {dtype} is not supported; use a float, integer or bool type")
    if dtype == np.uint8 and len(shape) in (2, 3):
        image = _image(shape)
        if image is not None:
            return image
    low, high = np.asarray(space.low, np.float64).ravel(), np.asarray(space.high, np.float64).ravel()
    bounded = bool(np.isfinite(low).all() and np.isfinite(high).all() and (np.abs([low, high]) < 1e30).all())
    return Space(
        kind="vector",
        shape=shape,
        dtype="float32" if dtype.kind == "f" else dtype.name,
        low=tuple(low.tolist()) if bounded else (),
        high=tuple(high.tolist()) if bounded else (),
    )


def _image(shape: tuple[int, ...]) -> Space | None:
    if len(shape) == 2 and min(shape) >= SMALLEST_IMAGE:
        return Space(kind="image", shape=(1, *shape), dtype="uint8", layout="hw")
    if len(shape) == 3 and shape[-1] in (1, 3, 4) and min(shape[:2]) >= SMALLEST_IMAGE:
        return Space(kind="image", shape=(shape[2], shape[0], shape[1]), dtype="uint8", layout="hwc")
    if len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE:
        return Space(kind="image", shape=shape, dtype="uint8", layout="chw")
    return None


def _discrete(space: Any, key: str) -> Space:
    return Space(kind="discrete", shape=(), dtype="int64", classes=(int(space.n),), start=(int(space.start),))


def _multi_discrete(space: Any, key: str) -> Space:
    classes = tuple(int(n) for n in np.ravel(space.nvec))
    start = getattr(space, "start", None)
    starts = tuple(int(s) for s in np.ravel(start)) if start is not None else (0,) * len(classes)
    return Space(kind="discrete", shape=tuple(space.shape), dtype="int64", classes=classes, start=starts)


def _multi_binary(space: Any, key: str) -> Space:
    count = int(np.prod(space.shape))
    return Space(kind="discrete", shape=tuple(space.shape), dtype="int8", classes=(2,) * count, start=(0,) * count)


_BUILDERS: dict[str, Callable[[Any, str], Space]] = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a world model is told about its world.

    Attributes:
        obs: observation spaces by name; `truth/*` keys are never among them.
        action: the action space; None means plain video.
        condition: width of a conditioning vector (text, direction); 0 for none.
        fps: frames per second of the source, when known.
        frame_skip: simulator steps that one action lasts.
    """

    obs: Mapping[str, Space]
    action: Space | None
    condition: int = 0
    fps: float | None = None
    frame_skip: int = 1

    @classmethod
    def from_space(cls, obs: Any, action: Any | None, *, fps: float | None = None, frame_skip: int = 1) -> Spec:
        """Build a Spec from Gymnasium spaces.

        Args:
            obs: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these, nested
                or not. A single space is named `image` or `obs`; nested keys are
                joined by `/`; keys below `truth/` are left out.
            action: the same kinds except Dict, or None for plain video.
            fps: frames per second, when known.
            frame_skip: simulator steps that one action lasts.

        Raises:
            SpecError: an unsupported space; the message names its key.

        Example:
            >>> import gymnasium as gym
            >>> import foreworld as fw
            >>> env = gym.make("CartPole-v1")
            >>> spec = fw.Spec.from_space(env.observation_space, env.action_space)
            >>> spec.obs["obs"].shape, spec.action.width
            ((4,), 2)
        """
        spaces = {key: space for key, space in flat_spaces(obs).items() if not key.startswith(TRUTH)}
        if not spaces:
            raise SpecError("the observation space is an empty Dict; a model needs at least one key")
        acts = None if action is None else Space.from_gym(action, "action")
        if acts is not None and acts.kind == "image":
            raise SpecError("'action': an image-shaped uint8 Box is not supported as an action")
        return cls(obs=spaces, action=acts, fps=fps, frame_skip=frame_skip)

    @property
    def action_width(self) -> int:
        """Width A of a model-ready action; 0 for plain video."""
        return 0 if self.action is None else self.action.width

    @property
    def images(self) -> list[str]:
        """Names of the image observations, sorted."""
        return sorted(k for k, s in self.obs.items() if s.kind == "image")

    def with_action_range(self, low: np.ndarray, high: np.ndarray) -> Spec:
        """Give an unbounded Box action the range [low, high] that maps to [-1, 1].

        Raises:
            SpecError: plain video has no action.
        """
        if self.action is None:
            raise SpecError("plain video has no action whose range could be set")
        ranged = replace(self.action, low=tuple(map(float, low)), high=tuple(map(float, high)))
        return replace(self, action=ranged)


def flat_spaces(space: Any, prefix: str = "") -> dict[str, Space]:
    """Name the spaces of an observation: a Dict by its keys joined with `/`, a single one `image` or `obs`."""
    if type(space).__name__ == "Dict":
        found: dict[str, Space] = {}
        for key, inner in space.spaces.items():
            found |= flat_spaces(inner, f"{prefix}{key}/")
        return found
    one = Space.from_gym(space, prefix.rstrip("/") or "observation")
    return {prefix.rstrip("/") or ("image" if one.kind == "image" else "obs"): one}


def flat_values(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested observation to the names that `flat_spaces` gives its keys; a single value is `""`."""
    if not isinstance(value, dict):
        return {prefix.rstrip("/"): value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat_values(inner, f"{prefix}{key}/")
    return found
