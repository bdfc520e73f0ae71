"""Probes: read the true state of a simulator off a model's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from foreworld.core import Space, seeded
from foreworld.core.spaces import TRUTH
from foreworld.data import Dataset
from foreworld.eval.quantities import expected, features, named, real_rows, truth_spaces
from foreworld.eval.windows import Windows, choose_windows, random_windows
from foreworld.ops.regress import merge, moments, ridge

STRENGTH = 1e-4
HIDDEN = 128
UPDATES = 600
BATCH = 512
LENGTH = 16
"""Rows of a training window; the model's state needs some to settle, so the first quarter is not used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Map features to one column of simulator state.

    Attributes:
        kind: `ridge`, linear in closed form, or `mlp`, two hidden layers: the better one on training rows that
            neither was fitted on.
        net: features [.., D] to the flat state in units of its training deviation.
        shift: [V] training mean of every variable.
        scale: [V] training deviation; zero where a variable never changed, which is then predicted to stay.
        shape: of the column.
        r2s: kind to [V]: share of the variance explained on real held-out features; NaN where a variable does not
            vary.
    """

    kind: Literal["ridge", "mlp"]
    net: nn.Module
    shift: Tensor
    scale: Tensor
    shape: tuple[int, ...]
    r2s: Mapping[str, np.ndarray]

    @property
    def r2(self) -> np.ndarray:
        """[V], of the kind that is used."""
        return self.r2s[self.kind]

    @torch.no_grad()
    def __call__(self, feat: Tensor) -> Tensor:
        """Read the state [.., *shape], in source units, off features [.., D]."""
        return (self.net(feat) * self.scale + self.shift).reshape(*feat.shape[:-1], *self.shape)


def fit_probes(
    model: Any, train: Dataset, heldout: Dataset, *, windows: int = 1024, batch: int = 32, seed: int = 0
) -> dict[str, Probe]:
    """Train a linear and a small nonlinear probe on real encodings for every column of simulator state.

    Both see features of states that have observed the row, never predicted ones. The model is left as it is.

    Args:
        model: any family.
        train: episodes to fit on; without simulator state there is nothing to probe.
        heldout: episodes that R2 is measured on.
        windows: training windows of 16 rows.
        batch: windows at a time.
        seed: of the windows and the network.

    Returns:
        `truth/<key>` to a probe; integers and pictures among the simulator state are left out.
    """
    spaces = {name: space for name, space in truth_spaces(train).items() if space.kind == "vector"}
    if not spaces:
        return {}
    chosen = random_windows(train, LENGTH, windows, seed).in_order()
    judged = choose_windows(heldout, 1, min(LENGTH, int(heldout.lengths.max())) - 1, 4)
    x, ys = encode(model, train, chosen, spaces, batch)
    judge_x, judge_ys = encode(model, heldout, judged, spaces, batch)
    with seeded(seed):
        return {name: _fit(x, ys[name], judge_x, judge_ys[name], spaces[name].shape) for name in spaces}


def encode(
    model: Any, data: Dataset, windows: Windows, spaces: Mapping[str, Space], batch: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return features of real rows [N, D], and the simulator state of the same rows, name to [N, V]."""
    feats: list[Tensor] = []
    found: dict[str, list[Tensor]] = {name: [] for name in spaces}
    for feat, truth in _encoded(model, data, windows, spaces, batch):
        feats.append(feat)
        for name, value in truth.items():
            found[name].append(value)
    return torch.cat(feats), {name: torch.cat(values) for name, values in found.items()}


@torch.no_grad()
def _encoded(
    model: Any, data: Dataset, windows: Windows, spaces: Mapping[str, Space], batch: int
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    for _, segment, truth in windows.batches(data, batch):
        feat = features(model, segment)
        rows = real_rows(segment)
        rows[:, : segment.length // 4] = False
        values = expected(spaces, named(truth))
        yield feat[rows], {name: value[rows].flatten(1) for name, value in values.items()}


def _fit(x: Tensor, y: Tensor, judge_x: Tensor, judge_y: Tensor, shape: tuple[int, ...]) -> Probe:
    """Fit both kinds on four fifths of the rows, which are in the order of their episodes, and choose on the last."""
    used = len(x) * 4 // 5
    choose_x, choose_y, x, y = x[used:], y[used:], x[:used], y[:used]
    shift, scale = y.mean(0), y.std(0)
    scale = torch.where(scale > 1e-6, scale, torch.zeros_like(scale))
    unit = torch.where(scale > 0, scale, torch.ones_like(scale))
    target = (y - shift) / unit
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-4)
    nets = {"ridge": _linear(x, target, mean, spread), "mlp": _mlp(x, target, mean, spread)}

    def explained(net: nn.Module, feat: Tensor, true: Tensor) -> np.ndarray:
        with torch.no_grad():
            return _r2(net(feat) * scale + shift, true)

    chosen = {kind: explained(net, choose_x, choose_y) for kind, net in nets.items()}
    kind = max(nets, key=lambda name: float(np.nan_to_num(chosen[name], nan=0.0).clip(-1).mean()))
    r2s = {name: explained(net, judge_x, judge_y) for name, net in nets.items()}
    return Probe(kind=kind, net=nets[kind], shift=shift, scale=scale, shape=shape, r2s=r2s)  # type: ignore[arg-type]


def _linear(x: Tensor, target: Tensor, mean: Tensor, spread: Tensor) -> nn.Module:
    total = None
    for rows, wanted in zip(((x - mean) / spread).split(4096), target.split(4096), strict=True):
        part = moments(rows, wanted)
        total = part if total is None else merge(total, part)
    assert total is not None
    weight, bias = ridge(total, STRENGTH)
    layer = nn.Linear(x.shape[1], target.shape[1])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(_Standardise(mean, spread), layer)


def _mlp(x: Tensor, target: Tensor, mean: Tensor, spread: Tensor) -> nn.Module:
    sizes = (x.shape[1], HIDDEN, HIDDEN, target.shape[1])
    layers: list[nn.Module] = [_Standardise(mean, spread)]
    for i in range(3):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), *([nn.SiLU()] if i < 2 else [])]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    for _ in range(UPDATES):
        pick = torch.randint(len(x), (min(BATCH, len(x)),))
        loss = (net(x[pick]) - target[pick]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)


def _r2(predicted: Tensor, true: Tensor) -> np.ndarray:
    """Return 1 - squared error / variance of every variable, [V]; NaN where it does not vary."""
    error = (predicted - true).double().square().mean(0)
    variance = true.double().var(0, unbiased=False)
    return torch.where(variance > 1e-12, 1 - error / variance, torch.nan).numpy()


class _Standardise(nn.Module):
    """Centre and scale features by their training statistics."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, feat: Tensor) -> Tensor:
        """Map [.., D] to [.., D]."""
        return (feat - self.mean) / self.spread


def in_words(probes: Mapping[str, Probe]) -> str:
    """Say how well the features hold the true state."""
    said = []
    for name, probe in probes.items():
        values = probe.r2[np.isfinite(probe.r2)]
        if len(values):
            worst, kind = float(values.min()), {"ridge": "linear", "mlp": "nonlinear"}[probe.kind]
            variables = f"{len(values)} variables that vary"
            said.append(
                f"{name.removeprefix(TRUTH)}: a {kind} probe explains {np.median(values):.0%} of the median variable's "
                f"variance ({worst:.0%} of the worst of {variables})"
            )
    return "; ".join(said)
