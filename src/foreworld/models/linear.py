"""A linear model of a window of observations and actions: the baseline that every other family must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foreworld.core import Losses, Segment, Space, Spec, Step, state
from foreworld.core.errors import ConfigError
from foreworld.nn.window import Windows, slide
from foreworld.ops.regress import Moments, merge, moments, residual, ridge

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties tried; the one with the least error on every fifth batch is kept."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Choices of the linear model.

    Attributes:
        window: how many past observations (and actions) the prediction sees.
        components: principal components that stand for the images.
        fit: `ridge` solves in closed form in `calibrate`; `gradient` trains the same layer by `losses`.
        frames: most images used to find the components.
    """

    window: int = 2
    components: int = 128
    fit: Literal["ridge", "gradient"] = "ridge"
    frames: int = 3000

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("window", "components", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"linear.{name} must be at least 1, found {getattr(self, name)}")


@state
class LinearState:
    """The last K codes and the actions that led to them, newest last.

    Attributes:
        codes: [.., K, Z].
        actions: [.., K, A]; width 0 for plain video.
        seen: [..] bool, whether any row has arrived; the first one fills the window.
    """

    codes: Tensor
    actions: Tensor
    seen: Tensor


class Linear(nn.Module):
    """Predict the next code as a linear function of a window of codes and actions.

    Images become principal components, vectors are standardised, integers one-hots.
    What it predicts is the change, so that zero weights mean "nothing moves".

    Args:
        spec: observations and actions.
        config: sizes; fields can also be given by keyword.

    Reference:
        Proctor, Brunton and Kutz, Dynamic Mode Decomposition with Control, 2016, arXiv 1409.6358.

    Example:
        >>> import gymnasium as gym, foreworld as fw
        >>> env = gym.make("Pendulum-v1")
        >>> model = fw.Linear(fw.Spec.from_space(env.observation_space, env.action_space), window=2)
        >>> model.initial(3).codes.shape
        torch.Size([3, 2, 3])
    """

    family = "linear"

    def __init__(self, spec: Spec, config: LinearConfig | None = None, **fields: Any) -> None:
        super().__init__()
        config = replace(config or LinearConfig(), **fields)
        self.spec, self.config = spec, config
        self.codec = Codec(spec, config.components)
        code, act = self.codec.width, spec.action_width
        self.code, self.act = code, act
        self.dynamics = nn.Linear(config.window * (code + act), code)
        self.reward = nn.Linear(config.window * (code + act), 1) if act else None
        self.cont = nn.Linear(config.window * (code + act), 1) if act else None
        for head in (self.dynamics, self.reward, self.cont):
            if head is not None:
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        if self.cont is not None:
            nn.init.ones_(self.cont.bias)
        heads = {"reward", "cont"} if act else set()
        self.provides = frozenset({"decode", "calibrate", *heads})
        self.loss_weights = dict.fromkeys(["code", *sorted(heads)], 1.0)

    def initial(self, batch: int) -> LinearState:
        """Return an empty window, leaves [batch, ...]."""
        ref, window = self.dynamics.weight, self.config.window
        return LinearState(
            codes=ref.new_zeros(batch, window, self.code),
            actions=ref.new_zeros(batch, window, self.act),
            seen=torch.zeros(batch, dtype=torch.bool, device=ref.device),
        )

    def observe(self, state: LinearState, segment: Segment) -> LinearState:
        """Shift every row into the window; return the windows after every row, leaves [B, T, ...]."""
        codes, first = self.codec.encode(segment.obs), segment.is_first
        prev = codes.new_zeros(*first.shape, self.act) if segment.prev_action is None else segment.prev_action
        windows = Windows.over(first, state.seen, self.config.window)
        actions = windows.of(state.actions, prev * ~first.unsqueeze(-1))
        return LinearState(
            codes=windows.of(state.codes, codes),
            actions=actions * ~windows.repeated.unsqueeze(-1),
            seen=torch.ones_like(first),
        )

    def step(self, state: LinearState, action: Tensor | None) -> LinearState:
        """Predict one step under `action` [B, A]; codes stay within the range seen in training."""
        act = state.codes.new_zeros(len(state.codes), self.act) if action is None else action
        actions = slide(state.actions, act)
        change = self.dynamics(self._features(state.codes, actions))
        code = self.codec.limit(state.codes[..., -1, :] + change)
        return LinearState(codes=slide(state.codes, code), actions=actions, seen=torch.ones_like(state.seen))

    def read(self, state: LinearState) -> Step:
        """Return the flat window as features [.., K * (Z + A)], reward and probability to continue."""
        feat = self._features(state.codes, state.actions)
        return Step(
            feat=feat,
            reward=self.reward(feat).squeeze(-1) if self.reward is not None else None,
            cont=self.cont(feat).squeeze(-1).clamp(0, 1) if self.cont is not None else None,
        )

    def decode(self, state: LinearState) -> dict[str, Tensor]:
        """Return observations: images in [0, 1], vectors in source units, class probabilities."""
        return self.codec.decode(state.codes[..., -1, :])

    def losses(self, segment: Segment, state: LinearState | None = None) -> Losses[LinearState]:
        """Compute squared one-step errors of code, reward and continue, [B, T] each."""
        before = self.initial(segment.batch) if state is None else state
        after = self.observe(before, segment)
        inputs, change = self._pairs(before, after)
        known = (~segment.is_first & torch.cat([before.seen[:, None], after.seen[:, :-1]], 1)).float()
        terms = {"code": (self.dynamics(inputs) - change).square().mean(-1) * known}
        feat = self._features(after.codes, after.actions)
        if self.reward is not None and self.cont is not None:
            terms["reward"] = (self.reward(feat).squeeze(-1) - segment.reward).square()
            terms["cont"] = (self.cont(feat).squeeze(-1) - segment.cont).square()
        still = (change.square().mean(-1) * known).mean()
        metrics = {"explained": 1 - terms["code"].detach().mean() / still.clamp(min=1e-12)}
        return Losses(terms=terms, metrics=metrics, states=after)

    @torch.no_grad()
    def calibrate(self, segments: Callable[[], Iterator[Segment]]) -> None:
        """Find the code from training data, and with `fit="ridge"` solve for all weights."""
        self.codec.calibrate(segments, self.config.frames)
        if self.config.fit == "ridge":
            _solve(self.dynamics, [self._dynamics_rows(s) for s in segments()])
            for head, target in ((self.reward, "reward"), (self.cont, "cont")):
                if head is not None:
                    _solve(head, [self._head_rows(s, target) for s in segments()])

    def _features(self, codes: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([codes, actions], -1).flatten(-2)

    def _pairs(self, before: LinearState, after: LinearState) -> tuple[Tensor, Tensor]:
        """Pair the window before each row, with its action, and the change that the row brought."""
        codes = torch.cat([before.codes[:, None], after.codes[:, :-1]], 1)
        return self._features(codes, after.actions), after.codes[..., -1, :] - codes[..., -1, :]

    def _dynamics_rows(self, segment: Segment) -> Moments | None:
        before = self.initial(segment.batch)
        inputs, change = self._pairs(before, self.observe(before, segment))
        use = ~segment.is_first
        use[:, 0] = False
        use = use if segment.mask is None else use & segment.mask
        return moments(inputs[use], change[use]) if use.any() else None

    def _head_rows(self, segment: Segment, target: Literal["reward", "cont"]) -> Moments | None:
        after = self.observe(self.initial(segment.batch), segment)
        feat = self._features(after.codes, after.actions)
        use = torch.ones_like(segment.is_first) if segment.mask is None else segment.mask
        return moments(feat[use], getattr(segment, target)[use].unsqueeze(-1))


class Codec(nn.Module):
    """Map observations to a code and back, linearly.

    Args:
        spec: names the observations.
        components: principal components for all images together.
    """

    basis: Tensor
    offset: Tensor
    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: Spec, components: int) -> None:
        super().__init__()
        self.spec = spec
        self.pictures = {key: spec.obs[key] for key in spec.images}
        self.symbols = {key: space for key, space in sorted(spec.obs.items()) if space.kind != "image"}
        pixels = sum(space.width for space in self.pictures.values())
        rank = min(components, pixels)
        generator = torch.Generator().manual_seed(0)
        start = torch.linalg.qr(torch.randn(pixels, rank, generator=generator))[0] if pixels else torch.zeros(0, 0)
        width = rank + sum(space.width for space in self.symbols.values())
        self.rank, self.width = rank, width
        self.register_buffer("basis", start)
        self.register_buffer("offset", torch.full((pixels,), 0.5))
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("low", torch.full((width,), -1e6))
        self.register_buffer("high", torch.full((width,), 1e6))

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Map observations [B, T, ...] to codes [B, T, Z]."""
        return (self._raw(obs) - self.shift) / self.scale

    def decode(self, code: Tensor) -> dict[str, Tensor]:
        """Map codes [.., Z] to observations."""
        raw = code * self.scale + self.shift
        lead, found, at = raw.shape[:-1], {}, 0
        flat = (raw[..., : self.rank] @ self.basis.T + self.offset).clamp(0, 1)
        for key, space in self.pictures.items():
            found[key] = flat[..., at : at + space.width].reshape(*lead, *space.shape)
            at += space.width
        at = self.rank
        for key, space in self.symbols.items():
            part = raw[..., at : at + space.width]
            at += space.width
            found[key] = part.reshape(*lead, *space.shape) if space.kind == "vector" else _as_probabilities(part, space)
        return found

    def limit(self, code: Tensor) -> Tensor:
        """Keep codes within the range of the training data, so that an unstable fit stays finite."""
        return torch.minimum(torch.maximum(code, self.low), self.high)

    def calibrate(self, segments: Callable[[], Iterator[Segment]], frames: int) -> None:
        """Set the principal components, and centre, scale and range of every component."""
        if self.pictures:
            self._find_components(segments, frames)
        raw = torch.cat([self._raw(s.obs).flatten(0, 1) for s in segments()])
        self.shift.copy_(raw.mean(0))
        spread = raw.std(0)
        # one scale for all pixel components keeps their relative weight in the squared error
        spread[: self.rank] = spread[: self.rank].square().mean().sqrt() if self.rank else spread[: self.rank]
        self.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        code = (raw - self.shift) / self.scale
        self.low.copy_(code.amin(0))
        self.high.copy_(code.amax(0))

    def _find_components(self, segments: Callable[[], Iterator[Segment]], frames: int) -> None:
        found, count = [], 0
        for segment in segments():
            found.append(self._pixels(segment.obs).flatten(0, 1))
            count += len(found[-1])
            if count >= frames:
                break
        pixels = torch.cat(found)[:frames]
        self.offset.copy_(pixels.mean(0))
        rank = min(self.rank, len(pixels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, _, basis = torch.svd_lowrank(pixels - self.offset, q=rank, niter=3)
        self.basis.zero_()
        self.basis[:, :rank] = basis

    def _raw(self, obs: dict[str, Tensor]) -> Tensor:
        parts = [(self._pixels(obs) - self.offset) @ self.basis] if self.pictures else []
        for key, space in self.symbols.items():
            values = obs[key]
            lead = values.shape[: values.dim() - len(space.shape)]
            flat = values.reshape(*lead, space.width).float() if space.kind == "vector" else space.one_hot(values)
            parts.append(flat)
        return torch.cat(parts, -1)

    def _pixels(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.cat([obs[key].flatten(-3).float() / 255 for key in self.pictures], -1)


def _as_probabilities(part: Tensor, space: Space) -> Tensor:
    """Clip linear scores [.., sum of classes] and make each component's classes sum to one."""
    groups = [group.clamp(min=1e-6) for group in part.split(list(space.classes), -1)]
    return torch.cat([group / group.sum(-1, keepdim=True) for group in groups], -1)


def _solve(layer: nn.Linear, found: list[Moments | None]) -> None:
    """Set a layer by ridge regression, with the penalty that does best on every fifth batch."""
    rows = [m for m in found if m is not None]
    judge, train = _merged(rows[::5]), _merged([m for i, m in enumerate(rows) if i % 5] or rows)
    errors = [float(residual(judge, *ridge(train, strength)).mean()) for strength in STRENGTHS]
    best = STRENGTHS[min(range(len(errors)), key=errors.__getitem__)]
    weight, bias = ridge(_merged(rows), best)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def _merged(rows: list[Moments]) -> Moments:
    total = rows[0]
    for other in rows[1:]:
        total = merge(total, other)
    return total
